"""How code that may have interrupted the holder of the scheduler's lock asks for it.

The idea.  A finalizer (run by the garbage collector) and a signal handler of the program's run in the middle of whatever
their thread is doing, and ``go()`` is what they are told to use.  Should that be a stretch under the scheduler's lock, a
plain lock would never be given to them, and a re-entrant one would let them change what the holder has read a line
before: a P given away twice, a machine without a thread.  So the lock is re-entrant, for the scheduler's own functions
that call each other, and what comes from outside asks by `enter`: it is refused where the thread already holds the lock.
Then the work is left where any machine finds it, and sysmon, which is poked without a lock, wakes a machine for it
(Scheduler.catch_up).

It is refused as well if the lock cannot be had for PATIENCE: what was interrupted may hold another lock (a heap of
timers') that the holder of this one waits for.  Sysmon holds none.  And it is refused at once if the thread is waiting for
it already, in a frame below: signals come while one waits, and each would add a wait to the stack.

Refused: single operations that nothing can interrupt in place of the lock (the rules are about several lists at once);
to defer every ``go()`` in a finalizer (most interrupt the program, and want to be as quick as any).
"""

from __future__ import annotations

import threading
from typing import Any

PATIENCE = 0.1  # seconds; nobody holds the lock for longer than the start of a thread takes

_waiting: set[int] = set()  # threads that wait in `enter`


def held(lock: Any) -> bool:
    """Does the calling thread hold this RLock?"""
    return bool(lock._is_owned())


def enter(lock: Any) -> bool:
    """Take the RLock from outside the scheduler; False: not now.  To be released."""
    if lock._is_owned():
        return False
    if lock.acquire(False):
        return True
    me = threading.get_ident()
    if me in _waiting:
        return False
    _waiting.add(me)
    try:
        return bool(lock.acquire(timeout=PATIENCE))
    finally:
        _waiting.discard(me)
