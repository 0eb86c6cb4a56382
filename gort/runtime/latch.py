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
second therefore looks for the latch's holder in its own stack, and raises if it finds it there.  And nothing of the
program's is dropped under a latch: who kills a ticket takes its value out, when the latch is free again.

In the child of a fork a latch may have no holder: the thread that had it stayed in the parent.  There, a waiter that
has spun for a second looks at the stacks of all threads, and puts the permit back if none of them is inside gort (other
than asleep, or between goroutines): a holder always is.

Refused: ``threading.RLock`` (slower, and re-entry would corrupt instead of raise); no lock at all under a GIL (true
only by accident of where the interpreter checks for thread switches).
"""

from __future__ import annotations

import sys
import threading
import time
from types import FrameType, MemberDescriptorType
from typing import Any

from greenlet import getcurrent

from ..errors import GortError
from .stacks import of_gort

Latch = list

PATIENCE = 1.0  # seconds after which a waiter asks whether the holder will ever come back


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
    patience = time.monotonic() + PATIENCE
    while True:
        _nap(delay)
        try:
            latch.pop()
            return
        except IndexError:
            if time.monotonic() > patience:
                _check_reentry(latch)
                _let_others_run()
                if forked:
                    _free_if_dead(latch)
            delay = min(delay * 2, 1e-3)


def _let_others_run() -> None:
    # A finalizer or signal handler that interrupted the holder may have given way in `go`: the holder then stands in
    # this very machine's ready queue, and waits for us.
    w = getcurrent()
    if hasattr(w, "carries") and w.m.ready:
        w.ready.append(w)
        w.ready.popleft().switch()


def _nap(delay: float) -> None:
    time.sleep(delay)  # in a function of its own, so that one can see from outside that this thread only waits


# -- in the child of a fork -----------------------------------------------------------------------------------------

forked: list[list[Any]] = []  # [the latches that were freed], if this process is the child of a fork
_freeing = threading.Lock()
_AT_REST = {  # functions in which threads stand for long, and that hold no latch
    "carry", "Bell.wait", "EpollPoller.fetch", "KqueuePoller.fetch", "Machine._loop", "Machine.doze", "Machine.loop",
    "Machine.main", "Runtime.run", "Spares._loop", "Spares._next", "Sysmon._loop", "Sysmon.rest", "_LoopThread._main", "_nap",
    "_call", "_go_on", "_relay", "sleep_on", "_sleep_thread", "begin", "run",
}  # fmt: skip


def forget() -> None:
    """In the child of a fork: from now on a latch may have no holder."""
    _freeing._at_fork_reinit()  # type: ignore[attr-defined]
    forked[:] = [[]]


def _free_if_dead(latch: list[None]) -> None:
    """Give back the permit that stayed in the parent.  That can be the case once for each latch."""
    with _freeing:
        freed = forked[0]
        if not latch and not any(other is latch for other in freed) and not _somebody_inside():
            freed.append(latch)
            latch.append(None)


def _somebody_inside() -> bool:
    """Does any other thread stand in gort, in a function that may hold a latch?"""
    me = threading.get_ident()
    for ident, top in sys._current_frames().items():
        frame: FrameType | None = top
        while frame is not None and not of_gort(frame):
            frame = frame.f_back
        if ident != me and frame is not None and frame.f_code.co_qualname not in _AT_REST:
            return True
    return False


_OWNERS = ("_latch", "latch")  # the attributes in which objects keep theirs
_TAKERS = ("_lock", "lock")  # their methods that take it, and leave no trace in the locals of who calls them


def _check_reentry(latch: list[None]) -> None:
    """Raise GortError if the holder is a function of gort's that the caller has interrupted: below the program's frames."""
    frame: FrameType | None = sys._getframe(2)
    ours = True  # so far they are those who wait
    while frame is not None:
        if not of_gort(frame):
            ours = False
        elif not ours and _holds(frame, latch):
            raise GortError(
                f"{frame.f_code.co_qualname} was interrupted by a finalizer or signal handler that uses the same object: "
                "start a goroutine from there with gort.go() instead of using it directly"
            )
        frame = frame.f_back


def _holds(frame: FrameType, latch: list[None]) -> bool:
    """May this function be between taking the latch and giving it back?"""
    values = list(frame.f_locals.values())
    if any(value is latch for value in values):
        return True
    if not any(name in _TAKERS for name in frame.f_code.co_names):
        return False
    for value in list(values):
        if type(value) is list:
            values += value
    return any(_is_of(value, latch) for value in values)


def _is_of(value: Any, latch: list[None]) -> bool:
    """Is it this object's latch?  Asked so that no code of the program's runs."""
    for cls in type(value).__mro__:
        for name in _OWNERS:
            slot = cls.__dict__.get(name)
            if type(slot) is MemberDescriptorType:
                try:
                    if slot.__get__(value) is latch:
                        return True
                except AttributeError:
                    pass  # not set yet
    return False
