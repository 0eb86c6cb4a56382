"""Apart: a goroutine whose function is known to block gets a thread to itself, without a GIL on that thread's own stack.

The idea.  Such a goroutine needs no scheduler while it sleeps in its call, and ten thousand of them are ten thousand
threads.  With a GIL a machine as all the others is cheap enough (30 KB).  Without one its thread begins with nothing: no
hub, no greenlet, no clock of its own; `begin` is the first function on it, and calls the goroutine's.  What the machine
must have before that is made by the thread that starts it.  Only when the goroutine first waits in gort, or makes way,
does the machine get its hub (`Stand.settle`), and from then on the thread's own greenlet stands where otherwise a
goroutine's own one would that waits in its carrier's place (wait.adopt).  The `Stand` is what others take for its carrier
(carrying.py).

What it saves, on CPython 3.14 without a GIL: a thread that sleeps in C takes 25 KB and one with a frame of Python's 45;
a greenlet makes 75 of it and a hub's loop 270, because there each thread has memory pages of its own for every size of
object it has ever had, and its own copy of the code of every function it has run.  Hence `begin` looks as it does: a
store into an attribute costs 28 KB there, a `get_ident` 8.

When the goroutine has ended so do its thread and machine: a hub that began as deep in the stack as the goroutine was at
its first wait is nothing for others to live on, and the context entered at the thread's bottom would stay with it.

The orders of events that could break it.
- A cancellation comes before the thread has begun: it is in the machine's mail, which `begin` reads first.
- It comes while the goroutine is in its call, and there is no hub: it stays in the mail, which `settle` reads after it
  has made the hub, while who asks writes the mail first and then looks for the hub to wake it.  One sees the other.
- The thread cannot be started: the goroutine loses its stand again and runs where it is.  Who cancels looks once more
  whether he has asked the right one (Goroutine.cancel).

Refused: a plain thread, known to the runtime, without any of this (it could not be cancelled, and would be no goroutine
for deadlocks and dumps); a small greenlet in each thread (75 KB).
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any

from ..errors import RuntimeClosed
from . import surplus, wait
from .carrying import Carrying
from .closing import all_ended, drop, next_wave
from .goroutine import FAILED, FREE_THREADED, Goroutine

VALUE, ERROR, ENDED = 2, 3, 4  # in a Stand's box, behind the function and its arguments


class Stand(Carrying):
    """What stands for the carrier of a goroutine that runs on its thread's own stack."""

    __slots__ = ("box", "g", "inner", "m", "over", "pending", "ready", "root")

    dead = False
    gr_frame = None

    def __init__(self, m: Any, g: Goroutine[Any]) -> None:
        self.m = m
        self.ready: Any = ()
        self.g: Any = g
        self.pending: BaseException | None = None
        self.inner: Any = None
        self.root: Any = None  # the thread's own greenlet, once it has waited
        self.over: Callable[[Any, BaseException | None], None] | None = None  # in the child of a fork: its end
        g.carrier = self  # before fn is read: see Goroutine.cancel
        # In a list, for that is emptied without a store into an attribute.  The goroutine itself keeps no arguments, so that
        # it is this thread, and not sysmon's, that drops them.
        self.box: Any = [partial(g.fn, **g.kw) if g.kw else g.fn, g.args, None, None, False]
        g.args = g.kw = None

    def body(self, ctx: Context | None) -> Callable[[], None]:
        """What its thread calls."""
        return partial((ctx or Context()).run, begin, self)

    def stands(self) -> tuple[Any, ...]:
        if self.root is None:
            return ()
        return (self.root,) if self.inner is self.root else (self.root, self.inner)

    def lives(self) -> bool:
        """Does it carry its goroutine still?"""
        return self.g is not None and not self.box[ENDED]

    def runs(self) -> bool:
        """Is it the one that its machine runs right now?"""
        return self.g is not None and (self.root is None or self.root.gr_frame is None)

    def settle(self, root: Any) -> None:
        """The goroutine is about to wait for the first time: its machine needs a hub.  On its own thread.

        root: the thread's own greenlet.
        """
        if self.root is not None:
            return
        m = self.m
        m.attach(root)
        self.ready = m.ready
        root.m, root.ready, root.wait, root.seq, root.carrier, root.of = m, m.ready, None, 0, self, self.g
        self.inner = self.root = root
        m.read_mail()


def begin(stand: Stand) -> None:
    """The first function on the thread.  Every line costs memory, ten thousand times: see above."""
    box = stand.box
    try:
        if stand.m.mail:
            _read_first(stand)
        box[VALUE] = box[0](*box[1])
    except BaseException as exc:
        box[ERROR] = exc
    box[0] = box[1] = None
    box[ENDED] = True
    # One of many that may end at the same time leaves the rest to sysmon (`bury`), and waits for its turn (departure.py);
    # until `bury` the machine stays in `ms`, so that the runtime does not end before.  (It holds no P and keeps none's
    # timers, and it was not idle, so nobody can have woken it for something.)
    m = stand.m
    sched = m.sched
    if sched.crowded and m.hub is box[ERROR] is stand.over is None and not (sched.closing or m.mail):
        sched.buried.append(stand)
        sysmon = sched.sysmon
        if sysmon.over or sysmon.thread is None:
            bury(sched)  # it may have looked for the last time before we were there
            sched.departures.let_all_go()
        else:
            try:  # (not `sysmon.wake`: that would be one more function on each thread)
                if sysmon.note.locked():
                    sysmon.note.release()
            except RuntimeError:
                pass  # somebody else has woken it
        m.note.acquire()
    else:
        _end(stand)
        _go_on(stand)


def _read_first(stand: Stand) -> None:
    """Something has come before the goroutine could begin: raise it if that is a cancellation of it."""
    m = stand.m
    m.equip()
    m.read_mail()
    exc = stand.pending
    if exc is not None:
        m.advance(stand)
        raise exc


def bury(sched: Any) -> None:
    """By sysmon, mostly: goroutines have ended whose threads leave the rest to us."""
    for _ in range(len(sched.buried)):  # not all that come meanwhile: sysmon has other things to do
        try:
            stand = sched.buried.popleft()
        except IndexError:
            return
        _end(stand)
        stand.m.judge_apart()
        sched.departures.line.append(stand.m)
        _leave(stand.m)


def _end(stand: Stand) -> None:
    value, exc = stand.box[VALUE], stand.box[ERROR]
    stand.box[VALUE] = stand.box[ERROR] = None
    if stand.over is not None:
        stand.over(value, exc)
        return
    g, m = stand.g, stand.m
    with wait.starting:
        if wait.stands.get(m.ident) is stand:  # else the number is another thread's by now
            del wait.stands[m.ident]
    m.carriers.discard(stand)  # first: who has joined it must not find it among the living
    finish(g, m, value, exc)
    stand.g = stand.pending = stand.inner = None


def finish(g: Goroutine[Any], m: Any, value: Any, exc: BaseException | None) -> None:
    """Write down how it has ended."""
    if exc is not None:
        g.fail(exc, m.sched)
        m.failed(g, exc)
        value = FAILED
    m.ended += 1  # before anybody can see that it has: Machine.goroutines
    g.finish_locked(value)


def _go_on(stand: Stand) -> None:
    """The goroutine has ended, and so does the machine."""
    m = stand.m
    if not m.alive:
        return  # the child of a fork
    m.judge_apart()
    if m.hub is None:
        _leave(m)
        return
    m.apart = None
    m.dismissed = True  # its hub finds that when it looks for a P, and ends
    while m.alive and not m.hub.dead:
        m.hub.switch()


def _leave(m: Any) -> None:
    """The end of a machine that never had a hub."""
    sched = m.sched
    m.alive = False
    with sched.lock:
        del sched.ms[m]
        last = not sched.ms and sched.closing  # else others will be started, when there is work
        sched.crowded = len(sched.ms) > surplus.MANY
        if sched.wants_thread():
            sched.sysmon.wake()  # there is one less
    if last:
        all_ended(sched)
    elif sched.closing:
        next_wave(sched)


def start(sched: Any, g: Goroutine[Any]) -> bool:
    """Start a goroutine on a machine without others.  False if there is none to be had: then it runs where it is.

    Where the limit on threads is reached and others run apart, it waits for one of those to end (`Scheduler.backlog`):
    better than to block a machine that others need.
    """
    with sched.lock:
        m = None
        for n, other in enumerate(reversed(sched.idle_ms)):
            if n == 16:
                break
            if other.thread is not None and not other.live():
                m = other
                break
        if m is not None:
            m.run_apart(g)
            sched.idle_ms.pop(m, None)
            sched.stop_keeping(m, None)
            m.wake()
        else:
            if sched.closing:
                return False
            if not sched.room_for_thread():
                if not sched.departures and not any(other.apart is not None for other in sched.ms):
                    return False
                sched.backlog.append(g)
                return True
            if not (_start_bare if FREE_THREADED else _start_thread)(sched, g):
                return False
        sched.started_apart += 1
        sched.sysmon.busy()
    return True


def _start_thread(sched: Any, g: Goroutine[Any]) -> bool:
    m = sched.new_machine()
    m.run_apart(g)
    if sched.start_thread(m, m.main):
        return True
    m.solo = m.apart = None
    return False


def _start_bare(sched: Any, g: Goroutine[Any]) -> bool:
    m = sched.new_machine()
    m.goes_apart(g)
    args, kw, ctx = g.args, g.kw, g.ctx
    stand = Stand(m, g)
    g.ctx = None
    m.carriers.add(stand)
    m.started = 1
    sched.crowded = len(sched.ms) > surplus.MANY
    with wait.starting:
        wait.ever[:] = [True]
        if sched.start_thread(m, stand.body(ctx)):
            wait.stands[m.ident] = stand
            return True
    g.args, g.kw, g.ctx = args, kw, ctx
    g.carrier = None
    if m.mail:  # cancelled meanwhile.  (Who writes that after this look sees that there is no stand any more.)
        g.cancel()
    return False


def start_backlog(sched: Any) -> None:
    """By sysmon: start those that wait for a thread, if there is one by now.

    Mostly a machine that runs apart takes the next of them itself when it is done (Machine._step_apart).  But the last
    one may have looked just before a goroutine was put there.
    """
    while sched.backlog:
        waiting = len(sched.backlog)
        _hand(sched, 1)
        try:
            try:
                g = sched.backlog.popleft()
            except IndexError:
                return
            if not start(sched, g):
                try:
                    sched.inject(g)
                except RuntimeClosed:
                    drop(sched, g)  # it was in our hands when the others were dropped
                    continue
                return
        finally:
            _hand(sched, -1)
        if len(sched.backlog) >= waiting:
            return  # it waits on


def _hand(sched: Any, n: int) -> None:
    """One more fresh goroutine is perhaps in no queue, or one less: see stats.py."""
    with sched.lock:
        sched.moves += 1
        sched.in_hands += n
