"""P, the processor: the right to run goroutines.

There are `procs` of them, and a machine must hold one to run a goroutine.  A P owns what should follow the right to
run when sysmon or `gomaxprocs` hands it to another machine: the local run queue of fresh goroutines, and the timers.

The LRQ is a `collections.deque`.  Its owner takes from the left, thieves take from the left too (the oldest half:
what has waited longest is what its owner is least likely to reach soon), `go` appends on the right.  Every one of
these is a single atomic operation, so the deque needs no lock, an item can be taken by one only, and none is lost.

`mark` is how a thief knows what has waited "a little": sysmon notes at each of its looks how long the LRQ was and
how many goroutines its machine had started; what was there then and has not been started since has waited at least
since that look (stealing.py).  No goroutine needs a time stamp.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .goroutine import Goroutine
from .timers import TimerHeap

SLICE = 10e-3  # seconds that a goroutine may run, and a machine may keep a P, while others wait


class Processor:
    """P."""

    __slots__ = ("dead", "handed_off", "id", "keeper", "lrq", "m", "mark", "older", "stolen", "taken", "timers")

    def __init__(self, number: int) -> None:
        self.id = number
        self.lrq: deque[Goroutine[Any]] = deque()
        self.timers = TimerHeap()
        self.m: Any = None  # who holds it (None: idle)
        self.keeper: Any = None  # idle: the machine that sleeps until its first deadline
        self.dead = False  # taken out of use by gomaxprocs
        # (machine, goroutines in the LRQ, started or taken until then, when), and the one before
        self.mark: tuple[Any, int, int, float] = (None, 0, 0, 0.0)
        self.older = self.mark
        self.stolen = 0  # goroutines its holder stole from others
        self.taken = 0  # goroutines others stole from it
        self.handed_off = 0  # how often it was taken from a stuck machine

    def __repr__(self) -> str:
        m = self.m
        return f"<P {self.id} {'dead' if self.dead else 'idle' if m is None else f'on M {m.id}'} lrq={len(self.lrq)}>"
