"""The pytest plugin: tests that are goroutines, with a time limit, and without leaks.

::

    @pytest.mark.gort(procs=2, timeout=5)       # runs as the main goroutine, under gort.run
    def test_something(tmp_path, no_leaks):     # fixtures as usual; this one: no goroutine may be left behind
        ...

The idea.  The marked function is the main goroutine of a `run` on pytest's own thread.  Fixtures are set up and torn
down outside of it, on the plain thread.

The time limit must not itself disturb what is tested: a timer of the runtime, or a watching thread, would both hide a
deadlock, since either might wake somebody.  So it is a signal (SIGALRM), which is none of the runtime's business.
When the time is over, the test fails with the stacks of all goroutines:

1. As Ctrl-C does, pytest's failure is raised in the main goroutine: in its own code if that is what runs, else at its
   wait.
2. If the test is still there a second later, somebody swallows the failure, or holds the thread: each second it is
   raised again, now also in a shield and in any goroutine whose own code runs on this thread, and, when main has ended
   but others do not, out of `run` itself.  Then their threads are lost, but the session goes on.
3. After TRIES of that nothing can be done but to print the stacks and end the process.

Where SIGALRM cannot be had (not the main thread, no such signal, or somebody else uses it, as pytest-timeout does) a
watching thread takes its place.  It can do only the first step and the last, and deadlocks are then noticed when the
time is over.

Between the main goroutine's beginning and the test there is no frame of gort's, only a functools.partial and, for
`no_leaks`, contextlib: so Ctrl-C and the time limit still see the test as the goroutine's own code.
"""

from __future__ import annotations

import functools
import inspect
import os
import signal
import threading
import unittest
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import pytest
from greenlet import getcurrent

from .runtime import instance, stacks
from .runtime.carrier import Carrier
from .runtime.interrupt import _in_gort
from .runtime.limits import check_procs
from .runtime.timers import check_seconds
from .testing import GoroutineLeak
from .testing import no_leaks as _no_leaks

AGAIN = 1.0
LONGEST = 1e9  # seconds that every system's timers can count
TRIES = 10
_stderr = pytest.StashKey[int]()
STATUS = 70  # the process's, when the last resort ends it: EX_SOFTWARE


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option gort_timeout."""
    parser.addini("gort_timeout", "the time limit, in seconds, of tests marked gort (default: 60, 0: none)", default="60")


def pytest_configure(config: pytest.Config) -> None:
    """The marker gort; and a copy of stderr for the last resort."""
    # Now, for pytest captures descriptor 2 while tests run.
    config.stash[_stderr] = os.dup(2)
    config.addinivalue_line(
        "markers",
        "gort(procs=None, timeout=None): run the test as the main goroutine of a gort.run with so many Ps; when it is "
        "not over after timeout seconds (default: the ini option gort_timeout, 0: never), show all goroutines and fail it",
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give that copy back."""
    fd = config.stash.get(_stderr, None)
    if fd is not None:  # else another plugin has refused to begin before it was our turn
        os.close(fd)


@pytest.fixture(name="no_leaks")
def no_leaks_fixture() -> None:
    """The test fails if it leaves goroutines behind: see gort.testing.no_leaks."""
    # What it asks for is done around the call itself, so that the test fails, and not its teardown; and, of a marked
    # test, inside of its `run`, before that cancels what is left.


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A unittest.TestCase calls its methods itself, so there both would do nothing, and silently: that is an error."""
    if issubclass(getattr(item, "cls", None) or object, unittest.TestCase):
        for used, what in (
            (item.get_closest_marker("gort") is not None, "@pytest.mark.gort"),
            ("no_leaks" in getattr(item, "fixturenames", ()), "the fixture no_leaks"),
        ):
            if used:
                pytest.fail(f"{what} works on functions and on methods of plain classes, not of unittest.TestCase", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Where pytest calls a test: have it call the test as a main goroutine, with its limit, and look for leaks."""
    marker = pyfuncitem.get_closest_marker("gort")
    checked = "no_leaks" in pyfuncitem.fixturenames
    if marker is None and not checked:
        return (yield)
    test = pyfuncitem.obj
    if inspect.iscoroutinefunction(test):
        pytest.fail("a gort test is a plain function, not async: use gort.aio.run(...) inside it", pytrace=False)
    inner = _no_leaks()(test) if checked else test
    pyfuncitem.obj = inner if marker is None else _as_main(inner, marker, pyfuncitem.config)
    try:
        return (yield)
    except GoroutineLeak as exc:
        # The message says all; the place where it was noticed says nothing.
        raise pytest.fail.Exception(str(exc), pytrace=False) from None
    finally:
        pyfuncitem.obj = test


def _options(marker: pytest.Mark, config: pytest.Config) -> tuple[int | None, float]:
    """The marker's procs and timeout."""
    options = dict(marker.kwargs)
    procs = options.pop("procs", None)
    timeout = options.pop("timeout", None)
    try:
        if marker.args or options:
            unknown = ", ".join([*map(repr, marker.args), *options])
            raise TypeError(f"it takes the keywords procs and timeout, not {unknown}")
        if procs is not None:
            check_procs(procs)
        if timeout is None:
            timeout = float(config.getini("gort_timeout"))
        return procs, check_seconds(timeout, "timeout")
    except (TypeError, ValueError) as exc:
        raise pytest.fail.Exception(f"@pytest.mark.gort: {exc}", pytrace=False) from None


def _as_main(test: Callable[..., Any], marker: pytest.Mark, config: pytest.Config) -> Callable[..., Any]:
    """A function that runs the test as a main goroutine."""
    procs, timeout = _options(marker, config)

    def call(**fixtures: Any) -> Any:
        __tracebackhide__ = True
        body = functools.partial(test, **fixtures)
        if timeout <= 0:
            return instance.run(body, procs=procs)
        limit = _Limit(timeout, body, config.stash[_stderr])
        with limit:
            value = instance.run(body, procs=procs)
        if limit.tries:  # `run` left a goroutine behind that did not end, see runtime/ending.py
            raise limit._failure()
        return value

    return call


class _Limit:
    """The time limit of one test; the handler of SIGALRM while it runs."""

    gort_own = True  # for the deadlock detector: this handler wakes nobody

    def __init__(self, seconds: float, body: Any, stderr: int) -> None:
        self.seconds = seconds
        self.body = body
        self.stderr = stderr
        self.tries = 0
        self.text = ""
        self.over = threading.Event()
        self.watcher: threading.Thread | None = None

    def __enter__(self) -> None:
        if (
            hasattr(signal, "setitimer")
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
            and signal.getitimer(signal.ITIMER_REAL)[0] == 0
        ):
            signal.signal(signal.SIGALRM, self)
            signal.setitimer(signal.ITIMER_REAL, min(self.seconds, LONGEST), AGAIN)
        else:
            self.watcher = threading.Thread(target=self._watch, name="gort-test-limit", daemon=True)
            self.watcher.start()

    def __exit__(self, *_: object) -> None:
        if self.watcher is None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        else:
            self.over.set()
            self.watcher.join()

    def _watch(self) -> None:
        wait = self.seconds
        while not self.over.wait(min(wait, threading.TIMEOUT_MAX)):
            wait = AGAIN
            self._ask(self._begin())

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        sched = self._begin()
        main = sched.main if sched is not None else None
        here: Any = getcurrent()
        own = type(here) is Carrier and not _in_gort(frame)
        if main is None or (own and (here.g is main or self.tries > 1)) or (main.done() and self.tries > 1):
            raise self._failure()
        self._ask(sched)

    def _begin(self) -> Any:
        """Another try: what to do it to."""
        sched = next((s for s in instance._running if s.main is not None and s.main.fn is self.body), None)
        self.tries += 1
        if not self.text:
            self.text = f"the test was not over after {self.seconds:g} s"
            if sched is not None:
                self.text += f"; these are its goroutines:\n\n{stacks.dump(sched)}"
        if self.tries > TRIES:
            self._end_process()
        return sched

    def _failure(self) -> BaseException:
        return pytest.fail.Exception(self.text, pytrace=False)  # the stacks say all

    def _ask(self, sched: Any) -> None:
        """Have the failure raised in the main goroutine, by its own machine."""
        main = sched.main if sched is not None else None
        if main is not None and main.carrier is not None and not main.done():
            m = main.carrier.m
            failure = self._failure()
            if self.tries > 1:
                failure.insists = True  # type: ignore[attr-defined]  # no shield holds it back: see Machine.deliver
            m.mail.append((main, failure))  # not `request`: a signal handler must not switch
            m.nudge()

    def _end_process(self) -> None:
        text = f"{self.text}\n\nIt could not be ended, so the process is.\n"
        try:
            os.write(self.stderr, text.encode(errors="backslashreplace"))
        finally:
            os._exit(STATUS)
