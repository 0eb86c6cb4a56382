"""Barrier: wait for each other.

State, under the latch: `_arrived`, how many parties of this round wait, and `_broken`.  Invariant whenever the latch
is free: `_arrived` is the number of living tickets, and less than the number of parties.  The last one to arrive
claims all the others and makes the count zero in one step, so the next round may begin before they run; there is no
second phase in which a fast party could be confused with a slow one.

A round that cannot be completed is broken: when a party gives up (a time-out, a cancellation), all others would wait
for ever.  So the withdrawal of one ticket claims all others and has BrokenBarrier raised there, and the barrier stays
broken until `reset`, as threading.Barrier's does.
"""

from __future__ import annotations

from typing import Any

from ..runtime import overdue as _overdue
from ..runtime.timers import check_seconds
from ..runtime.wait import Ticket, give_way, late, park, ready, ready_throw, waiter
from .errors import BrokenBarrier
from .place import Place, check_count

overdue = False
_overdue.register(globals())


class Barrier(Place):
    """A place where a fixed number of parties wait until all have arrived; then all go on, and it may be used again.

    parties is their number.  Raises TypeError or ValueError if it is no whole number above zero.  Like
    threading.Barrier; Go has none.
    """

    __slots__ = ("_arrived", "_broken", "_parties")

    _verb = "wait at"

    def __init__(self, parties: int) -> None:
        super().__init__()
        check_count(parties, "parties", 1)
        self._parties = parties
        self._arrived = 0
        self._broken = False

    def wait(self, timeout: float | None = None) -> int:
        """Wait until all parties have arrived; return how many had arrived before (0 to parties - 1).

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError, and BrokenBarrier if the barrier
        is broken or breaks meanwhile.  Who times out or is cancelled breaks it for the others.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if overdue:
            try:
                give_way()
            except BaseException:  # cancelled, or interrupted: it has not arrived, and will not
                self.abort()
                raise
        hopeless = timeout is not None and timeout <= 0
        w = None
        while True:
            woken: list[Any] = []
            latch = self._hold()
            broken = self._broken
            index = self._arrived
            last = not broken and index + 1 == self._parties
            if last:
                woken = self._disperse()
            elif not broken and w is not None:
                self._arrived = index + 1
                ticket: Ticket = [w, index, self, None]
                self._enqueue(ticket)
            elif not broken and hopeless:
                self._broken = True
                woken = self._disperse()
            latch.append(None)
            if broken:
                raise BrokenBarrier(f"{self!r}: a party timed out, was cancelled or called abort(); reset() mends it")
            if last:
                for other in woken:
                    ready(other)
                return index
            if w is not None:
                return park(w, ticket, timeout, "wait at a Barrier")
            if hopeless:
                self._tell(woken)
                raise late(f"wait at {self!r}: not all parties are there")
            try:
                w = waiter()  # raises a pending cancellation, so only now that it has to wait
            except BaseException:  # likewise
                self.abort()
                raise

    def abort(self) -> None:
        """Break the barrier: all who wait, and all who come, get BrokenBarrier, until `reset`."""
        latch = self._hold()
        self._broken = True
        woken = self._disperse()
        latch.append(None)
        self._tell(woken)

    def reset(self) -> None:
        """Make the barrier as new.  Those who wait get BrokenBarrier."""
        latch = self._hold()
        self._broken = False
        woken = self._disperse()
        latch.append(None)
        self._tell(woken)

    def _disperse(self) -> list[Any]:
        """Claim all who wait.  Under the latch."""
        self._arrived = 0
        return self._queue.claim_all() if self._queue else []

    def _tell(self, woken: list[Any]) -> None:
        for w in woken:
            error = BrokenBarrier(f"{self!r}: a party timed out, was cancelled, or called abort() or reset()")
            ready_throw(w, error)

    def withdraw(self, ticket: Ticket) -> bool:
        """Take back a ticket that nobody has claimed yet, which breaks the barrier; was it so?"""
        woken: list[Any] = []
        latch = self._hold()
        alive = ticket[0] is not None
        if alive:
            ticket[0] = None
            self._broken = True
            woken = self._disperse()
        latch.append(None)
        self._tell(woken)
        return alive

    @property
    def parties(self) -> int:
        """How many must arrive."""
        return self._parties

    @property
    def n_waiting(self) -> int:
        """How many wait at this moment."""
        return self._arrived

    @property
    def broken(self) -> bool:
        """Is it broken?"""
        return self._broken

    def __repr__(self) -> str:
        state = "broken" if self._broken else f"{self._arrived} waiting"
        return f"<Barrier of {self._parties}, {state}, {self._made()}>"
