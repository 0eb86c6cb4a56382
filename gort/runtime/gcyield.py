"""A goroutine that ran a garbage collection gives way at its next runtime call, as in Go.

A collection may be the longest thing a goroutine does without knowing, and it is charged to whoever happened to
allocate last; letting others run next spreads the cost.  The collector's callback only sets the flag: nothing may
switch inside a collection.

Without a GIL a collection stops every thread, so each looks blocked for as long as it takes (100 ms among 10^5
goroutines).  `last` tells sysmon not to take that for a call that blocks.
"""

from __future__ import annotations

import gc
from time import monotonic
from typing import Any

from greenlet import getcurrent

from . import overdue

_users = 0
last = 0.0  # when a collection ended last


def _collected(phase: str, _info: dict[str, Any]) -> None:
    global last
    if phase == "stop":
        last = monotonic()
        try:
            m = getattr(getcurrent(), "m", None)
        except RuntimeError:
            return  # the interpreter is ending
        if m is not None:
            overdue.mark(m, wait=False)


def install() -> None:
    """A runtime starts.  Under the lock of `instance`."""
    global _users
    _users += 1
    if _users == 1:
        gc.callbacks.append(_collected)


def remove() -> None:
    """A runtime has ended."""
    global _users
    _users -= 1
    if _users == 0 and _collected in gc.callbacks:
        gc.callbacks.remove(_collected)


def forget() -> None:
    """In the child of a fork: there is no runtime any more."""
    global _users
    _users = 0
    if _collected in gc.callbacks:
        gc.callbacks.remove(_collected)
