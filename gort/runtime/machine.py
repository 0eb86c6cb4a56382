"""M, the machine: an operating system thread that runs goroutines, and its hub.

The idea.  A machine's goroutines switch to each other directly; the hub (a greenlet with an empty stack, so that a
switch to it is cheap) runs only when there is nothing ready, and every 10 ms at most, when sysmon puts it at the head
of the ready queue.  All that is rare happens here: timers, cancellations, throwing, the global queue, stealing,
giving the P away, sleeping.

The order of a look for work (Machine._loop), as in Go's findRunnable: what has to be thrown or cancelled; due timers; a
poll that does not wait; a batch from the GRQ (the hub runs rarely, so this starves nobody, and a busy machine does not
starve the GRQ); the LRQ; the own ready queue, where the LRQ's turn stands too; stealing half of another P's LRQ, beginning
at a random P; a bounded spin; give up the P; look at everything once more; sleep until the first timer of the P just given
up.

Sleeping.  `asleep` is stored True, *then* everything is looked at once more, and only then the thread blocks on
`note` (a binary semaphore: an OS lock).  Whoever has work for this machine first leaves it where that last look
sees it, then reads `asleep`, and releases the note if it is set.  One of the two always sees the other (wait.py says
why without a GIL too).  A release too many makes one sleep end early, and is otherwise harmless.

The P.  A machine gives its P to the scheduler before it sleeps, and remembers it (`last`).  When it wakes because one
of its own started goroutines is ready, or because a timer of that P is due, it takes that P back if it is still idle,
else any idle one, else it queues for one (Scheduler.acquire_p), and those who hold one give way within a slice.
If it was woken to run fresh work, a P has been put into `next` for it.

Its parts in files of their own: its carriers (crew.py), exceptions from outside (delivery.py), and what is left of the
loop when it runs a goroutine apart (alongside.py).
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Any

from ..errors import Cancelled
from . import overdue, stealing, surplus
from .ages import EVERY, Ages
from .alongside import Alongside
from .carrier import Carrier
from .carrying import Carrying
from .closing import may_end, next_wave
from .crew import KEEP, Crew
from .delivery import Delivery
from .goroutine import ENDS, FREE_THREADED, Goroutine
from .handlers import raised_by_handler
from .handoff import NEVER, Clock, Watch
from .poller import Poller
from .processor import SLICE, Processor
from .timers import INFINITY
from .wait import FOREVER, Hub, glances, sleep_on

DOUBT = 10e-3  # seconds
MOST_DOUBT = 5.0


class Machine(Delivery, Crew, Alongside):
    """M."""

    __slots__ = (
        "ages", "alive", "apart", "asleep", "blocked", "carriers", "clock", "dismissed", "doubt", "ended", "free", "held", "hub", "id",
        "ident", "judged", "kick", "last", "late", "mail", "main_g", "maker", "moves", "next", "note", "p", "parked", "polled", "poller",
        "probed", "ready", "sched", "seen", "since", "solo", "spins", "spun", "started", "starter", "stuck", "thread",
        "throws", "trims", "undelivered", "wakes", "watch", "yielded",
    )  # fmt: skip

    def __init__(self, sched: Any, number: int) -> None:
        self.sched = sched
        self.id = number
        self.ident = 0
        self.thread: Any = None  # a threading.Thread, or a Light one; None: the thread of a `run`
        self.alive = True
        self.hub: Hub = None  # type: ignore[assignment]
        self.maker: Hub = None  # type: ignore[assignment]
        self.ready: Any = ()  # a deque: see `equip`
        self.throws: Any = ()  # likewise
        self.mail: deque[tuple[Goroutine[Any] | None, BaseException]] = deque()
        self.undelivered: list[Carrying] = []  # with an exception in `pending` that could not be thrown at once
        self.carriers: set[Any] = set()  # of Carrying
        self.free: list[Carrier] = []
        self.held = 0.0  # since when, or when last, it left its LRQ to others
        self.trims: Carrier | None = None  # an idle carrier that is to end when it is switched to
        self.starter: Any = None  # what stands in `ready` for the LRQ: an idle carrier, the maker, or None
        self.main_g: Goroutine[Any] | None = None  # the main goroutine, until it starts, if this is its machine
        self.p: Processor | None = None
        self.last: Processor | None = None
        self.next: Processor | None = None
        self.asleep = False
        self.note = threading.Lock()
        self.note.acquire()
        self.polled = False  # it has just looked at its poller
        self.poller: Poller | None = None  # what it sleeps in, once there is I/O (or signals, see interrupt.py) to wait for
        self.solo: Goroutine[Any] | None = None  # a goroutine to be started apart: see handoff.py
        self.apart: Any = None  # the function it runs apart, without a P
        self.doubt = 0.0  # seconds after which it wakes, for a goroutine has failed here and it made what is reported: see doze
        self.dismissed = False  # it is to end: another thread was needed
        self.blocked = False  # sysmon has seen it blocked meanwhile
        self.judged = NEVER  # at how many waits it is asked whether it blocks; NEVER: it has been
        # for sysmon
        self.clock: Clock | None = None
        self.watch = Watch()
        self.probed = False  # the hub was put into the ready queue, and has not run since
        self.late = False  # its goroutine is to give way: see overdue.py
        self.stuck = False  # it has made no runtime call for three slices
        self.seen = (0.0, -1)  # when it was probed, and its tick then
        self.since = 0.0  # when it got its P
        self.kick = False  # sysmon sleeps long while Ps are idle: `go` should tell it that there is work
        self.ages = Ages()
        # counters
        self.started = 0  # fresh goroutines started
        self.ended = 0  # and those of them that have ended (without a GIL)
        self.moves = 0  # that it began or ended to move fresh goroutines from one queue to another
        self.parked = 0  # waits
        self.yielded = 0  # slices that ended
        self.wakes = 0  # sleeps of the thread that ended
        self.spins = 0  # looks for work that found none
        self.spun = False

    def __repr__(self) -> str:
        return f"<M {self.id} {'asleep' if self.asleep else f'with P {p.id}' if (p := self.p) else 'without P'}>"

    # -- from anywhere ------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """End the thread's sleep.  Call it after the work is where the thread will see it."""
        self.asleep = False
        if self.poller is not None:
            # It is made by the machine's own thread while that is awake, so it does not appear in the middle of a sleep.
            self.poller.wake()
            return
        try:
            self.note.release()
        except RuntimeError:
            pass  # already released: the wake-up is on its way

    def nudge(self) -> None:
        """Make the hub run soon: next, if the machine runs goroutines, now, if it sleeps."""
        if self.hub is None:
            return  # its thread is only starting, and will look at everything first
        self.ready.appendleft(self.hub)
        if self.asleep:
            self.wake()

    # -- on its own thread --------------------------------------------------------------------------------------

    def equip(self) -> None:
        """Make the queues that one needs who has a hub.  (Ten thousand may never get one: see apart.py.)"""
        if self.ready == ():
            self.ready = deque()
            self.throws = deque()

    def attach(self, root: Any = None) -> None:
        """Make the calling thread this machine's thread.  root: its own greenlet, if that is not the one that calls."""
        self.ident = threading.get_ident()
        self.clock = Clock(self.ident)
        self.equip()
        hub = Hub(self.loop, root)
        hub.m = self
        self.hub = hub
        if self.apart is None:  # else it has no fresh goroutines to start, and may never have
            self.make_maker()

    def main(self) -> None:
        """The body of a machine's thread."""
        self.attach()
        self.sched.attached(self)
        self.hub.switch()

    def loop(self) -> None:
        """The hub."""
        hurt = False
        while True:
            try:
                if hurt:
                    self.recover()
                    hurt = False
                if self.main_g is not None:
                    if self.main_g.carrier is None:
                        self.new_carrier().switch(self.main_g)
                    self.main_g = None
                self._loop()
                break
            except BaseException as exc:
                hurt = True
                if self.poller is not None:
                    self.poller.lost = True  # events that were fetched and not delivered, perhaps
                self._blame_main(exc)
        self._end()

    def _blame_main(self, exc: BaseException) -> None:
        """A signal handler of the program's own raised while the hub ran.

        It ran on the main thread, in place of main, so to speak: there its exception belongs.
        """
        if self.sched.orphaned:
            return  # the handler has forked, and this is the child: there is nothing more to do here (fork.py)
        main = self.sched.main
        if self.thread is not None or main is None or main.done():
            raise exc
        self.mail.append((main, exc))

    def failed(self, g: Goroutine[Any], exc: BaseException) -> None:
        """exc has ended g.  If a signal handler raised it, on the thread of a `run`, it is main's as well."""
        if isinstance(exc, ENDS):
            return
        if FREE_THREADED:
            self.doubt = DOUBT
        main = self.sched.main
        if self.thread is not None or main is None or main is g or main.done() or self.sched.orphaned:
            return
        if raised_by_handler(exc):
            self.mail.append((main, exc))
            self.nudge()

    def _loop(self) -> None:
        sched = self.sched
        ready = self.ready
        throws = self.throws
        while True:
            probed = self.probed
            self.probed = self.stuck = False
            if self.mail:
                self.read_mail()
            if throws:
                w, exc = throws.popleft()
                if self.p is None and not sched.acquire_p(self):
                    break  # (comes back at once, without one, if we run a goroutine apart)
                w.wait = None
                owner = getattr(w, "carrier", w)
                if isinstance(exc, (Cancelled, KeyboardInterrupt)):
                    exc.raised = True  # type: ignore[union-attr]
                if owner.pending is exc:
                    self.advance(owner)
                if throws:
                    ready.append(self.hub)
                w.throw(exc)
                w = exc = owner = None
                continue
            if self.undelivered and (probed or len(self.undelivered) < 8):  # many: once a slice is enough
                self.retry()
            if self.apart is not None:
                self._step_apart()
                continue
            p = self.p
            now = monotonic()
            if p is None or p.dead or (sched.waiting_for_p and now - self.since >= SLICE):
                if not sched.settle_p(self):
                    break
                continue
            if sched.reports:
                sched.start_reports()  # a few lines down the batch from the GRQ takes them
            if now - self.ages.last >= EVERY:
                self.ages.note(now, self.parked)
            if p.timers.heap and p.timers.run(now):
                ready.append(self.hub)  # more timers are due: come back, but let others run first
            if self.poller is not None:
                if self.polled:  # in our sleep, a moment ago
                    self.polled = False
                else:
                    self.poller.fire(self.poller.fetch(0))
            if sched.grq:
                stealing.take_batch(sched, self, p)
                if self.p is not p:  # taken from us a moment ago: see handoff.py
                    sched.rescue(p)
                    continue
            if p.lrq and self.starter is None:
                (self.free.pop() if self.free else self.new_carrier()).switch()
                continue
            if probed and len(self.free) > KEEP:
                self.trim()
            if ready:
                self.spun = False
                ready.popleft().switch()
                continue
            if stealing.steal(sched, self, p):
                if self.p is not p:
                    sched.rescue(p)
                continue
            if len(self.free) > KEEP:
                self.trim()
                continue  # work may have come meanwhile
            if sched.closing:
                if may_end(sched, self):
                    break
                next_wave(sched)
            if self.parked:
                self.ages.note(now, self.parked)
            if not self._sleep(p):
                break

    def read_mail(self) -> None:
        early: list[tuple[Goroutine[Any] | None, BaseException]] = []
        while True:
            try:
                g, exc = self.mail.popleft()
            except IndexError:
                self.mail.extend(early)
                return
            if g is None or g.carrier is not None:
                self.deliver(g, exc)
            elif not g.done():  # main, interrupted before it has begun
                early.append((g, exc))

    def _sleep(self, p: Processor) -> bool:
        """Nothing found: give up the P, look once more, sleep, get a P.  False: the machine may end."""
        sched = self.sched
        sched.release_p(self, p)  # stores asleep = True under the scheduler's lock
        # From here on others see us as idle, so work that is left after this line comes with a wake-up; what was left
        # before it is seen by the following look.
        found = bool(self.mail or self.throws or sched.grq or (sched.closing and may_end(sched, self)) or sched.reports)
        if not found and not FREE_THREADED:
            found = bool(self.ready)
        elif not found:
            try:
                ready_first = self.ready.popleft()  # not `if self.ready`: see wait.py
                self.ready.appendleft(ready_first)
                found = True
            except IndexError:
                pass
        if not found:
            when = p.timers.next()
            if when == INFINITY:
                patience = surplus.patience(sched, self)
                if patience:
                    self.doze(patience)
                if patience >= 0 and surplus.retire(sched, self):
                    return False
            else:
                delay = when - monotonic()
                if delay > 0:
                    self.doze(min(delay, FOREVER))
            self.wakes += 1
        return sched.acquire_p(self)

    def doze(self, timeout: float) -> None:
        """Sleep until `wake`, or for so many seconds (-1: without end); it may end early.

        Without a GIL CPython has an object that another thread drops last freed by the thread that made it, when that
        runs again.  So what a failed goroutine holds until somebody asks (report.Unasked) would be reported only when
        something wakes us.  After a failure we therefore wake by ourselves, ever more rarely.
        """
        if self.doubt:
            timeout = self.doubt if timeout < 0 else min(timeout, self.doubt)
            self.doubt = self.doubt * 2 if self.doubt < MOST_DOUBT else 0.0
        try:
            if self.poller is None:
                if self.thread is None:
                    sleep_on(self.note, None if timeout < 0 else timeout)
                else:
                    self.note.acquire(timeout=timeout)
            else:
                events = self.poller.fetch(timeout) if self.thread is not None else self._fetch_and_glance(timeout)
                self.asleep = False  # so that those who wake up here do not wake us again
                self.poller.fire(events)
                self.polled = True
        except BaseException as exc:
            if self.poller is not None:
                self.poller.lost = True
            self._blame_main(exc)

    def _fetch_and_glance(self, timeout: float) -> list[Any]:
        """`fetch` on the thread of a `run`: for a signal that came at a bad moment."""
        poller: Any = self.poller
        events: list[Any] = []
        for seconds in glances(None if timeout < 0 else timeout):
            events = poller.fetch(seconds)
            if events or poller.lost:
                break
        return events

    def _end(self) -> None:
        """The machine is done: let its idle carriers end, and the thread with them."""
        self.alive = False
        self.sched.detach(self)
        overdue.clear(self)
        self.pay_off()
        self.ready.clear()
        if self.poller is not None:
            self.poller.close()
        if self.sched.closing:
            next_wave(self.sched)
