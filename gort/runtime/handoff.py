"""Hand-off: what happens to a P, and to goroutines, when a call blocks or occupies a machine.

The idea.  A goroutine may make a call that gort cannot see: `time.sleep`, a driver written in C, `fcntl.flock`, a
computation without end.  It holds its machine.  Three things keep the others going:

1. Sysmon sees that the machine's tick (what it has started, parked and given way) stands still, and by the thread's
   CPU clock whether it is *blocked* (not a nanosecond of CPU) or *computing*.  It takes the P away and gives it to
   another machine: fresh goroutines, timers and other machines' goroutines go on.  The goroutines that have already
   run on the stuck machine are *stranded* until the call returns; a greenlet cannot change its thread.
2. The function that blocked is remembered (`Scheduler.known`).  Next time it is started *apart*: on a spare machine that has no
   other goroutine, so that nobody is stranded by it.  A machine that runs a goroutine apart needs no P, as if it were
   in a system call all the time.  A function that ran apart three times without being blocked is forgotten;
   no matter those times at which sysmon, among thousands of machines, came too rarely to tell.
   It need not have ended for that: to have waited 16 times in the runtime is enough.
3. Each such call over LIMIT is counted (`stats`), and with GORT_DEBUG=stuck reported, once for each place.

Blocked or waiting for the GIL?  Both stand still.  But a thread that waits for the GIL wakes every 5 ms to ask for it,
which shows on its CPU clock, and sysmon needs the GIL itself: if it got it at once, nobody waits for it.  So a machine
is called blocked when its clock stands still over a look for which sysmon had not to wait, or over 12 ms.

Blocked or waiting for a CPU?  On a busy system a thread may stand in the queue for one for tens of milliseconds.  To
lose its P then costs little, but to be remembered as blocking costs a thread for each start from then on (a server's
handlers would each get one).  So before something is remembered, the system is asked once (`Clock.runnable`).
Nor does the time count in which a garbage collection stopped all threads (gcyield.py), nor a wait in the runtime's own
code (`in_runtime`): the start of a thread, say, takes as long as the system takes to run it.

The orders of events that could break it.
- The machine returns at the very moment its P is taken.  `take` works under the scheduler's lock and only if the
  hub has not run since sysmon put it at the head of the machine's ready queue; so whatever the machine does next that
  is not the same goroutine begins with the hub, which finds that it has no P and queues for one.
- It was inside `go`, or in its hub with a batch for the LRQ, and appends to the LRQ of a P that is idle by now.  It
  then looks whether the P is still its own (`Scheduler.rescue`); we store m.p = None and then look at the LRQ by an
  operation of the same deque.  One of the two sees the other.
- It adds a timer to the heap of such a P: likewise, by the heap's lock (`sleep`, `Scheduler.plan`).

Bounds.  Blocked machines cost nothing but their threads (GORT_MAXTHREADS); computing ones compete for the CPU, so at
most as many as there are Ps compute without one (`OCCUPIED`).

Refused: to ask the kernel at each look where a thread is (/proc is slow, and Linux only); a time stamp in
each runtime call; moving every goroutine of a module that has blocked (too blunt).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

from . import gcyield
from .goroutine import FREE_THREADED
from .stacks import frames
from .thread import Light

LIMIT = 0.1  # seconds after which a stuck call is counted and reported
BRIEF = 0.8e-3  # seconds: longer than the system keeps a thread from a CPU, mostly, and than a look for work sleeps
LEARN = 8e-3  # seconds blocked after which a function is started apart next time
STILL = 12e-3  # seconds: longer than a waiter for the GIL sleeps
PLACE = 6e-3  # seconds between two looks at where a thread stands, where there is no CPU clock
SAME = 3  # such looks that see it at the same place, until it is called blocked
OCCUPIED = 25e-3  # seconds of computing without a runtime call after which the P is taken, if somebody needs it
STRIKES = 3
LIVELY = 16  # waits in the runtime, without having been blocked, after which one that runs apart counts as if it had ended
NEVER = sys.maxsize
MOST = 1024  # functions remembered

_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep

# Not empty once any runtime has remembered a function: what a start of a goroutine asks first (12 ns).
ANY: list[bool] = []


def key_of(fn: Callable[..., Any]) -> Any:
    """What a function is remembered by: its code, so that closures made again are the same."""
    fn = getattr(fn, "func", fn)  # functools.partial
    fn = getattr(fn, "__func__", fn)  # a method
    return getattr(fn, "__code__", None) or type(fn)


def blocks(sched: Any, g: Any) -> bool:
    """Has this goroutine's function blocked its machine before?"""
    try:
        return key_of(g.fn) in sched.known
    except Exception:  # a callable that answers questions with errors
        return False


def learn(sched: Any, g: Any) -> None:
    """This goroutine's function has blocked its machine."""
    try:
        key = key_of(g.fn)
        if len(sched.known) >= MOST and key not in sched.known:
            sched.known.pop(next(iter(sched.known)), None)
        sched.known[key] = 0
        ANY[:] = [True]
    except Exception:
        pass


def in_runtime(frame: FrameType | None, base: CodeType) -> bool:
    """Is a thread with this innermost frame in the runtime's own code, and not in a goroutine's function?

    base: the code that calls those functions.  A function in C has no frame, so then that is the innermost one.
    """
    while frame is not None and frame.f_code.co_filename == threading.__file__:
        frame = frame.f_back
    if frame is None:
        return True  # it is only starting
    return frame.f_code.co_filename.startswith(_HERE) and frame.f_code is not base


def ran_apart(sched: Any, key: Any, blocked: bool) -> None:
    """A goroutine of this function has ended on a machine of its own."""
    known = sched.known
    strikes = 0 if blocked else known.get(key, 0) + 1
    if strikes >= STRIKES:
        known.pop(key, None)
    elif key in known:
        known[key] = strikes


class Clock:
    """The CPU clock of a thread; after the thread's end it stands still.

    Made by that thread itself, or by another while the thread cannot have been joined: its ident must be valid.
    """

    __slots__ = ("number",)

    def __init__(self, ident: int) -> None:
        try:
            self.number: int | None = time.pthread_getcpuclockid(ident)
        except (AttributeError, OSError):  # no such clocks here (macOS): see `Watch.look`
            self.number = None

    def read(self) -> int:
        """Nanoseconds of CPU time; -1 where that cannot be told."""
        if self.number is None:
            return -1
        try:
            return time.clock_gettime_ns(self.number)
        except OSError:
            return -1

    def runnable(self) -> bool:
        """Does the thread run, or wait for nothing but a CPU?  (20 us.)  False where that cannot be told."""
        if self.number is None:
            return False
        task = ~(self.number >> 3)  # what Linux makes the clock's number of
        try:
            with open(f"/proc/self/task/{task}/stat", "rb", buffering=0) as f:
                return f.read(200).rpartition(b") ")[2][:1] == b"R"
        except OSError:
            return False


def give_clock(sched: Any, m: Any) -> None:
    """Make the clock of a machine whose thread has not made it itself: it runs a goroutine apart (apart.py).

    Under the lock, and only while the machine is known: until then nobody joins its thread, so that the ident is valid.
    """
    with sched.lock:
        if m in sched.ms and m.clock is None and isinstance(m.thread, Light):
            m.clock = Clock(m.thread.ident)


class Watch:
    """What sysmon knows about one machine."""

    __slots__ = ("at", "counted", "cpu", "cpu_at", "lazy", "learnt", "place", "placed", "same", "tick", "tick_at")

    def __init__(self) -> None:
        self.tick = -1
        self.tick_at = 0.0  # when the tick was first seen as it is
        self.cpu = -1
        self.cpu_at = 0.0  # when tick or CPU clock were first seen as they are
        self.at = 0.0  # when the last look was
        self.place: Any = None  # where it stands in its code, if it has no CPU clock
        self.placed = 0.0  # and when that was seen last
        self.same = 0  # how often in a row it stood there
        self.lazy = False  # it used little CPU between the last two looks
        self.counted = False  # this call is in the statistics already
        self.learnt = False  # and its function is known to block

    def look(self, m: Any, now: float) -> None:
        tick = m.started + m.parked + m.yielded
        cpu = m.clock.read() if m.clock is not None else -1
        self.lazy = cpu - self.cpu < (now - self.at) * 0.5e9
        self.at = now
        if tick != self.tick:
            self.tick = tick
            self.tick_at = self.cpu_at = now
            self.cpu = cpu
            self.counted = self.learnt = False
        elif cpu != self.cpu:
            self.cpu = cpu
            self.cpu_at = now
        elif cpu < 0 and FREE_THREADED and now - self.placed >= PLACE and m.clock is not None and m.clock.number is None:
            # No clock, and no GIL that it would hold: one that computes is elsewhere in its code at the next look, mostly.
            self.placed = now
            frame = sys._current_frames().get(m.ident)
            place = frame and (id(frame), frame.f_lasti)
            self.same = self.same + 1 if place == self.place else 0
            self.place = place
            if self.same < SAME:
                self.cpu_at = now
        elif gcyield.last > self.cpu_at:
            self.cpu_at = gcyield.last  # until then all threads may have been stopped

    def blocked(self, now: float, gil_free: bool, soon: bool) -> float:
        """For how long it has been blocked, as far as one can tell; 0: it is not.

        gil_free, soon: sysmon had not to wait for the GIL; the latter is all that counts where there is no clock.
        """
        if self.cpu < 0:
            # Take what stands still for long, while nobody holds the GIL, as blocked.
            if not soon:
                self.cpu_at = now
            return now - self.cpu_at if now - self.cpu_at >= OCCUPIED else 0.0
        long = now - self.cpu_at
        return long if long >= (BRIEF if gil_free else STILL) else 0.0

    def still(self, now: float) -> float:
        """How long its tick has stood still."""
        return now - self.tick_at


def take(sched: Any, m: Any, p: Any) -> bool:
    """Take the P from a stuck machine, for another one or to leave it idle.  By sysmon."""
    with sched.lock:
        if p.m is not m or m.p is not p or not m.probed or m.started + m.parked + m.yielded != m.watch.tick:
            return False
        m.p = None
        m.last = p
        p.handed_off += 1
        p.keeper = None
        sched.away[m] = None  # first, so that what it puts there, before it knows, is counted at every moment (stats.py)
        sched.leave(m, p)
    return True


def has_room(sched: Any) -> bool:
    """May one more machine compute without a P?  (Those whose P is out of use are as many as there were, and no more.)"""
    extra = sum(not m.asleep and not (m.last is not None and m.last.dead) for m in list(sched.away))
    return extra < len(sched.allp)


def wanted(sched: Any, p: Any, now: float, blocked: bool) -> bool:
    """Does anything wait for this P?  (Fresh work at a machine that computes is stolen instead, if a P is idle.)"""
    if p.dead:  # out of use (gomaxprocs): nobody waits for it, and nobody steals from it
        return bool(p.lrq) or p.timers.peek() <= now
    if sched.waiting_for_p or p.timers.peek() <= now:
        return True
    return bool(p.lrq or sched.grq) and (blocked or not sched.idle)


def report_stuck(sched: Any, m: Any, now: float, blocked: bool) -> None:
    """Count a call that is stuck for LIMIT; say so once for each place, if GORT_DEBUG asks for it."""
    m.watch.counted = True
    stranded = max(0, m.live() - 1)
    sched.stuck += 1
    sched.stranded += stranded
    places = sched.sysmon.stuck_places
    if places is None:
        return
    frame = sys._current_frames().get(m.ident)
    if frame is None:
        return
    place = (frame.f_code, frame.f_lineno)
    if place in places:
        return
    places.add(place)
    g = next((c.g for c in list(m.carriers) if c.g is not None and c.runs()), None)
    what = "blocked in a call" if blocked else "computing without a runtime call"
    remedy = (
        "run it by gort.blocking(fn, ...), or use the module of gort.green that stands for it"
        if blocked
        else "call gort.gosched() in the loop now and then, or give the work to a process pool by gort.wait"
    )
    text = (
        f"gort: {g.describe() if g is not None else 'a goroutine'} has been {what} for {now - m.watch.tick_at:.3f} s "
        f"on M {m.id}; {stranded} other goroutine{'s' * (stranded != 1)} of this thread wait{'s' * (stranded == 1)} for it.  "
        f"To avoid that, {remedy}.\n"
        + frames(frame)
    )
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except Exception:
        pass  # sysmon must live
