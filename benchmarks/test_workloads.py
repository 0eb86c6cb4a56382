"""The workloads as pytest-benchmark groups: `pytest benchmarks/`.

One group for each workload, the contenders side by side, at the small sizes of --quick. A workload that is asked at
several sizes has a group for each of them: pytest-benchmark sorts and divides within a group, and what a contender
costs at one size says nothing beside what another costs at the next.

Here all of them share one process, which is quicker and works with pytest-benchmark's own options
(--benchmark-compare, --benchmark-save, ...), but lets one library's leftovers weigh on the next; for numbers to
publish use `python -m benchmarks`. The memory is left out: the process finds again what an earlier contender has
freed, so it would be anybody's. The variables of the environment that change figures are taken away here too.

pytest-benchmark asks its timer before and after the whole call, in which a library is started and
stopped too. So its timer is one that advances only by what the meters have measured, divided by the
number of operations: its columns show the time of one operation (for `timers-fire`, which waits, the
CPU time), as the first table of each workload in `python -m benchmarks` does.
"""

import faulthandler

import pytest

from benchmarks import contenders
from benchmarks.meter import Meter
from benchmarks.workload import all_workloads

ROUNDS = 5
LIMIT = 120  # seconds for one contender's rounds, after which a hang shows its stacks


class MeterTimer:
    """A clock that advances by measured time only."""

    __name__ = "meter"  # pytest-benchmark writes its timer's name

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


_timer = MeterTimer()


def _cases():
    for work in all_workloads().values():
        for point in work.quick:
            group = f"{work.name} {point}" if work.axis else work.name
            for name in work.names():
                marks = [pytest.mark.benchmark(group=group, timer=_timer)]
                # Not a skip that hides a failure: these are libraries that are absent by choice.
                reason = contenders.why_not(contenders.contender(name).module)
                if reason and not contenders.contender(name).is_gort:
                    marks.append(pytest.mark.skip(reason=f"{name} {reason}"))
                elif left_out := work.why_not(name, point):
                    marks.append(pytest.mark.skip(reason=left_out))
                yield pytest.param(work, point, contenders.contender(name), id=f"{group}-{name}", marks=marks)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in contenders.left_behind():
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _limit():
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.parametrize("work, point, rival", list(_cases()))
def test_workload(benchmark, work, point, rival):
    fn = work.function(rival.name)
    if (warm := work.warm(point)) is not None:
        rival.start(fn, Meter(), *warm.args)
    rounds = []

    def once():
        meter = Meter()
        rival.start(fn, meter, *point.args)
        found = meter.readings(work.ops(point))
        rounds.append(found)
        _timer.now += found[work.metrics[0]]

    benchmark.pedantic(once, rounds=ROUNDS)
    for metric in work.metrics:
        if metric not in (work.metrics[0], "memory") and metric in rounds[-1]:
            benchmark.extra_info[metric] = sorted(found[metric] for found in rounds)[len(rounds) // 2]
