"""The meter: what is read around the timed work, and nothing else.

A contender gets a meter and enters it around the work alone:

    async def in_asyncio(meter, n):
        with meter:
            ...the work...

so that starting an event loop, importing a library or making test data is not in the time. All
readings are taken for every workload, because each costs a microsecond and any may matter:

    time      wall-clock seconds, by time.perf_counter
    cpu       CPU seconds of all threads of the process
    switches  OS context switches of all threads, voluntary and not, by getrusage
    memory    bytes by which the resident set grew, read while the work still holds what it made

The clock is started last and stopped first, so the other readings are not in the time either.
The garbage collector is left as the program finds it: its cost is part of every contender's.

A workload that has a latency for each operation appends the seconds to `meter.latencies`; their
percentiles become metrics and their histogram is kept in buckets of half a power of two, which is
small enough to store and add up over rounds. Keeping every value was refused for its size. What has
a deadline may miss it either way, and a negative latency is one that came too early: the percentiles and
the histogram are of the distance, for too early is no better than too late, and the share of those that
were early is a metric of its own. A workload that watches a heartbeat sets `meter.gap`.

A meter is good for one use. Where the platform has no getrusage, or no way to tell the resident
set, that reading is absent rather than zero.
"""

import math
import os
import sys
import time

try:
    import resource
except ImportError:  # Windows
    resource = None

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Meter:
    """Readings around one `with` block."""

    __slots__ = ("time", "cpu", "switches", "memory", "latencies", "gap", "_before", "_ended")

    def __init__(self, ended=None):
        """`ended` is called with the meter when the block has been left and all is read."""
        self.time = self.cpu = self.switches = self.memory = None
        self.latencies = []
        self.gap = None
        self._before = None
        self._ended = ended

    def __enter__(self):
        if self._before is not None:
            raise RuntimeError("a meter measures one block: this one was entered before")
        switches, memory, cpu = context_switches(), resident_bytes(), time.process_time()
        self._before = (switches, memory, cpu, time.perf_counter())
        return self

    def __exit__(self, *exc_info):
        end = time.perf_counter()
        cpu_end = time.process_time()
        memory_end = resident_bytes()
        switches_end = context_switches()
        switches, memory, cpu, start = self._before
        self.time = end - start
        self.cpu = cpu_end - cpu
        self.memory = None if memory is None else memory_end - memory
        self.switches = None if switches is None else switches_end - switches
        if self._ended is not None and exc_info[0] is None:
            self._ended(self)

    def readings(self, ops):
        """The metrics for each of `ops` operations: a dict without those the platform lacks.

        `ops` is 1 for a workload that is judged as a whole.
        """
        if self.time is None:
            raise RuntimeError("the contender never entered its meter, so nothing was timed")
        found = {
            name: value / ops
            for name in ("time", "cpu", "switches", "memory")
            if (value := getattr(self, name)) is not None
        }
        if self.time:
            found["rate"] = ops / self.time
        if self.gap is not None:
            found["gap"] = self.gap
        if self.latencies:
            ordered = sorted(map(abs, self.latencies))
            found["p50"] = percentile(ordered, 0.50)
            found["p99"] = percentile(ordered, 0.99)
            found["early"] = sum(seconds < 0 for seconds in self.latencies) / len(self.latencies)
        return found


def context_switches():
    """OS context switches of this process so far, or None where the platform does not tell."""
    if resource is None:
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw + usage.ru_nivcsw


def resident_bytes():
    """The resident set, or None. Without /proc it is the largest so far, which serves as well
    for work that only grows."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except OSError:
        if resource is None:
            return None
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024


def percentile(ordered, share):
    """The value that `share` of an ordered list does not exceed (nearest rank)."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def histogram(seconds):
    """Counts by bucket k, which holds 2**(k/2) up to 2**((k+1)/2) microseconds; bucket 0 begins at 0."""
    counts = {}
    for value in seconds:
        bucket = bucket_of(value)
        counts[bucket] = counts.get(bucket, 0) + 1
    return counts


def bucket_of(seconds):
    distance = abs(seconds)
    return math.floor(2 * math.log2(distance * 1e6)) if distance > 1e-6 else 0


def bucket_start(bucket):
    """The seconds at which a bucket starts."""
    return 2 ** (bucket / 2) / 1e6 if bucket else 0.0
