"""The project's own goals, measured: `python -m benchmarks --targets`.

A goal is a ratio of two costs measured in one run on one interpreter: of gort and a rival, of two
numbers of Ps, of two sizes. Each has a limit that must be kept and mostly one that is aimed at. A
goal that speaks of a speed-up is met by a ratio at least as large, all others by one at most as large.

Where a goal says "gort" it is judged with the default number of Ps, for that is what a user gets; the
ratio with procs=1 stands beside it. Goals that only make sense with or only without a GIL are listed on
the other kind of build as not measured, and so are those whose rival is not installed: a goal
never passes because nobody looked. A speed-up needs two CPUs: where two plain threads, run in the same
rounds, did not reach it either, the machine was busy and the goal counts as not measured. (Two, for a thread for each of
many busy CPUs would together reach what no two of them can.)

The noise is the spread of the rounds' own ratios: the range of their middle half. A verdict whose
limit lies within that range is marked "close": another run may say otherwise.
"""

from typing import NamedTuple

from benchmarks import contenders, tables
from benchmarks.results import NOT_ALL_RUN, Key, median, quartiles, ratios, spread
from benchmarks.runner import Job
from benchmarks.workload import Point, workload


class Goal(NamedTuple):
    text: str
    over: Key
    under: Key | None  # None: `over` is compared with the limits themselves
    must: float | None
    aim: float | None = None
    metric: str = "time"
    at_least: bool = False
    gil: bool | None = None  # True, False: only with, only without a GIL
    control: tuple[Key, Key] | None = None  # one and two plain threads: what the machine can give


class Verdict(NamedTuple):
    goal: Goal
    measured: float | None
    noise: float | None
    one_p: float | None
    verdict: str

    @property
    def missed(self):
        return self.verdict.startswith("MISS")


_SPAWN = ("spawn", Point(100_000))
_TRIP = ("unbuffered", Point(50_000))
_ITEM = ("buffered", Point(200_000))
_YIELD = ("gosched", Point(50_000, 2))
_YIELD_TEN = ("gosched", Point(50_000, 10))
_SLEEP = ("sleepers", Point(100_000, 2.0))
_PARKED = ("parked", Point(100_000))
_COMPUTE = ("compute", Point(4_000))
_PAIR = ("pingpong", Point(50_000))
_PAIRS = ("two-pairs", Point(100_000))
_PARTIES = ("two-parties", Point(100_000))
_MUTEX = ("mutex", Point(200_000))
_SERVER = ("server", Point(10_000, 100))
_SILENT = ("server-silent", Point(10_000, 100))
_HASHING = ("hashing", Point(256))
_BLOCKING = ("blocking", Point(10_000, 1))
_SLEEPS = Point(100, 0.1)  # unannounced: 100 goroutines in the plain time.sleep(0.1)


def _against(text, place, rival, must, aim=None, **more):
    """A goal of gort's against a rival's in the same place."""
    return Goal(f"{text}, against {rival}", Key(*place, "gort"), Key(*place, rival), must, aim, **more)


def _speed_up(text, place, must, aim):
    """How many times as fast procs=2 is as procs=1, without a GIL."""
    over, under = Key(*place, "gort-p1"), Key(*place, "gort-p2")
    control = Key(*_COMPUTE, "bare"), Key(*_COMPUTE, "two-threads")
    return Goal(text, over, under, must, aim, at_least=True, gil=False, control=control)


def _eight(text, place):
    """What procs=8 costs under a GIL, where it cannot gain anything."""
    return Goal(f"{text}, procs=8 to procs=1", Key(*place, "gort-p8"), Key(*place, "gort-p1"), 1.15, 1.05, gil=True)


def _flat(text, name, metric="time"):
    """The cost of each of a million to that of each of a thousand."""
    over, under = (Key(name, Point(n), "gort") for n in (1_000_000, 1_000))
    return Goal(f"{text}, 10^6 to 10^3", over, under, 1.3, metric=metric)


GOALS = [
    _against("spawn and join", _SPAWN, "asyncio", 0.75, 0.5),
    _against("spawn and join", _SPAWN, "gevent", 0.15),
    _against("unbuffered round trip", _TRIP, "asyncio", 0.33, 0.2),
    _against("unbuffered round trip", _TRIP, "gevent", 0.40),
    _against("unbuffered round trip", _TRIP, "bare", 5.0, 3.5),
    _against("item through 128", _ITEM, "asyncio", 0.6),
    _against("item through 128", _ITEM, "gevent", 1.6, 1.0),
    _against("gosched of two", _YIELD, "asyncio", 0.33, 0.2),
    _against("gosched of two", _YIELD, "bare", None, 1.5),
    _against("gosched of ten", _YIELD_TEN, "asyncio", 0.33, 0.2),
    _against("gosched of ten", _YIELD_TEN, "bare", None, 1.5),
    _against("100,000 asleep 2 s", _SLEEP, "asyncio", 1.15, 1.0),
    _against("100,000 asleep 2 s", _SLEEP, "gevent", 0.7),
    _against("memory of a parked goroutine", _PARKED, "bare", 1.25, 1.1, metric="memory"),
    Goal("10^6 parked in 8 GB, bytes each", Key("parked", Point(1_000_000), "gort"), None, None, 8_000, "memory"),
    _eight("spawn and join", _SPAWN),
    _eight("unbuffered round trip", _TRIP),
    _eight("item through 128", _ITEM),
    _eight("gosched of ten", _YIELD_TEN),
    _speed_up("4,000 computations, speed of procs=2", _COMPUTE, 1.8, 1.95),
    Goal(
        "ping-pong pair, procs=2 to procs=1",
        Key(*_PAIR, "gort-p2"),
        Key(*_PAIR, "gort-p1"),
        1.2,
        1.0,
        gil=False,
    ),
    _speed_up("two busy goroutines with a pair each, speed of procs=2", _PAIRS, 1.3, 1.6),
    Goal("OS context switches a message, procs=1", Key(*_PARTIES, "gort-p1"), None, 0.01, 0.0, "switches"),
    _against("mutex, lock and unlock", _MUTEX, "asyncio", 0.6),
    _against("mutex, lock and unlock", _MUTEX, "gevent", 0.8),
    _against("server, CPU a request", _SERVER, "asyncio", 1.0, metric="cpu"),
    _against("server, CPU a request", _SERVER, "gevent", 0.75, metric="cpu"),
    _against("server, CPU a request", _SERVER, "bare", 1.3, 1.15, metric="cpu"),
    _against("server, CPU a request", _SERVER, "uvloop-streams", None, 1.0, metric="cpu"),
    Goal("server, CPU a request beside 5,000 silent", Key(*_SILENT, "gort"), Key(*_SERVER, "gort"), 1.1, 1.02, "cpu"),
    Goal("100 unannounced sleeps of 0.1 s, seconds", Key("unannounced", _SLEEPS, "gort"), None, 0.5, 0.25),
    Goal("heartbeat beside them, longest gap", Key("unannounced", _SLEEPS, "gort"), None, 0.15, None, "gap"),
    Goal("the same once they are known", Key("unannounced-again", _SLEEPS, "gort"), None, 0.03, 0.015, "gap"),
    Goal(
        "SHA-256 of 1 MiB, speed to a plain loop's",
        Key(*_HASHING, "bare"),
        Key(*_HASHING, "gort"),
        1.6,
        1.9,
        at_least=True,
        control=(Key(*_HASHING, "bare"), Key(*_HASHING, "two-threads")),
    ),
    _against("blocking, round trip", _BLOCKING, "asyncio", 1.0, 0.6),
    _flat("time to spawn and join", "spawn"),
    _flat("time to park", "parked"),
    _flat("memory of a parked goroutine", "parked", "memory"),
]


def chosen(names):
    """The goals about the named workloads; all if there are no names; UsageError if none is about them."""
    if not names:
        return GOALS
    found = [goal for goal in GOALS if goal.over.workload in [workload(name).name for name in names]]
    if not found:
        raise contenders.UsageError(f"There is no goal about {' or '.join(names)}.")
    return found


def applies(goal):
    return goal.gil is None or goal.gil is not contenders.free_threaded()


def one_p(key):
    """The same with procs=1, where that is worth a look beside the default."""
    return key._replace(contender="gort-p1") if key.contender == "gort" and key.point.n < 1_000_000 else None


def jobs(goals):
    """What must be run to judge these goals, and what cannot be, with the reasons."""
    found, left_out = {}, []
    for goal in filter(applies, goals):
        for key in (goal.over, one_p(goal.over) if goal.under else None, goal.under, *(goal.control or ())):
            if key is None:
                continue
            rival = contenders.contender(key.contender)
            if reason := contenders.why_not(rival.module):
                left_out.append(f"{rival.module} {reason}.")
            elif reason := workload(key.workload).why_not(key.contender, key.point):
                left_out.append(reason)
            else:
                found[Job(*key)] = None
    # Contenders of one workload and point must be neighbours to be interleaved.
    order = {place: number for number, place in enumerate(dict.fromkeys((job.workload, job.point) for job in found))}
    return sorted(found, key=lambda job: order[job.workload, job.point]), list(dict.fromkeys(left_out))


def judge(goal, results):
    """The verdict on one goal."""
    if not applies(goal):
        build = "a build with a GIL" if goal.gil else "a free-threaded build"
        return Verdict(goal, None, None, None, f"not measured: needs {build}")
    for key in filter(None, (goal.over, goal.under)):
        if not results.values(key, goal.metric):
            series = results.series.get(key)
            failed = f": {series.error}" if series and series.error else ""
            verdict = f"MISS: {key.contender} failed{failed}" if failed else f"not measured: {_why_not(key, results)}"
            return Verdict(goal, None, None, None, verdict)
    over = results.values(goal.over, goal.metric)
    found = ratios(over, results.values(goal.under, goal.metric)) if goal.under else over
    if not found:
        return Verdict(goal, None, None, None, f"not measured: {goal.under.contender} is too fast to time")
    other = one_p(goal.over) if goal.under else None
    beside = results.ratio(other, goal.under, goal.metric) if other else None
    verdict = verdict_of(goal, found)
    control = results.ratio(*goal.control, goal.metric) if goal.control else None
    if verdict.startswith("MISS") and control is not None and control < goal.must:
        verdict = f"not measured: two plain threads had but {control:.2f}x"
    return Verdict(goal, median(found), spread(found), beside, verdict)


def _why_not(key, results):
    if results.stopped:
        return "stopped before"
    if any(reason.startswith(NOT_ALL_RUN) for reason in results.left_out):
        return "not run in time"
    return f"no {key.contender}"


def verdict_of(goal, found):
    """ "aim", "pass" or "MISS", with "close" where the limit lies within the rounds' middle half."""
    value = median(found)
    low, high = quartiles(found)

    def met(limit):
        return value >= limit if goal.at_least else value <= limit

    def close(limit):
        return ", close" if low < limit < high else ""

    if goal.aim is not None and met(goal.aim):
        return "aim" + close(goal.aim)
    if goal.must is None:
        return "pass, aim not met"
    return ("pass" if met(goal.must) else "MISS") + close(goal.must)


def number(value):
    """A digit more than the limits have, so that a near miss does not look like a hit."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"


def report(verdicts):
    """All verdicts as a text table."""
    rows = [["goal", "measured", "noise", "procs=1", "must", "aim", "verdict"]]
    for found in verdicts:
        goal = found.goal
        sign = ">= " if goal.at_least else "<= "
        rows.append(
            [
                goal.text,
                "-" if found.measured is None else number(found.measured),
                "-" if found.noise is None else f"±{found.noise:.0%}",
                "" if found.one_p is None else number(found.one_p),
                "" if goal.must is None else f"{sign}{goal.must:,g}",
                "" if goal.aim is None else f"{sign}{goal.aim:,g}",
                found.verdict,
            ]
        )
    missed = sum(found.missed for found in verdicts)
    judged = sum(not found.verdict.startswith("not measured") for found in verdicts)
    count = f"{judged} of {len(verdicts)} goals measured; "
    return "\n".join([*tables.aligned(rows), "", count + (f"{missed} missed." if missed else "none missed.")]) + "\n"
