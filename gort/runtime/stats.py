"""What the scheduler counts, for people and for tests.

The counters are plain integers, each changed by one thread only, so that keeping them is cheap enough to be always
on; reading them all is not one moment's picture, but each is exact.
"""

from __future__ import annotations

from time import monotonic
from typing import Any


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
    a program may wait in this way until nobody is left: a machine stores `started` before it takes one, tells by `moves`
    when it moves some, and if anything has happened meanwhile we look again.
    """
    most = 0
    before = _happened(sched)
    for _ in range(10):
        n = len(sched.grq) + len(sched.backlog) + sum(len(p.lrq) for p in sched.allp)
        n += sum(m.goroutines() + (m.solo is not None) + (m.moves & 1) for m in list(sched.ms))
        after = _happened(sched)
        if after == before:
            return n
        most = max(most, n)
        before = after
    return most


def _happened(sched: Any) -> tuple[int, int]:
    """What is not the same after a goroutine has begun, ended or been moved."""
    return sched.next_m, sum(m.started + m.ended + m.moves for m in list(sched.ms))


def trace_line(sched: Any) -> str:
    """A line like those of Go's GODEBUG=schedtrace."""
    queues = " ".join(str(len(p.lrq)) for p in sched.allp)
    return (
        f"SCHED {(monotonic() - sched.started_at) * 1000:.0f}ms: gomaxprocs={len(sched.allp)} "
        f"idleprocs={len(sched.idle)} threads={len(sched.ms)} spinningthreads={sched.spinning} "
        f"idlethreads={len(sched.idle_ms) + len(sched.apart_asleep)} goroutines={count(sched)} runqueue={len(sched.grq)} [{queues}]"
    )
