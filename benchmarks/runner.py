"""Runs the children: every contender in a fresh process, interleaved, round by round.

The order is: for each round, for each workload and point, each contender once. So the contenders
that are compared ran within seconds of each other, and a change in the machine over the minutes
falls on all rounds alike. Within a round the order of the contenders is turned by one each time,
so that none of them always runs after the same neighbour.

Rounds come outermost also so that a run that is stopped (Ctrl-C, or the time limit of --quick)
has something to say about everything it started. A budget is kept by whole rounds: the next
one starts only if it is expected to end in time. If even the first does not (a slow or busy machine), what it has
not reached is left out, with a sentence. A child that hangs has no more than what is left of the budget, and not all of
it, for the others' sake.

A child that fails or hangs is a result too: the contender is marked failed with the last line it
wrote, and not run again.
"""

import json
import math
import subprocess
import sys
import time
from typing import NamedTuple

from benchmarks import shape
from benchmarks.child import LONG_ENOUGH
from benchmarks.contenders import UsageError, contender, environment, interpreter, last_words, why_not
from benchmarks.progress import Progress
from benchmarks.results import NOT_ALL_RUN, Key, Results
from benchmarks.workload import Point, Workload, workload

CHILD_LIMIT = 180  # seconds after which a child shows its stacks and ends
GRACE = 5  # seconds more for a child that cannot end itself
QUICK_BUDGET = 110  # seconds that --quick may start rounds in
QUICK_ENOUGH = 0.05  # seconds of timed work that are enough for --quick
QUICK_LIMIT = 30  # as CHILD_LIMIT; a child of --quick takes a second or two
LEAST_LIMIT = 5  # for the last child before the budget is reached: it has to start, too


class Job(NamedTuple):
    workload: str
    point: Point
    contender: str

    def __str__(self):
        return f"{self.workload} {self.point} {self.contender}"


def plan(workloads: list[Workload], only_contenders=None):
    """The jobs of one round, and what is left out with the reasons.

    Contenders asked for by name must be usable, and at least one workload must have them:
    otherwise UsageError. Others that are not usable are left out.
    """
    if only_contenders is not None:
        for name in only_contenders:
            if reason := why_not(contender(name).module):
                raise UsageError(f"The contender {name!r} cannot run on this interpreter: it {reason}.")
    jobs, left_out, capped = [], [], {}
    for work in workloads:
        names = work.names() if only_contenders is None else _chosen(work, only_contenders)
        for point in work.points:
            for name in names:
                reason = why_not(contender(name).module)
                if reason:
                    left_out.append(f"{contender(name).module} {reason}.")
                elif work.is_capped(name, point):
                    capped.setdefault((work.name, work.caps[name]), {})[name] = None
                elif reason := work.why_not(name, point):
                    left_out.append(reason)
                else:
                    jobs.append(Job(work.name, point, name))
    for (name, cap), rivals in capped.items():
        left_out.append(workload(name).why_capped(cap, rivals))
    left_out = list(dict.fromkeys(left_out))
    asked = dict.fromkeys(only_contenders or ())
    foreign = [name for name in asked if not any(_chosen(work, [name]) for work in workloads)]
    which = f"The workload {workloads[0].name} does not have" if len(workloads) == 1 else "None of these workloads has"
    left_out += [f"{which} the contender {name}." for name in foreign]
    if not jobs:
        why = [] if asked and len(foreign) == len(asked) else ["None of these workloads has a contender that can run here."]
        raise UsageError(" ".join([*why, *left_out]))
    return jobs, left_out


def _chosen(work, names):
    """Those of the named contenders that the workload has; any gort-pN if it has gort at all."""
    return [
        name
        for name in dict.fromkeys(names)
        if name in work.names() or (name.startswith("gort-p") and "gort" in work.contenders)
    ]


def check_gort():
    """UsageError unless gort itself can be imported here."""
    if reason := why_not("gort"):
        raise UsageError(f"This interpreter ({sys.executable}) cannot run gort: it {reason}.")


def run(jobs, rounds, facts, left_out=(), budget=None, stream=None, run_job=None):
    """Run every job `rounds` times, fewer if the budget of seconds is reached or at Ctrl-C. Returns Results.

    `run_job` takes a job and returns a reading or raises ChildFailed; tests give their own.
    """
    results = Results(facts)
    results.left_out = [shape.one_line(reason) for reason in left_out]
    jobs = list(jobs)
    progress = Progress(jobs, rounds, stream, budget=budget)
    start, missed = time.monotonic(), {}

    def run_quickly(job):
        left = math.ceil(start + budget - time.monotonic())
        return run_child(job, max(LEAST_LIMIT, min(QUICK_LIMIT, left)), QUICK_ENOUGH)

    if run_job is None:
        run_job = run_quickly if budget else run_child
    try:
        for number in range(rounds):
            if budget and number and time.monotonic() - start + progress.round_cost() > budget:
                progress.say(f"{number} of {rounds} rounds: another does not fit into {budget:.0f} s.")
                break
            progress.start_round(number)
            for job in turned(list(jobs), number):
                if budget and time.monotonic() - start > budget:  # can only be so in the first round
                    missed.setdefault(job.workload)
                    continue
                progress.start(job, f"round {number + 1} of {rounds}  {job}")
                series = results[Key(*job)]
                try:
                    series.add(run_job(job))
                    progress.finish(job)
                except ChildFailed as failure:
                    progress.finish(job)
                    series.fail(str(failure))
                    jobs.remove(job)
                    progress.forget(job)
            results.rounds = number + 1
            if missed:
                results.left_out.append(f"{NOT_ALL_RUN} {budget:.0f} s: {', '.join(missed)}.")
                break
    except KeyboardInterrupt:
        results.stopped = True
        results.left_out.append(f"Stopped after {results.rounds} of {rounds} rounds.")
    finally:
        progress.close()
    return results


def turned(jobs, number):
    """The jobs of a round: the contenders of each workload and point turned by `number` places."""
    groups = {}
    for job in jobs:
        groups.setdefault((job.workload, job.point), []).append(job)
    for group in groups.values():
        places = number % len(group)
        yield from group[places:] + group[:places]


class ChildFailed(Exception):
    """A child process ended without a result; the text says why."""


def run_child(job, limit=CHILD_LIMIT, enough=LONG_ENOUGH):
    """Measure a job in a fresh process of this interpreter."""
    request = {
        "workload": job.workload,
        "contender": job.contender,
        "n": job.point.n,
        "size": job.point.size,
        "enough": enough,
        "limit": limit,
    }
    command = [*interpreter(), "-m", "benchmarks.child", json.dumps(request)]
    try:
        # The child ends itself at its limit, with stacks; this one is for a child that cannot.
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=limit + GRACE)
    except subprocess.TimeoutExpired:
        raise ChildFailed(f"did not end within {limit + GRACE} s") from None
    if done.returncode:
        raise ChildFailed(why_it_failed(done.returncode, done.stderr))
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise ChildFailed("printed no result") from None


def why_it_failed(status, stderr):
    """The sentence for a child's exit status and what it wrote."""
    lines = stderr.strip().splitlines()
    if any(line.startswith("Timeout (") for line in lines):
        where = next((line.strip() for line in lines if line.strip().startswith("File ")), "")
        return f"hung, and was ended by its time limit; {where}".rstrip("; ")
    if status < 0:
        return f"was killed by signal {-status}" + (" (out of memory?)" if status == -9 else "")
    return last_words(stderr) or f"exit status {status}"


def workloads_named(names, quick=False):
    """The workloads of these names in the order given; all if there are none."""
    from benchmarks.workload import all_workloads

    found = [workload(name) for name in dict.fromkeys(names)] if names else list(all_workloads().values())
    return [work.with_quick_points() for work in found] if quick else found
