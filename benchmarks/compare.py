"""Comparison with an earlier result file: has gort become slower?

For every number of a gort contender that both files have, the change is new median / old median.
But the machine may have changed too (another CI host, a neighbour's load), and a change of the machine
is not a regression. The rivals tell: their code has not changed, so the median of new/old over their
times (of each workload the first metric, a time or a CPU time) is the machine's own change, and it is divided out of
gort's times. Memory and
context switches do not depend on the machine's speed and are compared as they are. Nor do times that consist mostly of
waiting for the clock (Workload.paced: of sleepers, unannounced calls, the distances of timers): a faster machine does
not shorten a sleep, so they are compared as they are as well, and tell nothing of the machine.

With fewer than MIN_RIVALS rival numbers in common there is no estimate worth the name, and times are
compared as they are too. A fixed correction by a calibration loop was refused: it would measure
the interpreter's arithmetic, not what schedulers are made of.

What cannot be divided out is another interpreter. Results of another Python (3.13 and 3.14, say) or with and without a
GIL are two programs' results, and the comparison is refused, before anything is measured. Another machine, another
build or another version of a library is compared, for CI gets what host there is, but each such difference is named.

The medians of two runs of the same code differ, and among hundreds of numbers some differ by more than any limit. So a
change is a regression only where the rounds agree: where the middle halves of the old and of the new rounds (after the
machine's change is divided out) do not overlap. Those beyond the limit whose rounds do not agree are shown too, marked
"close" as in the overview, and are no failure. A single round is its own middle half. A larger limit was
refused: it would hide what is small and sure.

A difference so small that no one could notice is no regression whatever its ratio: times below
FLOOR_SECONDS and what workload.NEGLIGIBLE names are taken to be that.

What the earlier results have and the new ones have not is named, for a comparison that grows smaller in silence ends
as one of nothing. It is a failure as well where it is a number of the default gort's that this run ought to have had:
one that failed, or one that nothing explains (a workload or a size that was taken out of the benchmarks). What
explains an absence: the run was for other workloads, sizes or contenders (both files hold their command), it
was stopped, the library is not installed, the machine too small.
"""

import shlex
import statistics
from typing import NamedTuple

from benchmarks import tables
from benchmarks.contenders import UsageError, contender
from benchmarks.results import NOT_ALL_RUN, Key, quartiles
from benchmarks.workload import MORE_IS_BETTER, NEGLIGIBLE, TIMES

MIN_RIVALS = 3
FLOOR_SECONDS = 1e-9
BUSY = 0.05  # the share of the CPU time used by others from which on it is named


def check(old, new):
    """UsageError unless the facts of two results are of one kind of interpreter."""
    before, now = _interpreter(old), _interpreter(new)
    if before != now:
        raise UsageError(
            f"The earlier results are of {before}, these are of {now}: they say nothing about each other. "
            "Measure both with one interpreter."
        )


def _interpreter(facts):
    python = facts["python"]
    minor = ".".join(python["version"].split(".")[:2])
    return f"{python['implementation']} {minor} with the GIL {python['gil']}"


def differences(old, new):
    """What else differs between the facts of two results, as lines."""
    before, now = _others(old), _others(new)
    names = dict.fromkeys([*before, *now])
    found = [
        f"{name}: was {before.get(name, 'none')}, is {now.get(name, 'none')}"
        for name in names
        if before.get(name) != now.get(name)
    ]
    shares = [facts["machine"].get("others") for facts in (old, new)]
    if max(share or 0.0 for share in shares) > BUSY:
        was, is_now = ("unknown" if share is None else f"{share:.0%}" for share in shares)
        found.append(f"CPU time used by others meanwhile: was {was}, is {is_now}")
    return found


def _others(facts):
    machine, python = facts["machine"], facts["python"]
    return {
        **{name: machine[name] for name in ("cpu", "cpus", "system")},
        "python": f"{python['version']}, {python['compiler']}",
        **facts["versions"],
    }


class Change(NamedTuple):
    key: Key
    metric: str
    old: float
    new: float
    ratio: float
    close: bool  # the middle halves of the old and the new rounds overlap


class Comparison(NamedTuple):
    machine: float
    changes: list[Change]
    differences: list[str]
    absent: list[str]  # what only the earlier results have, as lines
    lost: list[str]  # those of it that are a failure

    def beyond(self, limit):
        """What is worse by its median."""
        return [change for change in self.changes if change.ratio > limit]

    def regressions(self, limit):
        """What is worse for sure."""
        return [change for change in self.beyond(limit) if not change.close]


def compare(old, new, workloads):
    """The changes of gort's numbers from `old` to `new`; UsageError if there is nothing that can be compared."""
    check(old.facts, new.facts)
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
        if _follows(workloads[key.workload], metric) and metric == workloads[key.workload].metrics[0]
        if metric in TIMES and not contender(key.contender).is_gort
        if old.median(key, metric) and new.median(key, metric)
    ]
    machine = statistics.median(rivals) if len(rivals) >= MIN_RIVALS else 1.0
    changes = [
        _change(key, metric, old, new, machine if _follows(workloads[key.workload], metric) else 1.0)
        for key, metric in shared
        if contender(key.contender).is_gort
    ]
    if not changes:
        raise UsageError("The two results have no number of gort's in common, so there is nothing to compare.")
    changes.sort(key=lambda change: -change.ratio)
    before, now = _measured(old), _measured(new)
    missing = [key for key in before if key not in now]
    lost = [key for key in missing if _is_lost(key, old, new, workloads)]
    others = [key for key in missing if key not in lost]
    gone = [  # single numbers, of series that are there
        (key, metric)
        for key in before
        if key in now and key.workload in workloads
        for metric in workloads[key.workload].metrics
        if old.values(key, metric) and not new.values(key, metric)
    ]
    own, rival = ([_number(*each) for each in gone if (each[0].contender == "gort") is ours] for ours in (True, False))
    names = [f"{key.workload}, {key.point}: {key.contender}" for key in lost]
    return Comparison(machine, changes, differences(old.facts, new.facts), _absences(others, new) + rival, names + own)


def _number(key, metric):
    return f"{key.workload}, {key.point}: {metric} of {key.contender}"


def _measured(results):
    """The keys that have numbers, in order."""
    return {key: None for key, series in results.series.items() if series.metrics}


def _options(facts):
    """The options of a run's command that chose what was measured: name -> its value, "" if it has none."""
    try:
        words = shlex.split(facts["command"])
    except ValueError:  # edited, so it tells nothing
        return {"--contenders": "?"}
    found = {}
    for word, after in zip(words, [*words[1:], ""]):
        name, equals, value = word.partition("=")
        if name in ("--quick", "--targets"):
            found[name] = ""
        elif name in ("--only", "--contenders"):
            found[name] = value if equals else after
    return found


def _is_lost(key, old, new, workloads):
    """Whether the new results ought to have these numbers."""
    if key in new.series and new.series[key].error:
        return contender(key.contender).is_gort
    before, now = _options(old.facts), _options(new.facts)
    if key.contender != "gort" or "--contenders" in now:
        return False
    if "--targets" in before | now or ("--quick" in before) != ("--quick" in now):  # they have sizes of their own
        return False
    if "--only" in now and key.workload not in [name.strip() for name in now["--only"].split(",")]:
        return False
    if not new.rounds or any(reason.startswith(NOT_ALL_RUN) for reason in new.left_out):
        return False
    work = workloads.get(key.workload)
    if work is None or key.point not in (work.quick if "--quick" in now else work.points):
        return True
    return not work.why_not(key.contender, key.point)


def _absences(missing, new):
    """What is absent as lines: whole workloads, whole contenders, and the rest one by one."""
    workloads = dict.fromkeys(key.workload for key in missing if not new.points(key.workload))
    there = {key.contender for key in new.series}
    missing_here = [key for key in missing if key.workload not in workloads]
    contenders = dict.fromkeys(key.contender for key in missing_here if key.contender not in there)
    rest = {}
    for key in missing_here:
        if key.contender not in contenders:
            failed = " (failed)" if key in new.series else ""
            rest.setdefault(f"{key.workload}, {key.point}", []).append(key.contender + failed)
    found = [f"{what}: {', '.join(names)}" for what, names in rest.items()]
    if contenders:
        found.insert(0, f"contenders: {', '.join(contenders)}")
    if workloads:
        found.insert(0, f"workloads: {', '.join(workloads)}")
    return found


def _follows(work, metric):
    """Whether a metric is as much smaller as the machine is faster."""
    return (metric in TIMES or metric in MORE_IS_BETTER) and metric not in work.paced


def _change(key, metric, old, new, speed):
    """One number's change, `speed` being divided out of what is new."""
    before, now = old.median(key, metric), new.median(key, metric)
    low, high = quartiles(_costs(old.values(key, metric), metric))
    new_low, new_high = (cost / speed for cost in quartiles(_costs(new.values(key, metric), metric)))
    if metric in MORE_IS_BETTER:
        ratio = before / now / speed
    else:
        floor = FLOOR_SECONDS if metric in TIMES else NEGLIGIBLE[metric]
        ratio = max(now / speed, floor) / max(before, floor)
    return Change(key, metric, before, now, ratio, new_low <= high and low <= new_high)


def _costs(values, metric):
    """A rate is judged as the time it is the inverse of."""
    return [1 / value for value in values] if metric in MORE_IS_BETTER else values


def report(comparison, limit):
    """The comparison as text: what is worse than the limit allows, or the largest change where nothing is."""
    found = ["## Compared with the earlier results", ""]
    if comparison.differences:
        found += ["gort is not all that differs, so not every change need be its own:", ""]
        found += [*(f"- {difference}" for difference in comparison.differences), ""]
    if comparison.machine != 1.0:
        found += [f"The rivals now take {comparison.machine:.2f} times as long; that is divided out.", ""]
    if comparison.absent:
        found += ["The earlier results have what these have not, so it is not compared:", ""]
        found += [*(f"- {line}" for line in comparison.absent), ""]
    if comparison.lost:
        found += ["Numbers of gort's that the earlier results have are lost:", ""]
        found += [*(f"- {line}" for line in comparison.lost), ""]
    worse, sure = comparison.beyond(limit), comparison.regressions(limit)
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
                tables.times(change.ratio) + (" close" if change.close else ""),
            ]
        )
    count, unsure = len(comparison.changes), len(worse) - len(sure)
    said = f"{len(sure) or 'None'} of {count} numbers {'are' if sure else 'is'} worse by more than {limit:g}x"
    if unsure:
        said += f"; {unsure} by the medians alone, for the rounds do not agree (close)"
    found.append(said + (":" if worse else ". The largest change:"))
    return "\n".join([*found, "", *tables.aligned(rows)]) + "\n"
