"""One contender on one workload, in a process of its own.

    python -m benchmarks.child '{"workload": "spawn", "contender": "gort", "n": 1000, "enough": 0.2}'

prints one line of JSON: the metrics for each operation, and the histogram of latencies if there
is one. A process of its own, because libraries change the process they live in: a patched module,
a hub, a memory allocator's free lists, specialised bytecode.

The order is: a warm-up at a small size, then the measurement. Work that is over in less than
`enough` seconds is repeated (a new start of the library each time) and the median taken; of a
repeated measurement the memory is the first one's, as later ones find memory that is already
there.

A workload may say that it is to be abandoned when its meter has been left: a million parked goroutines
take longer to end than to start, and nobody asked how long. The child then ends at once.

Memory that a virtual machine has not used yet must first be found by its host, at several microseconds a page: whoever
runs first would pay for those that come after. So a workload that needs much has its child touch as much, and give it
back, before the clock runs; for every contender alike.

A child that hangs prints the stacks of its threads and exits, after `limit` seconds.
"""

import faulthandler
import json
import mmap
import os
import sys

from benchmarks.contenders import contender
from benchmarks.meter import Meter, histogram, percentile
from benchmarks.workload import Point, workload

LONG_ENOUGH = 0.1  # seconds of timed work, after which nothing is repeated
REPEATS = 25
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux, which the mmap module has no name for


def measure(work, rival, point, enough=LONG_ENOUGH, ended=None):
    """Run the warm-up and the measurement here; what was found as a dict.

    `ended` is called with it as soon as the meter is left, if the workload is to be abandoned then.
    """
    fn = work.function(rival.name)
    if (warm := work.warm(point)) is not None:
        rival.start(fn, Meter(), *warm.args)
    if work.abandon and ended is not None:
        rival.start(fn, Meter(lambda meter: ended(found_by([meter], work, point))), *point.args)
        raise RuntimeError("the contender ended without having left its meter")
    meters = [run_once(fn, rival, point)]
    while work.repeat and len(meters) < REPEATS and sum(meter.time for meter in meters) < enough:
        meters.append(run_once(fn, rival, point))
    return found_by(meters, work, point)


def touch(size):
    """Have the system find so many bytes, and give them back."""
    if size < mmap.PAGESIZE:
        return
    with mmap.mmap(-1, size) as memory:
        try:
            memory.madvise(POPULATE_WRITE)
        except (AttributeError, OSError, ValueError):  # not this system, or an older one
            for page in range(0, size, mmap.PAGESIZE):
                memory[page] = 1


def run_once(fn, rival, point):
    meter = Meter()
    rival.start(fn, meter, *point.args)
    return meter


def found_by(meters, work, point):
    """The medians of what the meters have read, as a dict."""
    readings = [meter.readings(work.ops(point)) for meter in meters]
    found = {name: percentile(sorted(reading[name] for reading in readings), 0.5) for name in readings[0]}
    if "memory" in found:
        found["memory"] = readings[0]["memory"]
    for name in ("rate", "early"):  # a number that answers no question of this workload's
        if name not in work.metrics:
            found.pop(name, None)
    counts = histogram(seconds for meter in meters for seconds in meter.latencies)
    return {"metrics": found, "histogram": counts, "repeats": len(meters)}


def print_and_leave(found):
    """Print the result and end the process at once, whatever is still in it."""
    print(json.dumps(found), flush=True)
    os._exit(0)


def main(argv):
    request = json.loads(argv[0])
    if limit := request.get("limit"):
        faulthandler.dump_traceback_later(limit, exit=True)
    point = Point(request["n"], request.get("size"))
    work, rival = workload(request["workload"]), contender(request["contender"])
    touch(work.bytes_needed(rival.name, point))
    found = measure(work, rival, point, request["enough"], print_and_leave)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
