"""What a result file must look like: described once, and checked before anything is read out of it.

A result file may have been cut short, edited by hand, merged by git or written by another version. All that the
tables, the page and the comparison take for granted (a number can be divided by, a name has a place in the order of
the rows, a text is one line) is stated here, so that none of them has to ask, and a file that is not so is refused in
one sentence that names the place. What a file has beyond that is ignored. A validation library was refused: it would
be the benchmarks' only dependency, for the forty lines below.

A check is a function of (value, where) that raises Wrong. LARGEST and its inverse bound every measured number: no
quotient of two of them can overflow, and a run that lasts longer than the universe is a mistake.
"""

from benchmarks.contenders import UsageError, contender
from benchmarks.workload import METRICS

LARGEST = 1e15
LAST_BUCKET = 140  # of a histogram: some millions of years


class Wrong(Exception):
    """Something in a document is not as it must be; the text says what and where."""


def _unless(right, where, what):
    if not right:
        raise Wrong(f"{where} is not {what}")


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST  # so no NaN


def line(value, where):
    _unless(isinstance(value, str) and value.isprintable(), where, "a line of text")


def number(value, where):
    _unless(_is_number(value) and (value == 0 or abs(value) >= 1 / LARGEST), where, "a finite number of sensible size")


def amount(value, where):
    number(value, where)
    _unless(value >= 0, where, "zero or more")


def size(value, where):
    number(value, where)
    _unless(value > 0, where, "more than zero")


def natural(value, where):
    _unless(_is_number(value) and isinstance(value, int) and value >= 0, where, "a whole number, zero or more")


def count(value, where):
    natural(value, where)
    _unless(value > 0, where, "more than zero")


def share(value, where):
    _unless(_is_number(value) and 0 <= value <= 1, where, "a share, from 0 to 1")


def contender_name(value, where):
    line(value, where)
    try:
        contender(value)
    except UsageError:
        raise Wrong(f"{where} is not a contender that this version knows") from None


def metric_name(value, where):
    _unless(value in METRICS, where, f"one of the metrics {', '.join(METRICS)}")


def bucket(value, where):
    # The length first, for int() refuses thousands of digits, and isdecimal accepts digits that are not ASCII.
    right = len(value) <= 3 and value.isascii() and value.isdecimal() and int(value) <= LAST_BUCKET
    _unless(right, where, f"the number of a histogram's bucket, 0 to {LAST_BUCKET}")


def maybe(check):
    """null, or what `check` wants."""
    return lambda value, where: value is None or check(value, where)


def list_of(check, least=0):
    def checked(value, where):
        _unless(isinstance(value, list) and len(value) >= least, where, "a list" + (" with something in it" * least))
        for place, item in enumerate(value):
            check(item, f"{where}[{place}]")

    return checked


def table_of(key_check, check):
    """An object with any number of keys."""

    def checked(value, where):
        _unless(isinstance(value, dict), where, "an object")
        for key, item in value.items():
            inner = f"{where}[{ascii(key)[:40]}]"
            key_check(key, f"the key {inner}")
            check(item, inner)

    return checked


def record(checks, optional=()):
    """An object with these keys at least, but for those that may be absent."""

    def checked(value, where):
        _unless(isinstance(value, dict), where, "an object")
        for key, check in checks.items():
            if key in value:
                check(value[key], f"{where}.{key}".lstrip("."))
            elif key not in optional:
                raise Wrong(f"{where or 'it'} has no {key!r}")

    return checked


def metrics(value, where):
    table_of(metric_name, list_of(number, least=1))(value, where)
    for name, values in value.items():
        if name != "memory":  # a resident set may shrink
            list_of({"rate": size, "early": share}.get(name, amount))(values, f"{where}[{name!r}]")


_entry = record(
    {
        "workload": line,
        "n": count,
        "size": maybe(size),
        "contender": contender_name,
        "metrics": metrics,
        "histogram": table_of(bucket, count),
        "error": maybe(line),
    }
)


def entry(value, where):
    """One series; one that failed has no numbers, see results.Series."""
    _entry(value, where)
    _unless(value["error"] is None or not value["metrics"], where, "without numbers, though it failed")


document = record(
    {
        "date": line,
        "command": line,
        "machine": record(
            {"system": line, "cpu": line, "cpus": count, "memory_gb": maybe(amount), "others": maybe(share)},
            optional=("memory_gb", "others"),
        ),
        "python": record(dict.fromkeys(("version", "implementation", "compiler", "gil"), line)),
        "versions": table_of(line, line),
        "rounds": natural,
        "left_out": list_of(line),
        "results": list_of(entry),
    }
)


def one_line(text):
    """Any text as a line that a result file may hold."""
    return "".join(char if char.isprintable() else " " for char in text).strip()
