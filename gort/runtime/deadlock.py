"""Deadlock: the proof that nothing can ever run again, and who is told.

The idea.  Sysmon asks when every P has been idle for a while.  If the main goroutine waits (or has ended, and others
wait in their clean-up), and nothing at all could wake anybody, `Deadlock` is raised there, with every goroutine's stack
and what it waits for.  A hang becomes an error.

No false alarm: it must be shown of everything that could wake a goroutine that it will not.

- A goroutine: each of them waits, and nobody has claimed its ticket.  (One whose ticket is claimed is about to be woken.)
- A timer: there is none.  A timer that was stopped is none.
- The outside: nobody waits for I/O or for a blocking call (a place with `external` says so).
- The end of another runtime, which a goroutine closes: the goroutines there are asked like ours (below), and told first.
- Another thread: there is none but gort's own, which are idle: machines, sysmons and spare threads of this runtime and
  of all others that have nothing to do either.
- A signal: no handler is installed but Python's own and gort's.

Several runtimes.  The machines of another one are threads that might wake ours, unless it is as quiet as we are.  To see
that all are quiet *at the same moment* they are looked at twice: who is quiet at both looks, and has had no P between
them, was quiet all the time, so there is a moment, between the first look at the last one and the second look at the
first one, when all were; and then the threads are counted.

What is not seen is a thread that C code started and that is not calling into Python just now (an audio library's, say).
Counting the system's threads would show it, and also the pools of numeric libraries, which wake nobody: with those
loaded no deadlock would ever be found.  So a program that waits for nothing but such a callback says so by a goroutine
that sleeps: ``go(sleep, math.inf)``.

A thread that was started a moment ago may not have run a line yet, and so be unknown to the interpreter.  The system
knows it (Linux: /proc/self/task), and whether it waits for a processor.  So if a thread there was not there some time
before, or is young and wanted to run, it is asked again later: by then the thread is visible, or is none of Python's.
On other systems, `threading.Thread` is safe, whose `start` waits for the first line; `_thread.start_new_thread` is not.

If only other threads are in the way, it is asked again later, for they may end without having woken anybody.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..errors import Deadlock
from . import closing, handlers, stacks, surplus
from .goroutine import PENDING
from .timers import INFINITY
from .wait import ready_throw

_lock = threading.RLock()  # a finalizer may start a runtime while it is held
_schedulers: weakref.WeakSet[Any] = weakref.WeakSet()


# Asked for threads of gort's above the runtime: each gives the ident of one that wakes nobody just now, or None.
resting: list[Callable[[], int | None]] = []


def register(sched: Any) -> None:
    """A scheduler has been made."""
    with _lock:
        _schedulers.add(sched)


def schedulers() -> list[Any]:
    """All there are."""
    with _lock:
        return list(_schedulers)


def peek() -> list[Any]:
    """The same for a signal handler, which may have interrupted the holder of the lock."""
    for _ in range(10):
        try:
            return list(_schedulers)
        except RuntimeError:
            pass  # changed meanwhile
    return []


def forget() -> None:
    """In the child of a fork: the parent's threads, and so its runtimes, do not exist."""
    global _lock, _schedulers
    _lock = threading.RLock()
    _schedulers = weakref.WeakSet()


def check(sched: Any) -> bool:
    """If nothing can ever wake anybody, tell main so.  True: ask again later, other threads may still wake somebody."""
    main = sched.main
    if (main is None and not sched.joiners) or surplus.awake(sched):
        return False
    with _lock:
        others = [other for other in _schedulers if other is not sched and not other.closed]
    everybody = [sched, *others]
    with sched.lock:
        if surplus.awake(sched):
            return False
        before = _moves(everybody)
        # The cheap questions first: there may be a million goroutines to ask.
        if not _idle(sched) or next(handlers.of_the_program(), None) is not None:
            return False
        if not all(_idle(other) for other in others) or _foreign_threads(everybody):
            return True
        if not _stuck(sched):
            return False
        if not all(_stuck(other) for other in others) or _foreign_threads(everybody):
            return True
        if not all(_idle(other) and _stuck(other) for other in everybody) or _moves(everybody) != before:
            return True
        if _new_threads(everybody) or closing.waits(sched):
            return True  # the latter: whose end is waited for is told first, and that may be all it takes
        _tell(sched, main)
        return False


def _idle(sched: Any) -> bool:
    """Does nothing run in this scheduler, is nothing ready to run, and no timer planned?"""
    if sched.grq or sched.backlog or sched.reports:
        return False
    if any(not m.asleep or m.ready or m.mail or m.throws for m in list(sched.ms)):
        return False
    # `next` drops the dead ones at the head; what then remains may be planned for never, but is planned.
    return not any(p.lrq or p.timers.next() != INFINITY or p.timers.heap for p in list(sched.allp))


def _stuck(sched: Any) -> bool:
    """Does each of its goroutines wait, for something that only the program itself can bring?"""
    for m in list(sched.ms):
        for carrier in list(m.carriers):
            g = carrier.g
            if g is not None and g._value is PENDING and (carrier.waits_outside() or not carrier.waits()):
                return False
    return True


def _moves(schedulers: list[Any]) -> list[tuple[Any, ...]]:
    """What is not the same after a machine has run something."""
    return [(m, m.since, m.wakes, m.parked) for sched in schedulers for m in list(sched.ms)]


def _foreign_threads(schedulers: list[Any]) -> bool:
    """Is there a thread but theirs?"""
    own: set[int | None] = set()
    for sched in schedulers:
        own |= {m.ident for m in list(sched.ms)}
        own.add(sched.sysmon.ident)
        own.update(sched.joiners)  # they wait for its end
        with sched.spares.lock:
            own |= {spare.thread.ident for spare in sched.spares.idle if spare.thread is not None}
    own |= {ident() for ident in resting}
    return bool(set(sys._current_frames()) - own)


NEW = 0.02  # seconds between two looks at which a thread slept, so that it has no first line to run
OLD = 10.0  # seconds after which it has run one in any case
_tasks: dict[str, tuple[float, float]] = {}  # the system's threads: when first seen, and since when always asleep


def _new_threads(schedulers: list[Any]) -> bool:
    """May there be a thread that the interpreter does not know yet?

    One look is not enough: it may sleep because it waits for the GIL, which is ours just now.  Sysmons are known: those of
    two runtimes that are stuck look at the same times, and would take each other for threads that do something.
    """
    global _tasks
    now = monotonic()
    known = {str(thread.native_id) for sched in schedulers if (thread := sched.sysmon.thread) is not None}
    try:
        names = os.listdir("/proc/self/task")
    except OSError:
        return False  # another system: nothing tells
    found = False
    tasks = {}
    for task in names:
        born, asleep = _tasks.get(task, (now, INFINITY))
        if task not in known and now - born < OLD:
            asleep = min(asleep, now) if _sleeps(task) else INFINITY
            found = found or now - asleep < NEW
        tasks[task] = (born, asleep)
    _tasks = tasks
    return found


def _sleeps(task: str) -> bool:
    try:
        with open(f"/proc/self/task/{task}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"S"
    except (OSError, IndexError):
        return False  # it has ended meanwhile


def _tell(sched: Any, main: Any) -> None:
    if main is not None and not main.done():
        targets = [main]
    else:  # the end: what still waits in a `finally` would wait for ever
        targets = [c.g for m in list(sched.ms) for c in list(m.carriers) if c.g is not None]
    text = "all goroutines are asleep - deadlock!\n\n" + stacks.dump(sched)
    for g in targets:
        carrier = g.carrier
        for w in carrier.stands():
            ticket = w.wait
            if ticket is not None and ticket[0] is w and ticket[2].withdraw(ticket):
                ready_throw(w, Deadlock(text))
