"""After a fork, the child starts clean: no runtime, no goroutines, nothing of the parent's touched.

The idea.  A fork takes along one thread, the one that forks.  All other machines, sysmon, every goroutine that stands
on them: gone, in the middle of whatever they did.  So the child forgets them all, and what it starts afterwards
(`run`, `go`, a Runtime) is new.  The parent notices nothing.

What becomes of the caller of ``os.fork()`` in the child?

- On a plain thread: nothing happens to it.
- In a goroutine: it goes on behind the fork as plain code, on what is now the only thread.  It is no goroutine any more
  (`current` gives None), so it may call `run`; its blocking operations block the thread.  The other goroutines of the
  same thread are suspended for ever, and their ``finally`` blocks do not run: they belong to the parent.
- When the function of such a goroutine returns in the child: the main goroutine's `run` returns what it returned, as in
  the parent, and the program goes on.  Any other goroutine was a thread of its own, so to speak, and the process ends
  with it, as it does when a thread forks: what the child has started is closed, the output is flushed, and the exit
  status is 0, or as SystemExit says, or 1 with the exception shown.  ``atexit`` functions are for the main one only.

What the child still holds of the parent's:

- A Goroutine's handle: it has ended, with an error that says that it stayed behind.
- A Runtime: closed.
- A block with a time limit (`timeout`, a context's deadline) that was open: it goes on without its limit, for the timer
  is the parent's.
- A channel, mutex and so on: as it was at that moment, without those who waited at it.  What another goroutine held
  locked stays locked, so a child does well to make its own.  But a latch (latch.py) that another thread held at that
  moment is freed when it is next met.

The parent's pollers are shared with the child by the system: to unregister a descriptor here would unregister it there.
So they are closed first of all, which concerns only the child's end of them.

How the child leaves the scheduler.  The forking goroutine's carrier stands in `carry`, above the hub.  It becomes an
`Orphan`: without `m`, `ready` and `pending`, by which everything in gort recognises a carrier; and its parent is no
longer the hub but the thread's own greenlet (main: the one that waits in `run`), or for others a greenlet that ends the
process.  Its machine is left with nothing to run, so that the loop in `carry` comes to its end by itself.
One that runs apart on its thread's own stack (apart.py) loses its stand, and its `begin` ends the process.
The suspended greenlets are kept (`_left_behind`), for dropping the last reference to one would end it, and run its
``finally`` blocks here.

Locks.  Each one that lives in a module, or in a scheduler that is still used on the way out, may have been held by a
thread that is gone: they are made anew (`free`).  What stands above the runtime and has such locks of its own, or
knows of work that has stayed behind (a context, an Executor, a SingleFlight), does the same in a function of
its own (`in_child`); it is called after ours, when every goroutine that is not here has ended.  The data they guard is
changed by single operations of C code, which a fork does not cut in two (a free-threaded build stops all threads before it forks).

Locks inside objects.  In a free-threaded build each object (list, deque, carrier) has one of its own, and CPython (3.14) does
not make those anew: one that had just been handed to a thread that waited for it, and that a fork then left behind, stays locked,
and the first operation on that object in the child never returns.  So what other threads may be at all the time, the queues,
is not touched here but replaced, and read as the garbage collector reads it, which takes no locks (`_contents`).  Only where the
fork came from a signal handler that had interrupted gort must the old queues be emptied, for that code goes on with them.

Refused: to hold the locks over the fork, as logging does (a goroutine could not fork while another one is in the
middle of something, and signal handlers fork too); to let the forking goroutine stay one, on a machine made for it (it
cannot: `run` could not be called in a child, and multiprocessing's children would drag half a scheduler along).
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

from ..errors import GortError
from . import chance, closing, deadlock, gcyield, gilshare, goroutine, instance, interrupt, latch, overdue, plain, timers, wait
from .apart import Stand, finish
from .carrier import Carrier
from .delivery import _interrupts
from .departure import Departures
from .goroutine import FAILED, Goroutine, errors_of
from .poller import Poller
from .report import report
from .wait import Hub

_left_behind: list[Any] = []


class Orphan(greenlet):
    """What a carrier is in the child: the same object, but nothing that gort knows."""

    __slots__ = Carrier.__slots__

    def rest(self) -> bool:
        return False  # the end of `carry`


class OrphanHub(greenlet):
    """Likewise a hub: the fork came from a callback or signal handler that ran in it."""

    __slots__ = Hub.__slots__


class _Nobody:
    """Stands for the carrier and the machine of the goroutine that forked: nothing can be delivered to it."""

    g = inner = wait = pending = None
    gone = True
    live = property(lambda self: 0)

    @property
    def m(self) -> _Nobody:
        return self

    def request(self, *_: Any, **_kw: Any) -> None:
        pass

    deliver = advance = nudge = request

    def waits(self) -> bool:
        return False

    waits_outside = waits

    def runs(self) -> bool:
        return True

    def wait_reason(self) -> str:
        return ""


class _NoPoller:
    """Stands for the poller of a machine that is no more."""

    lost = False

    def fetch(self, _timeout: float) -> list[Any]:
        return []

    def fire(self, _events: list[Any]) -> None:
        pass

    def wake(self) -> None:
        pass

    close = wake


def free(lock: Any) -> None:
    """In the child: give back a lock that another thread held when the process forked."""
    if not (hasattr(lock, "_is_owned") and lock._is_owned()):  # by this thread: a signal handler forks
        lock._at_fork_reinit()


def _contents(container: Any) -> list[Any]:
    """What an object refers to, read without its lock: see the top.  To its class as well."""
    return gc.get_referents(container)


def _in_child() -> None:
    """First of all in the child, on its only thread."""
    for lock in (wait.starting, goroutine._joins, timers._claims, timers.resets, instance._lock, closing._waits_lock):
        free(lock)
    overdue.forget()
    gcyield.forget()
    chance.forget()
    interrupt.forget()
    latch.forget()
    plain.forget()
    for w in _contents(wait.parked_threads):
        _kill(w.wait)
    wait.parked_threads = set()
    wait.stands = {}

    chain: list[Any] = [stand] if type(stand := wait.carrier()) is Stand else []
    w: Any = getcurrent()
    while w is not None:
        chain.append(w)
        w = w.parent
    error = GortError("this goroutine stayed behind in the parent process: a fork takes along only the one that forks")
    gort_goes_on = _interrupts()  # the fork came from a signal handler, in the middle of something of ours
    schedulers = list(deadlock._schedulers)
    deadlock.forget()
    instance._running.clear()
    instance.quitting.forget()
    gilshare.forget()
    instance._background = None
    for sched in schedulers:
        for m in _contents(sched.ms):
            if m is not None:
                _forget_machine(m, chain, error, gort_goes_on)
        _forget_scheduler(sched, error, gort_goes_on)
    for w in chain:
        if type(w) is Carrier:
            _orphan(w)
        elif type(w) is Stand:
            _orphan_stand(w)
        elif isinstance(w, Hub):
            _orphan_hub(w)
        elif hasattr(w, "carrier"):  # a greenlet of the goroutine's own, that has waited: see wait.adopt
            for name in ("m", "ready", "wait", "carrier", "of"):
                w.__dict__.pop(name, None)


def _kill(ticket: Any) -> None:
    """Make a ticket dead, whoever holds the place's lock."""
    if ticket is not None:
        ticket[0] = None
        permit = getattr(ticket[2], "permit", None)
        if permit is not None:  # a select
            permit.clear()


def _leave_behind(g: Goroutine[Any], error: GortError) -> None:
    if not g.done():
        g._exc = error
        g._tb = None
        g._waiters = None
        g._value = FAILED


def _renewed(queue: Any, gort_goes_on: bool) -> Any:
    """An empty queue in place of this one: a new one, if we may."""
    if not gort_goes_on:
        _left_behind.append(queue)
        return type(queue)()
    _left_behind.append(_contents(queue))
    queue.clear()
    return queue


def _forget_machine(m: Any, chain: list[Any], error: GortError, gort_goes_on: bool) -> None:
    mine = any(getattr(w, "m", None) is m for w in chain)
    _left_behind.append(m)
    # What it and its carriers have is found by what it is, and not by its attribute: to read one may take their locks.
    for part in _contents(m):
        if type(part) is set:  # the carriers
            for carrier in _contents(part):
                if carrier not in chain:
                    _forget_carrier(carrier, error)
        elif isinstance(part, Goroutine) and not (mine and part is m.sched.main):  # one that is to be started there
            _leave_behind(part, error)
        elif isinstance(part, Poller):
            free(part.lock)
            descriptors = list(part.descriptors.values())
            part.descriptors.clear()
            part.close()
            for descriptor in descriptors:
                descriptor.forget()
    if not mine:
        return  # it has no thread any more, and nobody finds it
    if m.poller is not None:
        m.poller = _NoPoller()  # and not None: we may be inside a machine's sleep, in a signal handler
    m.note = threading.Lock()
    m.note.acquire()
    m.equip()
    for name in ("ready", "throws", "mail", "carriers", "free", "undelivered"):
        setattr(m, name, _renewed(getattr(m, name), gort_goes_on))
    m.starter = m.p = m.next = m.last = m.solo = m.apart = None
    m.ended = m.started
    m.alive = m.probed = m.late = False


def _forget_carrier(carrier: Any, error: GortError) -> None:
    # With a GIL greenlets that stand somewhere show the collector nothing; but there nothing is locked either.
    for part in _contents(carrier) or [carrier.wait, carrier.g, carrier.inner]:
        if type(part) is list:  # the ticket it waits with
            _kill(part)
        elif isinstance(part, Goroutine):
            _leave_behind(part, error)
        elif getattr(part, "carrier", None) is carrier:  # a greenlet that waits in its place
            _kill(part.wait)


def _forget_scheduler(sched: Any, error: GortError, gort_goes_on: bool) -> None:
    sched.orphaned = sched.closing = sched.closed = True
    free(sched.lock)
    for p in sched.allp:
        free(p.timers.lock)
        p.timers.heap.clear()
        p.m = p.keeper = None
    for queue in sched.queues():
        for g in _contents(queue):
            if isinstance(g, Goroutine):
                _leave_behind(g, error)
    for p in sched.allp:
        p.lrq = _renewed(p.lrq, gort_goes_on)
    for name in ("grq", "backlog", "ms", "idle_ms", "waiting_for_p", "away", "apart_asleep", "buried", "reports", "threads"):
        setattr(sched, name, _renewed(getattr(sched, name), gort_goes_on))
    sched.ended = threading.Event()
    sched.ended.set()
    sched.departures = Departures()
    sched.sysmon.over = True
    sched.sysmon.thread = None
    sched.sysmon.note = threading.Lock()
    sched.spares.forget()


def _orphan(carrier: Any) -> None:
    m, g = carrier.m, carrier.g
    carrier.pending = None
    carrier.__class__ = Orphan
    root = m.hub.parent
    if g is None:
        return  # between two goroutines: a finalizer or signal handler forks; the loop ends by itself
    carrier.parent = root if g is m.sched.main else greenlet(lambda *_: _end_process(g), root)
    g.carrier = _Nobody()
    if g._waiters is not None:
        g._waiters = None
    del carrier.m, carrier.ready, carrier.pending


def _orphan_stand(stand: Stand) -> None:
    g, m = stand.g, stand.m

    def over(value: Any, exc: BaseException | None) -> None:
        finish(g, m, value, exc)
        _end_process(g)

    g.carrier = _Nobody()
    g._waiters = None
    stand.over = over
    stand.g = None  # so that nothing in gort recognises it any more


def _orphan_hub(hub: Any) -> None:
    m = hub.m
    root = hub.parent
    hub.__class__ = OrphanHub
    hub.parent = greenlet(lambda *_: _end_process(None), root)
    del hub.m
    assert m is not None


def _end_process(g: Goroutine[Any] | None) -> None:
    """The goroutine that forked, and was not main, has ended in the child."""
    status = 0
    try:
        exc = g.exception(0) if g is not None else None
        if isinstance(exc, SystemExit):
            code = exc.code
            if isinstance(code, int):
                status = code & 0xFF
            elif code is not None:
                sys.stderr.write(f"{code}\n")
                status = 1
        elif exc is not None and errors_of(exc) is not None:
            status = 1
            assert g is not None
            report(exc, g.describe())
        instance.close_all()
    except BaseException as exc:
        status = status or 1
        report(exc, "the end of a forked process")
    finally:
        for file in (sys.stdout, sys.stderr):
            try:
                file.flush()
            except Exception:
                pass  # it is closed, or nobody reads
        os._exit(status)


def in_child(call: Callable[[], None]) -> None:
    """Have call() called in every child of a fork, after ours and in the order in which they were given."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=call)


# Before the fork, the one who forks finds out whether he runs apart: who started his thread, and was about to note so,
# does not exist in the child.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=wait.carrier)
in_child(_in_child)
