"""A latch: the short lock of the hot paths.

The idea.  A latch is a list that holds one item, the permit.  ``latch.pop()`` takes it, ``latch.append(None)`` gives
it back; both are single atomic operations of CPython's list, with and without a GIL.  Uncontended that costs 38 ns
where ``threading.Lock`` costs 93 (3.13) and ``with lock`` 276; a buffered channel operation is 150 ns in all, so the
difference is what decides whether gort can keep up with queues written in C.

Use it so, and only around a few lines that call nothing that could block, switch or raise::

    try:
        latch.pop()
    except IndexError:
        contend(latch)
    ...
    latch.append(None)

Why this is a lock.  At most one thread can have popped the only permit.  On a free-threaded build list.pop and
list.append run under the list's own mutex, so what the holder wrote before ``append`` is seen after ``pop``.

Contention.  With a GIL it needs a thread switch inside those few lines, one in some ten thousand; without, it is
real but short.  So the loser first spins, then sleeps for moments that double up to a millisecond.  Goroutines of one
machine never contend: none of them gives way inside a latch.

The one danger is a finalizer (``__del__``, a weakref callback) or a signal handler that runs in the middle of those
lines *on the same thread* and uses the same object: it would wait for itself for ever.  A waiter that has spun for a
second therefore looks for the latch's holder in its own stack, and raises if it finds it there.

Refused: ``threading.RLock`` (slower, and re-entry would corrupt instead of raise); no lock at all under a GIL (true
only by accident of where the interpreter checks for thread switches).
"""

from __future__ import annotations

import sys
import time

from ..errors import GortError

Latch = list


def new() -> list[None]:
    """A free latch."""
    return [None]


def contend(latch: list[None]) -> None:
    """Take a latch that somebody else holds at the moment."""
    for _ in range(10):
        time.sleep(0)
        try:
            latch.pop()
            return
        except IndexError:
            pass
    delay = 20e-6
    patience = time.monotonic() + 1.0
    while True:
        time.sleep(delay)
        try:
            latch.pop()
            return
        except IndexError:
            if time.monotonic() > patience:
                _check_reentry(latch)
            delay = min(delay * 2, 1e-3)


def _check_reentry(latch: list[None]) -> None:
    frame = sys._getframe(2)
    first = True
    while frame is not None:
        # Our own caller also has the latch in its locals: it is the one that waits.
        if not first and any(value is latch for value in frame.f_locals.values()):
            raise GortError(
                f"{frame.f_code.co_qualname} was interrupted by a finalizer or signal handler that uses the same object: "
                "start a goroutine from there with gort.go() instead of using it directly"
            )
        first = False
        frame = frame.f_back
