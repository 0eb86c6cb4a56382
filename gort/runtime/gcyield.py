"""A goroutine that ran a garbage collection gives way at its next runtime call, as in Go.

A collection may be the longest thing a goroutine does without knowing, and it is charged to whoever happened to
allocate last; letting others run next spreads the cost.  The collector's callback only sets the flag: nothing may
switch inside a collection.

A finalizer that the collector runs may want to wait.  Where it has interrupted the program's own code it may; but not in
the middle of gort's: a goroutine that has left its ticket somewhere, and is about to switch away, would be taken for one
that waits for something else.  So there, from the collection's start to its end, its carrier has a mark in `pending`,
which every operation looks at before it waits, and which makes that an error (wait.COLLECTING).  A plain thread may hold
one of gort's locks (sysmon's does), and so has a mark likewise.

Without a GIL a collection stops every thread, so each looks blocked for as long as it takes (100 ms among 10^5
goroutines).  `last` tells sysmon not to take that for a call that blocks.
"""

from __future__ import annotations

import gc
import sys
from time import monotonic
from typing import Any

from greenlet import getcurrent

from . import overdue
from .stacks import of_gort
from .wait import COLLECTING, carrier, here

_users = 0
last = 0.0  # when a collection ended last
_marked: list[tuple[Any, Any]] = []  # [(carrier, what was pending for it)]: there is one collection at a time


def _collected(phase: str, _info: dict[str, Any]) -> None:
    global last
    if phase == "start":
        frame = sys._getframe().f_back  # what has been interrupted
        if frame is not None and of_gort(frame):
            _mark()
    else:
        while _marked:
            _unmark(*_marked.pop())
        last = monotonic()
        try:
            m = getattr(getcurrent(), "m", None)
        except RuntimeError:
            return  # the interpreter is ending
        if m is not None:
            overdue.mark(m, wait=False)


def _mark() -> None:
    w = carrier()
    if w is None:
        _marked.append((None, None))
        here.collecting = True
    elif w.pending is not COLLECTING:
        _marked.append((w, w.pending))
        w.pending = COLLECTING


def _unmark(w: Any, pending: BaseException | None) -> None:
    if w is None:
        here.collecting = False
    elif getattr(w, "pending", None) is COLLECTING:  # else this is the child of a fork
        w.pending = pending
        if pending is None:
            w.m.advance(w)  # what has come meanwhile


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
