"""The scheduler: what the machines of one runtime share.

The idea.  Machines run on their own as long as they have work (carrier.py, machine.py).  They come here for what
needs more than one of them: Ps and who holds them, sleeping machines, the global run queue (here); timers (keeping.py),
threads (manning.py), stealing (stealing.py), machines too many (surplus.py) and the end (closing.py).  All of that is
under one lock, because all of it is rare.

Invariants (under `lock`).
- Every P of `allp` is held by one machine (p.m), or promised to one (m.next, p.m), or in `idle`.
- A machine in `idle_ms` has no P; it is asleep or on its way there.  One in `waiting_for_p` has started goroutines to
  run and no P.  `idle` and `waiting_for_p` are never both non-empty.
- An idle P has an empty LRQ.

The GRQ, and the wake-up that must not be lost: whoever puts a goroutine there does so *before* it takes the lock to
look for an idle machine; whoever goes to sleep becomes idle under the lock *before* it looks at the GRQ.

When is another machine woken for fresh work?  When nobody runs at all: at once.  Otherwise that is sysmon's
business, for it is the one that can see work waiting: waking at every `go` would put a second machine to work on
goroutines that their own machine starts within a microsecond, and where a goroutine first runs it stays.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Any

from greenlet import getcurrent

from ..errors import GortError, RuntimeClosed, ThreadLimit
from . import deadlock, ending, surplus
from .blocking import Spares
from .closing import drop_fresh, may_end
from .departure import Departures
from .goroutine import Goroutine
from .guard import enter, held
from .keeping import Keeping
from .machine import Machine
from .manning import Manning
from .processor import Processor
from .report import report
from .sysmon import Sysmon
from .timers import INFINITY
from .wait import carrier


class Scheduler(Manning, Keeping):
    """The shared state of one runtime."""

    def __init__(self, procs: int, max_threads: int) -> None:
        if procs > max_threads:
            raise ThreadLimit(
                f"procs={procs} needs up to {procs} threads, but the limit is {max_threads}: "
                "raise GORT_MAXTHREADS or lower procs"
            )
        self.lock = threading.RLock()
        self.max_threads = max_threads
        self.allp = [Processor(i) for i in range(procs)]
        self.idle: list[Processor] = self.allp[::-1]
        self.ms: dict[Machine, None] = {}  # not a list: ten thousand may end at once
        self.idle_ms: dict[Machine, None] = {}
        self.waiting_for_p: deque[Machine] = deque()
        self.away: dict[Machine, None] = {}  # machines that sysmon took the P from, and that have not come back
        self.apart_asleep: dict[Machine, None] = {}  # asleep, with goroutines that run apart
        self.grq: deque[Goroutine[Any]] = deque()
        self.reports: deque[tuple[BaseException, str]] = deque()
        self.spinning = 0
        self.main: Goroutine[Any] | None = None
        self.known: dict[Any, int] = {}  # functions that block -> how often in a row they ran apart without blocking
        self.backlog: deque[Goroutine[Any]] = deque()  # to be started apart, when a thread is free
        self.buried: deque[Any] = deque()  # threads that ran a goroutine apart, and have left the rest to sysmon
        self.crowded = False  # many machines (surplus.MANY): threads that end do so in turn.  (Kept by apart.py.)
        self.departures = Departures()
        self.leaving: list[Processor] = []  # taken out of use by gomaxprocs: until what is there has gone to the others
        self.in_hands = 0  # fresh goroutines that are, perhaps, in no queue at the moment; changed under the lock
        self.moves = 0  # stored before that falls: see stats.py
        self.started_apart = 0
        self.stuck = 0
        self.stranded = 0
        self.closing = False
        self.wave = 0  # closing: goroutines up to this number have been cancelled
        self.closed = False
        self.orphaned = False  # it stayed in the parent process: see fork.py
        self.joiners: list[int] = []  # the threads that wait for its end: they wake nobody (deadlock.py)
        self.ended = threading.Event()
        self.threads: set[Any] = set()
        self.many_threads = 16
        self.started_at = monotonic()
        self.next_m = 0
        self.sysmon = Sysmon(self)
        deadlock.register(self)
        self.spares = Spares(self)
        self.patience_at_end: ending.Patience | None = None  # how long `run` waits for those that take no notice of its end

    # -- fresh goroutines ---------------------------------------------------------------------------------------

    def all_ps(self) -> dict[Processor, None]:
        """Those in use, and those on their way out of it."""
        # `set_procs` stores `leaving` first, so we read it after `allp`: a P that it moves is seen in one of them.
        return dict.fromkeys([*self.allp, *self.leaving])

    def queues(self) -> list[deque[Goroutine[Any]]]:
        """Where goroutines stand that have not started."""
        # A machine that has lost its P may not know that yet, and put one there.
        lost = dict.fromkeys(m.last for m in list(self.away) if m.last is not None)
        return [self.grq, self.backlog, *(p.lrq for p in self.all_ps() | lost)]

    def inject(self, g: Goroutine[Any]) -> None:
        """Put a goroutine on the GRQ: from a thread that is no M, or from an M that has lost its P."""
        if self.closed or (self.closing and not self._is_mine()):
            # Its own goroutines may still start some, in their clean-up.
            where = "belongs to the parent process of a fork" if self.orphaned else "has been closed"
            raise RuntimeClosed(f"this Runtime {where}: create a new one")
        self.grq.append(g)
        try:
            self.wake_for_work()
        except ThreadLimit:
            try:
                self.grq.remove(g)
            except ValueError:
                return  # somebody has taken it meanwhile
            raise
        if self.closed and not self.ms:
            drop_fresh(self)  # it closed while we were at it, and nobody is left to run it

    def _is_mine(self) -> bool:
        """Is who calls one of its goroutines, or a callback of its own?"""
        m = getattr(getcurrent(), "m", None)
        if m is None:
            owner = carrier()
            m = owner.m if owner is not None else None
        return m is not None and m.sched is self

    def rescue(self, p: Processor) -> None:
        """`go` put a goroutine on a P that another machine has taken meanwhile, and that may be idle by now."""
        m: Any = getcurrent().m  # type: ignore[attr-defined]  # the machine that has lost it
        while True:
            m.moves += 1  # odd: it may have one in its hands (stats.py)
            try:
                g = p.lrq.pop()
            except IndexError:
                m.moves += 1
                return  # somebody runs it
            self.grq.append(g)
            m.moves += 1
            self.wake_for_work()
            if self.closed and not self.ms:
                drop_fresh(self)

    def wake_for_work(self, force: bool = False) -> bool:
        """Wake a machine for fresh work if nobody runs (force: also if somebody does)."""
        if not enter(self.lock):
            self.sysmon.poke()
            return False
        try:
            if not self.idle or (not force and len(self.idle) < len(self.allp)):
                return False
            p = self.idle[-1]
            for other in self.idle:
                if other.keeper in self.idle_ms:
                    p = other
            return self._assign(p)
        finally:
            self.lock.release()

    def catch_up(self) -> None:
        """By sysmon: do what somebody could not who had interrupted the holder of the lock (guard.py)."""
        with self.lock:
            for p in list(self.idle):
                if p.timers.heap and p in self.idle:
                    self._wake_keeper(p)
        if self.grq:
            self.wake_for_work()

    def _assign(self, p: Processor) -> bool:
        """Give an idle P to a sleeping machine, or to a new one.  Under the lock."""
        m = p.keeper
        if m is None or m not in self.idle_ms:
            m = next(reversed(self.idle_ms), None)
        fresh = m is None
        if fresh:
            if not self.room_for_thread() or self.closed:
                return False
            m = self.new_machine()
        self.idle.remove(p)
        self.idle_ms.pop(m, None)
        p.m = m
        m.next = p
        self.sysmon.busy()
        if not fresh:
            m.wake()
        elif not self.start_thread(m):
            p.m = None
            self.idle.append(p)
            if not self.ms:
                raise ThreadLimit("the system does not allow another thread")
            return False
        return True

    # -- Ps -----------------------------------------------------------------------------------------------------

    def release_p(self, m: Machine, p: Processor) -> None:
        """m goes to sleep: it gives its P to a machine that waits for one, or leaves it idle."""
        with self.lock:
            m.asleep = True
            self.idle_ms[m] = None
            if p.m is m:  # else sysmon has just taken it
                m.last = p
                p.keeper = m
                self.leave(m, p)
            self._serve_forsaken()

    def leave(self, m: Machine, p: Processor) -> None:
        """m has no P from now on: p goes to another machine, or is idle.  Under the lock."""
        m.p = None
        p.m = None
        if p.dead:
            self._retire(p)
        elif self.waiting_for_p:
            other = self.waiting_for_p.popleft()
            p.m = other
            other.next = p
            other.wake()
        else:
            self.idle.append(p)
            # Something in the LRQ: the P was taken from a machine that is stuck, or somebody put it there who had lost
            # the P (`rescue`).  Nobody to keep its timers: likewise, or the keeper ends.  Both are asked by operations
            # that exclude those of a machine that does not know yet (handoff.py); to look at an item is one, len is not.
            try:
                p.lrq[0]
                needed = True
            except IndexError:
                needed = p.keeper is None and (p.timers.next() != INFINITY or bool(self.grq))
            if needed and self.ms and not self._assign(p):
                # No thread to be had: what it has goes to the others, if there are any.
                heir = next((q for q in self.allp if q.m is not None and q.m.p is q), None)
                if heir is not None:
                    heir.timers.take_all(p.timers)
                    self._to_grq(p)
                    heir.m.nudge()

    def _to_grq(self, p: Processor) -> None:
        """What waits in this LRQ goes to the GRQ.  Under the lock."""
        self.in_hands += 1
        while True:
            try:
                self.grq.append(p.lrq.popleft())
            except IndexError:
                break
        self.moves += 1
        self.in_hands -= 1

    def _serve_forsaken(self) -> None:
        """A machine goes idle: is there an idle P with work that found no thread when it was let go?  Under the lock."""
        p = self._forsaken()
        if p is not None:
            self._assign(p)

    def _forsaken(self) -> Processor | None:
        for p in self.idle:
            if p.lrq or (p.keeper is None and p.timers.heap and p.timers.next() != INFINITY):
                return p
        return None

    def serve(self) -> None:
        """By sysmon, when every P is idle: give what found no thread to one, if there is one by now.

        Mostly a machine that becomes idle sees to it.  But the thread of one that ran a goroutine apart may just end.
        """
        with self.lock:
            self._serve_forsaken()
        if self.grq:
            self.wake_for_work()

    def _retire(self, p: Processor) -> None:
        """A P that gomaxprocs took out of use has been let go: what it has goes to the others."""
        self.allp[0].timers.take_all(p.timers)
        self._to_grq(p)
        if p in self.leaving:
            self.leaving.remove(p)
        heir = self.allp[0]
        if heir.m is None:
            if heir in self.idle:
                self._assign(heir)
        else:
            heir.m.nudge()

    def acquire_p(self, m: Machine) -> bool:
        """m is awake and needs a P: the one promised, its last one, any idle one, or it queues.

        False if the machine may end instead.  Returns once it has a P, so this may sleep again.
        """
        while True:
            with self.lock:
                self.idle_ms.pop(m, None)
                m.asleep = False
                if m.dismissed:
                    return False
                if m.apart is not None:
                    return True
                self.away.pop(m, None)
                p = m.next
                if p is None:
                    p = m.last
                    if p is None or p.m is not None or p.dead or p not in self.idle:
                        p = self.idle[-1] if self.idle else None
                    if p is not None:
                        self.idle.remove(p)
                        self.sysmon.busy()
                if p is not None:
                    if p is not m.last:
                        self.stop_keeping(m, p)
                    m.next = None
                    p.m = m
                    m.p = p
                    m.since = monotonic()
                    return True
                if m.ready or m.throws or m.mail:
                    if m not in self.waiting_for_p:
                        self.waiting_for_p.append(m)
                    self.sysmon.busy()
                else:
                    # Woken for nothing (an old deadline of a P that somebody else has by now).
                    if self.closing and may_end(self, m):
                        return False
                    self.idle_ms[m] = None
                    m.asleep = True
                    self._serve_forsaken()
            if m.asleep and (m.ready or m.throws or m.mail):
                continue  # the last look before sleep: see machine.py
            patience = surplus.patience(self, m) if m.asleep else -1
            if patience:
                m.doze(patience)
            if patience >= 0 and surplus.retire(self, m):
                return False

    def settle_p(self, m: Machine) -> bool:
        """m's hub found that it has no P, or one out of use, or that others wait for one."""
        p = m.p
        if p is not None:
            with self.lock:
                if not p.dead and not self.waiting_for_p:
                    return True
                if p.m is m:
                    m.last = p
                    p.keeper = m
                    self.leave(m, p)
        return self.acquire_p(m)

    def set_procs(self, n: int) -> int:
        """gomaxprocs: change the number of Ps.  A P too many goes when its machine next comes to its hub."""
        if self.closed:
            raise RuntimeClosed("this Runtime has been closed: create a new one")
        if n > self.max_threads:
            raise ThreadLimit(f"gomaxprocs({n}) is over the limit of {self.max_threads} threads: raise GORT_MAXTHREADS")
        if held(self.lock):
            raise GortError(
                "gomaxprocs cannot be changed by a finalizer or signal handler that interrupts the scheduler: "
                "start a goroutine from there with gort.go(), and change it there"
            )
        with self.lock:
            before = len(self.allp)
            dropped = self.allp[n:]
            self.leaving += dropped
            allp = self.allp[:n] + [Processor(i) for i in range(before, n)]
            self.allp = allp
            for p in dropped:
                p.dead = True
                if p.m is None:
                    self.idle.remove(p)
                    self._retire(p)
                else:
                    p.m.nudge()
            for p in allp[before:]:
                if self.waiting_for_p:
                    m = self.waiting_for_p.popleft()
                    p.m = m
                    m.next = p
                    m.wake()
                else:
                    self.idle.insert(0, p)
            return before

    # -- reports ------------------------------------------------------------------------------------------------

    def add_report(self, exc: BaseException, label: str) -> bool:
        """From a finalizer: have an exception that nobody asked for reported by a goroutine.  Takes no lock."""
        machines = list(self.ms)
        if self.closed or not machines:
            return False
        self.reports.append((exc, label))
        # Should it be the last, and end just now: `all_ended` reports.
        next((m for m in machines if m.hub is not None), machines[0]).nudge()
        return True

    def start_reports(self) -> None:
        while True:
            try:
                exc, label = self.reports.popleft()
            except IndexError:
                return
            self.grq.append(Goroutine(report, (exc, label), {}, None, None, 0))
