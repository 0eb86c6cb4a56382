"""What the scheduler counts, for people and for tests.

The counters are plain integers, each changed by one thread only, so that keeping them is cheap enough to be always
on; reading them all is not one moment's picture, but each is exact.
"""

from __future__ import annotations

from time import monotonic, sleep
from typing import Any

from .goroutine import FREE_THREADED


def collect(sched: Any) -> dict[str, Any]:
    """The counters of a runtime, in total, for each P and for each M."""
    ps = [
        {
            "id": p.id,
            "m": m.id if (m := p.m) is not None else None,
            "lrq": len(p.lrq),
            "timers": len(p.timers),
            "stolen": p.stolen,
            "taken": p.taken,
            "handed_off": p.handed_off,
        }
        for p in sched.allp
    ]
    ms = [
        {
            "id": m.id,
            "ident": m.ident,
            "p": p.id if (p := m.p) is not None else None,
            "asleep": m.asleep,
            "started": m.started,
            "parked": m.parked,
            "yielded": m.yielded,
            "scheduled": m.started + m.parked + m.yielded,
            "apart": m.apart is not None,
            "goroutines": m.goroutines(),
            "ready": len(m.ready),
            "idle_carriers": len(m.free),
            "spins": m.spins,
            "wakes": m.wakes,
        }
        for m in list(sched.ms)
    ]
    return {
        "procs": len(sched.allp),
        "idle_procs": len(sched.idle),
        "goroutines": count(sched),
        "threads": len(ms) + len(sched.departures),
        "idle_threads": len(sched.idle_ms) + len(sched.apart_asleep),
        "spare_threads": len(sched.spares.all),
        "blocking_calls": sched.spares.busy(),
        "spinning": sched.spinning,
        "grq": len(sched.grq),
        "scheduled": sum(m["scheduled"] for m in ms),
        "started": sum(m["started"] for m in ms),
        "parked": sum(m["parked"] for m in ms),
        "stolen": sum(p["stolen"] for p in ps),
        "handed_off": sum(p["handed_off"] for p in ps),
        "started_apart": sched.started_apart,
        "stuck": sched.stuck,
        "stranded": sched.stranded,
        "sysmon_looks": sched.sysmon.looks,
        "ps": ps,
        "ms": ms,
    }


def count(sched: Any) -> int:
    """How many goroutines exist.

    Exact when nothing moves.  One that has ended for those who wait for it, a joiner, a Group or WaitGroup.go, is not
    counted any more.  One that is just being started or moved to another queue may be counted twice, but not left out, for
    a program may wait in this way until nobody is left (or few): a machine stores `started` before it takes one, and tells by
    `moves` when it moves some.  If anything has happened meanwhile we look again, a few times; but there may always be
    something, if each goroutine starts the next one, say, and ends.  So one look must do as well.  Without a GIL: it reads
    who has ended, then the queues, then who has started.  A goroutine that is alive all the time has either started by the
    first of these, or stands in its queue at the second, or has started by the third.  And if it ends meanwhile, it has put
    the one that it started into a queue before: the same holds for that.  (With a GIL nothing happens during most looks.)
    """
    counts: list[int] = []
    moved: list[int] = []  # likewise, but something was moved meanwhile
    before = _happened(sched)
    for look in range(10):
        ms = list(sched.ms)
        n = -sum(m.ended for m in ms) if FREE_THREADED else sum(m.live() for m in ms)
        hands = sched.in_hands + sum(m.moves & 1 for m in ms)
        n += sum(map(len, sched.queues())) + hands + sum(m.solo is not None for m in ms)
        if FREE_THREADED:
            n += sum(m.started for m in {*ms, *list(sched.ms)})
        after = _happened(sched)
        if after == before:
            if not hands or look == 9:
                return n
            sleep(1e-5 * 2**look)  # they may be empty: the system has stopped that thread at a bad moment
        (counts if after[0] == before[0] else moved).append(n)
        before = after
    return min(counts) if counts and FREE_THREADED else max(counts + moved)


def _happened(sched: Any) -> tuple[tuple[int, ...], int]:
    """What is not the same after a goroutine has been moved (or a machine has come or gone), or has begun or ended.

    Who takes one out of a queue says so before (`in_hands`; odd `moves`; `started`); and who has put it into another one
    first changes `moves`, and then takes that back.  So one of the two is seen.
    """
    ms = list(sched.ms)
    return (sched.next_m, len(ms), sched.moves + sum(m.moves for m in ms)), sum(m.started + m.ended for m in ms)


def trace_line(sched: Any) -> str:
    """A line like those of Go's GODEBUG=schedtrace."""
    queues = " ".join(str(len(p.lrq)) for p in sched.allp)
    return (
        f"SCHED {(monotonic() - sched.started_at) * 1000:.0f}ms: gomaxprocs={len(sched.allp)} "
        f"idleprocs={len(sched.idle)} threads={len(sched.ms)} spinningthreads={sched.spinning} "
        f"idlethreads={len(sched.idle_ms) + len(sched.apart_asleep)} goroutines={count(sched)} runqueue={len(sched.grq)} [{queues}]"
    )
