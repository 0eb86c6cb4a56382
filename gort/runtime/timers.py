"""Timers: for each P a heap of deadlines.

The idea.  A heap item is ``(when, number, entry, fire)``.  Tuples are compared in C, and the running number makes
sure that a comparison never reaches the entry; that, and one tuple for each timer, is why 10^5 of them are cheap.
The entry is a list whose first item is None once the timer is dead: the ticket of a sleeper or of an operation with
a time-out, or the entry of an `Alarm`.

Stopping a timer does not search the heap: it marks the entry dead and counts.  When more than half of the heap is
dead it is rebuilt, so a program that sets a minute's time-out a hundred thousand times a second stays small.

That count (`dead`) is not exact without a GIL: whoever stops a timer adds to it without the lock, for the price of a
lock would be paid by each operation with a time-out, and two at the same moment may count one.  It decides only when
to rebuild.  Too high, by a subtraction that was lost, it rebuilds early, and 64 more must be counted before the next
time.  Too low, it rebuilds late, by as many as were lost since the last rebuild, which makes it exact again; and
because it is never let below zero, they are not more than were dead at once.  So a heap stays within its bound and
some few, for a loss needs two threads in the same few nanoseconds.

Invariants.
- A heap belongs to a P.  It is changed only under its lock, by any thread.
- A P with a live timer is held by a machine, which looks at least every slice, or is idle, and then the machine that
  let go of it last (its *keeper*) sleeps no longer than until the heap's first deadline.
- Callbacks (`fire`) run in the hub, outside the lock; they may start goroutines and wake them, but not wait.
- The ticket of a sleeper is claimed under `_claims`, one lock for all heaps, because a P that is taken out of use
  moves its timers to another heap while their sleepers may be cancelled.

Refused: a timing wheel (in Python its every tick costs more than heapq's C code costs for a whole operation); one
heap for the process (a point of contention without a GIL).
"""

from __future__ import annotations

import heapq
import itertools
import math
from _thread import RLock
from collections.abc import Callable
from time import monotonic
from typing import Any

from .wait import Ticket, ready, ready_throw

_number = itertools.count().__next__
_claims = RLock()
resets = RLock()  # of timers that have no lock of their own: see gort/timer.py

BATCH = 4096
INFINITY = math.inf


def check_seconds(seconds: float, name: str = "seconds") -> float:
    """Give seconds back if it is a number that means a time, else raise TypeError or ValueError that names it.

    A bool is none: ``ch.recv(True)`` is a slip, not a second.  Fractions, Decimals and the like become floats, and what
    is beyond all floats becomes infinity, so that nobody who computes with the result needs to think of it.
    """
    if type(seconds) is float:
        number = seconds
    elif isinstance(seconds, bool):
        raise TypeError(f"{name} must be a number of seconds, not bool")
    else:
        try:
            number = float(seconds.__float__())
        except (AttributeError, TypeError):
            raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}") from None
        except OverflowError:
            return INFINITY if seconds > 0 else -INFINITY
        except ValueError:  # a Decimal that is a signalling nan
            number = math.nan
        if isinstance(seconds, int):
            return seconds
    if number != number:
        raise ValueError(f"{name} must be a number of seconds, not nan")
    return number


def deadline(seconds: float) -> float:
    """The monotonic time that is so many seconds ahead, which `check_seconds` has seen (infinity: never)."""
    return monotonic() + seconds


class Alarm:
    """A timer with a callback, `_ring`, which its subclasses define: Timer and Ticker.

    `_ring` runs in a machine's hub, under `lock`, and must neither block nor switch.  `start` and `stop` take the same
    lock, from any thread: when they return, no earlier `_ring` is still under way.
    """

    __slots__ = ("_entry", "lock")

    def __init__(self) -> None:
        self._entry: list[Any] | None = None
        self.lock = RLock()

    def _ring(self) -> None:
        raise NotImplementedError

    def begin(self, sched: Any, when: float) -> None:
        """The first `start` of an alarm that nobody else knows yet: without the lock (a tenth of the whole)."""
        self._entry = entry = [self, None, None]
        sched.add_timer(when, entry, _ring_alarm)

    def start(self, sched: Any, when: float) -> bool:
        """Ring once at `when` (monotonic time) instead of whatever was planned; was something planned?"""
        with self.lock:
            planned = self._entry is not None and self.cease()
            self._entry = entry = [self, None, None]
            sched.add_timer(when, entry, _ring_alarm)
        return planned

    def cease(self) -> bool:
        """Ring no more.  True if that prevented a ring."""
        with self.lock:
            entry, self._entry = self._entry, None
            if entry is None:
                return False
            entry[0] = None
            entry[2].dead += 1
            return True

    def planned(self) -> bool:
        """Is it going to ring?"""
        return self._entry is not None


def _ring_alarm(entry: list[Any]) -> None:
    alarm = entry[0]
    if alarm is None:
        return
    with alarm.lock:
        if alarm._entry is entry:  # else it was stopped, or started again, in the meantime
            alarm._entry = None
            alarm._ring()


def _wake(ticket: Ticket) -> None:
    """The mark of a sleeper's heap item; `TimerHeap.run` wakes sleepers itself, many under one lock."""
    raise AssertionError("never called")


def expire(entry: list[Any]) -> None:
    """A time-out is over: give the operation up, if it has not been completed."""
    ticket = entry[0]
    if ticket is None:
        return
    entry[0] = None
    w = ticket[0]
    if w is not None and ticket[2].withdraw(ticket):
        ready_throw(w, entry[1]())


class TimerHeap:
    """The timers of one P."""

    __slots__ = ("dead", "heap", "lock")

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, list[Any], Callable[[list[Any]], None]]] = []
        self.dead = 0
        # Re-entrant, so that a finalizer that starts a timer in the middle of our few lines does not wait for itself.
        self.lock = RLock()

    def __len__(self) -> int:
        # Counted, for people and tests: `dead` only says when to rebuild, and without a GIL it may miss a few.
        with self.lock:
            return sum(item[2][0] is not None for item in self.heap)

    def add(self, when: float, entry: list[Any], fire: Callable[[list[Any]], None]) -> bool:
        """Plan one; True if it is now the first to come."""
        item = (when, _number(), entry, fire)
        with self.lock:
            heap = self.heap
            heapq.heappush(heap, item)
            first = heap[0] is item
            if self.dead > 64 and self.dead * 2 > len(heap):
                self._rebuild()
        return first

    def _rebuild(self) -> None:
        self.heap[:] = [item for item in self.heap if item[2][0] is not None]
        heapq.heapify(self.heap)
        self.dead = 0

    def next(self) -> float:
        """When the first live timer comes due (infinity: none)."""
        heap = self.heap
        with self.lock:
            while heap and heap[0][2][0] is None:
                heapq.heappop(heap)
                self.dead = max(0, self.dead - 1)
            return heap[0][0] if heap else INFINITY

    def peek(self) -> float:
        """About when the first timer comes due; without the lock, for sysmon."""
        try:
            return self.heap[0][0]
        except IndexError:
            return INFINITY

    def run(self, now: float) -> bool:
        """Let what is due ring, at most BATCH of them; is more due already?"""
        heap = self.heap
        try:
            if heap[0][0] > now:
                return False
        except IndexError:
            return False
        due = []
        pop = heapq.heappop
        with self.lock:
            while heap and heap[0][0] <= now and len(due) < BATCH:
                item = pop(heap)
                if item[2][0] is None:
                    self.dead = max(0, self.dead - 1)
                else:
                    due.append(item)
            more = bool(heap) and heap[0][0] <= now
        woken = []
        others = []
        with _claims:
            for _when, _n, entry, fire in due:
                if fire is _wake:
                    w = entry[0]
                    if w is not None:
                        entry[0] = None
                        woken.append(w)
                else:
                    others.append((fire, entry))
        for w in woken:
            ready(w)
        for fire, entry in others:
            fire(entry)
        return more

    def take_all(self, other: TimerHeap) -> None:
        """Move the other heap's timers here: its P goes out of use, or is idle and nobody sees to them."""
        with other.lock:
            items = list(other.heap)
            dead, other.dead = other.dead, 0
            other.heap.clear()
        with self.lock:
            self.dead += dead
            self.heap.extend(items)
            heapq.heapify(self.heap)


class _Bed:
    """The place where sleepers wait."""

    def withdraw(self, ticket: Ticket) -> bool:
        with _claims:
            if ticket[0] is None:
                return False
            ticket[0] = None
        ticket[3].dead += 1
        return True

    def reason(self, ticket: Ticket) -> str:
        return "sleep"


BED = _Bed()
wake_sleeper = _wake
