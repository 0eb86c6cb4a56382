"""Goroutines and plain threads that have come as far as they can: a test waits for that, and not for a time."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import gort
from gort import go, gosched

LONG = 1000.0  # a time-out that is there, but never over


def settle(*tasks: Any) -> Any:
    """Come back when each of these, goroutines or plain threads, waits or has ended; gives the first one."""
    for task in tasks:
        if isinstance(task, threading.Thread):
            while task.is_alive() and not _stands_in_park(task):
                gosched()
        else:
            while task.state not in ("waiting", "dead"):
                gosched()
    return tasks[0]


def _stands_in_park(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "sleep_on"


def start(fn: Callable[..., Any], *args: Any) -> gort.Goroutine[Any]:
    """A goroutine that has come as far as it can."""
    return settle(go(fn, *args))


def thread(fn: Callable[..., Any], *args: Any) -> threading.Thread:
    """A plain thread, started."""
    t = threading.Thread(target=fn, args=args, daemon=True)
    t.start()
    return t
