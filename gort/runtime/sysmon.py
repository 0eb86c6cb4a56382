"""Sysmon: the thread that watches the machines.  It has no P and runs no goroutine.

The idea.  Nothing in a hot path counts, reads a clock or asks whether a slice is over; sysmon does it from outside.
At each look it *probes* every machine that runs: it puts the machine's hub at the head of the ready queue.  A machine
that still gives way runs its hub next, which clears `probed` (and looks at timers and the global queue on the way:
that is what bounds how long a busy machine ignores them).  A machine whose probe is still there after a slice has
run one goroutine all that time: it is marked late (overdue.py), and gives way in its next runtime call.

Waking idle Ps.  Fresh work that has waited a little at a busy P (`Scheduler.ripe`) is a reason to wake another
machine.  Without a GIL, always.  With one, a second machine that runs Python only gets in the way of the first, so
then only if the work's machine does not get on: either the GIL was free when sysmon woke (then that machine sits in C
code that has dropped it, and a second one costs nothing), or nothing has moved there for two slices.

A machine whose tick stands still is stuck: blocked in a call, or computing.  What then happens to its P, and how the
two are told apart, is in handoff.py.

The clock.  It sleeps 20 us, doubling to 10 ms while nothing happens, shorter if a busy P's timer is due before.
With a GIL each wake-up makes the running thread drop it (5 ms, sys.setswitchinterval), so there it begins at 1 ms.
When every P is idle for a few looks it sleeps for good; the first machine that takes a P wakes it (`busy`).  Only if it
is asked to look for a deadlock again (deadlock.py), because nothing but threads of the program's own can wake anybody,
does it do so in between, ever more rarely.
"""

from __future__ import annotations

import sys
import threading
from time import monotonic
from typing import Any

from . import apart, deadlock, gilshare, handoff, overdue, stealing
from .carrier import carry
from .goroutine import FREE_THREADED
from .processor import SLICE
from .stats import trace_line
from .timers import INFINITY

SHORTEST = 20e-6 if FREE_THREADED else 1e-3
LONGEST = 10e-3
AWAY = 40e-3  # while every P is idle, and some machines are in calls
IDLE_LOOKS = 4
RAREST = 10.0
KICKABLE = 200e-6  # without a GIL, `go` cuts a sleep longer than this short while there are idle Ps


class Sysmon:
    """The watcher of one scheduler."""

    def __init__(self, sched: Any) -> None:
        self.sched = sched
        self.thread: threading.Thread | None = None
        self.note = threading.Lock()
        self.note.acquire()
        self.deep = False  # it sleeps for good
        self.over = False
        self.poked = False  # the scheduler has something to catch up with
        self.looks = 0
        self.apart_seen = 0
        self.soon = False  # it had to wait for nobody's GIL, or there is none
        self.computing = False  # some machine computes without runtime calls
        self.outside_next = 0.0
        self.outside_last = False
        self.apart_now = False  # at the last look a goroutine was running apart
        self.grq_seen = 0  # at how many looks in a row there was work on the GRQ
        self.stuck_places: set[Any] | None = None  # where calls were stuck, if they are to be reported
        self.trace = 0.0  # seconds between two lines of schedtrace (0: none)
        self.next_trace = 0.0

    @property
    def ident(self) -> int | None:
        """Its thread's number."""
        thread = self.thread
        return thread.ident if thread is not None else None

    def busy(self) -> None:
        """A P is no longer idle.  Under the scheduler's lock."""
        if self.deep:
            self.deep = False
            self.wake()
        elif self.thread is None and not self.over:
            self.thread = threading.Thread(target=self.loop, name="gort-sysmon", daemon=True)
            try:
                self.thread.start()
            except RuntimeError:
                self.thread = None  # no thread to be had: the machines run without slices, the next `busy` tries again

    def wake(self) -> None:
        try:
            self.note.release()
        except RuntimeError:
            pass

    def poke(self) -> None:
        """From a finalizer or signal handler that must not take the scheduler's lock: look after what it has left."""
        self.poked = True
        self.wake()

    def kick(self) -> None:
        """`go`, while sysmon sleeps long and Ps are idle: there is fresh work, look soon."""
        self._set_kick(False)
        self.wake()

    def _set_kick(self, value: bool) -> None:
        for p in self.sched.allp:
            m = p.m
            if m is not None:
                m.kick = value

    def stop(self) -> None:
        self.over = True
        self.wake()

    def loop(self) -> None:
        """The body of its thread."""
        try:
            self._loop()
        finally:
            gilshare.want(id(self), False)
            self.over = True
            apart.bury(self.sched)  # `over` is stored before: who comes too late for this look sees that (apart.begin)
            self.sched.departures.let_all_go()

    def _loop(self) -> None:
        sched = self.sched
        delay = SHORTEST
        idle = 0
        while not self.over:
            before = monotonic()
            if FREE_THREADED and delay > KICKABLE and sched.idle:
                self._set_kick(True)
            woken = self.note.acquire(timeout=delay)
            now = monotonic()
            if self.over:
                return
            waited = now - before - delay  # with a GIL mostly for that
            limit = min(1e-3, sys.getswitchinterval() / 2)
            gil_free = not FREE_THREADED and waited < limit
            self.soon = FREE_THREADED or waited < max(limit, 2e-4)
            if woken:
                delay = SHORTEST
            self.looks += 1
            if self.trace and now >= self.next_trace:
                self.next_trace = now + self.trace
                try:
                    sys.stderr.write(trace_line(sched) + "\n")
                except Exception:
                    self.trace = 0.0  # nobody reads it any more; the rest of our work goes on
            if self.poked:
                self.poked = False
                sched.catch_up()
            if sched.buried:
                apart.bury(sched)
            if sched.backlog:
                apart.start_backlog(sched)
            going = bool(sched.departures) and sched.departures.look()
            self.computing = False
            outside = self.look_outside(now)
            quiet = len(sched.idle) == len(sched.allp)
            if quiet:
                sched.serve()
            if quiet and not sched.leaving:
                gilshare.want(id(self), False)
                if sched.departures:
                    idle = 0
                    delay = SHORTEST if going else min(delay * 2, LONGEST)
                    continue
                if outside:
                    # Nobody waits for us, but these calls want to be counted, and what comes back from them to be seen.
                    idle = 0
                    delay = min(max(delay * 2, LONGEST), AWAY)
                    continue
                idle += 1
                delay = LONGEST
                if idle == 2 or (self.trace and not idle % 100):
                    # Not at the moment when the last machine falls asleep: a thread that was started just before may
                    # not have run a line yet, and so be unknown to the interpreter.
                    deadlock.check(sched)
                if idle > IDLE_LOOKS and not self.trace:
                    with sched.lock:
                        self.deep = len(sched.idle) == len(sched.allp) and not sched.leaving
                    if self.deep:
                        self.rest()
                    self.deep = False
                    idle = 0
                    delay = SHORTEST
                continue
            idle = 0
            happened = self.look(now, gil_free) or going
            gilshare.want(id(self), self.computing)
            if happened:
                delay = SHORTEST
            else:
                delay = min(delay * 2, LONGEST)
                first = min((p.timers.peek() for p in sched.all_ps() if p.m is not None), default=INFINITY)
                if first - now < delay:
                    delay = max(first - now, SHORTEST)

    def rest(self) -> None:
        """Sleep until a machine takes a P; but look for a deadlock now and then, if that may help."""
        patience = LONGEST
        while deadlock.check(self.sched):
            patience = min(patience * 2, RAREST)
            if self.note.acquire(timeout=patience):
                return
        self.note.acquire()

    def look(self, now: float, gil_free: bool) -> bool:
        """One look at every busy P; did anything happen?"""
        sched = self.sched
        happened = False
        for p in sched.all_ps():
            m = p.m
            if m is None or m.p is not p:
                continue
            m.watch.look(m, now)
            tick = m.started + m.parked
            if not m.probed:
                m.seen = (now, tick)
                m.probed = True
                m.nudge()
                still = 0.0
            else:
                since, old = m.seen
                still = now - since
                if still >= SLICE and not m.late:
                    overdue.mark(m)
                elif still >= 3 * SLICE and m.late:
                    # It makes no runtime calls either: do not send everybody else through the slow path for it.
                    overdue.clear(m)
                    m.seen = (now, tick)
                    m.stuck = True
                if tick != old:
                    still = 0.0
            prompt = FREE_THREADED or gil_free
            blocked = m.watch.blocked(now, prompt, self.soon)
            if blocked or still >= handoff.OCCUPIED:
                happened |= self.look_at_stuck(m, p, now, blocked)
                if m.p is not p:
                    continue
            elif still and prompt and m.watch.lazy:
                happened = True  # it seems to have begun to block: look again soon
            if p.lrq and sched.idle and not p.dead:
                if stealing.ripe(p, now) and (FREE_THREADED or (gil_free and m.probed) or m.stuck or still >= 2 * SLICE):
                    happened |= sched.wake_for_work(force=True)
            stealing.look_at(p, now)
        if sched.grq and sched.idle:
            # It has been there since the last look, and every machine that runs has been probed since then.
            if self.grq_seen and (FREE_THREADED or gil_free or self.grq_seen >= 2):
                happened |= sched.wake_for_work(force=True)
            self.grq_seen += 1
        else:
            self.grq_seen = 0
        return happened

    def look_at_stuck(self, m: Any, p: Any, now: float, blocked: float) -> bool:
        """This machine does not get on: take its P if that helps; True if so (or if it may help at the next look)."""
        sched = self.sched
        watch = m.watch
        self.computing |= not blocked
        if blocked >= handoff.LEARN:
            self.learn(m)
        if watch.still(now) >= handoff.LIMIT and not watch.counted:
            handoff.report_stuck(sched, m, now, bool(blocked))
        if blocked:
            # A P that nobody wants stays for a slice, for most calls are short.
            if blocked >= SLICE or handoff.wanted(sched, p, now, True):
                return handoff.take(sched, m, p)
            return True
        if handoff.wanted(sched, p, now, False) and (p.dead or handoff.has_room(sched)):
            return handoff.take(sched, m, p)
        return False

    def learn(self, m: Any) -> None:
        """The goroutine that runs there has blocked: its function is started apart next time."""
        if m.watch.learnt:
            return
        sched = self.sched
        g = next((carrier.g for carrier in list(m.carriers) if carrier.g is not None and carrier.runs()), None)
        # To wait for a CPU, or in the runtime's own code, is no function that blocks.  Who starts a thread holds the lock.
        # The look at its stack comes last, and not for what is known: it gives every thread of the process a frame object,
        # which without a GIL costs each 8 KB.
        waits = (m.clock is not None and m.clock.runnable()) or not sched.lock.acquire(blocking=False)
        if not waits:
            sched.lock.release()
            if g is not None and g is not sched.main and not handoff.blocks(sched, g):
                waits = handoff.in_runtime(sys._current_frames().get(m.ident), carry.__code__)
        if waits:
            m.watch.cpu_at = monotonic()
            return
        m.watch.learnt = True
        if g is not None and g is not sched.main:
            handoff.learn(sched, g)

    def look_outside(self, now: float) -> bool:
        """Look at the machines that have no P and do not sleep; are there any?"""
        sched = self.sched
        if not sched.away and sched.started_apart == self.apart_seen and not self.apart_now:
            return False
        if now < self.outside_next:
            return self.outside_last
        self.apart_seen = sched.started_apart
        self.apart_now = False
        found = False
        for m in list(sched.ms):
            if m.p is not None or m.asleep or m.next is not None:
                continue
            if m.apart is None and m not in sched.away:
                continue
            found = True
            if m.clock is None:
                handoff.give_clock(sched, m)
            watch = m.watch
            watch.look(m, now)
            if m.apart is not None:
                self.apart_now = True
                if not m.blocked and now - watch.cpu_at >= handoff.STILL and m.clock is not None and not m.clock.runnable():
                    m.blocked = True
                continue
            blocked = watch.blocked(now, False, self.soon)
            if blocked >= handoff.LEARN:
                self.learn(m)
            self.computing |= not blocked and watch.still(now) >= handoff.OCCUPIED
            if watch.still(now) >= handoff.LIMIT and not watch.counted:
                handoff.report_stuck(sched, m, now, bool(blocked))
            if not blocked and now - m.seen[0] >= 2 * SLICE:
                # It is back, or computes: at its next runtime call it is to queue for a P.  Not asked all the time,
                # for it may make none, and the others would pay (overdue.py).
                m.seen = (now, 0)
                if not m.probed:
                    m.nudge()  # its hub ran at the very moment of `take`: have it run again
                    m.probed = True
                (overdue.clear if m.late else overdue.mark)(m)
        self.outside_last = found
        # Reading ten thousand clocks takes a while: at most a tenth of our time, and of the GIL's.
        self.outside_next = now + 10 * (monotonic() - now)
        return found
