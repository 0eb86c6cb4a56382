"""queue, cooperatively: the standard queues over gort.green.threading.

For goroutines alone a `gort.Chan` is several times faster; these are for code that is written for a Queue.
"""

from __future__ import annotations

import queue as _std

from .. import borrow as _borrow
from . import threading as _threading

threading = _threading  # which the borrowed code finds
_borrow.rest(_std, globals())
Queue = _borrow.cls(_std.Queue, globals())
PriorityQueue = _borrow.cls(_std.PriorityQueue, globals(), Queue)
LifoQueue = _borrow.cls(_std.LifoQueue, globals(), Queue)
SimpleQueue = _borrow.cls(_std._PySimpleQueue, globals())
SimpleQueue.__name__ = SimpleQueue.__qualname__ = "SimpleQueue"
