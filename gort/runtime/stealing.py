"""Work stealing: fresh goroutines that wait too long move to a P that has nothing to do.

The idea.  A machine out of work takes half of what stands in another P's LRQ, the oldest first, beginning at a random P;
and before that its P's share of the GRQ.  Only fresh goroutines can be taken: a started one is a greenlet, and stays on
its thread.

What may be stolen is what is *ripe*: what has waited for RIPE.  Goroutines need no time stamp for that.  A look at a P
notes how long its LRQ is and how many its machine has started (`look_at`); at a later look those that it has started
since are gone, and the rest of what stood there then stands there still (`overripe`).  A P keeps two such marks, so that
one of them is always old enough.

Patience.  A server's handlers begin in bursts, take little time each until they wait, and where they begin they stay.  Such
a goroutine (PATIENT) is left to its own machine while that has been awake for no longer than PATIENCE; a machine that
sleeps now and then is one that can cope.

Spinning.  Without a GIL a machine that finds nothing, though other LRQs are not empty, waits once for RIPE and looks
again, and no more machines than half of the busy ones do so at a time.  With a GIL it would only be in the way.

Refused: to steal at once (a second machine would take goroutines that their own machine starts within a microsecond,
and where a goroutine first runs it stays); to steal from the young end (those are what the machine starts next).
"""

from __future__ import annotations

from time import monotonic, sleep
from types import CodeType, FunctionType
from typing import Any

from . import chance
from .goroutine import FREE_THREADED
from .processor import Processor

# Fresh work is stolen only when it has waited so long (seconds).  A machine starts a goroutine within a few
# microseconds if it is free to; 50 us says it is not.  With a GIL a second machine hardly helps, so be slower.
RIPE = 50e-6 if FREE_THREADED else 1e-3
PATIENCE = 20e-3  # seconds
PATIENT: dict[int, CodeType] = {}  # by its id(), the code of functions whose goroutines are patient


def take_batch(sched: Any, m: Any, p: Processor) -> bool:
    """Move this P's share of the GRQ to its LRQ."""
    n = len(sched.grq)
    if not n:
        return False
    moved = 0
    m.moves += 1  # odd: it may have one in its hands (stats.py)
    for _ in range(min(n // len(sched.allp) + 1, 1024)):
        try:
            p.lrq.append(sched.grq.popleft())
        except IndexError:
            break
        moved += 1
    m.moves += 1
    if len(sched.grq) and sched.idle and FREE_THREADED:
        sched.wake_for_work(force=True)
    return moved > 0


def overripe(p: Processor, mark: tuple[Any, int, int, float], now: float) -> int:
    """How many goroutines of this LRQ have waited since the mark was made."""
    m, n, base, when = mark
    if m is None or m is not p.m or now - when < RIPE:
        return 0
    return n - (m.started + p.taken - base)


def look_at(p: Processor, now: float) -> None:
    """Note what stands in a P's LRQ now, so that one can tell later what still does."""
    m = p.m
    if m is not None:
        if now - p.mark[3] >= RIPE:
            p.older = p.mark
        p.mark = (m, len(p.lrq), m.started + p.taken, now)


def ripe(p: Processor, now: float) -> int:
    """How many goroutines may be stolen from this P."""
    if not p.lrq or is_patient(p, now):
        return 0
    return max(overripe(p, p.mark, now), overripe(p, p.older, now))


def is_patient(p: Processor, now: float) -> bool:
    """Is what stands in this LRQ to be left to its own machine for now?"""
    m = p.m
    if m is None or now - m.since >= PATIENCE:
        return False
    try:
        fn = p.lrq[0].fn
    except IndexError:
        return False
    # Nothing here may call the program's code (an attribute of some callable, say): we may be sysmon, or a hub.
    return type(fn) is FunctionType and id(fn.__code__) in PATIENT


def steal(sched: Any, m: Any, p: Processor) -> bool:
    """Steal half of what waits too long at another P, beginning at a random one."""
    allp = sched.allp
    if len(allp) == 1:
        return False
    if _round(sched, m, p, allp):
        return True
    m.spins += 1
    if not FREE_THREADED or m.spun or not any(other.lrq for other in allp):
        return False
    # Spin, boundedly: work that appeared just now may be ripe in a moment.  At most half as many as are busy.  Not if
    # there is none, for while we spin our own goroutines that become ready wait.
    with sched.lock:
        busy = len(allp) - len(sched.idle) - sched.spinning
        if sched.spinning * 2 >= busy:
            return False
        sched.spinning += 1
    try:
        m.spun = True  # once, until there has been work again
        now = monotonic()
        for other in allp:
            if other is not p and other.lrq:
                look_at(other, now)
        sleep(RIPE)
        return not m.ready and _round(sched, m, p, allp)
    finally:
        with sched.lock:
            sched.spinning -= 1


def _round(sched: Any, m: Any, p: Processor, allp: list[Processor]) -> bool:
    for victim in allp:
        if victim.lrq and victim is not p:
            break
    else:
        return False  # as usual: in 0.1 us, where the rest takes 2
    now = monotonic()
    start = chance.pick(len(allp))
    for victim in allp[start:] + allp[:start]:
        if victim is p:
            continue
        n = min(len(victim.lrq) // 2 or 1, ripe(victim, now))  # of three one: the other two are a pair, perhaps
        if n <= 0:
            continue
        got = 0
        m.moves += 1  # as above
        while got < n:
            try:
                p.lrq.append(victim.lrq.popleft())
            except IndexError:
                break
            got += 1
        m.moves += 1
        if got:
            with sched.lock:
                victim.taken += got
                p.stolen += got
            return True
    return False
