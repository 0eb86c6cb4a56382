"""The command line: `python -m benchmarks`.

The tables go to stdout as Markdown, so `python -m benchmarks > RESULTS.md` makes a report; progress
and messages go to stderr. The exit status is

    0   everything ran, nothing regressed, no goal was missed
    1   a contender failed, --compare found a regression, or --targets found a goal missed
    2   the command cannot be carried out: one sentence says why
    130 stopped by Ctrl-C, after showing what was measured until then
"""

import argparse
import inspect
import os
import sys
import textwrap

from benchmarks import compare, machine, overview, page, results, runner, tables, targets
from benchmarks.contenders import IDIOMS, UsageError, contender
from benchmarks.workload import all_workloads

ROUNDS = 5


class _Parser(argparse.ArgumentParser):
    """argparse, whose errors are one sentence without the usage before them."""

    def error(self, message):
        raise UsageError(f"{message[0].upper()}{message[1:].rstrip('.')}. Try --help.")


def _names(text):
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected a name, or several with commas between them")
    return names


def _rounds(text):
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rounds: it must be 1 or more")
    return number


def _limit(text):
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1.0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a ratio: it must be 1 or more")
    return number


def parser():
    found = _Parser(
        prog="python -m benchmarks",
        description="Compare gort with the other ways to run many things at once in Python. Every contender "
        "runs in a process of its own; the contenders take turns.",
    )
    add = found.add_argument
    add("--list", action="store_true", help="name the workloads and their contenders, run nothing")
    add("--code", metavar="CONTENDER", help="print the code that a contender is measured by, run nothing")
    add("--only", type=_names, metavar="NAME[,NAME]", help="run these workloads only")
    add("--contenders", type=_names, metavar="NAME[,NAME]", help="run these contenders only (gort-pN: procs=N)")
    add("--rounds", type=_rounds, metavar="N", help=f"how often each is run (default {ROUNDS})")
    add("--quick", action="store_true", help="small sizes, and no more rounds than fit into two minutes")
    add("--targets", action="store_true", help="measure the project's own goals, and say which are met")
    add("--json", metavar="FILE", help="save the results")
    add("--html", metavar="FILE", help="write a report with plots, one self-contained page")
    add("--load", metavar="FILE", help="show saved results instead of measuring")
    add("--compare", metavar="FILE", help="compare with saved results; exit 1 if gort has become slower")
    add("--max-ratio", type=_limit, metavar="R", default=1.25, help="what --compare allows (default 1.25)")
    return found


def check(options):
    """UsageError for options that contradict each other, or name a file that cannot be written."""
    if options.load and (options.targets or options.only or options.contenders or options.rounds or options.quick):
        raise UsageError("--load shows saved results: it cannot be used with an option that says what to measure.")
    if options.targets and (options.contenders or options.compare):
        raise UsageError("--targets needs its own contenders: it cannot be used with --contenders or --compare.")
    for path in filter(None, (options.json, options.html)):
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path):  # now, and not when all has run
            raise UsageError(f"Cannot write {path}: it is a folder.")
        if not os.access(folder, os.W_OK):
            raise UsageError(f"Cannot write {path}: {folder} is not a folder that can be written to.")


def listing():
    """What there is to run, as text."""
    found = []
    for work in all_workloads().values():
        points = f" ({work.axis}: {', '.join(map(str, work.points))})" if work.axis else ""
        found += [f"{work.name}: {work.title}{points}", f"    {', '.join(work.names())}"]
    return "\n".join(found) + "\n"


def code(name, only):
    """How a contender is used, and its functions in all workloads (or those named), as text."""
    rival = contender(name)
    idiom = textwrap.wrap(IDIOMS[rival.key], 100, initial_indent="# ", subsequent_indent="# ")
    found, seen = [f"# {rival.label}", "#", *idiom], set()
    for work in runner.workloads_named(only):
        if name not in work.names() and not (rival.key == "gort" and "gort" in work.contenders):
            continue
        fn = work.function(name)
        fn = getattr(fn, "func", fn)
        if fn not in seen:
            found += ["", "", f"# {work.name}: {work.title}", "", inspect.getsource(fn).rstrip()]
        seen.add(fn)
    if not seen:
        raise UsageError(f"None of these workloads has the contender {name!r}.")
    return "\n".join(found) + "\n"


def main(argv=None):
    """Run a command line; the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        return command(argv)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except runner.Interrupted as stopped:
        if stopped.results.series:
            print(report(stopped.results, all_workloads()))
        print("Stopped; the tables hold what was measured until then.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the tables has gone (| head)
        sys.stderr.close()
        return 1


def command(argv):
    machine.check_interpreter()
    options = parser().parse_args(argv)
    check(options)
    if options.list:
        print(listing(), end="")
        return 0
    if options.code:
        print(code(options.code, options.only), end="")
        return 0
    # Read first, for a wrong name should not cost a run.
    old = results.load(options.compare) if options.compare else None
    workloads = all_workloads()
    if options.targets:
        return run_targets(options, argv)
    if options.load:
        found = known(results.load(options.load), workloads)
    else:
        found = measure(options, argv)
    print(report(found, workloads), end="")
    write_files(options, found, workloads)
    status = 1 if found.failures() else 0
    if old is not None:
        comparison = compare.compare(old, found, workloads)
        print("\n" + compare.report(comparison, options.max_ratio), end="")
        status = 1 if comparison.regressions(options.max_ratio) else status
    return status


def measure(options, argv):
    """Run what the options ask for; Results."""
    work = runner.workloads_named(options.only, options.quick)
    if options.contenders is None:
        runner.check_gort()
    jobs, left_out = runner.plan(work, options.contenders)
    return run(options, argv, jobs, left_out)


def run(options, argv, jobs, left_out):
    budget = runner.QUICK_BUDGET if options.quick else None
    neighbours = machine.Neighbours()
    found = runner.run(jobs, options.rounds or ROUNDS, machine.facts(argv), left_out, budget)
    found.facts["machine"]["others"] = neighbours.share()
    return found


def run_targets(options, argv):
    runner.check_gort()
    goals = targets.chosen(options.only)
    jobs, left_out = targets.jobs(goals)
    found = run(options, argv, jobs, left_out)
    verdicts = [targets.judge(goal, found) for goal in goals]
    print("\n".join(["# gort's goals", "", *tables.preamble(found)[: len(machine.lines(found.facts))], ""]))
    print(targets.report(verdicts), end="")
    write_files(options, found, all_workloads())
    return 1 if any(verdict.missed for verdict in verdicts) else 0


def known(found, workloads):
    """The results, if this checkout has all their workloads; else UsageError."""
    for name in found.workloads():
        if name not in workloads:
            raise UsageError(f"The results hold a workload {name!r} that this version does not have.")
    return found


def report(found, workloads):
    """The whole report as Markdown: the machine, the overview, the losses, every table."""
    head = ["# gort benchmarks", "", *tables.preamble(found), "", *overview.report(found, workloads), "", ""]
    return "\n".join(head) + tables.report(found, workloads)


def write_files(options, found, workloads):
    if options.json:
        found.save(options.json)
    if options.html:
        results.write(options.html, page.page(found, workloads))
