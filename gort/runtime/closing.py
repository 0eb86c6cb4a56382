"""The end of a runtime: everybody is cancelled, and the machines end when their last goroutine has.

The idea.  To close is to drop what has not started and to cancel what has.  Nothing is broken off: goroutines run their
``finally`` blocks, which may wait, and may start goroutines.  Those are of the next *wave*: they are cancelled when all
of the wave before have ended (one in a call counts, though it will be told only then), and so on, until nobody is left.  A
machine ends when it has nothing to run and nothing is left for it (`may_end`); the last one to end closes the runtime
(`all_ended`).

Ordering.  `closing` is set under the lock before anything is dropped, and who puts a goroutine on the GRQ looks at
`closed` after that (Scheduler.inject, rescue): so a goroutine that comes late is found by a machine, or dropped by
whoever brought it.  The first wave's number is drawn at the same moment: a machine may see `closing`, cancel its goroutines
and run their ``finally`` blocks while others are still being dropped, and what those blocks start must not be.

Runtimes that close each other.  A goroutine that closes another runtime waits for its end, and its own runtime does not
end before that.  So two goroutines can each wait for the other's runtime.  A cancellation ends such a wait (the other
runtime goes on ending by itself), but one that was met earlier, or that a shield holds back, does not: whoever would
complete such a circle is told so instead of waiting (`waiting_for`).

For how long the end waits for those that do not notice it is ending.py's matter.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import Cancelled, GortError
from . import ending
from .goroutine import FAILED, next_id
from .report import report

LAST = sys.maxsize
_waits: list[tuple[Any, Any]] = []  # (a scheduler, another one whose end one of its goroutines waits for)
_waits_lock = threading.RLock()  # a finalizer may come while it is held


def begin_close(sched: Any) -> None:
    """Cancel everything; the machines end when their last goroutine has."""
    with sched.lock:
        if sched.closing:
            return
        sched.closing = True
        sched.wave = wave = next_id()
    _drop(sched, wave)
    if not _request(sched):
        all_ended(sched)


def _cancel_all(sched: Any) -> None:
    with sched.lock:
        sched.wave = next_id()
    _request(sched)


def _request(sched: Any) -> bool:
    with sched.lock:
        machines = list(sched.ms)
        for m in machines:  # first of all, and under the lock: see next_wave
            m.mail.append((None, Cancelled()))
    for m in machines:
        m.nudge()
    return bool(machines)


def next_wave(sched: Any) -> None:
    """The runtime closes, but some machine still has goroutines.

    Those that a ``finally`` block started after the last wave was cancelled are left to do their work until all
    of that wave have ended; then it is their turn.
    """
    wave = sched.wave
    late = False
    with sched.lock:  # so that the last wave's mail is there for all of it
        machines = list(sched.ms)
    for m in machines:
        for carrier in list(m.carriers):
            g = carrier.g
            if g is not None:
                if hasattr(g, "_cancelled") or (g.id <= wave and any(to is None for to, _ in m.mail.copy())):
                    return  # (the latter: it is in a call, and its machine will tell it afterwards)
                late = True
    with sched.lock:
        late = late and wave == sched.wave
    if late:
        _cancel_all(sched)


def last_wave(sched: Any) -> bool:
    """Nobody waits any longer for those of the last wave: cancel what is left.  False: all have been."""
    late = any(c.g is not None and c.g.id > sched.wave for m in list(sched.ms) for c in list(m.carriers))
    if late:
        _cancel_all(sched)
    return late


def drop_fresh(sched: Any) -> None:
    """End all goroutines that have not started, as cancelled."""
    _drop(sched, LAST)


def _drop(sched: Any, last: int) -> None:
    """Those up to this number."""
    for queue in sched.queues():
        for g in queue.copy():
            if g.id > last:
                continue
            try:
                queue.remove(g)
            except (ValueError, IndexError):
                continue  # a machine has taken it
            drop(sched, g)


def drop(sched: Any, g: Any) -> None:
    """End a goroutine that has not started, and that nobody else has, as cancelled."""
    g.fail(Cancelled("cancelled before it started: the main goroutine has ended"), sched)
    g.finish_locked(FAILED)


def may_end(sched: Any, m: Any) -> bool:
    """May this machine end, now that the runtime closes?"""
    p = m.p
    return not (m.live() or m.ready or m.throws or m.mail or m.solo or sched.grq or sched.backlog or sched.reports or (p and p.lrq))


def all_ended(sched: Any) -> None:
    """The last machine has ended, or nobody waits for it any more: close what is left, and let those go on who wait."""
    sched.closed = True
    sched.sysmon.stop()
    sched.spares.close()
    drop_fresh(sched)
    sched.ended.set()
    while sched.reports:
        try:
            reported = sched.reports.popleft()
        except IndexError:
            return
        report(*reported)


def join_threads(sched: Any, patience: ending.Patience | None = None) -> None:
    """Wait until every machine has ended and its thread is gone; but not for those that the patience ends for."""
    if not sched.ended.is_set():
        with sched.lock:
            sched.joiners.append(threading.get_ident())
            sched.sysmon.busy()  # somebody must look whether those that are left can end
        try:
            if patience is None:
                ending.join_end(sched)
            else:
                patience.wait()
        finally:
            sched.joiners.remove(threading.get_ident())
    if patience is not None and patience.told:
        if not sched.closed:
            all_ended(sched)
        return
    for thread in [*sched.threads, *sched.spares.threads(), sched.sysmon.thread]:
        if thread is not None and thread is not threading.current_thread() and thread.ident is not None:
            thread.join()
    sched.threads.clear()


def waits(sched: Any) -> bool:
    """Does one of its goroutines wait for the end of another scheduler?"""
    return any(source is sched for source, _target in list(_waits))


@contextmanager
def waiting_for(other: Any, mine: Any) -> Iterator[None]:
    """While a goroutine of the scheduler `mine` waits for the end of `other`.  Raises GortError in a circle."""
    edge = (mine, other)
    with _waits_lock:
        reached = [other]
        for sched in reached:
            reached += [target for source, target in _waits if source is sched and target not in reached]
        if mine in reached:
            raise GortError(
                "the Runtime is closing, but this goroutine cannot wait for that: one of that Runtime's goroutines waits "
                "for the end of this one's; close one of the two from a plain thread"
            )
        _waits.append(edge)
    try:
        yield
    finally:
        with _waits_lock:
            _waits.remove(edge)
