"""The whole run on one screen: one row a workload, and the rows in which gort is not the cheapest.

The overview has a row for each workload at its main point and by its first metric: gort's median with its spread, then
for gort with one P and for each library how many times gort's cost it is. Who has read it knows where to look further.

The losses are every workload, point and metric at which some other contender is cheaper than gort, the cheapest of
them with its name, how far away the limit is, and what each workload says about the reason. They are made by the same
arithmetic as the tables, so nothing can be forgotten in them. The limits ("bare") are no rivals and never listed as
winners: nobody can write a program in them. A row is "close" where the rounds do not agree who is ahead: 1 lies within
the middle half of their ratios. What is shown as "1.00x" is a tie, and what nobody could notice (see NEGLIGIBLE) is no
loss.

gort is judged with the default number of Ps (tables.baseline), for that is what a user gets; procs=1 stands beside it.
To pick for each row the number of Ps that is best there was refused: nobody runs one program with two of them.
"""

from typing import NamedTuple

from benchmarks import tables
from benchmarks.contenders import contender
from benchmarks.results import Key, quartiles, ratios
from benchmarks.workload import MORE_IS_BETTER, NEGLIGIBLE

COLUMNS = {  # short, for there are many
    "gort-p1": "procs=1",
    "bare": "limit",
    "asyncio": "asyncio",
    "uvloop": "uvloop",
    "gevent": "gevent",
    "trio": "trio",
    "threading": "threads",
    "pool": "pool",
}
NO_RIVALS = ("gort-p1", "bare")
TIE = 0.995  # from here on a ratio is shown as 1.00x
NO_REASON = "no reason is known yet."
NO_RIVAL_RAN = "Nothing can be told: nowhere in this run were gort and a rival both measured."
HOW_TO_READ = (
    "gort's median and spread, and how many times gort's cost each contender's is. gort is as a user gets it by "
    "default, with as many Ps as CPUs. The limit is no library: greenlets that switch by hand, an epoll loop, a plain "
    "loop."
)

HOW_TO_READ_LOSSES = (
    "The cheapest contender's cost as a share of gort's, and of gort's with procs=1; then the limit's as a share of "
    'gort\'s. Where the rounds do not agree who is ahead it says "close".'
)


class Row(NamedTuple):
    name: str
    title: str
    gort: str
    others: list[tuple[str, bool]]  # a cell for each of COLUMNS, and whether gort loses against it


class Loss(NamedTuple):
    key: Key  # gort's
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
    """The overview's rows, without its header."""
    found = []
    for name in results.workloads():
        work = workloads[name]
        metric = work.metrics[0]
        point, against = main_point(results, work, metric), tables.baseline(results, work)
        if point is None or against is None:
            continue
        key = Key(name, point, against)
        where = f", {point} {work.axis}" if work.axis else ""
        heading = "" if metric == "time" else f" ({tables.named(work, metric)})"
        others = [_other(results, key, rival, metric) for rival in COLUMNS]
        gort = tables.cell(results, key, metric, None)
        found.append(Row(name, f"{tables.title(results, work)}{where}{heading}", gort, others))
    return found


def _other(results, key, rival, metric):
    """A contender's cell in gort's row: (text, whether gort loses)."""
    other = key._replace(contender=rival)
    if other == key or other not in results.series:
        return "", False
    if results.series[other].error:
        return "failed", False
    ratio = tables.cost_ratio(results, other, key, metric)
    return tables.times(ratio), ratio is not None and ratio < TIE and rival not in NO_RIVALS


def is_rival(name):
    return not contender(name).is_gort and name not in NO_RIVALS


def has_rivals(results):
    """Whether somewhere gort and one of its rivals were both measured."""
    measured = {}
    for key, series in results.series.items():
        if series.metrics:
            measured.setdefault((key.workload, key.point), set()).add(key.contender)
    return any(
        any(contender(name).is_gort for name in names)
        and any(is_rival(name) for name in names)
        for names in measured.values()
    )


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
        if not is_rival(rival):
            continue
        ratio = tables.cost_ratio(results, key._replace(contender=rival), key, metric)
        if ratio is not None and ratio < TIE and (best is None or ratio < best.ratio):
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
    rows = [["where", "cheapest", "of gort's", "of procs=1's", "limit", "its value", "gort's value"]]
    for loss in found:
        work, key = workloads[loss.key.workload], loss.key
        where = f", {key.point} {work.axis}" if work.axis else ""
        rival, one_p, limit = (key._replace(contender=name) for name in (loss.rival, "gort-p1", "bare"))
        rows.append(
            [
                f"{work.name}{where}: {tables.heading(work, loss.metric)}",
                tables.label(work, loss.rival),
                tables.times(loss.ratio) + (" close" if loss.close else ""),
                tables.times(tables.cost_ratio(results, rival, one_p, loss.metric)),
                tables.times(tables.cost_ratio(results, limit, key, loss.metric)),
                tables.quantity(results.median(rival, loss.metric), loss.metric),
                tables.quantity(results.median(key, loss.metric), loss.metric),
            ]
        )
    return rows


def reasons(workloads, found):
    """(workload, why) for each workload among the losses."""
    names = dict.fromkeys(loss.key.workload for loss in found)
    return [(name, workloads[name].reason or NO_REASON) for name in names]


def report(results, workloads):
    """Both as Markdown lines."""
    table = rows(results, workloads)
    texts = [[row.title, row.gort, *(text for text, _ in row.others)] for row in table]
    lines = ["## Overview", "", HOW_TO_READ, "", *tables.aligned([["workload", "gort", *COLUMNS.values()], *texts])]
    found = losses(results, workloads)
    lines += ["", "## Where gort is not the cheapest", ""]
    if not found:
        return [*lines, "Nowhere in this run." if has_rivals(results) else NO_RIVAL_RAN]
    lines += [HOW_TO_READ_LOSSES, "", *tables.aligned(loss_rows(results, workloads, found)), ""]
    return lines + [f"- {name}: {reason}" for name, reason in reasons(workloads, found)]
