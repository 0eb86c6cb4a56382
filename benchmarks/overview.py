"""The whole run on one screen: one row a workload, and the rows in which gort is not the cheapest.

The overview has a row for each workload at its main point and by its first metric: gort's median with its spread, then
for each library how many times gort's cost it is. Who has read it knows where to look further.

The losses are every workload, point and metric at which some other contender is cheaper than gort, the cheapest of
them with its name, and what each workload says about the reason. They are made by the same arithmetic as
the tables, so nothing can be forgotten in them. The limits ("bare") are no rivals and never listed as winners: nobody
can write a program in them; how far gort is from the limit is the overview's second column. A row is "close" where
the rounds do not agree who is ahead: 1 lies within the middle half of their ratios. What nobody could notice (see
NEGLIGIBLE) is no loss.

gort is judged with the default number of Ps, for that is what a user gets.
"""

from typing import NamedTuple

from benchmarks import tables
from benchmarks.contenders import contender
from benchmarks.results import Key, quartiles, ratios
from benchmarks.workload import MORE_IS_BETTER, NEGLIGIBLE

COLUMNS = {  # short, for there are many
    "bare": "limit",
    "asyncio": "asyncio",
    "uvloop": "uvloop",
    "gevent": "gevent",
    "trio": "trio",
    "threading": "threads",
    "pool": "pool",
}
NO_RIVALS = ("bare",)
LIMIT = "The limit is no library: greenlets that switch by hand, an epoll loop, a plain loop."


class Loss(NamedTuple):
    key: Key
    metric: str
    rival: str
    ratio: float
    close: bool


def main_point(results, work, metric):
    """The last point that at least half of the contenders reached; None if nothing was measured."""
    reached = []
    for point in results.points(work.name):
        names = results.contenders(work.name)
        count = sum(results.values(Key(work.name, point, name), metric) is not None for name in names)
        reached.append((point, count))
    most = max((count for _, count in reached), default=0)
    return [point for point, count in reached if count * 2 > most][-1] if most else None


def rows(results, workloads):
    """The overview as rows of text, the header first; the first cell is (name, title) of the workload."""
    found = [[("", "workload"), "gort", *COLUMNS.values()]]
    for name in results.workloads():
        work = workloads[name]
        metric = work.metrics[0]
        point, against = main_point(results, work, metric), tables.baseline(results, work)
        if point is None or against is None:
            continue
        key = Key(name, point, against)
        where = f", {point} {work.axis}" if work.axis else ""
        heading = "" if metric == "time" else f" ({tables.METRICS[metric]})"
        found.append(
            [
                (name, f"{work.title}{where}{heading}"),
                tables.cell(results, key, metric, None),
                *(_ratio(results, key, rival, metric) for rival in COLUMNS),
            ]
        )
    return found


def _ratio(results, key, rival, metric):
    rivals = results.series.get(key._replace(contender=rival))
    if rivals is None:
        return ""
    if rivals.error:
        return "failed"
    return tables.times(tables.cost_ratio(results, key._replace(contender=rival), key, metric))


def losses(results, workloads):
    """Every workload, point and metric at which a rival is cheaper than gort; the largest loss first."""
    found = []
    for name in results.workloads():
        work = workloads[name]
        against = tables.baseline(results, work)
        for point in results.points(name):
            for metric in work.metrics:
                if against and (loss := _loss(results, Key(name, point, against), metric)):
                    found.append(loss)
    return sorted(found, key=lambda loss: loss.ratio)


def _loss(results, key, metric):
    best = None
    if (results.median(key, metric) or 0.0) < NEGLIGIBLE.get(metric, 0.0):
        return None
    for rival in results.contenders(key.workload):
        if contender(rival).is_gort or rival in NO_RIVALS:
            continue
        ratio = tables.cost_ratio(results, key._replace(contender=rival), key, metric)
        if ratio is not None and ratio < 1.0 and (best is None or ratio < best.ratio):
            best = Loss(key, metric, rival, ratio, _close(results, key, rival, metric))
    return best


def _close(results, key, rival, metric):
    over, under = results.values(key._replace(contender=rival), metric), results.values(key, metric)
    if metric in MORE_IS_BETTER:
        over, under = under, over
    found = ratios(over, under)
    return len(found) > 1 and quartiles(found)[1] >= 1.0


def loss_rows(results, workloads, found):
    """The losses as rows of text, the header first."""
    rows = [["where", "cheapest", "of gort's", "its value", "gort's value", ""]]
    for loss in found:
        work, key = workloads[loss.key.workload], loss.key
        where = f", {key.point} {work.axis}" if work.axis else ""
        rows.append(
            [
                f"{work.name}{where}: {tables.heading(work, loss.metric)}",
                tables.label(work, loss.rival),
                tables.times(loss.ratio),
                tables.quantity(results.median(key._replace(contender=loss.rival), loss.metric), loss.metric),
                tables.quantity(results.median(key, loss.metric), loss.metric),
                "close" if loss.close else "",
            ]
        )
    return rows


def reasons(workloads, found):
    """(workload, why) for each workload among the losses that says why."""
    names = dict.fromkeys(loss.key.workload for loss in found)
    return [(name, workloads[name].reason) for name in names if workloads[name].reason]


def report(results, workloads):
    """Both as Markdown lines."""
    table = rows(results, workloads)
    lines = [
        "## Overview",
        "",
        f"gort's median, and how many times gort's cost each contender's is. {LIMIT}",
        "",
    ]
    lines += tables.aligned([[row[0][1], *row[1:]] for row in table])
    found = losses(results, workloads)
    lines += ["", "## Where gort is not the cheapest", ""]
    if not found:
        return [*lines, "Nowhere in this run." if len(table) > 1 else "Nothing was measured that could tell."]
    lines += tables.aligned(loss_rows(results, workloads, found))
    why = reasons(workloads, found)
    return lines + ([""] if why else []) + [f"- {name}: {reason}" for name, reason in why]
