"""Machines too many: when an idle one ends.

The idea.  Machines are started when they are needed: because others are stuck, or apart with a goroutine that blocks.
Afterwards more of them may be idle than there are Ps.  Each of those ends when it has been idle for IDLE seconds, at
once if they are very many, and without delay when another thread is needed and the limit is reached (`dismiss_one`).

Invariant: a machine that ends here is taken out of `ms` and `idle_ms` under the lock, with nothing to run and no timers to
keep; so nobody can have woken it for something, and nobody finds it any more.
"""

from __future__ import annotations

from typing import Any

from .timers import INFINITY

IDLE = 5.0  # seconds after which an idle machine too many ends
MANY = 64  # machines too many: with more, each ends at once


def awake(sched: Any) -> int:
    """How many machines do not sleep, as far as the lists tell."""
    return len(sched.ms) - len(sched.idle_ms) - len(sched.apart_asleep)


def patience(sched: Any, m: Any) -> float:
    """How many seconds a machine that has gone idle may sleep before it ends; -1: for ever.

    As many as there are Ps stay.  An idle program with more wakes once for each of the others, and no more.
    """
    many = len(sched.idle_ms) - len(sched.allp)
    if m.thread is None and sched.closing and sched.patience_at_end is not None:
        return sched.patience_at_end.delay
    if many <= 0 or m.thread is None or m.live() or sched.closing:
        return -1
    return IDLE if many <= MANY else 0


def dismiss_one(sched: Any) -> bool:
    """End an idle machine without goroutines, because another thread is needed and the limit is reached.

    It counts no longer, and ends when it wakes.  It may be just about to see the fresh work on the GRQ, in its last look
    before it sleeps, and be the only one that does: then there must be another idle one, which gets it instead.
    """
    with sched.lock:
        fresh = bool(sched.grq)
        if sched.reports or (fresh and len(sched.idle_ms) < 2):
            return False
        for m in sched.idle_ms:
            if m.thread is None or m.live() or m.ready or m.mail or m.throws:
                continue
            if any(p.keeper is m and p.m is None and p.timers.next() != INFINITY for p in sched.allp):
                continue
            del sched.idle_ms[m]
            del sched.ms[m]
            m.dismissed = True
            m.wake()
            break
        else:
            return False
    if fresh:
        sched.wake_for_work()
    return True


def settling(sched: Any) -> bool:
    """Is some machine on its way to being idle, to its next goroutine or to its end?  It will be there in a moment."""
    return bool(sched.departures or sched.buried) or any(
        m.thread is not None and m.solo is None and _done(m) and (m.ready if m in sched.idle_ms else not m.asleep)
        for m in list(sched.ms)
    )


def _done(m: Any) -> bool:
    """Have all its goroutines ended?  The last one's carrier may not know it yet, though those who have joined it do."""
    live = m.live()
    return not live or (live == 1 and all(carrier.g is None or carrier.g.done() for carrier in list(m.carriers)))


def retire(sched: Any, m: Any) -> bool:
    """May m, which has been idle for long, end?  Then nobody can find it any more.  Else it goes on as woken."""
    if m.thread is None:  # the machine of a `run` that closes
        return sched.patience_at_end is not None and sched.patience_at_end.over()
    with sched.lock:
        if m not in sched.idle_ms or m.live() or m.ready or m.mail or m.throws or m.next is not None:
            return False
        if len(sched.idle_ms) <= len(sched.allp):
            return False
        if any(p.keeper is m and p.m is None and p.timers.next() != INFINITY for p in sched.allp):
            return False
        del sched.idle_ms[m]
        del sched.ms[m]
        return True
