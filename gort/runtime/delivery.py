"""Delivery: how an exception from outside (a cancellation, Ctrl-C) reaches a goroutine.

The idea.  Only its own thread can switch to a greenlet, so only its machine can raise something in a goroutine: who
wants that leaves it in the machine's mail (`request`).  The machine, in its hub, looks at the goroutine, which is then
suspended; if one of its own goroutines asks, it looks at once (then the goroutine may also be the one that asks):

- it waits, and its ticket can be withdrawn: what it waited for has not happened, so the exception is thrown there;
- it has given way: likewise, for nothing is lost by that;
- else what it waited for has happened and it must be told so: the exception stays *pending*, and is raised at its next
  blocking operation (wait.waiter), or by `retry` when it has given way since.

One exception is pending at a time.  What comes meanwhile queues up (`_more`), and what a shield keeps out is held
(`_held`) until the shield's end delivers it again.

Invariants.  A goroutine's own cancellation is delivered once (`_cancelled`).  A scope's is dropped when its block has
ended or it has been raised.  An exception is thrown by the hub and nowhere else: it is in `throws` from the moment at
which the goroutine can no longer be woken otherwise.

Who asks may be a signal handler or a finalizer, and have interrupted anything: the hub in its sleep, or the holder of
the very latch that has to be taken to withdraw the ticket.  So what comes from the hub, or from above a frame of gort's
(`_interrupts`), goes by mail as if another thread had asked.  That sends some the long way who need not, for the
program's code also runs above gort's where gort has called it (`once`, `Group.map`): they notice nothing but that the
one they cancel is still there until they wait themselves.

A part of the machine, in a file of its own: the methods are Machine's, and the data too.
"""

from __future__ import annotations

import sys
from collections import deque
from types import FrameType
from typing import Any

from greenlet import getcurrent

from ..errors import Cancelled
from .apart import begin
from .carrier import Carrier, carry
from .carrying import Carrying
from .goroutine import PENDING, Goroutine
from .stacks import of_gort
from .wait import Ticket


_BASE = {carry.__code__, begin.__code__}


def _interrupts() -> bool:
    """Has whoever called `request` perhaps interrupted gort: is there a frame of gort's below one of the program's?"""
    frame: FrameType | None = sys._getframe(2)
    called = True  # so far, all are gort's own that have led to `request`
    module = None
    while frame is not None and frame.f_code not in _BASE:
        if module is not frame.f_globals:  # else as the frame before: half the price of a deep stack
            module = frame.f_globals
            if not of_gort(frame):
                called = False
            elif not called:
                return True
        frame = frame.f_back
    return False


def _is_left(exc: BaseException | None) -> bool:
    """Is it for a block that was left by another goroutine meanwhile (scope.py)?"""
    return not getattr(getattr(exc, "scope", None), "active", True)


class Delivery:
    """What a machine does with exceptions that are meant for its goroutines."""

    __slots__ = ()

    asleep: bool
    carriers: set[Carrying]
    hub: Any
    mail: deque[Any]
    ready: Any
    sched: Any
    throws: deque[Any]
    undelivered: list[Carrying]

    def nudge(self) -> None:
        raise NotImplementedError

    def request(self, g: Goroutine[Any] | None, exc: BaseException) -> None:
        """Have an exception delivered to one of this machine's goroutines (None: to all of them)."""
        me = getcurrent()
        if me is self.hub:
            self.mail.append((g, exc))
            if self.asleep or not self.ready or self.ready[0] is not me:  # many timers may ring at once
                self.nudge()
        elif getattr(me, "m", None) is self and not _interrupts():
            self.deliver(g, exc)
        else:
            self.mail.append((g, exc))
            self.nudge()

    def deliver(self, g: Goroutine[Any] | None, exc: BaseException, again: bool = False) -> None:
        """Raise exc in a goroutine of ours (None: Cancelled in all of them): now, if it waits or has given way, else
        at its next blocking operation.  On this machine's own thread, so each is suspended or the one that runs.
        """
        if g is None and isinstance(exc, KeyboardInterrupt):
            # Ctrl-C while the runtime closes: what still lives has been cancelled already, and does not end.
            for carrier in list(self.carriers):
                if carrier.g is not None:
                    self.deliver(carrier.g, exc)
            return
        if g is None:
            self._deliver_all()
            return
        carrier = g.carrier
        if g._value is not PENDING:
            return
        shields = 0
        insists = hasattr(exc, "insists")  # it was held back once: whoever asks again does not want to wait any longer
        if isinstance(exc, Cancelled):
            scope = exc.scope
            if scope is None:
                if hasattr(g, "_cancelled") and not again:
                    return
                g._cancelled = True
            elif not scope.active or exc.raised:
                return
            else:
                shields = scope.shields
        if insists:  # not for a shield, nor for a call that blocks
            if _is_left(carrier.pending):
                self.advance(carrier)
            if carrier.pending is not None:
                if self._throw(carrier, True) and type(carrier.pending) is type(exc):
                    exc.raised = True  # type: ignore[attr-defined]  # the first one is, and stands for both
                    return
                more = getattr(g, "_more", [])
                for n, first in enumerate(more):
                    if type(first) is type(exc):
                        more[n] = exc  # it stands for the first one: the one that was sent last must not get lost
                        return
            g._held = [other for other in getattr(g, "_held", ()) if type(other) is not type(exc)]
            shields = getattr(g, "_shields", 0)
        if getattr(g, "_shields", 0) > shields:  # aimed at something outside a shield that it is in
            g._held = [*getattr(g, "_held", ()), exc]
        elif carrier.pending is not None:  # another is on its way: this one comes next
            g._more = [*getattr(g, "_more", ()), exc]
        else:
            carrier.pending = exc
            if not self._throw(carrier, insists):
                self.undelivered.append(carrier)

    def _deliver_all(self) -> None:
        # One pass over the ready queue for all of them, where `_throw` would search it for each.
        ready = self.ready
        queue = [ready.popleft() for _ in range(len(ready))]
        gave_way = {w for w in queue if type(w) is Carrier and w.wait is None and w.g is not None}
        for carrier in list(self.carriers):
            g = carrier.g
            if g is None or g.id > self.sched.wave:
                continue
            exc = Cancelled(f"{g.describe()} was cancelled: the main goroutine has ended, or its Runtime was closed")
            if carrier not in gave_way or carrier.pending is not None or hasattr(g, "_cancelled") or getattr(g, "_shields", 0):
                gave_way.discard(carrier)
                self.deliver(g, exc)
            else:
                g._cancelled = True
                carrier.pending = exc
                self.throws.append((carrier, exc))
        gave_way = {w for w in gave_way if w.pending is not None and w.g.id <= self.sched.wave}
        ready.extend(w for w in queue if w not in gave_way)
        if self.throws:
            ready.append(self.hub)

    def advance(self, carrier: Carrying) -> None:
        """Its pending exception has been raised, or taken back: the next one, if there is one."""
        carrier.pending = None
        more = getattr(carrier.g, "_more", None)
        while more:
            exc = more.pop(0)
            scope = getattr(exc, "scope", None)
            if scope is None or (scope.active and not exc.raised):
                carrier.pending = exc
                self.undelivered.append(carrier)
                return

    def _throw(self, carrier: Carrying, insists: bool = False) -> bool:
        """Have carrier.pending thrown, if the goroutine is suspended where nothing is lost by that.

        insists: or but what a blocking call will bring.
        """
        me = getcurrent()
        for w in carrier.stands():
            if w is me or w.dead:
                continue
            ticket: Ticket | None = w.wait
            if ticket is not None:
                place = ticket[2]
                withdraw = getattr(place, "desert", place.withdraw) if insists else place.withdraw
                if ticket[0] is not w or not withdraw(ticket):
                    continue  # what it waited for has happened: it must be told so
            else:
                try:
                    self.ready.remove(w)  # it had given way
                except ValueError:
                    continue
            self.throws.append((w, carrier.pending))
            self.ready.append(self.hub)
            return True
        return False

    def retry(self) -> None:
        """Throw what could not be thrown before, if its goroutine has given way since."""
        self.undelivered = [
            c
            for c in self.undelivered
            if c.pending is not None
            and c.g is not None
            and not _is_left(c.pending)
            and not self._throw(c)
        ]
