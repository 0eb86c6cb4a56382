"""Alongside: a machine that has no P, and runs one goroutine apart beside those that have one.

The idea.  What is known to block is started apart (handoff.py): on a machine of its own, which does everything that a
machine does for its goroutines but what belongs to a P: no timers, no GRQ, no LRQ, no stealing.  When that goroutine has
ended, the machine takes the next from the backlog, or becomes one like the others.

(With a GIL, and without one from when such a goroutine first waits: until then it has no machine's loop, see apart.py.)

A part of the machine, in a file of its own: the methods are Machine's, and the data too.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from .ages import Ages
from .goroutine import Goroutine
from .handoff import LIVELY, NEVER, STILL, Watch, key_of, ran_apart
from .poller import Poller
from .wait import Hub


class Alongside:
    """The steps of such a machine."""

    __slots__ = ()

    ages: Ages
    apart: Any
    asleep: bool
    blocked: bool
    doze: Callable[[float], None]
    free: list[Any]
    judged: float
    live: Callable[[], int]
    mail: Any
    make_maker: Callable[[], Hub]
    maker: Hub
    moves: int
    new_carrier: Callable[[], Any]
    parked: int
    poller: Poller | None
    ready: Any
    sched: Any
    since: float
    solo: Goroutine[Any] | None
    throws: Any
    wakes: int
    watch: Watch

    def run_apart(self, g: Goroutine[Any]) -> None:
        """Our next goroutine, and the only one until it ends: see handoff.py.  On our thread, or while that is not awake."""
        self.solo = g
        self.goes_apart(g)

    def goes_apart(self, g: Goroutine[Any]) -> None:
        self.apart = key_of(g.fn)
        self.blocked = False
        self.since = monotonic()
        self.judged = self.parked + LIVELY

    def judge_apart(self) -> None:
        """The goroutine that we ran apart has ended: did it block?"""
        sched = self.sched
        seen = self.watch.at - self.since >= STILL  # sysmon would have noticed
        if self.blocked or (self.judged != NEVER and (seen or monotonic() - self.since < STILL)):
            ran_apart(sched, self.apart, self.blocked)

    def _step_apart(self) -> None:
        """What is left of the loop while we run a goroutine apart, without a P."""
        sched = self.sched
        if self.poller is not None:
            self.poller.fire(self.poller.fetch(0))
        if self.solo is not None:
            (self.free.pop() if self.free else self.new_carrier()).switch()
        elif self.ready:
            self.ready.popleft().switch()
        elif not self.live():
            self.judge_apart()
            self.moves += 1  # odd: it may have one in its hands (stats.py)
            try:
                self.run_apart(sched.backlog.popleft())
                return
            except IndexError:
                self.apart = None
            finally:
                self.moves += 1
            if self.maker is None:
                self.make_maker()
        else:
            self.ages.note(monotonic(), self.parked)
            if self.parked >= self.judged:
                self.judged = NEVER
                if not self.blocked:  # a server's handler, say, that may live for days: it counts now, not at its end
                    ran_apart(sched, self.apart, False)
            with sched.lock:
                self.asleep = True
                sched.apart_asleep[self] = None
            # As in `_sleep`: what is left for us after this line comes with a wake-up.
            try:
                self.ready.appendleft(self.ready.popleft())
            except IndexError:
                if not (self.mail or self.throws):
                    self.doze(-1)
                    self.wakes += 1
            with sched.lock:
                self.asleep = False
                sched.apart_asleep.pop(self, None)
                sched.sysmon.busy()
