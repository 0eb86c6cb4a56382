"""How long the end of a program waits for goroutines that do not end.

The idea.  When `run` is over, or the program, everybody is cancelled.  A goroutine meets that at its next blocking
operation, runs its ``finally`` blocks and ends, and we wait for it, however long its clean-up takes.  But one that
computes without end, or sits in a call that nothing can end (a `time.sleep` of an hour, a read from a dead disk), never
meets it.  Go does not wait for anybody when main returns; Python waits for its threads for ever.  gort waits for those
who *have noticed*, and gives the others a moment.

Who is left behind.  A machine, with its thread, none of whose goroutines has met its cancellation, and that has made no
step (started, parked, given way, ended, cancelled one) for that moment.  When all that are left are like that, they are named on stderr and
the end goes on without them.  Their threads are daemons, and stop with the process.  Should one of them come back
before, it meets its cancellation, runs its ``finally`` blocks and ends as usual.

Refused: to raise something in such a thread from outside (it may be about to go on, and then the exception would hit
the scheduler); to wait only for so long altogether (it would cut clean-ups off that are nearly done).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from .wait import glances

LOOKS = 20  # in the time of grace
MOST = 5  # goroutines named


class Patience:
    """The wait for one closing scheduler.

    In `run` two ask it: the hub of the thread's own machine, which must come back from its loop though one of its
    goroutines waits for a call on a spare thread (`surplus.retire`); and then the thread itself.
    """

    def __init__(self, sched: Any, grace: float, last_wave: Callable[[Any], bool]) -> None:
        self.sched = sched
        self.last_wave = last_wave  # closing.last_wave
        self.grace = grace
        self.delay = max(0.01, grace / LOOKS)  # seconds between two looks
        self.seen: dict[Any, list[Any]] = {}  # machine -> how far it has come, since when it has been there, looks since
        self.told = False

    def over(self) -> bool:
        """Is nobody left but machines that will not end, it seems?  Then says so, once."""
        now = monotonic()
        machines = list(self.sched.ms)
        for m in machines:
            step = m.started + m.parked + m.yielded, m.live(), len(m.mail), len(m.throws)
            if m not in self.seen or self.seen[m][0] != step:
                self.seen[m] = [step, now, 0]
            else:
                self.seen[m][2] += 1
        # Looks are counted, and not seconds alone: on a crowded computer a thread may get no CPU for long, and so may we.
        if not machines or not all(
            self.seen[m][2] >= LOOKS // 2 and now - self.seen[m][1] >= self.grace and _heedless(m) for m in machines
        ):
            return False
        if not self.told:
            if self.last_wave(self.sched):
                return False
            self.told = True
            _say(machines, self.grace)
        return True

    def wait(self) -> bool:
        """Wait until the machines have ended.  False: those that are left will not."""
        delay = min(0.02, self.delay)
        while not self.sched.ended.wait(delay):
            delay = min(delay * 1.5, self.delay)
            if self.over():
                return False
        return True


def _heedless(m: Any) -> bool:
    """Has none of this machine's goroutines met its cancellation?"""
    if m.ident == threading.get_ident():
        return True  # of a `run` that an exception has broken off: it stood on this very thread, and never goes on
    some = False
    for carrier in list(m.carriers):
        g = carrier.g
        if g is not None:
            some = True
            if hasattr(g, "_cancelled") and carrier.pending is None:  # raised, or held back by a shield
                return False
    return some


def _say(machines: list[Any], grace: float) -> None:
    lines = []
    for m in machines:
        for carrier in list(m.carriers):
            g = carrier.g
            if g is not None:
                reason = carrier.wait_reason()
                lines.append(f"  {g.describe()}{', ' + reason if reason else ''}\n")
    more = f"  and {len(lines) - MOST} more\n" if len(lines) > MOST else ""
    try:
        sys.stderr.write(
            f"gort: left behind at the end, for they took no notice of being cancelled for {grace:g} s:\n"
            + "".join(lines[:MOST])
            + more
        )
        sys.stderr.flush()
    except Exception:
        pass  # there is no stderr any more


def join_end(sched: Any) -> None:
    """Wait until every machine has ended."""
    for seconds in glances(None):
        if sched.ended.wait(seconds):
            return
