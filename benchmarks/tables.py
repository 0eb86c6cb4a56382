"""The results as text: one table a workload and metric, readable in a terminal and as Markdown.

    | contender     |           1,000 |          10,000 |
    |---------------|----------------:|----------------:|
    | gort          | 1.31 us ±2%  1x | ...

A cell holds the median, the spread, and the ratio to gort: how many times gort's cost this contender's is. So over
1x means that gort is faster, and below 1x that it loses. gort is the gort that a user gets without asking for a number
of Ps; procs=1 has a row of its own. The rows stand in a fixed order, not by speed, so that two tables can be compared
by eye.

Numbers get three significant digits and a unit; more would claim a precision that no benchmark in
Python has.
"""

from benchmarks.contenders import contender
from benchmarks.machine import lines
from benchmarks.results import Key, spread
from benchmarks.workload import METRICS, MORE_IS_BETTER, TIMES, WHOLE

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "KB"), (1.0, "B"))


def three_digits(value):
    """12345 -> 12,345; 123.4 -> 123; 12.34 -> 12.3; 1.234 -> 1.23."""
    if value == 0:
        return "0"
    if abs(value) >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def _in_units(value, units):
    for factor, unit in units:
        if abs(value) >= factor * 0.9995:
            return f"{three_digits(value / factor)} {unit}"
    factor, unit = units[-1]
    return f"{three_digits(value / factor)} {unit}"


def quantity(value, metric):
    """A metric's value with its unit."""
    if value is None:
        return "-"
    if metric in TIMES:
        return _in_units(value, _SECONDS)
    if metric == "memory":
        return _in_units(value, _BYTES)
    if metric == "early":
        return f"{value:.1%}" if 0 < value < 0.0995 else f"{value:.0%}"
    if abs(value) >= 0.1:
        return three_digits(value)
    text = f"{value:.2g}"
    return text if "e" not in text else f"{value:.6f}".rstrip("0").rstrip(".")


def times(ratio):
    """A ratio as people write it: 0.31x, 4.2x, 120x."""
    if ratio is None:
        return "-"
    return f"{ratio:.2g}x" if 0 < ratio < 0.01 else f"{three_digits(ratio)}x"


def heading(work, metric):
    """What a table shows: "time per message", or "CPU time" for work judged as a whole."""
    return named(work, metric) + (f" per {work.per}" if work.per and metric not in WHOLE else "")


def named(work, metric):
    """What a metric is called in a workload."""
    return work.headings.get(metric, METRICS[metric])


def title(results, work):
    """A workload's title, with the numbers that were run."""
    return work.told(work.title, results.points(work.name))


def story(results, work):
    return work.told(work.story, results.points(work.name))


def baseline(results, work):
    """The contender that ratios refer to: gort as a user gets it by default, and where that was not run the first
    other gort; None if there is none."""
    return next((name for name in results.contenders(work.name) if contender(name).is_gort), None)


def cell(results, key, metric, against):
    """Median, spread and ratio in one cell."""
    series = results.series.get(key)
    if series is None:
        return ""
    if series.error:
        return "failed"
    values = series.metrics.get(metric)
    if not values:
        return "-"
    text = quantity(results.median(key, metric), metric)
    if len(values) > 1:
        text += f" ±{spread(values):.0%}"
    if against is not None:
        text += f"  {times(cost_ratio(results, key, key._replace(contender=against), metric))}"
    return text


def cost_ratio(results, key, against, metric):
    """How many times as costly `key` is as `against`; of two rates, how many times as slow."""
    if metric in MORE_IS_BETTER:
        key, against = against, key
    return results.ratio(key, against, metric)


def table(results, work, metric):
    """One workload's table for one metric, as lines."""
    points = results.points(work.name)
    against = baseline(results, work)
    header = [work.axis or "contender", *(str(point) if work.axis else named(work, metric) for point in points)]
    rows = []
    for name in results.contenders(work.name):
        cells = [cell(results, Key(work.name, point, name), metric, against) for point in points]
        if any(cells):
            rows.append([label(work, name), *cells])
    return aligned([header, *rows])


def label(work, name):
    """What a contender is called in a workload; "bare" is whatever the workload says it is."""
    return work.labels.get(name) or contender(name).label


def aligned(rows):
    """Rows of cells as the lines of a Markdown table, the first row its header."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]

    def line(cells):
        first, *rest = (text.ljust(width) if not place else text.rjust(width)
                        for place, (text, width) in enumerate(zip(cells, widths)))
        return "| " + " | ".join([first, *rest]) + " |"

    rule = "|" + "|".join(
        ("-" * (width + 2)) if not place else "-" * (width + 1) + ":" for place, width in enumerate(widths)
    ) + "|"
    return [line(rows[0]), rule, *map(line, rows[1:])]


def rounds(results):
    """How many rounds a result has, in words."""
    return {0: "a round that was not finished", 1: "1 round"}.get(results.rounds, f"{results.rounds} rounds")


def preamble(results):
    """The facts of the machine and how to read the tables, as lines."""
    found = [f"- {name}: {text}" for name, text in lines(results.facts)]
    if results.rounds > 1:
        cell = (
            f"the median of {rounds(results)}, the spread (the range of the middle half, as a share of it), and how "
            "many times gort's this is (the median of the rounds' ratios, so not always that of the medians)"
        )
    else:
        cell = f"the value of {rounds(results)}, and how many times gort's this is"
    found += ["", f"Each cell: {cell}. Over 1x gort is cheaper, below 1x it loses."]
    if results.left_out:
        found += ["", "Left out:", *(f"- {reason}" for reason in results.left_out)]
    return found


def report(results, workloads):
    """The table of each workload and what failed, as text. `workloads` gives titles and order: name -> Workload."""
    found = []
    for name in results.workloads():
        work = workloads[name]
        found += [f"## {name}: {title(results, work)}", "", story(results, work), ""]
        for metric in work.metrics:
            found += [f"**{heading(work, metric)}**", "", *table(results, work, metric), ""]
    if failures := results.failures():
        found += ["## Failed", ""]
        found += [f"- {key.workload} {key.point} {key.contender}: {error}" for key, error in failures]
    return "\n".join(found).rstrip() + "\n"
