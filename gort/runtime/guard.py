"""Guard: the lock of a scheduler, whose holder may be interrupted by code that wants it too.

The idea.  A finalizer (run by the garbage collector) and a signal handler of the program's run in the middle of whatever
their thread is doing, and ``go()`` is what they are told to use.  Should that be a stretch under the scheduler's lock, a
plain lock would never be given to them, and a re-entrant one would let them change what the holder has read a line
before: a P given away twice, a machine without a thread.  So the lock is re-entrant, for the scheduler's own functions
that call each other, and what comes from outside asks by `enter`: it is refused where the thread already holds the lock.
Then the work is left where any machine finds it, and sysmon, which is poked without a lock, wakes a machine for it
(Scheduler.catch_up).

It is refused as well if the lock cannot be had for PATIENCE: what was interrupted may hold another lock (a heap of
timers') that the holder of this one waits for.  Sysmon holds none.

Order.  `_depth` changes only while the lock is held.  An interruption between taking the lock and `_depth` becoming 1
finds it 0, and goes in; nothing has been read or changed by then.  The same at the end: `_depth` is 0 when all is done.

Refused: single operations that nothing can interrupt in place of the lock (the rules are about several lists at once);
to defer every ``go()`` in a finalizer (most interrupt the program, and want to be as quick as any).
"""

from __future__ import annotations

import threading

PATIENCE = 0.1  # seconds; nobody holds the lock for longer than the start of a thread takes


class Guard:
    """A re-entrant lock that tells whether its thread already holds it."""

    __slots__ = ("_depth", "_lock", "_take")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._take = self._lock.acquire
        self._depth = 0

    def __enter__(self) -> None:
        self._take()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        self._lock.release()

    def enter(self) -> bool:
        """Take it, from outside the scheduler; False: not now.  To be given back by `leave`."""
        if not self._take(timeout=PATIENCE):
            return False
        if self._depth:
            self._lock.release()
            return False
        self._depth = 1
        return True

    leave = __exit__

    def held(self) -> bool:
        """Does the calling thread hold it?"""
        return self._depth > 0 and self._is_owned()

    # As those of threading's locks, for the child of a fork (fork.free).

    def _is_owned(self) -> bool:
        return self._lock._is_owned()  # type: ignore[attr-defined]

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()  # type: ignore[attr-defined]
        self._depth = 0
