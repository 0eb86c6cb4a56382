"""gort.sync: what goroutines and threads share is protected and waited for with these.

One concept a file; each opens with its state and its invariants.  In the order of dependence::

    errors        SyncError, BrokenBarrier
    place         what they have in common: a latch, a queue of tickets, how a wait is given up
    ending        have a function called when a goroutine has ended
    mutex         Mutex: exclusion, with Go's two ways of passing it on
    rwmutex       RWMutex: many readers or one writer
    semaphore     Semaphore: permits, taken several at a time, first come first served
    event         Event: a flag to wait for
    waitgroup     WaitGroup: wait until so many things are done
    cond          Cond: wait for something that a mutex protects
    once          Once and once: run something a single time
    barrier       Barrier: wait for each other
    pool          Pool: keep things that are costly to make
    singleflight  SingleFlight: one call for all who ask at the same time
    local         local: attributes that every goroutine has its own of

All of them work between goroutines of any machine and plain threads.  Waiting takes a ``timeout`` in seconds (None:
for ever; 0: do not wait) and ends with TimeoutError.  A waiter that is cancelled, or times out, takes nothing with
it: no permit, no wake-up.  Nothing here is re-entrant.

Not here: Go's sync.Map and sync/atomic.  A dict's operations are atomic in Python, with and without a GIL
(``setdefault`` is LoadOrStore, ``pop`` is LoadAndDelete), and for more than one at a time there is `Mutex`.
"""

from __future__ import annotations

from .barrier import Barrier
from .cond import Cond
from .errors import BrokenBarrier, SyncError
from .event import Event
from .local import local
from .mutex import Mutex
from .once import Once, once
from .pool import Pool
from .rwmutex import RWMutex
from .semaphore import Semaphore
from .singleflight import SingleFlight
from .waitgroup import WaitGroup

__all__ = [
    "Barrier",
    "BrokenBarrier",
    "Cond",
    "Event",
    "Mutex",
    "Once",
    "Pool",
    "RWMutex",
    "Semaphore",
    "SingleFlight",
    "SyncError",
    "WaitGroup",
    "local",
    "once",
]
