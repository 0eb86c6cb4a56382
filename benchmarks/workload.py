"""What a workload is, and the list of them all.

A workload is one question: "what does X cost?" It has a function for each contender that can
answer it, and points: the sizes at which it is asked. Everything else (starting libraries, timing,
processes, tables, plots) is the harness's and the same for all.

A contender's function takes a meter, the number of operations `n` and, if the workload's points
have one, a `size` (the number of channels to select over, of connections, ...). It must do exactly
the same work as the others of its workload, in the way its library's own documentation would:
the best code a careful user of that library writes, no more. Libraries are imported inside the
functions, so that a contender's process holds its own library and no other.

To add one: write workloads/NAME.py with a list WORKLOADS, and put NAME in workloads/__init__.py.
The smallest:

    def in_gort(meter, n): ...
    async def in_asyncio(meter, n): ...

    WORKLOADS = [
        Workload(
            name="name", title="what is measured", story="What each contender does.",
            points=[Point(100_000)], quick=[Point(10_000)], per="operation",
            contenders={"gort": in_gort, "asyncio": in_asyncio},
        )
    ]
"""

import functools
import importlib
import os
from dataclasses import dataclass, field, replace
from typing import Callable, NamedTuple

from benchmarks.contenders import UsageError, contender, rank
from benchmarks.memory import available_bytes

METRICS = {
    "time": "time",
    "cpu": "CPU time",
    "switches": "OS context switches",
    "memory": "memory",
    "p50": "latency, median",
    "p99": "latency, 99th percentile",
    "early": "share that came too early",
    "rate": "requests a second",
    "gap": "longest gap of a 10 ms heartbeat",
}
TIMES = ("time", "cpu", "p50", "p99", "gap")  # in seconds
WHOLE = ("p50", "p99", "early", "rate", "gap")  # these are not per operation
MORE_IS_BETTER = ("rate",)
NEGLIGIBLE = {"memory": 1.0, "switches": 0.01, "early": 0.01}  # less is too little for anyone to notice

_ON_UVLOOP = {"asyncio": "uvloop", "asyncio-streams": "uvloop-streams"}


class Point(NamedTuple):
    """Where a workload is measured: `n` operations, at a `size` if the workload has one."""

    n: int
    size: float | None = None

    @property
    def args(self):
        return (self.n,) if self.size is None else (self.n, self.size)

    @property
    def x(self):
        """The place on the axis of a curve."""
        return self.n if self.size is None else self.size

    def __str__(self):
        return f"{self.x:,}"


def _tenth(point):
    return point._replace(n=max(1, min(point.n // 10, 2_000)))


@dataclass(frozen=True)
class Workload:
    """One question with a function for each contender. The fields that need words:

    title, story   may say "{n}" and "{size}": told() puts in those of the points that were run
    per        what an operation is ("message"); None: the work is judged as a whole
    axis       what a point's x counts ("goroutines"); with more than one point there are curves over it
    metrics    the metrics that are shown, the most important first
    paced      those of them that consist mostly of waiting for the clock, which no machine shortens: see compare.py
    gorts      the gort contenders; their function is contenders["gort"]
    controls   what tells --targets how much the machine itself can give: no contenders, and in no other run
    caps       the largest x at which a contender is run, where more would be senseless
    capped     for each x in caps the reason, as a clause: "10,000 threads need too much of the machine"
    warm       the point of the warm-up before the measurement; None: the function has its own
    repeat     repeat small work within the process until it has lasted long enough to be timed;
               False where the first time is the true one, as with memory
    abandon    end the process as soon as the meter has been left: to tidy up would take longer than the work
    bytes_each memory that each of n needs: a point that does not fit is left out, and the child finds it beforehand
    lean       the same of contenders that need far less
    labels     names in the tables where the contender's own would mislead ("bare": "plain loop")
    headings   names of metrics where those of METRICS would mislead ("p50": "distance from the deadline, median")
    reason     why gort is not the cheapest here, where it is not: a sentence for the reports
    needs      tells why this machine cannot run the workload at a point, as a sentence; None if it can
    """

    name: str
    title: str
    story: str
    contenders: dict[str, Callable]
    points: list[Point]
    quick: list[Point]
    per: str | None = "operation"
    axis: str | None = None
    metrics: tuple[str, ...] = ("time",)
    paced: tuple[str, ...] = ()
    gorts: tuple[str, ...] = ("gort", "gort-p1")
    controls: dict[str, Callable] = field(default_factory=dict)
    caps: dict[str, float] = field(default_factory=dict)
    capped: dict[float, str] = field(default_factory=dict)
    warm: Callable[[Point], Point | None] = _tenth
    repeat: bool = True
    abandon: bool = False
    bytes_each: int = 0
    lean: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    headings: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    needs: Callable[[Point], str | None] = lambda point: None

    def names(self):
        """The names of the contenders, in the order of the tables."""
        found = set(self.contenders) - {"gort"} | set(self.gorts)
        found |= {uv for name, uv in _ON_UVLOOP.items() if name in found}
        return sorted(found, key=rank)

    def function(self, name):
        """The function that the contender of that name runs."""
        return self.contenders.get(name) or self.controls.get(name) or self.contenders[contender(name).key]

    def ops(self, point):
        return 1 if self.per is None else point.n

    def told(self, text, points=None):
        """The title or the story with the numbers of these points (the workload's own if there are none) in it."""
        points = points or self.points
        numbers = dict.fromkeys(f"{point.n:,}" for point in points)
        sizes = dict.fromkeys(f"{point.size:,g}" for point in points if point.size is not None)
        return text.format(n=" and ".join(numbers), size=" and ".join(sizes))

    def bytes_needed(self, name, point):
        return self.lean.get(name, self.bytes_each) * point.n

    def is_capped(self, name, point):
        return point.x > self.caps.get(name, point.x)

    def why_capped(self, cap, names):
        """That the contenders of these names are run up to `cap` only, and why, as a sentence."""
        return f"{self.name} is run up to {cap:,} only with {', '.join(names)}: {self.capped[cap]}."

    def why_not(self, name, point):
        """Why a contender is not run at a point, as a sentence; None if it is."""
        if self.is_capped(name, point):
            return self.why_capped(self.caps[name], [name])
        free = available_bytes()
        if free is not None and (needed := self.bytes_needed(name, point)) > free:
            return f"{self.name} with {point} needs about {needed / 1e9:.0f} GB of free memory."
        return self.needs(point)

    def with_quick_points(self):
        return replace(self, points=self.quick)


def usable_cpus():
    """The CPUs this process may use, which are what gort's default procs is."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# A contender's function for one workload out of one that serves several; --code finds the whole one within.
with_args = functools.partial


@functools.cache
def all_workloads():
    """Every workload by its name, in reading order."""
    from benchmarks import workloads

    found = {}
    for module in workloads.MODULES:
        for workload in importlib.import_module(f"benchmarks.workloads.{module}").WORKLOADS:
            if workload.name in found:
                raise ValueError(f"two workloads are called {workload.name!r}")
            found[workload.name] = workload
    return found


def workload(name):
    """The workload of that name; UsageError if there is none."""
    try:
        return all_workloads()[name]
    except KeyError:
        raise UsageError(f"There is no workload {name!r}. There are: {', '.join(all_workloads())}.") from None
