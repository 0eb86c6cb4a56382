"""Plain: a plain thread in a block that can be cancelled (scope.py).

The idea.  Blocks with a limit, or under a context, work on plain threads too.  There is no machine that could deliver
an exception, so whoever cancels does it: it takes back the ticket that the thread waits with, and wakes it with the
exception; or leaves the exception for the thread's next wait.  A `PlainThread` is made when a thread first enters such
a block, and shows scopes the faces of a goroutine, its carrier and its machine.

Invariants, under `lock`.
- `waiting` is the waiter and the ticket with which the thread waits, from before the look at `sent` with which the wait
  begins until its end.  So of an exception that arrives and a wait that begins, whichever comes second sees the other.
- An exception is in `sent` until it is raised, or its block has ended: then nobody takes notice of it any more.
- The thread is woken once for each wait: whoever wakes it, this file included, has claimed its ticket.

A thread that computes, or waits in a call of somebody else's, is not interrupted, as a goroutine is not.
"""

from __future__ import annotations

import threading
from typing import Any

from greenlet import getcurrent

from ..errors import Cancelled
from . import wait
from .wait import Ticket


class PlainThread:
    """What a plain thread is to the blocks that it has entered."""

    __slots__ = ("_held", "_scope", "_shields", "lock", "sent", "waiting")

    def __init__(self) -> None:
        self._scope: Any = None
        self._shields = 0
        self._held: list[Cancelled] = []
        self.lock = threading.RLock()
        self.sent: list[Cancelled] = []
        self.waiting: tuple[Any, Ticket] | None = None

    # -- as a goroutine's carrier and machine: what scope.py asks of them ------------------------------------------

    @property
    def carrier(self) -> PlainThread:
        return self

    @property
    def m(self) -> PlainThread:
        return self

    @property
    def pending(self) -> Cancelled | None:
        """The exception that the next wait raises."""
        with self.lock:
            self.sent = [exc for exc in self.sent if exc.scope.active and not exc.raised]
            return self.sent[0] if self.sent else None

    def request(self, _g: Any, exc: Cancelled) -> None:
        """Have an exception raised in the thread: now, if it waits, else at its next wait.  From any thread."""
        with self.lock:
            if not exc.scope.active or exc.raised or any(exc is other for other in self.sent):
                return
            if self._shields > exc.scope.shields:  # aimed at something outside a shield that it is in
                self._held.append(exc)
            else:
                self.sent.append(exc)
                self._interrupt()

    deliver = request

    def advance(self, _carrier: Any) -> None:
        """What was `pending` has been raised, or taken back."""
        with self.lock:
            if self.sent:
                del self.sent[0]

    # -- shields ---------------------------------------------------------------------------------------------------

    def shield(self) -> None:
        """A shield begins: what has not been raised yet waits for its end."""
        with self.lock:
            self._shields += 1
            self._held += self.sent
            self.sent = []

    def unshield(self) -> None:
        """A shield ends; what another one still holds back stays where it is."""
        with self.lock:
            self._shields -= 1
            held, self._held = self._held, []
            for exc in held:
                self.request(None, exc)

    # -- waiting -----------------------------------------------------------------------------------------------------

    def park(self, w: Any, ticket: Ticket, timeout: float | None, what: str) -> Any:
        """wait.park, for a thread that is in such a block."""
        outer = self.waits(w, ticket)
        try:
            return wait._park_thread(w, ticket, timeout, what)
        finally:
            self.goes_on(w, outer)

    def waits(self, w: Any, ticket: Ticket) -> Any:
        """A wait begins, with a ticket that has been published.  What it returns is for `goes_on`.

        w is like a ThreadWaiter: what is to be raised is put into `throws`, and w is woken.
        """
        with self.lock:
            outer, self.waiting = self.waiting, (w, ticket)  # there is an outer wait if we are in a signal handler
            self._interrupt()
            return outer

    def goes_on(self, w: Any, outer: Any) -> None:
        """The wait is over; what was to be raised has been taken out of `throws`."""
        with self.lock:
            self.waiting = outer
            if w.throws and isinstance(w.throws[0][1], Cancelled):
                # Not taken out, for a signal handler raised first: so it is raised at the next wait.
                exc = w.throws.popleft()[1]
                exc.raised = False
                self.sent.insert(0, exc)
            self._interrupt()

    def _interrupt(self) -> None:
        exc = self.pending
        if self.waiting is None or exc is None:
            return
        w, ticket = self.waiting
        if ticket[0] is w and ticket[2].withdraw(ticket):
            exc.raised = True
            del self.sent[0]
            w.throws.append((w, exc))
            w.append(w)


def here() -> PlainThread | None:
    """The calling plain thread, if it has ever entered such a block."""
    owner: PlainThread | None = wait.here.owner
    return owner


def enter() -> PlainThread:
    """The calling plain thread enters such a block.  Raises WouldBlockScheduler in a scheduler callback."""
    wait.adopt(getcurrent())
    if wait.here.owner is None:
        wait.here.owner = PlainThread()
    owner: PlainThread = wait.here.owner
    return owner


def forget() -> None:
    """In the child of a fork: a thread that does not exist here may have had the lock."""
    owner = here()
    if owner is not None:
        owner.lock = threading.RLock()
