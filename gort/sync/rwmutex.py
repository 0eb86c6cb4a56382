"""RWMutex: many readers or one writer, and neither side can starve the other.

State, under the latch: `_active` is the number of readers inside, or -1 for a writer; `_readers` and `_queue` (the
writers') hold those who wait, `_writers` counts the waiting writers.

Invariants whenever the latch is free:

- readers wait only while a writer is inside or waits (so a waiting writer holds off new readers);
- writers wait only while somebody is inside (so `_active == 0` means that nobody waits).

From these the cases follow, and they are Go's.  When a writer leaves, all readers that wait go in, together, before
the next writer; when the last reader leaves, the first writer goes in; when the last waiting writer gives up while
readers are inside, the readers that it had held off go in.  So a reader waits for one writer at most, a writer for
the readers that were there before him and for the writers before him.  Places are handed over under the latch:
nobody comes between.

Refused: one queue for both, in order of arrival (readers between two writers would go in one small group after the
other, and each reader would wait for all writers before it); letting readers overtake waiting writers (a steady
stream of readers would hold off a writer for ever).
"""

from __future__ import annotations

from typing import Any

from ..runtime import overdue as _overdue
from ..runtime.latch import contend
from ..runtime.timers import check_seconds
from ..runtime.wait import Ticket, give_way, late, park, ready, waiter
from .errors import SyncError
from .place import Place, Tickets

overdue = False
_overdue.register(globals())


class RWMutex(Place):
    """A lock that many readers hold at once, or one writer alone.

    ``with rw.read():`` and ``with rw.write():`` lock and unlock.  A waiting writer holds off new readers, so who
    holds it for reading must not lock it for reading again: with a writer in between, both would wait for ever.
    Neither side belongs to the goroutine that locked it.  Go: sync.RWMutex.
    """

    __slots__ = ("_active", "_readers", "_writers")

    def __init__(self) -> None:
        super().__init__()
        self._active = 0
        self._readers: Tickets | None = None
        self._writers = 0

    # -- reading ------------------------------------------------------------------------------------------------

    def rlock(self, timeout: float | None = None) -> None:
        """Lock it for reading: wait until no writer is inside or waits.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError.  Go: RWMutex.RLock.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if not self.try_rlock():
            self._wait(True, timeout)

    def try_rlock(self) -> bool:
        """Lock it for reading if that needs no waiting; has the caller locked it?  Go: RWMutex.TryRLock."""
        if overdue:
            give_way()
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        free = self._active >= 0 and not self._writers
        if free:
            self._active += 1
        latch.append(None)
        return free

    def runlock(self) -> None:
        """End reading; the last reader lets a waiting writer in.  Raises SyncError if no reader is inside.

        Go: RWMutex.RUnlock.
        """
        w = None
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        right = self._active > 0
        if right:
            self._active -= 1
            if self._writers and not self._active:
                w = self._next_writer()
        latch.append(None)
        if not right:
            raise SyncError(f"runlock of {self!r}, which no reader holds: call runlock once for every rlock")
        if w is not None:
            ready(w)

    def read(self, timeout: float | None = None) -> ReadSide:
        """The reading side as a lock of its own, for ``with rw.read():`` and for `Cond`; timeout as in `rlock`.

        Go: RWMutex.RLocker.
        """
        return ReadSide(self, timeout if timeout is None else check_seconds(timeout, "timeout"))

    # -- writing ------------------------------------------------------------------------------------------------

    def lock(self, timeout: float | None = None) -> None:
        """Lock it for writing: wait until nobody is inside.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError; the readers that were held off
        meanwhile go on.  Go: RWMutex.Lock.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if not self.try_lock():
            self._wait(False, timeout)

    def try_lock(self) -> bool:
        """Lock it for writing if that needs no waiting; has the caller locked it?  Go: RWMutex.TryLock."""
        if overdue:
            give_way()
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        free = not self._active
        if free:
            self._active = -1
        latch.append(None)
        return free

    def unlock(self) -> None:
        """End writing: all waiting readers go in, or else the next writer.  Raises SyncError if no writer is inside.

        Go: RWMutex.Unlock.
        """
        woken: list[Any] = []
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        right = self._active < 0
        if right:
            self._active = 0
            if self._readers:
                woken = self._all_readers()
            if self._writers and not woken:
                woken = [self._next_writer()]
        latch.append(None)
        if not right:
            raise SyncError(f"unlock of {self!r}, which no writer holds: call unlock once for every lock")
        for w in woken:
            ready(w)

    def write(self, timeout: float | None = None) -> WriteSide:
        """The writing side, for ``with rw.write():``; timeout as in `lock`."""
        return WriteSide(self, timeout if timeout is None else check_seconds(timeout, "timeout"))

    def locked(self) -> bool:
        """Is a writer or a reader inside at this moment?"""
        return self._active != 0

    # -- both ---------------------------------------------------------------------------------------------------

    def _wait(self, reads: bool, timeout: float | None) -> None:
        if timeout is not None and timeout <= 0:
            raise late(f"{'rlock' if reads else 'lock'} of {self!r}: it is in use")
        w = waiter()
        ticket: Ticket = [w, None, self, None, reads]
        latch = self._hold()
        # Once more, in the same step as the ticket.
        if reads:
            free = self._active >= 0 and not self._writers
            if free:
                self._active += 1
            else:
                if self._readers is None:
                    self._readers = Tickets()
                self._readers.append(ticket)
        else:
            free = not self._active
            if free:
                self._active = -1
            else:
                self._enqueue(ticket)
                self._writers += 1
        latch.append(None)
        if not free:
            park(w, ticket, timeout, "rlock" if reads else "lock")

    def _next_writer(self) -> Any:
        """Nobody is inside, and a writer waits: let the first one in.  Under the latch."""
        assert self._queue is not None
        self._writers -= 1
        self._active = -1
        return self._queue.claim()

    def _all_readers(self) -> list[Any]:
        """No writer is inside: let all waiting readers in.  Under the latch."""
        if self._readers is None:
            return []
        woken = self._readers.claim_all()
        self._active += len(woken)
        return woken

    def _home(self, ticket: Ticket) -> Tickets:
        queue = self._readers if ticket[4] else self._queue
        assert queue is not None
        return queue

    def _withdrawn(self, ticket: Ticket) -> list[Any]:
        if not ticket[4]:
            self._writers -= 1
            if not self._writers and self._active >= 0:
                return self._all_readers()
        return []

    def give_back(self, ticket: Ticket) -> None:
        """A plain thread was let in and then interrupted (runtime/wait.py)."""
        if ticket[4]:
            self.runlock()
        else:
            self.unlock()

    def __repr__(self) -> str:
        active = self._active
        state = "unlocked" if not active else "held by a writer" if active < 0 else f"held by {active} readers"
        readers = 0 if self._readers is None else self._readers.living()
        return f"<RWMutex {state}, {readers} readers and {self._writers} writers waiting, {self._made()}>"

    def reason(self, ticket: Ticket) -> str:
        """What a waiter waits for, for people."""
        return f"{'rlock' if ticket[4] else 'lock'} of {self!r}"


class ReadSide:
    """The reading side of an RWMutex as a lock: `lock`, `unlock`, `try_lock`, `with`.  Go: what RLocker returns."""

    __slots__ = ("_rw", "_timeout")

    def __init__(self, rw: RWMutex, timeout: float | None) -> None:
        self._rw = rw
        self._timeout = timeout

    def lock(self, timeout: float | None = None) -> None:
        """`RWMutex.rlock`."""
        self._rw.rlock(timeout)

    def unlock(self) -> None:
        """`RWMutex.runlock`."""
        self._rw.runlock()

    def try_lock(self) -> bool:
        """`RWMutex.try_rlock`."""
        return self._rw.try_rlock()

    def __enter__(self) -> None:
        self._rw.rlock(self._timeout)

    def __exit__(self, _type: object, _value: object, _tb: object) -> None:
        self._rw.runlock()


class WriteSide:
    """The writing side of an RWMutex as a lock: `lock`, `unlock`, `try_lock`, `with`."""

    __slots__ = ("_rw", "_timeout")

    def __init__(self, rw: RWMutex, timeout: float | None) -> None:
        self._rw = rw
        self._timeout = timeout

    def lock(self, timeout: float | None = None) -> None:
        """`RWMutex.lock`."""
        self._rw.lock(timeout)

    def unlock(self) -> None:
        """`RWMutex.unlock`."""
        self._rw.unlock()

    def try_lock(self) -> bool:
        """`RWMutex.try_lock`."""
        return self._rw.try_lock()

    def __enter__(self) -> None:
        self._rw.lock(self._timeout)

    def __exit__(self, _type: object, _value: object, _tb: object) -> None:
        self._rw.unlock()
