"""gort: Go's scheduler for Python.  Goroutines are greenlets, run by a pool of real threads.

The public names, and nothing else; the README says what to do with them.
"""

from __future__ import annotations

from ._version import VERSION
from .chan import Chan
from .errors import (
    Cancelled,
    ChannelClosed,
    Deadlock,
    GoroutineCancelled,
    GortError,
    RuntimeClosed,
    ThreadLimit,
    WouldBlockScheduler,
)
from .runtime import report as _report
from .runtime.carrier import current
from .runtime.goroutine import Goroutine
from .runtime.instance import Runtime, go, gomaxprocs, num_goroutine, run
from .runtime.instance import current_stacks as stacks
from .runtime.instance import current_stats as stats
from .runtime.report import excepthook
from .runtime.scheduler import num_cpu
from .runtime.sleep import sleep
from .runtime.wait import gosched
from .selecting import recv, select, send
from .timer import Ticker, Timer, after, after_func

__version__ = VERSION

__all__ = [
    "Cancelled",
    "Chan",
    "ChannelClosed",
    "Deadlock",
    "Goroutine",
    "GoroutineCancelled",
    "GortError",
    "Runtime",
    "RuntimeClosed",
    "ThreadLimit",
    "Ticker",
    "Timer",
    "WouldBlockScheduler",
    "after",
    "after_func",
    "current",
    "excepthook",
    "go",
    "gomaxprocs",
    "gosched",
    "num_cpu",
    "num_goroutine",
    "recv",
    "run",
    "select",
    "send",
    "sleep",
    "stacks",
    "stats",
]

# The runtime knows nothing above itself; so that a program can assign to gort.excepthook, it is told where to look.
_report.current_hook[0] = lambda args: excepthook(args)
