"""What the primitives of gort.sync have in common: a place where tickets wait, first come first served.

The idea.  runtime/wait.py says what a ticket is, who may claim it, and what park and ready do.  A primitive is then a
few words of state, a latch (runtime/latch.py) around them, and a queue of tickets; its rules are what is done under
that latch.  All of them share this form:

    take the latch
    can it go ahead?  change the state            no?  put a ticket into the queue
    give the latch                                give the latch, park

and for those who let others go ahead:

    take the latch; change the state; claim the tickets that can go ahead now; give the latch; make their waiters ready

Because the look at the state and the ticket are one step under the latch, no change can come between them and be
missed; because whoever lets somebody go ahead changes the state *for* him (takes the permit, counts the reader)
before the latch is free, nobody can come between him and what he was given.  `Mutex` is the exception to both, for
speed, and argues its case in its own file.

Giving up.  A time-out, a cancellation and the deadlock detector end a wait through `withdraw`: if the ticket is still
unclaimed, it dies, and `_withdrawn` lets those go ahead whom it had held off.  If it has been claimed, the waiter has
what it wanted and keeps it; a cancellation then waits for its next blocking operation.  So nothing that was handed
over is ever lost, with one more case: a plain thread that was handed something and is interrupted by a signal handler
before it could take it.  There the runtime calls `give_back`.

A dead ticket stays in its queue until it comes to the front or until there are more dead than living ones.  Taking it
out at once would need a search; a program that waits with time-outs a million times may have a million of them.

Refused: an OrderedDict as queue, from which a ticket can be taken at once (five times the price of a deque for each
wait, to save this file's few lines about the dead).
"""

from __future__ import annotations

from collections import deque
from sys import _getframe
from typing import Any

from ..runtime.goroutine import place_of
from ..runtime.latch import contend
from ..runtime.wait import Ticket, ready

_SWEEP = 32  # dead tickets that a queue may hold before it is swept


def check_count(n: Any, name: str, least: int) -> None:
    """Raise TypeError or ValueError that says name, unless n is a whole number and not less than least."""
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"{name} must be a whole number, not {type(n).__name__}")
    if n < least:
        raise ValueError(f"{name} must be at least {least}, not {n}")


def check_function(fn: Any, what: str) -> None:
    """Raise TypeError that says what needs it, unless fn can be called."""
    if not callable(fn):
        raise TypeError(f"{what} needs a function to call, not {type(fn).__name__}")


class Tickets(deque[Ticket]):
    """Waiting tickets, oldest first, the dead among them.  To be changed under the latch of the place they wait at."""

    __slots__ = ("dead",)

    def __init__(self) -> None:
        super().__init__()
        self.dead = 0  # exactly how many of them are dead

    def living(self) -> int:
        """How many wait."""
        return len(self) - self.dead

    def head(self) -> Ticket | None:
        """The first that is alive, which stays at the head of the queue; None if nobody waits."""
        while self:
            ticket = self[0]
            if ticket[0] is not None:
                return ticket
            self.popleft()
            self.dead -= 1
        return None

    def claim(self) -> Any:
        """Take out and claim the first that is alive: its waiter, whom the caller must make ready; else None."""
        ticket = self.head()
        if ticket is None:
            return None
        self.popleft()
        w = ticket[0]
        ticket[0] = None
        return w

    def claim_all(self) -> list[Any]:
        """Take out and claim all that are alive: their waiters, oldest first."""
        waiters = []
        for ticket in self:
            w = ticket[0]
            if w is not None:
                ticket[0] = None
                waiters.append(w)
        self.clear()
        self.dead = 0
        return waiters

    def bury(self) -> None:
        """One of them has died."""
        self.dead += 1
        if self.dead > _SWEEP and self.dead * 2 > len(self):
            for _ in range(len(self)):
                ticket = self[0]
                # Append first: somebody who looks without the latch (Mutex.unlock) must not see an empty queue
                # while there is a living ticket.
                if ticket[0] is not None:
                    self.append(ticket)
                self.popleft()
            self.dead = 0


class Place:
    """The base of the primitives: a latch, a queue of tickets, and what runtime/wait.py asks of a place."""

    __slots__ = ("__weakref__", "_code", "_lasti", "_latch", "_queue")

    _verb = "wait for"  # what its waiters do, for people

    def __init__(self) -> None:
        self._latch: list[None] = [None]
        self._queue: Tickets | None = None  # made when first somebody waits: most primitives never see a waiter
        frame = _getframe(2)
        self._code = frame.f_code
        self._lasti = frame.f_lasti

    def _hold(self) -> list[None]:
        """Take the latch.  The caller keeps it in a local variable: a re-entry is recognised by that (latch.py)."""
        latch = self._latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        return latch

    def _enqueue(self, ticket: Ticket) -> None:
        """Put a ticket to the end of the queue.  Under the latch."""
        if self._queue is None:
            self._queue = Tickets()
        self._queue.append(ticket)

    def _home(self, ticket: Ticket) -> Tickets:
        """The queue that a ticket stands in."""
        assert self._queue is not None
        return self._queue

    def _withdrawn(self, ticket: Ticket) -> list[Any]:
        """A ticket has died: claim those that can go ahead now that it holds them off no more.  Under the latch."""
        return []

    def _made(self) -> str:
        return f"made at {place_of(self._code, self._lasti)}"

    def _waiting(self) -> int:
        queue = self._queue
        return 0 if queue is None else max(0, queue.living())

    # -- for runtime/wait.py ------------------------------------------------------------------------------------

    def withdraw(self, ticket: Ticket) -> bool:
        """Take back a ticket that nobody has claimed yet; was it so?"""
        woken: list[Any] = []
        latch = self._hold()
        alive = ticket[0] is not None
        if alive:
            ticket[0] = None
            self._home(ticket).bury()
            woken = self._withdrawn(ticket)
        latch.append(None)
        if alive:
            ticket[1] = None  # a goroutine that was to be started, say: it may stay in the queue for long (latch.py)
        for w in woken:
            ready(w)
        return alive

    def reason(self, ticket: Ticket) -> str:
        """What the waiter with this ticket waits for, for people."""
        return f"{self._verb} {self!r}"
