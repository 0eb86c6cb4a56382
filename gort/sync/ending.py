"""Have a function called when a goroutine has ended, however it ended, started or not.

The idea.  A goroutine's end wakes its joiners (runtime/goroutine.py).  So does the end of one that was cancelled
before it started, or that its closing runtime dropped, and there no ``finally`` of the function would run.  So who
must not miss any end joins, with something that has a waiter's face and whose wake-up is a call.

The call comes from wherever the end is noticed: another thread, the middle of the scheduler.  It must not wait, switch
or raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..runtime.goroutine import PENDING, Goroutine, _joins
from ..runtime.wait import Ticket


class _Ending:
    """A waiter whose wake-up is a call."""

    __slots__ = ("call",)

    asleep = False

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call

    @property
    def ready(self) -> _Ending:
        return self

    @property
    def m(self) -> _Ending:
        return self

    def append(self, _item: Any) -> None:
        self.call()


def on_end(g: Goroutine[Any], call: Callable[[], None]) -> None:
    """Call call() once, when g has ended; at once, if it has ended already.  See the top for what call may do."""
    ticket: Ticket = [_Ending(call), None, g, None]
    with _joins:
        if g._value is PENDING:
            if g._waiters is None:
                g._waiters = []
            g._waiters.append(ticket)
            # It may have ended between the two looks, and then it may or may not have seen our ticket; a claimed one
            # has been seen.  (Goroutine._join does the same.)
            if g._value is PENDING or ticket[0] is None:
                return
            ticket[0] = None
            g._waiters.remove(ticket)
    call()
