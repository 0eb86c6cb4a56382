"""A thread at half the price, for machines that run one goroutine apart.

The idea.  `threading.Thread` waits for the new thread to say that it runs, and makes a dozen objects in it.  On a
free-threaded build each kind of object costs a new thread 4 to 8 KiB, so that a sleeping Thread takes 150 KiB where a
bare one takes 45.  Ten thousand goroutines in blocking calls are ten thousand threads, so there it matters.

From 3.13 on CPython has the bare one, with a handle to join it by.  `Light` has of Thread's face what the runtime uses.
`threading.current_thread()` still works in it: as in every thread that threading has not started, it makes a dummy.

The end of a thread.  When one that had greenlets has ended, greenlet may look for who still refers to the thread's own one, to
free it if that is nobody who can be found.  It looks through a pointer that it holds no reference to (3.5.6), and without a
GIL another thread may drop the last one meanwhile: the process crashed so, at a machine's end.  That search is optional, so
there it is off; what it would find is that a thread left a greenlet by a last switch that never came back, and a machine's does not.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from typing import Any

import greenlet

_optional: Any = getattr(getattr(greenlet, "_greenlet", None), "enable_optional_cleanup", None)
if _optional is not None and not getattr(sys, "_is_gil_enabled", lambda: True)():
    _optional(False)

_start: Any = getattr(_thread, "start_joinable_thread", None)


class Light:
    """A daemon thread without a threading.Thread."""

    __slots__ = ("_handle",)

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def ident(self) -> int:
        """Its number, as threading.get_ident() gives it there."""
        return self._handle.ident

    def is_alive(self) -> bool:
        """Has it not ended yet?"""
        return not self._handle.is_done()

    def join(self) -> None:
        """Wait for its end."""
        self._handle.join()


def start_light(target: Callable[[], None], name: str) -> Any:
    """Start a daemon thread as cheaply as this Python can.  Raises RuntimeError if the system gives none."""
    if _start is not None:
        return Light(_start(target, daemon=True))
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread
