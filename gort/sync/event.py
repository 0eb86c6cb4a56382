"""Event: a flag to wait for.

State, under the latch: the flag.  Invariant whenever the latch is free: nobody waits while it is set.  `wait` looks
at the flag without the latch first: reading one attribute is atomic, and seeing it set at any moment of the call is
reason enough to return.  Not seeing it set decides nothing; that is done under the latch, in one step with the ticket.
"""

from __future__ import annotations

from typing import Any

from ..runtime import overdue as _overdue
from ..runtime.timers import check_seconds
from ..runtime.wait import Ticket, give_way, late, park, ready, waiter
from .place import Place

overdue = False
_overdue.register(globals())


class Event(Place):
    """A flag that goroutines and threads wait for.  Like threading.Event; Go closes a chan struct{} instead."""

    __slots__ = ("_flag",)

    def __init__(self) -> None:
        super().__init__()
        self._flag = False

    def is_set(self) -> bool:
        """Is the flag set?"""
        return self._flag

    def set(self) -> None:
        """Set the flag and wake all who wait for it.  Setting it twice does no harm.  Go: close(done)."""
        woken: list[Any] = []
        latch = self._hold()
        self._flag = True
        if self._queue:
            woken = self._queue.claim_all()
        latch.append(None)
        for w in woken:
            ready(w)

    def clear(self) -> None:
        """Unset the flag.  Who has been woken by `set` goes on all the same."""
        latch = self._hold()
        self._flag = False
        latch.append(None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the flag is set; always returns True.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError.  Go: <-done.
        """
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if overdue:
            give_way()
        if self._flag:
            return True
        if timeout is not None and timeout <= 0:
            raise late(f"wait for {self!r}: it is not set")
        w = waiter()
        ticket: Ticket = [w, None, self, None]
        latch = self._hold()
        flag = self._flag
        if not flag:
            self._enqueue(ticket)
        latch.append(None)
        if not flag:
            park(w, ticket, timeout, "wait for an Event")
        return True

    def __repr__(self) -> str:
        return f"<Event {'set' if self._flag else 'not set'}, {self._waiting()} waiting, {self._made()}>"
