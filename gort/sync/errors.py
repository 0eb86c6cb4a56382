"""The errors of gort.sync: a primitive used in a way that cannot be right.

Go ends the program for these ("fatal error: sync: unlock of unlocked mutex"); Python's own primitives raise
RuntimeError.  Both are served: the classes below are GortError and what `threading` would have raised.
"""

from __future__ import annotations

import threading

from ..errors import GortError

__all__ = ["BrokenBarrier", "SyncError"]


class SyncError(GortError, RuntimeError):
    """A primitive of gort.sync was used wrongly: unlocked while unlocked, counted below zero, waited for by itself.

    Raised before anything is changed, so that the primitive is still good for those who use it rightly.
    """


class BrokenBarrier(GortError, threading.BrokenBarrierError):
    """A party of a `Barrier` will not come: it timed out, was cancelled, or somebody called `abort` or `reset`."""
