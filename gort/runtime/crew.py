"""The crew: a machine's carriers, the idle ones among them, and whose turn to start goroutines it is.

The idea.  A goroutine that starts needs a carrier (carrier.py says how they pass the LRQ on among themselves).  One whose
goroutine has ended is kept, `free`, for the next; what exceeds KEEP ends, a few at a time.  In the ready queue one thing
stands for the whole LRQ, the `starter`: an idle carrier, or, if there is none, the *maker*, a greenlet that makes one when
the turn has come.

Invariants, whenever the hub or a goroutine runs:
- a carrier of `carriers` has a goroutine, or is in `free`, or is the starter (or is on its way between these);
- `starter` is not None if and only if it stands in `ready`.
A signal handler of the program's own may raise between any two instructions: `recover` restores both.

A part of the machine, in a file of its own: the methods are Machine's, and the data too.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import Any

from . import stealing
from .carrier import TURN, Carrier, carry
from .goroutine import FREE_THREADED, Goroutine
from .processor import SLICE, Processor
from .wait import Hub

KEEP = 4096  # idle carriers that a machine keeps for good: 30 MB
HOLD = 1.5e-3  # seconds: sysmon sees in 0.3 ms what waits, and the first thread of a P needs 0.7 ms to come


class Crew:
    """The carriers."""

    __slots__ = ()

    alive: bool
    carriers: set[Any]
    ended: int
    free: list[Carrier]
    held: float
    hub: Hub
    mail: deque[Any]
    maker: Hub
    moves: int
    p: Processor | None
    probed: bool
    ready: Any
    sched: Any
    solo: Goroutine[Any] | None
    started: int
    starter: Any
    throws: Any
    trims: Carrier | None

    def live(self) -> int:
        """How many of its carriers are in use: those of goroutines, and one in which a finalizer waits between two."""
        return max(0, len(self.carriers) - len(self.free) - (self.starter is not None and self.starter is not self.maker))

    def goroutines(self) -> int:
        """How many started goroutines it has.  From any thread.

        Without a GIL not by the carriers in use: one whose goroutine has ended is for a while on its way to the next one
        or to the idle ones, and whoever has joined that goroutine must not find it among the living.  (`ended` is read
        first: what ends after that still lived when we were asked.)  With a GIL a counter would cost each goroutine 20 ns,
        and nobody else runs during those few instructions, unless the interpreter switches threads in the middle of them.
        """
        if not FREE_THREADED:
            return self.live()
        ended = self.ended
        return max(0, self.started - ended)

    def make_maker(self) -> Hub:
        self.maker = Hub(self.make, self.hub)
        self.maker.m = self
        return self.maker

    def new_carrier(self) -> Carrier:
        carrier = Carrier(carry, self.hub)
        carrier.m = self
        carrier.ready = self.ready
        carrier.g = carrier.inner = carrier.pending = carrier.wait = None
        carrier.seq = 0
        self.carriers.add(carrier)
        return carrier

    def holds(self) -> bool:
        """Leave what stands in the LRQ to the machine of an idle P?  See carrier.py."""
        p = self.p
        if p is None or not p.lrq:
            return False
        ready = self.ready
        w = ready[0]
        if w is self.hub and len(ready) > 1:  # a probe of sysmon's
            w = ready[1]
        if getattr(w, "wait", None) is None:
            return False  # it has given way (`gosched`): then it is the turn of the fresh ones
        now = monotonic()
        if stealing.is_patient(p, now):
            return False
        if now - self.held >= SLICE:
            if not self.sched.idle:
                return False
            self.held = now
        return now - self.held < HOLD  # also while no P is idle any more: its machine is on the way

    def trim(self) -> None:
        """End some of the idle carriers too many: 0.2 ms of work.  By the hub, to which each of them returns."""
        for _ in range(min(len(self.free) - KEEP, 32)):
            self.trims = carrier = self.free.pop()
            self.carriers.discard(carrier)
            carrier.switch()
        self.trims = None

    def recover(self) -> None:
        """A signal handler has raised between any two instructions of ours: put things right.  By the hub."""
        self.trims = None
        self.carriers = {carrier for carrier in self.carriers if not carrier.dead}
        self.ended = self.started - sum(carrier.g is not None for carrier in self.carriers)
        self.moves += self.moves & 1
        # Those without a goroutine that are not there were on their way from or to it.
        self.free = [carrier for carrier in self.carriers if carrier.g is None and carrier is not self.starter]
        if self.maker is not None and self.maker.dead:
            self.make_maker()
        for _ in range(len(self.ready)):
            w = self.ready.popleft()
            if not w.dead:
                self.ready.append(w)
        # One that had given way, and was just taken to go on.  (One that was woken cannot be told from one that another
        # thread is about to put there.)
        there = {id(w) for w in self.ready} | {id(w) for w, _ in self.throws}
        for carrier in self.carriers:
            if carrier.g is not None and carrier.wait is None and carrier.inner is None and id(carrier) not in there:
                self.ready.append(carrier)
        if self.starter is not None and (self.starter.dead or self.starter not in self.ready):
            self.starter = None

    def queue_starter(self) -> None:
        """Give the LRQ its place in the ready queue."""
        self.starter = starter = self.free.pop() if self.free else self.maker
        self.ready.append(starter)

    def take_rarely(self, n: int) -> Goroutine[Any] | None:
        """The 61st time, or without a P: the GRQ first, so that a busy LRQ does not starve it.  Stores n in `started`."""
        p = self.p
        if p is None:
            if self.solo is not None:
                self.started = n
            g, self.solo = self.solo, None
            return g
        for queue in (self.sched.grq, p.lrq):
            if queue:
                self.started = n
                try:
                    return queue.popleft()
                except IndexError:
                    self.started = n - 1
        return None

    def make(self) -> None:
        """The maker: the LRQ's turn has come when there was no idle carrier to stand there (see carrier.py)."""
        while self.alive:
            self.starter = None
            p = self.p
            if FREE_THREADED and self.ready and self.holds():
                self.starter = self.maker
                self.ready.append(self.maker)
                self.ready.popleft().switch()
                continue
            rare = self.throws or self.probed or self.mail or not self.started % TURN
            if rare or p is None or not p.lrq:
                self.hub.switch()
            else:
                (self.free.pop() if self.free else self.new_carrier()).switch()

    def pay_off(self) -> None:
        """The machine ends: so do its idle carriers."""
        if self.starter is not None and self.starter is not self.maker:
            self.free.append(self.starter)
        self.starter = None
        if self.maker:  # started, so suspended in its loop: it sees that we are not alive, and returns
            self.maker.switch()
        while self.free:
            carrier = self.free.pop()
            self.carriers.discard(carrier)
            if carrier:  # likewise
                carrier.switch()
