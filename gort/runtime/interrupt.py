"""Ctrl-C: KeyboardInterrupt, where it belongs and nowhere else.

The idea.  Python's own handler raises KeyboardInterrupt wherever the main thread happens to be; in the middle of the
scheduler, or between taking a channel's latch and giving it back, that would lose a goroutine or a lock.  So while a
runtime lives, SIGINT belongs to gort (a program that has installed its own handler keeps that).

While `run` runs on the main thread (`Interrupt`):

- if the main goroutine's own code is what runs there right now, KeyboardInterrupt is raised there, as in any program;
- otherwise it is delivered to the main goroutine as a cancellation is: at its wait, or at its next blocking operation;
- a second Ctrl-C, while the first is still on its way, is raised in whatever goroutine's own code runs there, so that
  one that computes without end can be stopped; and no shield (scope.py) holds it back from main, nor a call that blocks
  (blocking.py): that is left behind.

While the main thread is a plain thread beside a `Runtime` (`Deferral`): raised at once, unless that thread is inside
one of gort's functions (waiting in one does not count, nor do the green twins); then a moment later.

"Own code" means: no frame of gort between the goroutine's base and the interrupted line.

CPython may lose a signal that arrives just when the thread goes to sleep: the handler runs only when something else wakes
it.  So a main thread looks up now and then (wait.glances).  Without a GIL, where that moment is long, `run` also lets the
interpreter write each signal into a pipe (signal.set_wakeup_fd) that the machine's poller waits for, which cannot be missed.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from greenlet import getcurrent

from . import blocking, ending, sleep, wait
from .bell import Bell
from .carrier import Carrier, carry
from .goroutine import FREE_THREADED, Goroutine
from .netpoll import new_poller
from .poller import close_own
from .stacks import of_gort

_RUN_CODE = carry.__code__
_WAITS = {
    wait.sleep_on.__code__,
    sleep._sleep_thread.__code__,
    Bell.wait.__code__,
    blocking._call.__code__,
    ending.Patience.wait.__code__,
    ending.join_end.__code__,
}


def _in_gort(frame: FrameType | None) -> bool:
    """Is there a frame of gort between here and the base (of the goroutine, or of the thread)?"""
    if frame is not None and frame.f_code is _RUN_CODE:
        return True  # between two goroutines
    while frame is not None and frame.f_code is not _RUN_CODE:
        if of_gort(frame):
            return True
        frame = frame.f_back
    return False


def _error() -> KeyboardInterrupt:
    error = KeyboardInterrupt()
    error.raised = False  # type: ignore[attr-defined]
    return error


class Interrupt:
    """The SIGINT handler of one `run`; a context manager that puts back what was there."""

    gort_own = True
    live: list[Interrupt] = []
    over = False  # its `run` stayed in the parent of a fork

    def __init__(self, m: Any, main: Goroutine[Any]) -> None:
        self.m = m
        self.main = main
        self.last: KeyboardInterrupt | None = None  # what was sent to main
        self.on_main = wait.on_main_thread()
        self.before: Any = None  # the handler found, if ours is in its place
        self.pipe: tuple[int, int] | None = None
        self.ends: list[os.stat_result] = []
        self.old_fd = -1

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        if self.over:
            raise KeyboardInterrupt
        current: Any = getcurrent()
        on_its_way = self.last is not None and not self.last.raised  # type: ignore[attr-defined]
        # Held back by a shield, perhaps: then it is not another goroutine that is in the way, first of all.
        shielded = getattr(self.main, "_shields", 0) and not hasattr(self.last, "insists")
        here = type(current) is Carrier and (current.g is self.main or (on_its_way and not shielded))
        if here and not _in_gort(frame):
            error = _error()
            error.raised = True  # type: ignore[attr-defined]
            raise error
        # In the middle of the scheduler, or of another goroutine: only record and wake (a handler must not switch).
        self.last = error = _error()
        if not self.main.done():
            if on_its_way:
                error.insists = True  # type: ignore[attr-defined]
            self.m.mail.append((self.main, error))
            self.m.nudge()
            return
        for m in list(self.m.sched.ms):  # the others' clean-up takes too long for somebody: interrupt that
            other = _error()
            other.raised = True  # type: ignore[attr-defined]
            m.mail.append((None, other))
            m.nudge()

    def __enter__(self) -> Interrupt:
        self.live.append(self)
        try:
            if self.on_main:
                self._begin()
        except BaseException:  # no descriptor left for the pipe, say
            self.__exit__()
            if self.m.poller is not None:
                self.m.poller.close()
            raise
        return self

    def _begin(self) -> None:
        self.before = signal.getsignal(signal.SIGINT)
        if self.before is signal.default_int_handler or isinstance(self.before, Deferral):
            signal.signal(signal.SIGINT, self)
        else:
            self.before = None
        if FREE_THREADED and self.m.poller is None:
            self._wake_by_pipe()

    def _wake_by_pipe(self) -> None:
        read, write = self.pipe = os.pipe()
        self.ends = [os.fstat(fd) for fd in self.pipe]
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        self.old_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        if self.old_fd != -1:  # the program has one of its own: leave it
            signal.set_wakeup_fd(self.old_fd)
            self._close_pipe()
            return
        self.m.poller = new_poller(self.m.ready)
        self.m.poller.add_bell(read, self._sleep_without_pipe)

    def _close_pipe(self) -> None:
        assert self.pipe is not None
        close_own(self.pipe, self.ends)
        self.pipe = None

    def _sleep_without_pipe(self) -> None:
        if self.pipe is not None:
            found = signal.set_wakeup_fd(-1)
            if found not in (-1, self.pipe[1]):  # the program has set one of its own meanwhile: leave it
                signal.set_wakeup_fd(found)
            self._close_pipe()

    def __exit__(self, *_: object) -> None:
        if self in self.live:
            self.live.remove(self)
        if self.before is not None and signal.getsignal(signal.SIGINT) is self:
            signal.signal(signal.SIGINT, rightful(self.before))
        self._sleep_without_pipe()


def _only_waits(frame: FrameType | None) -> bool:
    """Is what it does in gort to wait: for a ticket, or for the end of a runtime?  Or is it in a green twin's own code?

    On a plain thread that makes the standard module's calls, and may be interrupted as the standard module's own.
    """
    while frame is not None and not of_gort(frame):
        frame = frame.f_back  # the standard library's Event.wait and Thread.join
    if frame is not None and frame.f_code in _WAITS:
        return True
    while frame is not None:
        if of_gort(frame) and not frame.f_globals["__name__"].startswith("gort.green."):
            return False
        frame = frame.f_back
    return True


class Deferral:
    """The SIGINT handler while the main thread is a plain thread beside a runtime."""

    gort_own = True

    def __init__(self) -> None:
        self.users = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.users <= 0:  # the last Runtime was closed by another thread, which could not put the handler back
            signal.signal(number, rightful(self))
        elif _in_gort(frame) and not _only_waits(frame):
            # Ask again in a moment.  A thread for it, because nothing else is sure to run by then; and by a signal of the
            # system's, because the thread may wait in a system call by then, which `interrupt_main` does not end.
            timer = threading.Timer(1e-3, signal.pthread_kill, (threading.get_ident(), number))
            timer.daemon = True
            timer.start()
            return
        raise KeyboardInterrupt

    def install(self) -> None:
        """A Runtime begins."""
        self.users += 1
        if wait.on_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self)

    def remove(self) -> None:
        """A Runtime has ended."""
        self.users -= 1
        if self.users <= 0 and wait.on_main_thread() and signal.getsignal(signal.SIGINT) is self:
            signal.signal(signal.SIGINT, signal.default_int_handler)


deferral = Deferral()


def rightful(before: Any) -> Any:
    """Whose SIGINT is now, if it was once before's: it stays that of a program's own handler; else gort's, or Python's."""
    if not isinstance(before, (Interrupt, Deferral)) and before is not signal.default_int_handler:
        return before
    for interrupt in Interrupt.live:
        if interrupt.on_main:
            interrupt.before = signal.default_int_handler
            return interrupt
    return deferral if deferral.users > 0 else signal.default_int_handler


def forget() -> None:
    """In the child of a fork: nothing of gort's runs, so SIGINT is Python's again.  The pipe is the parent's."""
    for interrupt in Interrupt.live:
        interrupt.over = True
        interrupt._sleep_without_pipe()
    Interrupt.live.clear()
    deferral.users = 0
    if hasattr(signal.getsignal(signal.SIGINT), "gort_own"):
        signal.signal(signal.SIGINT, signal.default_int_handler)
