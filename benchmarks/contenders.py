"""The contenders: the libraries that a workload is written for, and how each one is started.

A contender's name is what the command line and the tables use. Its `key` says which of a
workload's functions it runs: gort with one P and gort with all of them run the same function, and
so do asyncio and uvloop. `start(fn, *args)` is the library's own way to run a program: an
`async def` for asyncio, uvloop and trio, a plain function for the others. Thus the code of a
workload holds no start-up, and every workload is started in the same way.

    gort       procs as gort chooses them: one for each CPU the process may use
    gort-pN    gort with procs=N, for any N
    gort-green the socket module's twin, in the servers beside gort.net
    asyncio-streams, uvloop-streams      in the servers, beside the Protocol of asyncio and uvloop
    gort-2m    two goroutines kept on two Ms; only a workload that tells this story has it
    two-threads  two threads whatever the number of CPUs: the control of --targets for what procs=2 can gain
    bare       the limit: greenlets that switch to each other with no scheduler, or a plain loop

What counts as the best use of a library is said once, in IDIOMS; `python -m benchmarks --code NAME` prints it with
all the code that this library is measured by, for whoever wants to judge whether it is fair.

Whether a library can be used is found by importing it in a fresh process of this interpreter, not
by a table of versions: on a free-threaded build the question is whether the import turns the GIL
on, and that changes with every release. A contender that cannot be used is left out with its
reason; asked for by name, it is an error.
"""

import functools
import os
import re
import sys
from dataclasses import dataclass
from typing import Callable

from benchmarks import CHECKOUT


class UsageError(Exception):
    """Something the user asked for cannot be had; its text is the whole message."""


@dataclass(frozen=True)
class Contender:
    name: str
    label: str
    key: str
    module: str
    start: Callable

    @property
    def is_gort(self):
        return self.module == "gort"


def _start_plain(fn, *args):
    fn(*args)


def _start_gort(procs):
    def start(fn, *args):
        import gort

        gort.run(fn, *args, procs=procs)

    return start


def _start_asyncio(fn, *args):
    import asyncio

    asyncio.run(fn(*args))


def _start_uvloop(fn, *args):
    import uvloop

    uvloop.run(fn(*args))


def _start_trio(fn, *args):
    import trio

    trio.run(fn, *args)


# In the order of the tables: gort, its limit, the rivals in one thread, the rivals with threads.
_FIXED = {
    c.name: c
    for c in (
        Contender("gort", "gort", "gort", "gort", _start_gort(None)),
        Contender("gort-2m", "gort, two Ms", "gort-2m", "gort", _start_gort(2)),
        Contender("gort-green", "gort, green sockets", "gort-green", "gort", _start_gort(None)),
        Contender("bare", "bare greenlet", "bare", "greenlet", _start_plain),
        Contender("asyncio", "asyncio", "asyncio", "asyncio", _start_asyncio),
        Contender("uvloop", "asyncio on uvloop", "asyncio", "uvloop", _start_uvloop),
        Contender("asyncio-streams", "asyncio streams", "asyncio-streams", "asyncio", _start_asyncio),
        Contender("uvloop-streams", "uvloop streams", "asyncio-streams", "uvloop", _start_uvloop),
        Contender("gevent", "gevent", "gevent", "gevent", _start_plain),
        Contender("trio", "trio", "trio", "trio", _start_trio),
        Contender("threading", "threading", "threading", "threading", _start_plain),
        Contender("two-threads", "two threads", "threading", "threading", _start_plain),
        Contender("pool", "thread pool", "pool", "concurrent.futures", _start_plain),
    )
}
# By key: how the library is used, and why that is the best a careful user writes.
IDIOMS = {
    "gort": "Plain functions, `go` and the handles' join or result; `with mutex`; a channel where something is handed "
    "over. No private name, and nothing that a user would not write: the same code runs with any number of Ps.",
    "gort-green": "A server as one writes it with the socket module, over its twin gort.green.socket.",
    "gort-2m": "As gort; two goroutines keep their Ms busy until both have started, so that they live on two of them.",
    "bare": "What would be left if scheduling cost nothing: greenlets that switch to each other by hand, "
    "an epoll loop, a plain loop. Not a way to write a program.",
    "asyncio": "create_task and await of each task (a TaskGroup costs nearly twice as much for each), put_nowait where "
    "a queue has no bound, callbacks where asyncio has them (a Protocol for the server, call_later for the timers), "
    "run_in_executor (to_thread also copies the context), `async with` for locks. No eager tasks: a task that runs "
    "within create_task is another program. On uvloop the same code.",
    "asyncio-streams": "start_server, a coroutine for each connection that awaits read, writes, and awaits drain, "
    "as asyncio's own documentation has it. On uvloop the same code.",
    "gevent": "gevent's own API and no monkey patching, which would only add a layer: spawn and joinall, Channel and "
    "SimpleQueue (its fastest, in C), Event, Timeout, StreamServer, BoundedSemaphore(1) for a lock (its RLock "
    "has an owner to keep), the hub's thread pool. The default loop, libev.",
    "trio": "Nurseries, memory channels, trio.Lock, lowlevel.checkpoint to give way, to_thread.run_sync, "
    "serve_listeners. Trio checks for cancellation at each checkpoint, which is what it costs and what it is for.",
    "threading": "Thread and join; queue.SimpleQueue (in C) where no bound is needed, queue.Queue where one is; Lock, "
    "Event and Timer; a thread for each connection of the server, a thread for each CPU to compute.",
    "pool": "ThreadPoolExecutor with its own default size (one thread a CPU for computation and C code), "
    "submit and result.",
}

_PROCS = re.compile(r"gort-p([1-9][0-9]{0,3})")


def contender(name):
    """The contender of that name; UsageError if there is none."""
    if name in _FIXED:
        return _FIXED[name]
    if match := _PROCS.fullmatch(name):
        procs = int(match[1])
        return Contender(name, f"gort, procs={procs}", "gort", "gort", _start_gort(procs))
    raise UsageError(f"There is no contender {name!r}. There are: {', '.join(_FIXED)}, and gort-pN for procs=N.")


def rank(name):
    """Sort key for the order of the tables: gort, then gort-p1, gort-p2, ..., then the rest."""
    if match := _PROCS.fullmatch(name):
        return (0, int(match[1]))
    position = list(_FIXED).index(name)
    return (position, 0)


def free_threaded():
    """True if this interpreter runs Python code in parallel, here and now."""
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


_PROBE = """
import importlib, sys
gil = getattr(sys, "_is_gil_enabled", lambda: True)
before = gil()
importlib.import_module(sys.argv[1])
print("turns the GIL on" if gil() and not before else "usable")
"""


@functools.cache
def why_not(module):
    """Why this interpreter cannot use `module`, as the end of a sentence ("is not installed"); None if it can."""
    import subprocess  # here, for the children must start quickly and need it not

    found = subprocess.run(
        [*interpreter(), "-W", "ignore", "-c", _PROBE, module],
        env=environment(),
        capture_output=True,
        text=True,
    )
    if found.returncode:
        reason = last_words(found.stderr) or f"exit status {found.returncode}"
        top = module.partition(".")[0]
        return "is not installed" if reason.endswith(f"No module named '{top}'") else f"cannot be imported ({reason})"
    return None if found.stdout.strip() == "usable" else "would turn the GIL on"


def last_words(text):
    """The last line that a process wrote: as a rule its exception; "" if there is none.

    (Of an exception group, whose last line is a frame, the last exception in it.)
    """
    lines = [line.strip().removeprefix("| ").strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line.strip("+-| ")), "")


def interpreter():
    """The command that starts this interpreter again, with the same GIL setting."""
    options = [f"-Xgil={value}" for option, value in sys._xoptions.items() if option == "gil"]
    return [sys.executable, *options]


# What a user has set for programs of their own must not change what is measured: GORT_PROCS would make "gort" another
# contender, GORT_DEBUG or asyncio's debug mode would make one pay for what the others need not do.
_CHANGES_FIGURES = ("GORT_", "GEVENT_", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONMALLOC", "PYTHONTRACEMALLOC")


def left_behind():
    """The names of the variables in this environment that are kept from what is measured."""
    return sorted(name for name in os.environ if name.startswith(_CHANGES_FIGURES))


def environment():
    """This environment without what would change figures; in it a child process finds this checkout first."""
    found = dict(os.environ)
    for name in left_behind():
        del found[name]
    found.pop("FORCE_COLOR", None)
    found["NO_COLOR"] = "1"  # what a child says is quoted in sentences
    found["PYTHONPATH"] = os.pathsep.join(filter(None, (CHECKOUT, found.get("PYTHONPATH"))))
    return found


def version(module):
    """The installed version of a library, or None for one of the standard library's."""
    import importlib.metadata

    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return None
