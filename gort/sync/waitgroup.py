"""WaitGroup: wait until a number of things have been done.

State, under the latch: the count.  Invariant whenever the latch is free: nobody waits while the count is zero.
Whoever takes it to zero claims all who wait in the same step, so a WaitGroup may be used again at once: an `add` that
comes after that keeps none of them.

`go` counts the goroutine's end and not the end of its function, because a goroutine that is cancelled before it
starts has an end, but its function never runs (ending.py).
"""

from __future__ import annotations

from collections.abc import Callable
from sys import _getframe
from typing import Any, TypeVar

from ..runtime import instance
from ..runtime import overdue as _overdue
from ..runtime.goroutine import Goroutine
from ..runtime.latch import contend
from ..runtime.report import report
from ..runtime.timers import check_seconds
from ..runtime.wait import Ticket, give_way, late, park, ready, waiter
from .ending import on_end
from .errors import SyncError
from .place import Place

T = TypeVar("T")

overdue = False
_overdue.register(globals())


class WaitGroup(Place):
    """A counter to wait for: `add` before the work begins, `done` when a part of it is done, `wait` for zero.

    `go` does all of that for a goroutine.  Go: sync.WaitGroup.
    """

    __slots__ = ("_count",)

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def add(self, n: int = 1) -> None:
        """Count n more (n may be negative), and let those go on who wait, if that makes zero.

        Call it before what it counts begins, not in it: else a `wait` may come first.  Raises SyncError, and changes
        nothing, if the count would fall below zero.  Go: WaitGroup.Add.
        """
        if not isinstance(n, int) or isinstance(n, bool):
            raise TypeError(f"n must be a whole number, not {type(n).__name__}")
        if not self._add(n):
            raise SyncError(f"{self!r} would fall below zero by add({n}): call done() once for everything added")

    def done(self) -> None:
        """Count one less: something is done.  Raises SyncError if nothing was left to do.  Go: WaitGroup.Done."""
        if not self._add(-1):
            raise SyncError(f"{self!r} would fall below zero by done(): call done() once for everything added")

    def _add(self, n: int) -> bool:
        woken: list[Any] | None = None
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        count = self._count + n
        right = count >= 0
        if right:
            self._count = count
            if not count and self._queue:
                woken = self._queue.claim_all()
        latch.append(None)
        if woken:
            for w in woken:
                ready(w)
        return right

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the count is zero.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError.  Go: WaitGroup.Wait.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if overdue:
            give_way()
        if not self._count:  # one atomic read; that it was zero during the call is all that is asked for
            return
        if timeout is not None and timeout <= 0:
            raise late(f"wait for {self!r}: not everything is done")
        w = waiter()
        ticket: Ticket = [w, None, self, None]
        latch = self._hold()
        zero = not self._count
        if not zero:
            self._enqueue(ticket)
        latch.append(None)
        if not zero:
            park(w, ticket, timeout, "wait for a WaitGroup")

    def go(self, fn: Callable[..., T], /, *args: Any, **kw: Any) -> Goroutine[T]:
        """Start fn(*args, **kw) as a goroutine that is counted until it has ended, however it ends.

        Returns its handle.  Raises TypeError if fn cannot be called.  Go: WaitGroup.Go.
        """
        self._add(1)
        try:
            g = instance.go(fn, *args, **kw)
        except BaseException:
            self._add(-1)
            raise
        frame = _getframe(1)
        g._code, g._lasti = frame.f_code, frame.f_lasti  # for people, it was started there and not here
        on_end(g, self._ended)
        return g

    def _ended(self) -> None:
        """A goroutine started by `go` has ended.  Called by the scheduler: errors are reported, not raised."""
        if not self._add(-1):
            error = SyncError(f"{self!r}: done() was called for a goroutine of WaitGroup.go, which counts itself")
            sched = instance._current()
            if sched is None or not sched.add_report(error, "WaitGroup.go"):
                report(error, "WaitGroup.go")

    def __repr__(self) -> str:
        return f"<WaitGroup at {self._count}, {self._waiting()} waiting, {self._made()}>"
