"""Semaphore: so many permits, taken several at a time, strictly first come, first served.

State, under the latch: `_free` permits.  Invariant whenever the latch is free: the first who waits wants more permits
than there are.  So a big waiter holds off the small ones behind him, who could go ahead, until his turn has come:
otherwise a steady stream of small ones would starve him.  Permits go from the one who releases to those who wait in
one step under the latch; nobody comes between.

When a waiter gives up he may have been the first, and those behind him may be content with what there is: `_serve`
runs after every withdrawal too, and stops at the first whom it cannot satisfy.

Go has it in golang.org/x/sync/semaphore, with the same rules.
"""

from __future__ import annotations

from typing import Any

from ..runtime import overdue as _overdue
from ..runtime.latch import contend
from ..runtime.timers import check_seconds
from ..runtime.wait import Ticket, give_way, late, park, ready, waiter
from .errors import SyncError
from .place import Place, check_count

overdue = False
_overdue.register(globals())


class Semaphore(Place):
    """A number of permits to be acquired and released; ``with sem:`` acquires and releases one.

    permits is how many there are.  Nobody may release more than were acquired, unless bounded=False: then permits is
    only how many there are at first (0 will do), and a release may add new ones, as with threading.Semaphore.  Waiters
    are served strictly first come, first served: one that wants many holds off those behind it that want few.
    Raises TypeError or ValueError for what is no number of permits.  Go: semaphore.NewWeighted.
    """

    __slots__ = ("_free", "_size")

    def __init__(self, permits: int = 1, *, bounded: bool = True) -> None:
        super().__init__()
        check_count(permits, "permits", 1 if bounded else 0)
        self._free = permits
        self._size: int | None = permits if bounded else None

    def acquire(self, n: int = 1, timeout: float | None = None) -> None:
        """Wait for n permits, and take them all at once.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError (nothing has been taken then), and
        ValueError for more than there can ever be.  Go: Weighted.Acquire.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if overdue:
            give_way()
        if n != 1 or type(n) is not int:
            self._check(n)
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        if n <= self._free and not self._queue:
            self._free -= n
            latch.append(None)
            return
        latch.append(None)
        self._acquire_slowly(n, timeout)

    def try_acquire(self, n: int = 1) -> bool:
        """Take n permits if that needs no waiting; have they been taken?  Go: Weighted.TryAcquire."""
        if overdue:
            give_way()
        if n != 1 or type(n) is not int:
            self._check(n)
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        queue = self._queue
        fits = n <= self._free and (not queue or queue.head() is None)
        if fits:
            self._free -= n
        latch.append(None)
        return fits

    def release(self, n: int = 1) -> None:
        """Give n permits back, and let those go on for whom they suffice, in order.

        Raises SyncError if more would be given back than were acquired.  Go: Weighted.Release.
        """
        if n != 1 or type(n) is not int:
            check_count(n, "n", 1)
        woken: list[Any] | None = None
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        free = self._free + n
        right = self._size is None or free <= self._size
        if right:
            self._free = free
            if self._queue:
                woken = self._serve()
        latch.append(None)
        if not right:
            raise SyncError(f"release({n}) of {self!r}: more than were acquired; release what you acquired, once")
        if woken:
            for w in woken:
                ready(w)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, _type: object, _value: object, _tb: object) -> None:
        self.release()

    @property
    def available(self) -> int:
        """How many permits are free at this moment."""
        return self._free

    def _check(self, n: int) -> None:
        check_count(n, "n", 1)
        if self._size is not None and n > self._size:
            raise ValueError(f"acquire({n}) would wait for ever: there are only {self._size} permits")

    def _acquire_slowly(self, n: int, timeout: float | None) -> None:
        if self.try_acquire(n):  # there may be none but dead tickets in the queue
            return
        if timeout is not None and timeout <= 0:
            raise late(f"acquire({n}) of {self!r}: not enough permits")
        w = waiter()
        ticket: Ticket = [w, n, self, None]
        latch = self._hold()
        queue = self._queue
        fits = n <= self._free and (not queue or queue.head() is None)
        if fits:
            self._free -= n
        else:
            self._enqueue(ticket)
        latch.append(None)
        if not fits:
            park(w, ticket, timeout, "acquire")

    def _serve(self) -> list[Any]:
        """Give permits to those who wait, as long as they suffice: whom to make ready.  Under the latch."""
        woken = []
        queue = self._queue
        assert queue is not None
        while (ticket := queue.head()) is not None and ticket[1] <= self._free:
            self._free -= ticket[1]
            woken.append(queue.claim())
        return woken

    def _withdrawn(self, ticket: Ticket) -> list[Any]:
        return self._serve()

    def give_back(self, ticket: Ticket) -> None:
        """A plain thread was given permits and then interrupted (runtime/wait.py)."""
        self.release(ticket[1])

    def __repr__(self) -> str:
        of = "" if self._size is None else f" of {self._size}"
        return f"<Semaphore {self._free}{of} free, {self._waiting()} waiting, {self._made()}>"

    def reason(self, ticket: Ticket) -> str:
        """What a waiter waits for, for people."""
        return f"acquire({ticket[1]}) of {self!r}"
