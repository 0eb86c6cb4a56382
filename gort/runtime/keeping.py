"""Keeping: who sleeps for the timers of a P that nobody holds.

The idea.  Timers belong to Ps (timers.py), and a machine sleeps no longer than until the first one of its P is due.  When it
gives that P up, it stays its *keeper*: it still wakes for these timers, and takes the P back then.  Whoever plans a timer
on an idle P wakes its keeper if the new one is the first to be due; if there is no keeper any more (it has another P by
now, or has ended), a machine is given the P.

A part of the scheduler, in a file of its own: the methods are Scheduler's, and the data too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from greenlet import getcurrent

from .guard import enter
from .machine import Machine
from .processor import Processor
from .timers import INFINITY, deadline, expire


class Keeping:
    """The timers."""

    _assign: Callable[[Processor], bool]
    _retire: Callable[[Processor], None]
    allp: list[Processor]
    idle: list[Processor]
    idle_ms: dict[Any, None]
    lock: Any
    ms: dict[Any, None]
    sysmon: Any

    def add_timer(self, when: float, entry: list[Any], fire: Callable[[list[Any]], None]) -> None:
        """Plan a timer on the caller's P, or on some P for a caller that has none."""
        m = getattr(getcurrent(), "m", None)
        p = m.p if m is not None and m.sched is self else None
        if p is None:
            p = self.allp[0]
        entry[2] = p.timers
        self.plan(p, when, entry, fire)

    def plan(self, p: Processor, when: float, entry: list[Any], fire: Callable[[list[Any]], None]) -> None:
        """Plan a timer on this P, whoever holds it."""
        if p.timers.add(when, entry, fire) and p.m is None:
            # The P is idle, so its keeper may sleep longer than until this deadline.
            self.rescue_timers(p)

    def _wake_keeper(self, p: Processor) -> None:
        if p.keeper in self.idle_ms:
            p.keeper.wake()
        else:
            self._assign(p)

    def stop_keeping(self, m: Machine, heir: Processor | None) -> None:
        """m will not sleep for the timers of the P that it let go of last: it has another (the heir), or ends.

        Under the lock.  Who plans a timer on that P later finds it without a keeper (`plan`).
        """
        p = m.last
        if p is None or p.keeper is not m or p.m is not None:
            return
        p.keeper = None
        if heir is not None:
            heir.timers.take_all(p.timers)
        elif p in self.idle and p.timers.next() != INFINITY and self.ms:
            self._assign(p)

    def timeout_after(self, seconds: float, ticket: list[Any], error: Callable[[], BaseException]) -> list[Any] | None:
        """Have a ticket withdrawn, and error() thrown at its waiter, if it is still waiting by then.

        None if that will never be: a timer that never rings would hide a deadlock.
        """
        when = deadline(seconds)
        if when == INFINITY:
            return None
        entry = [ticket, error, None]
        self.add_timer(when, entry, expire)
        return entry

    def rescue_timers(self, p: Processor) -> None:
        """A machine put a timer on a P that was taken from it meanwhile, and that may be idle by now."""
        if not enter(self.lock):
            self.sysmon.poke()
            return
        try:
            if p.m is None:
                if p in self.idle:
                    self._wake_keeper(p)
                elif p.dead:  # gomaxprocs took it out of use in the meantime: `_retire` has been there already
                    self._retire(p)
        finally:
            self.lock.release()
