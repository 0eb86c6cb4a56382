"""gort: Go's scheduler for Python.  Goroutines are greenlets, run by a pool of real threads.

The public names, and nothing else; the README says what to do with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import context, futures
from . import signal as signal  # not in __all__: "from gort import *" must not hide the standard one
from ._version import VERSION as __version__
from .awaiting import wait
from .cancel import shield, timeout
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
from .files import open
from .group import Group
from .runtime import fork as _fork  # noqa: F401  (for what it does in the child of a fork)
from .runtime import report as _report
from .runtime.blocking import blocking
from .runtime.carrier import current
from .runtime.goroutine import Goroutine
from .runtime.instance import Runtime, go, gomaxprocs, num_goroutine, run
from .runtime.instance import current_stacks as stacks
from .runtime.instance import current_stats as stats
from .runtime.limits import num_cpu
from .runtime.report import excepthook
from .runtime.sleep import sleep
from .runtime.wait import gosched
from .selecting import recv, select, send
from .sync import (
    Barrier,
    BrokenBarrier,
    Cond,
    Event,
    Mutex,
    Once,
    Pool,
    RWMutex,
    Semaphore,
    SingleFlight,
    SyncError,
    WaitGroup,
    local,
    once,
)
from .timer import Ticker, Timer, after, after_func

if TYPE_CHECKING:
    from . import aio

__all__ = [
    "Barrier",
    "BrokenBarrier",
    "Cancelled",
    "Chan",
    "ChannelClosed",
    "Cond",
    "Deadlock",
    "Event",
    "Goroutine",
    "GoroutineCancelled",
    "GortError",
    "Group",
    "Mutex",
    "Once",
    "Pool",
    "RWMutex",
    "Runtime",
    "RuntimeClosed",
    "Semaphore",
    "SingleFlight",
    "SyncError",
    "ThreadLimit",
    "Ticker",
    "Timer",
    "WaitGroup",
    "WouldBlockScheduler",
    "after",
    "after_func",
    "blocking",
    "context",
    "current",
    "excepthook",
    "futures",
    "go",
    "gomaxprocs",
    "gosched",
    "local",
    "num_cpu",
    "num_goroutine",
    "once",
    "open",
    "recv",
    "run",
    "select",
    "send",
    "shield",
    "sleep",
    "stacks",
    "stats",
    "timeout",
    "wait",
]


def __getattr__(name: str) -> Any:
    # When first used: asyncio takes as long to load as all of gort, and ssl a third of that.
    if name in ("aio", "net", "testing"):
        from importlib import import_module

        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The runtime knows nothing above itself; so that a program can assign to gort.excepthook, it is told where to look.
_report.current_hook[0] = lambda args: excepthook(args)
