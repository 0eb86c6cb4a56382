"""With a GIL: let those who serve have it sooner, while somebody computes.

The idea.  A thread that computes keeps the GIL for `sys.getswitchinterval` (5 ms) each time, and one that does I/O asks
for it after every system call: poll, recv, send.  So beside one computing goroutine each request of a server takes 15 ms,
whoever serves it.  While sysmon sees a machine that computes without runtime calls, the interval is therefore 0.5 ms.
Measured with a server beside a loop: 99 % of the answers within 8 ms instead of 18, at a cost to the loop of 2 %.

The interval belongs to the process.  So it is changed only if it has its default value (a program that has set it knows
what it wants), and put back when the last computing machine gives way.  Several runtimes share it: `_hurried` counts.

Refused: a short interval always (every switch between threads that compute costs 5 to 10 us); none (it is what a
user sees of "nothing a goroutine does stops the others").
"""

from __future__ import annotations

import sys
import threading

from .goroutine import FREE_THREADED

DEFAULT = 5e-3
SHORT = 5e-4

_lock = threading.Lock()
_hurried: set[int] = set()  # who wants it short: ids of sysmons


def want(who: int, short: bool) -> None:
    """This sysmon sees (or no longer sees) a machine that computes."""
    if FREE_THREADED or short is (who in _hurried):
        return
    with _lock:
        if short:
            _hurried.add(who)
            if abs(sys.getswitchinterval() - DEFAULT) < 1e-6:
                sys.setswitchinterval(SHORT)
        else:
            _hurried.discard(who)
            if not _hurried and abs(sys.getswitchinterval() - SHORT) < 1e-6:
                sys.setswitchinterval(DEFAULT)


def forget() -> None:
    """In the child of a fork."""
    global _lock
    _lock = threading.Lock()
    for who in list(_hurried):
        want(who, False)
