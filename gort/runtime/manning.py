"""Manning: the machines that there are, and a thread for each that is new.

The idea.  What counts against the limit of threads (GORT_MAXTHREADS) is every thread of the runtime's: machines, spare
threads of `blocking`, and those that are about to end.  At the limit the idle spare threads go first.  What found no
thread waits where it stands, an LRQ, the GRQ, the backlog, until one has ended (`wants_thread`).

A part of the scheduler, in a file of its own: the methods are Scheduler's, and the data too.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .blocking import Spares
from .closing import all_ended
from .departure import Departures
from .goroutine import Goroutine
from .machine import Machine
from .processor import Processor
from .thread import start_light


class Manning:
    """The machines and their threads."""

    _forsaken: Callable[[], Processor | None]
    acquire_p: Callable[[Machine], bool]
    away: dict[Machine, None]
    backlog: deque[Goroutine[Any]]
    closing: bool
    departures: Departures
    grq: deque[Goroutine[Any]]
    idle_ms: dict[Machine, None]
    leave: Callable[[Machine, Processor], None]
    lock: Any
    many_threads: int
    max_threads: int
    ms: dict[Machine, None]
    next_m: int
    reports: deque[tuple[BaseException, str]]
    spares: Spares
    stop_keeping: Callable[[Machine, Processor | None], None]
    sysmon: Any
    threads: set[Any]
    waiting_for_p: deque[Machine]

    def room_for_thread(self) -> bool:
        """May another thread be started?"""
        return self.count_threads() < self.max_threads or self.spares.dismiss_one()

    def count_threads(self) -> int:
        """Machines, the spare threads of `blocking`, and those of former machines that are about to end."""
        return len(self.ms) + len(self.spares.all) + len(self.departures)

    def start_thread(self, m: Machine, body: Callable[[], None] | None = None) -> bool:
        """Start a new machine's thread; False if the system gives no more.  Under the lock.

        body: what it calls, if it is to run a goroutine apart.
        """
        name = f"gort-M{m.id}"
        try:
            if body is not None:
                m.thread = start_light(body, name)
                m.ident = m.thread.ident  # (its own thread may never store it: apart.py)
            else:
                m.thread = threading.Thread(target=m.main, name=name, daemon=True)
                m.thread.start()
        except RuntimeError:
            del self.ms[m]
            return False
        if len(self.threads) > self.many_threads:  # forget those that have ended
            self.threads = {thread for thread in self.threads if thread.is_alive()}
            self.many_threads = 2 * len(self.threads) + 16
        self.threads.add(m.thread)
        return True

    def new_machine(self) -> Machine:
        with self.lock:
            m = Machine(self, self.next_m)
            self.next_m += 1
            self.ms[m] = None
            return m

    def attached(self, m: Machine) -> None:
        """A new machine's thread is up: take the P it was started for."""
        self.acquire_p(m)

    def wants_thread(self) -> bool:
        """Is there anything that may have found no thread?  Under the lock."""
        return bool(self.backlog or self.grq or self._forsaken())

    def detach(self, m: Machine) -> None:
        """A machine ends."""
        with self.lock:
            p = m.p or m.next
            m.next = None
            self.idle_ms.pop(m, None)
            if m in self.waiting_for_p:
                self.waiting_for_p.remove(m)
            self.ms.pop(m, None)
            self.stop_keeping(m, None)
            if p is not None:
                m.last = None
                p.keeper = None
                self.leave(m, p)
            self.away.pop(m, None)
            last = not self.ms and (self.closing or m.thread is None)  # else others will be started, when there is work
            if self.reports and not last:
                next((m for m in self.ms if m.hub is not None), m).nudge()
            if self.wants_thread():
                self.sysmon.wake()  # there is one less
        if last:
            all_ended(self)
