"""What was measured, and the arithmetic on it.

Results hold, for each workload, point and contender (a Key), the value of every metric in every
round (a Series). Everything that is shown comes from the rounds through three functions:

    median   the middle value
    spread   the range of the middle half of the rounds, as a share of the median: how far to trust it
    ratio    the median of the rounds' own ratios

The contenders of one round ran next to each other, so a ratio within the round cancels what was
going on in the machine at that time; the ratio of two medians would not. Means, standard deviations
and the whole range were refused: noise on a shared machine has one side only, and a single slow
round would move them.

A contender that failed in any round is failed, with its message, and has no numbers: there is no
second try that could hide a race. Results are saved as JSON with a schema number; a file of another schema is
refused, and so is one that is not as shape.py says.
"""

import json
import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks import shape
from benchmarks.contenders import UsageError, rank
from benchmarks.workload import Point

SCHEMA = 1
NOT_ALL_RUN = "Not (or not all) run within"  # how what a budget left out begins


class Key(NamedTuple):
    workload: str
    point: Point
    contender: str


@dataclass
class Series:
    """One contender's rounds: metric name -> one value a round, in order."""

    metrics: dict[str, list[float]] = field(default_factory=dict)
    histogram: dict[int, int] = field(default_factory=dict)
    error: str | None = None

    def add(self, reading):
        """Add one round: what child.measure returned."""
        for name, value in reading["metrics"].items():
            self.metrics.setdefault(name, []).append(value)
        for bucket, count in reading["histogram"].items():
            self.histogram[int(bucket)] = self.histogram.get(int(bucket), 0) + count

    def fail(self, message):
        self.error = shape.one_line(message)
        self.metrics.clear()
        self.histogram.clear()


def median(values):
    return statistics.median(values)


def quartiles(values):
    """The ends of the middle half of the values."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def spread(values):
    """The range of the middle half / median; 0 where there is nothing to divide by."""
    first, third = quartiles(values)
    middle = statistics.median(values)
    return (third - first) / middle if middle else 0.0


def ratios(over, under):
    """The rounds' own ratios. Where a divisor is 0 there is none for that round."""
    return [a / b for a, b in zip(over, under) if b]


def ratio(over, under):
    """The median of the rounds' own ratios, or None where there is none."""
    found = ratios(over, under)
    return statistics.median(found) if found else None


class Results:
    """All series of a run, the facts of the machine, and what was left out and why."""

    def __init__(self, facts):
        self.facts = facts
        self.series = {}
        self.left_out = []
        self.rounds = 0
        self.stopped = False  # by Ctrl-C or SIGTERM, before the last round's end

    def __getitem__(self, key):
        return self.series.setdefault(key, Series())

    def values(self, key, metric):
        """One value a round, or None where that was not measured."""
        found = self.series.get(key)
        return found.metrics.get(metric) or None if found else None

    def median(self, key, metric):
        values = self.values(key, metric)
        return median(values) if values else None

    def ratio(self, over, under, metric):
        """How many times `under` is `over`, by a metric; None if either was not measured."""
        first, second = self.values(over, metric), self.values(under, metric)
        return ratio(first, second) if first and second else None

    def points(self, workload):
        return sorted({key.point for key in self.series if key.workload == workload}, key=lambda point: point.x)

    def contenders(self, workload):
        return sorted({key.contender for key in self.series if key.workload == workload}, key=rank)

    def workloads(self):
        return list(dict.fromkeys(key.workload for key in self.series))

    def failures(self):
        return [(key, series.error) for key, series in self.series.items() if series.error]

    def as_json(self):
        """It all as the text of a result file."""
        document = {
            "schema": SCHEMA,
            **self.facts,
            "rounds": self.rounds,
            "left_out": self.left_out,
            "results": [
                {
                    "workload": key.workload,
                    "n": key.point.n,
                    "size": key.point.size,
                    "contender": key.contender,
                    "metrics": series.metrics,
                    "histogram": series.histogram,
                    "error": series.error,
                }
                for key, series in self.series.items()
            ],
        }
        return json.dumps(document, indent=1) + "\n"


def write(path, text):
    """Write a file; UsageError if that is not possible."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"Cannot write {path}: {error.strerror}.") from None


def load(path):
    """Results from a file of what `as_json` made; UsageError if it is not one."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{path} is not a result file: it is not JSON.") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageError(f"{path} is not a result file that this version can read (schema {SCHEMA}).")
    try:
        shape.document(document, "")
        return _from_document(document)
    except shape.Wrong as wrong:
        raise UsageError(f"{path} is not a whole result file: {wrong}.") from None


def _from_document(document):
    found = Results({name: document[name] for name in ("date", "command", "machine", "python", "versions")})
    found.rounds, found.left_out = document["rounds"], document["left_out"]
    for place, entry in enumerate(document["results"]):
        key = Key(entry["workload"], Point(entry["n"], entry["size"]), entry["contender"])
        if key in found.series:
            raise shape.Wrong(f"results[{place}] is there a second time")
        found.series[key] = Series(
            {name: [float(value) for value in values] for name, values in entry["metrics"].items()},
            {int(bucket): count for bucket, count in entry["histogram"].items()},
            entry["error"],
        )
    return found
