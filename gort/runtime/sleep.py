"""sleep: the shortest way through park, and the model of every other.

A sleeper's ticket stands in the heap of its P; `timers.TimerHeap.run` claims and wakes it on whatever machine holds
that P by then.
"""

from __future__ import annotations

import time
from time import monotonic

from greenlet import getcurrent

from . import overdue as _overdue
from .timers import BED, check_seconds, wake_sleeper
from .wait import ThreadWaiter, Ticket, give_way, gosched, is_late, park, waiter

overdue = False
_overdue.register(globals())


class _Cot:
    """The place where a plain thread sleeps, so that it can be interrupted (plain.py).  ticket[3] is the permit to."""

    def withdraw(self, ticket: Ticket) -> bool:
        try:
            ticket[3].pop()
        except IndexError:
            return False
        ticket[0] = None
        return True

    def reason(self, _ticket: Ticket) -> str:
        return "sleep"


_COT = _Cot()


def _sleep_thread(w: ThreadWaiter, seconds: float) -> None:
    if w.owner is None:
        time.sleep(min(seconds, 1e9))
        return
    try:
        park(w, [w, None, _COT, [None]], seconds, "sleep")
    except TimeoutError as exc:
        if not is_late(exc):
            raise


def sleep(seconds: float) -> None:
    """Pause the calling goroutine for at least so many seconds; zero or less lets others run and comes back.

    On a plain thread it is time.sleep.  Raises TypeError or ValueError for what is no number of seconds.
    Go: time.Sleep.
    """
    if overdue:
        give_way()
    if type(seconds) is not float or seconds != seconds:
        seconds = check_seconds(seconds)
    if not seconds > 0:
        gosched()
        return
    w = getcurrent()
    try:
        if w.pending is not None:  # type: ignore[attr-defined]
            waiter()
        queue = w.ready  # type: ignore[attr-defined]
        m = w.m  # type: ignore[attr-defined]
    except AttributeError:
        w = waiter()
        if type(w) is ThreadWaiter:
            _sleep_thread(w, seconds)
            return
        queue = w.ready
        m = w.m
    when = monotonic() + seconds
    p = m.p
    if p is None:
        p = m.sched.allp[0]
        ticket = [w, None, BED, p.timers]
        m.sched.plan(p, when, ticket, wake_sleeper)
        park(w, ticket)
        return
    heap = p.timers
    w.wait = ticket = [w, None, BED, heap]  # type: ignore[attr-defined]
    heap.add(when, ticket, wake_sleeper)
    if m.p is not p:  # sysmon took the P from us a moment ago: see handoff.py
        m.sched.rescue_timers(p)
    m.parked = w.seq = m.parked + 1  # type: ignore[attr-defined]
    if queue:
        queue.popleft().switch()
    else:
        m.hub.switch()
    w.wait = None  # type: ignore[attr-defined]
