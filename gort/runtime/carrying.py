"""Carrying: what carries a goroutine from its first instruction to its last, as everybody else sees it.

The idea.  Mostly it is a `Carrier`, a greenlet (carrier.py); for a goroutine that runs apart it may be its thread's own
stack (apart.py).  Whoever asks what a goroutine does, wants to wake it or to throw something into it, does not care: he
asks these questions, and goes through `stands` where he must know the greenlets.

All of it may be asked from any thread, and is then true of some moment just past.
"""

from __future__ import annotations

from typing import Any

from .wait import live_ticket


class Carrying:
    """The questions."""

    __slots__ = ()

    carries = True

    m: Any  # the machine
    ready: Any  # m.ready
    g: Any  # the goroutine, or None between two
    inner: Any  # a greenlet that the goroutine made itself and that waits, or has waited, in its place
    pending: BaseException | None  # what its next blocking operation raises

    def stands(self) -> tuple[Any, ...]:
        """The greenlets in which its goroutine may be suspended, those of its own last."""
        return (self,) if self.inner is None else (self, self.inner)

    def waits(self) -> bool:
        """Is it parked with a ticket that nobody has claimed?"""
        return any(live_ticket(w) is not None for w in self.stands())

    def waits_outside(self) -> bool:
        """Does it wait for something that comes from outside the program (I/O, a blocking call)?"""
        for w in self.stands():
            ticket = w.wait
            if ticket is not None and getattr(ticket[2], "external", False):
                return True
        return False

    def waited(self, now: float) -> float:
        """For how many seconds, at least, it has waited."""
        for w in self.stands():
            if live_ticket(w) is not None:
                m = self.m
                if m.watch.tick == m.started + m.parked + m.yielded:  # stuck, or asleep, since sysmon looked last
                    return max(m.ages.waited(w.seq, now), now - m.watch.tick_at)
                waited: float = m.ages.waited(w.seq, now)
                return waited
        return 0.0

    def wait_reason(self) -> str:
        """What it waits for, for people ("" when it does not wait)."""
        for w in self.stands():
            ticket = live_ticket(w)
            if ticket is not None:
                reason: str = ticket[2].reason(ticket)
                return reason
        return ""

    def suspended(self) -> Any:
        """Its innermost frame, if it does not run at this moment; else None."""
        for w in reversed(self.stands()):
            if not w.dead and w.gr_frame is not None:
                return w.gr_frame
        return None
