"""Comparison with an earlier result file: has gort become slower?

For every number of a gort contender that both files have, the change is new median / old median.
But the machine may have changed too (another CI host, a neighbour's load), and a change of the machine
is not a regression. The rivals tell: their code has not changed, so the median of new/old over all
their times is the machine's own change, and it is divided out of gort's times. Memory and
context switches do not depend on the machine's speed and are compared as they are.

With fewer than MIN_RIVALS rival numbers in common there is no estimate worth the name, and times are
compared as they are too. A fixed correction by a calibration loop was refused: it would measure
the interpreter's arithmetic, not what schedulers are made of.

A difference so small that no one could notice is no regression whatever its ratio: times below
FLOOR_SECONDS and what workload.NEGLIGIBLE names are taken to be that.
"""

import statistics
from typing import NamedTuple

from benchmarks import tables
from benchmarks.contenders import UsageError, contender
from benchmarks.results import Key
from benchmarks.workload import MORE_IS_BETTER, NEGLIGIBLE

MIN_RIVALS = 3
TIMES = ("time", "cpu", "p50", "p99", "gap")
FLOOR_SECONDS = 1e-9


class Change(NamedTuple):
    key: Key
    metric: str
    old: float
    new: float
    ratio: float


class Comparison(NamedTuple):
    machine: float
    changes: list[Change]

    def regressions(self, limit):
        return [change for change in self.changes if change.ratio > limit]


def compare(old, new, workloads):
    """The changes of gort's numbers from `old` to `new`; UsageError if they have none in common."""
    shared = [
        (key, metric)
        for key in new.series
        if key in old.series and key.workload in workloads
        for metric in workloads[key.workload].metrics
        if old.values(key, metric) and new.values(key, metric)
    ]
    rivals = [
        new.median(key, metric) / old.median(key, metric)
        for key, metric in shared
        if metric == "time" and not contender(key.contender).is_gort and old.median(key, metric)
    ]
    machine = statistics.median(rivals) if len(rivals) >= MIN_RIVALS else 1.0
    changes = [
        _change(key, metric, old.median(key, metric), new.median(key, metric), machine)
        for key, metric in shared
        if contender(key.contender).is_gort
    ]
    if not changes:
        raise UsageError("The two results have no number of gort's in common, so there is nothing to compare.")
    return Comparison(machine, sorted(changes, key=lambda change: -change.ratio))


def _change(key, metric, old, new, machine):
    if metric in MORE_IS_BETTER:  # a rate is judged as the time it is the inverse of
        return Change(key, metric, old, new, old / new / machine)
    floor = FLOOR_SECONDS if metric in TIMES else NEGLIGIBLE[metric]
    speed = machine if metric in TIMES else 1.0
    return Change(key, metric, old, new, max(new / speed, floor) / max(old, floor))


def report(comparison, limit):
    """The comparison as text: the regressions, or the largest change where there is none."""
    found = ["## Compared with the earlier results", ""]
    if comparison.machine != 1.0:
        found += [f"The rivals now take {comparison.machine:.2f} times as long; that is divided out.", ""]
    worse = comparison.regressions(limit)
    rows = [["workload", "point", "contender", "metric", "before", "now", "ratio"]]
    for change in worse or comparison.changes[:1]:
        key, metric = change.key, change.metric
        rows.append(
            [
                key.workload,
                str(key.point),
                key.contender,
                metric,
                tables.quantity(change.old, metric),
                tables.quantity(change.new, metric),
                tables.times(change.ratio),
            ]
        )
    count = len(comparison.changes)
    if worse:
        found.append(f"{len(worse)} of {count} numbers are worse by more than {limit:g}x:")
    else:
        found.append(f"None of {count} numbers is worse by more than {limit:g}x. The largest change:")
    return "\n".join([*found, "", *tables.aligned(rows)]) + "\n"
