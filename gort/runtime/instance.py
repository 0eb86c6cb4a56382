"""Runtime, run and go: where the parts are put together.

The idea.  A `Runtime` is a scheduler with its threads, made when first needed and gone when closed.  Which one does
`go` mean?  Inside a goroutine, the goroutine's own.  On a plain thread, the one whose `run` is going on; if there is
none, a background runtime, made on first use and closed at exit.

`run` is the usual way in: the calling thread becomes the first machine, so that Ctrl-C, and libraries that insist on
the main thread, find the main goroutine there.  When main ends, the others are cancelled, their `finally` blocks run,
and only then does `run` return.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from contextvars import copy_context
from sys import _getframe
from types import FrameType
from typing import Any, TypeVar

from greenlet import getcurrent

from ..errors import GortError, RuntimeClosed
from . import chance, deadlock, gcyield, stacks, stats
from . import overdue as _overdue
from .blocking import join
from .closing import begin_close, join_threads, last_wave, waiting_for
from .ending import Patience
from .goroutine import Goroutine
from .interrupt import Interrupt, deferral
from .limits import check_procs, default_max_threads, default_procs
from .quit import Quit
from .scheduler import Scheduler
from .wait import give_way, in_block, on_goroutine, own_stack

T = TypeVar("T")

overdue = False
_overdue.register(globals())

GRACE = 2.0  # seconds that a goroutine may go on unheedingly after it was cancelled at the end of `run` or the program

NO_KW: dict[str, Any] = {}  # for most goroutines: a dict of their own would add 80 bytes to each parked one

_lock = threading.RLock()
_running: list[Scheduler] = []  # the schedulers of `run`s that are going on, the newest last
_background: Runtime | None = None
quitting = Quit(deadlock.peek)


def _debug_options() -> dict[str, str]:
    text = os.environ.get("GORT_DEBUG", "")
    return {key.strip(): value for key, _, value in (part.partition("=") for part in text.split(",")) if key.strip()}


def _new_scheduler(procs: int | None, max_threads: int | None = None) -> Scheduler:
    n = default_procs() if procs is None else check_procs(procs)
    limit = default_max_threads() if max_threads is None else check_procs(max_threads, "max_threads")
    chance.begin()
    sched = Scheduler(n, limit)
    options = _debug_options()
    if options.get("stuck", "0") != "0":
        sched.sysmon.stuck_places = set()
    trace = options.get("schedtrace")
    if trace is not None:
        try:
            sched.sysmon.trace = max(0, int(trace)) / 1000  # 0 is off, as in Go
        except ValueError:
            raise ValueError(f"GORT_DEBUG: schedtrace must be a number of milliseconds, not {trace!r}") from None
    with _lock:
        gcyield.install()
    return sched


def _check_callable(fn: Any, what: str) -> None:
    if not callable(fn):
        hint = ": pass the function itself, and its arguments after it" if fn is None else ""
        raise TypeError(f"{what} needs a function to call, not {type(fn).__name__}{hint}")


class Runtime:
    """A scheduler of one's own, to embed: with its own Ps, threads and goroutines.

    procs is the number of Ps (GORT_PROCS, else the CPUs this process may use), max_threads the limit on threads
    (GORT_MAXTHREADS, else 10,000).  Raises ThreadLimit if procs is over that limit.  No thread is started before there
    is a goroutine to run.  A context manager: leaving it closes the runtime.
    """

    def __init__(self, procs: int | None = None, *, max_threads: int | None = None) -> None:
        self._sched = _new_scheduler(procs, max_threads)
        self._gone = False
        with _lock:
            deferral.install()
            quitting.install()

    def go(self, fn: Callable[..., T], /, *args: Any, **kw: Any) -> Goroutine[T]:
        """Start fn(*args, **kw) as a goroutine of this runtime.  From any thread.  Raises RuntimeClosed."""
        _check_callable(fn, "Runtime.go")
        return _start(self._sched, fn, args, kw, _getframe(1))

    def run(self, fn: Callable[..., T], /, *args: Any, **kw: Any) -> T:
        """Start fn(*args, **kw) as a goroutine of this runtime, wait for it, return or raise what it did.

        The runtime, with what else runs in it, goes on.
        """
        _check_callable(fn, "Runtime.run")
        g: Goroutine[T] = _start(self._sched, fn, args, kw, _getframe(1))
        try:
            return g.result()
        except BaseException:
            g.cancel()  # the wait was interrupted; a goroutine that has ended does not mind
            raise

    def stats(self) -> dict[str, Any]:
        """Counters in total, for each P and for each M."""
        return stats.collect(self._sched)

    def num_goroutine(self) -> int:
        """How many of its goroutines exist."""
        return stats.count(self._sched)

    def gomaxprocs(self, n: int | None = None) -> int:
        """The number of Ps; with n, change it, and return what it was."""
        return _gomaxprocs(self._sched, n)

    def close(self) -> None:
        """Cancel its goroutines, wait until they and its threads have ended.  Twice does no harm.

        In a goroutine of another runtime it parks; one that is cancelled there does not wait any longer, while the end
        goes on.  Raises GortError if called from one of its own goroutines, which it would wait for, or from a goroutine
        of a runtime for whose end one of its goroutines waits.
        """
        m = _machine()
        if m is not None and m.sched is self._sched:
            raise GortError("a Runtime cannot be closed by one of its own goroutines: close it from where it was made")
        begin_close(self._sched)
        if m is None:
            self._wait_for_end()
        else:
            with waiting_for(self._sched, m.sched):
                join(self._wait_for_end)

    def _wait_for_end(self) -> None:
        join_threads(self._sched)
        with _lock:
            if not self._gone and not self._sched.orphaned:
                self._gone = True
                gcyield.remove()
                deferral.remove()
                quitting.remove()

    def __enter__(self) -> Runtime:
        if self._sched.closing:
            raise RuntimeClosed("this Runtime has been closed: create a new one")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._sched.closed else f"{self.num_goroutine()} goroutines"
        return f"<gort.Runtime procs={len(self._sched.allp)} {state}>"


class _AtEnd:
    """Stands among those who wait for main's end, with a waiter's face, and closes the runtime."""

    asleep = False

    def __init__(self, sched: Scheduler) -> None:
        self.sched = sched
        self.ready = self.m = self

    def append(self, _item: Any) -> None:
        begin_close(self.sched)


def run(fn: Callable[..., T], /, *args: Any, procs: int | None = None, **kw: Any) -> T:
    """Run fn(*args, **kw) as the main goroutine, on this thread, and return its value or raise its exception.

    procs is the number of Ps (GORT_PROCS, else the CPUs this process may use).  When main ends, all other goroutines
    are cancelled and their ``finally`` blocks run; one that does not notice within two seconds, because it computes or sits
    in a call that gort cannot end, is left behind (and said so on stderr), as Go leaves it.  Raises Deadlock if main
    waits and nothing can ever wake it.
    Raises GortError inside a goroutine.  Go: func main, GOMAXPROCS.
    """
    _check_callable(fn, "run")
    if on_goroutine():
        raise GortError("run() was called inside a goroutine: use go(fn, ...).result() there")
    if in_block():
        raise GortError("run() was called in a block with a time limit or a context: put that block inside of run's function")
    sched = _new_scheduler(procs)
    frame = _getframe(1)
    g: Goroutine[T] = Goroutine(fn, args, kw, copy_context(), frame.f_code, frame.f_lasti)
    end = _AtEnd(sched)
    g._waiters = [[end, None, g, None]]
    sched.main = g
    sched.patience_at_end = Patience(sched, GRACE, last_wave)
    m = sched.new_machine()
    m.attach()
    with _lock:
        _running.append(sched)
        quitting.install()
    try:
        with Interrupt(m, g) as interrupt:
            sched.acquire_p(m)
            m.main_g = g
            m.hub.switch()  # comes back when this machine has ended
        join_threads(sched, sched.patience_at_end)
    except BaseException:
        if m.alive and not m.hub:  # it never ran (no descriptor was left for Interrupt): there is nobody to close the runtime
            sched.detach(m)
        raise
    finally:
        with _lock:
            if sched in _running:  # else this is the child of a fork that main made
                _running.remove(sched)
                quitting.remove()
                gcyield.remove()
    value = g.result()
    if interrupt.last is not None and not interrupt.last.raised:  # type: ignore[attr-defined]
        raise interrupt.last  # a Ctrl-C that main ended too soon to meet
    return value


def go(fn: Callable[..., T], /, *args: Any, **kw: Any) -> Goroutine[T]:
    """Start fn(*args, **kw) as a goroutine and return its handle at once.

    From a goroutine or from any thread; on a plain thread it goes to the `run` that is going on, else to a background
    runtime that is started for it.  Raises TypeError if fn cannot be called.  Go: the go statement.
    """
    if overdue:
        give_way()
    if not callable(fn):
        _check_callable(fn, "go")
    try:
        m = getcurrent().m  # type: ignore[attr-defined]
    except AttributeError:
        return _start(None, fn, args, kw, _getframe(1))
    frame = _getframe(1)
    # An empty context is as good as none, and none is an object less for each parked goroutine.
    g: Goroutine[T] = Goroutine(fn, args, kw or NO_KW, copy_context() or None, frame.f_code, frame.f_lasti)
    p = m.p  # from here on as in `launch`, which is not called because a call is 5 % of a spawn
    if p is None:
        m.sched.inject(g)
        return g
    p.lrq.append(g)
    if m.starter is None:
        m.queue_starter()
    if m.p is not p:
        # Sysmon took the P from us between the two lines, for another machine, which may have found nothing in its
        # LRQ before our append came, and sleep by now.
        m.sched.rescue(p)
    if m.kick:
        m.sched.sysmon.kick()
    return g


def launch(g: Goroutine[Any], sched: Scheduler | None = None) -> None:
    """Make a goroutine that the caller has made runnable: in the caller's runtime, or in a given one.

    For what must prepare a goroutine before it can start (a group's children).
    """
    m = _machine()
    if sched is None:
        sched = m.sched if m is not None else _default()
    p = m.p if m is not None and m.sched is sched and getattr(getcurrent(), "m", None) is m else None
    if p is None:
        sched.inject(g)
        return
    p.lrq.append(g)
    if m.starter is None:
        m.queue_starter()
    if m.p is not p:
        sched.rescue(p)
    if m.kick:
        sched.sysmon.kick()


def launch_first(g: Goroutine[Any]) -> None:
    """`launch`, and let g run at once, here, until it waits for the first time; then the caller goes on.

    For fresh work that shall not wait long enough to be stolen (with a GIL another machine would only get in the way).
    If other fresh work is waiting already it is a plain `launch`.
    """
    w: Any = getcurrent()
    m = getattr(w, "m", None)
    p = m.p if m is not None and hasattr(w, "carries") else None
    if p is None or m.starter is not None or p.lrq:
        launch(g)
        return
    p.lrq.append(g)
    if m.p is not p:  # taken from us a moment ago: see handoff.py
        m.sched.rescue(p)
        return
    # As if the LRQ's turn had come (see carrier.py), and we were next.
    m.starter = starter = m.free.pop() if m.free else m.maker
    m.yielded += 1
    w.ready.appendleft(w)
    starter.switch()


def _start(sched: Scheduler | None, fn: Any, args: Any, kw: Any, frame: FrameType) -> Goroutine[Any]:
    """`go` by the long way: for a given scheduler, from a plain thread, or inside a greenlet of the program's own."""
    g: Goroutine[Any] = Goroutine(fn, args, kw, copy_context(), frame.f_code, frame.f_lasti)
    launch(g, sched)
    return g


def _machine() -> Any:
    """The machine whose goroutine is calling, or None."""
    w: Any = getcurrent()
    while True:
        m = getattr(w, "m", None)
        if m is not None:
            return m
        up = w.parent
        if up is None:
            stand = own_stack(w)
            return None if stand is None else stand.m
        w = up


def _default() -> Scheduler:
    with _lock:
        for sched in reversed(_running):
            if not sched.closing:
                return sched
        return _in_background()


def _in_background() -> Scheduler:
    global _background
    with _lock:
        if _background is None or _background._sched.closing:
            _background = Runtime()
        return _background._sched


def timers_home() -> Scheduler:
    """Whose timers the caller's should be: its own runtime's; a plain thread's must outlive any `run`."""
    m = _machine()
    return m.sched if m is not None and not m.sched.closed else _in_background()


def close_all() -> None:
    """The program ends: close every runtime, the background one for example, and what was registered by `at_end`.

    Not those whose `run` is going on, on a daemon thread: that thread is simply stopped, as others are.
    """
    with _lock:
        schedulers = [sched for sched in deadlock.schedulers() if sched not in _running and not sched.closed]
    for sched in schedulers:
        begin_close(sched)
    for sched in schedulers:
        join_threads(sched, Patience(sched, GRACE, last_wave))
    while _at_end:
        _at_end.pop()()


_at_end: list[Callable[[], None]] = []

# Now, and not when the first runtime is made: functions registered later come first, and may use it.
atexit.register(close_all)


def _current() -> Scheduler | None:
    """The scheduler that the module-level functions speak of: the caller's, a `run`'s, or the background one."""
    m = _machine()
    if m is not None:
        return m.sched
    with _lock:
        if _running:
            return _running[-1]
        return _background._sched if _background is not None else None


def _gomaxprocs(sched: Scheduler, n: int | None) -> int:
    return len(sched.allp) if n is None else sched.set_procs(check_procs(n, "n"))


def gomaxprocs(n: int | None = None) -> int:
    """The number of Ps of the current runtime; with n, change it while it runs, and return what it was.

    A P too many goes as soon as the goroutine that runs on it gives way.  Go: runtime.GOMAXPROCS.
    """
    return _gomaxprocs(_current() or _default(), n)


def num_goroutine() -> int:
    """How many goroutines of the current runtime exist.  Go: runtime.NumGoroutine."""
    sched = _current()
    return stats.count(sched) if sched is not None else 0


def current_stats() -> dict[str, Any]:
    """The counters of the current runtime: in total, for each P and for each M.  See `Runtime.stats`."""
    return stats.collect(_current() or _default())


def current_stacks() -> str:
    """Every goroutine of the current runtime: state, what it waits for, where it was started, its stack.

    Go: runtime.Stack(buf, true).
    """
    sched = _current()
    return stacks.dump(sched) if sched is not None else ""
