"""The command line: `python -m benchmarks`.

The tables go to stdout as Markdown, so `python -m benchmarks > RESULTS.md` makes a report; progress
and messages go to stderr. The exit status is

    0   everything ran, nothing regressed, no goal was missed
    1   a contender failed, --compare found a regression or a number of gort's lost, or --targets found a goal missed
    2   the command cannot be carried out: one sentence says why
    130 stopped by Ctrl-C or SIGTERM, after showing and saving what was measured until then

The files are written before the tables are printed, and if one cannot be written the tables are printed all the same:
what took twenty minutes to measure is not lost to a full disk, to `| head`, or to a mistake of ours in a plot.
"""

import argparse
import inspect
import os
import sys
import textwrap
import traceback

from benchmarks import compare, machine, overview, page, results, runner, tables, targets
from benchmarks.contenders import IDIOMS, UsageError, contender, left_behind
from benchmarks.workload import all_workloads

ROUNDS = 5
MAX_RATIO = 1.25  # what --compare allows


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


def _file(text):
    if not text:  # a shell's unset variable
        raise argparse.ArgumentTypeError("expected the name of a file")
    return text


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
        allow_abbrev=False,  # the command is kept with the results, and read again by --compare
        description="Compare gort with the other ways to run many things at once in Python. Every contender "
        "runs in a process of its own; the contenders take turns. The tables go to stdout; what runs and the time "
        "left go to stderr, on a terminal for each process and in a log each round and each minute.",
    )
    add = found.add_argument
    add("--list", action="store_true", help="name the workloads and their contenders, run nothing")
    add("--code", metavar="CONTENDER", help="print the code that a contender is measured by, run nothing")
    add("--only", type=_names, metavar="NAME[,NAME]", help="run these workloads only")
    add("--contenders", type=_names, metavar="NAME[,NAME]", help="run these contenders only (gort-pN: procs=N)")
    add("--rounds", type=_rounds, metavar="N", help=f"how often each is run (default {ROUNDS})")
    add("--quick", action="store_true", help="small sizes, and no more rounds than fit into two minutes")
    add("--targets", action="store_true", help="measure the project's own goals, in their own sizes, and say which are met")
    add("--json", type=_file, metavar="FILE", help="save the results")
    add("--html", type=_file, metavar="FILE", help="write a report with plots, one self-contained page")
    add("--load", type=_file, metavar="FILE", help="show saved results instead of measuring")
    add("--compare", type=_file, metavar="FILE", help="compare with saved results; exit 1 if gort has become slower")
    add("--max-ratio", type=_limit, metavar="R", help=f"what --compare allows (default {MAX_RATIO:g})")
    return found


def check(options):
    """UsageError for options that contradict each other, or name a file that cannot be written."""
    given = [name for name, value in vars(options).items() if value]
    for alone, companions in (("list", ()), ("code", ("only",))):
        if alone in given and (others := [name for name in given if name not in (alone, *companions)]):
            raise UsageError(f"--{alone} runs nothing: it cannot be used with --{others[0].replace('_', '-')}.")
    if options.max_ratio and not options.compare:
        raise UsageError("--max-ratio is what --compare allows: it cannot be used without it.")
    if options.load and (options.targets or options.only or options.contenders or options.rounds or options.quick):
        raise UsageError("--load shows saved results: it cannot be used with an option that says what to measure.")
    if options.targets and (options.contenders or options.compare):
        raise UsageError("--targets needs its own contenders: it cannot be used with --contenders or --compare.")
    if options.json and options.html and os.path.realpath(options.json) == os.path.realpath(options.html):
        raise UsageError("--json and --html name the same file.")
    for path in filter(None, (options.json, options.html)):
        for name, other in (("load", options.load), ("compare", options.compare)):
            if other and os.path.realpath(path) == os.path.realpath(other):
                raise UsageError(f"{path} would be written over the results that --{name} reads.")
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path):  # now, and not when all has run
            raise UsageError(f"Cannot write {path}: it is a folder.")
        if os.path.exists(path):
            if not os.access(path, os.W_OK):
                raise UsageError(f"Cannot write {path}: it is read-only.")
        elif not os.access(folder, os.W_OK):
            raise UsageError(f"Cannot write {path}: {folder} is not a folder that can be written to.")


def listing():
    """What there is to run, as text."""
    found = []
    for work in all_workloads().values():
        points = f" ({work.axis}: {', '.join(map(str, work.points))})" if work.axis else ""
        found += [f"{work.name}: {work.told(work.title)}{points}", f"    {', '.join(work.names())}"]
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
        parts = [part for part in parts_of(getattr(fn, "func", fn)) if part not in seen]
        if parts:
            found += ["", "", f"# {work.name}: {work.told(work.title)}"]
        for part in parts:
            found += ["", *inspect.getsource(part).rstrip().splitlines(), ""]
        seen.update(parts)
    if not seen:
        raise UsageError(f"None of these workloads has the contender {name!r}.")
    return "\n".join(found).rstrip() + "\n"


def parts_of(fn):
    """A workload's function after the functions and classes of its file that it uses."""
    found, names = [], _names_in(fn.__code__)
    for name in names:
        used = fn.__globals__.get(name)
        if getattr(used, "__module__", None) == fn.__module__ and used is not fn and used not in found:
            found += parts_of(used) if inspect.isfunction(used) else [used]
    return list(dict.fromkeys([*found, fn]))


def _names_in(code):
    """The global names that a function and those within it mention, in their order."""
    inner = [const for const in code.co_consts if inspect.iscode(const)]
    return dict.fromkeys([*code.co_names, *(name for each in inner for name in _names_in(each))])


def main(argv=None):
    """Run a command line; the exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if sys.stderr is None:  # closed by the shell; what is for it shall not stand among the tables
        sys.stderr = open(os.devnull, "w", encoding="utf-8")
    if sys.stdout is None:
        print("Cannot print the tables: stdout is closed (> /dev/null hides them).", file=sys.stderr)
        return 2
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no "±" shall show the rest
    try:
        status = command(argv)
        sys.stdout.flush()  # here, where an error can still be told
        return status
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of the tables has gone (| head)
        sys.stdout = None  # or the interpreter would try to flush it as it ends
        return 1
    except OSError as error:
        sys.stdout = None
        print(f"Cannot print the tables: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def command(argv):
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
    if options.targets:
        return run_targets(options, argv)
    found = loaded(options.load, old) if options.load else measured(options, argv, old)
    return show(options, found, report(found, all_workloads()), old)


def loaded(path, old=None):
    """Saved results, if this checkout has all their workloads and they can be compared with `old`; else UsageError."""
    found = results.load(path)
    if old is not None:
        compare.check(old.facts, found.facts)
    for name in found.workloads():
        if name not in all_workloads():
            raise UsageError(f"The results hold a workload {name!r} that this version does not have.")
    return found


def measured(options, argv, old):
    """The results of running what the options ask for."""
    if old is not None:
        compare.check(old.facts, machine.facts(argv))
    work = runner.workloads_named(options.only, options.quick)
    if options.contenders is None:
        runner.check_gort()
    jobs, left_out = runner.plan(work, options.contenders)
    if old is not None and not any(contender(job.contender).is_gort and results.Key(*job) in old.series for job in jobs):
        raise UsageError("The earlier results have no number of gort's that this run would give: nothing to compare.")
    return run(options, argv, jobs, left_out)


def show(options, found, text, old=None):
    """Write the files, print the text and the comparison; the exit status."""
    problems = write_files(options, found)
    print(text, end="")
    status = 1 if found.failures() else 0
    if old is not None:
        comparison = compare.compare(old, found, all_workloads())
        limit = options.max_ratio or MAX_RATIO
        print("\n" + compare.report(comparison, limit), end="")
        status = 1 if comparison.regressions(limit) or comparison.lost else status
    if problems:
        raise UsageError(" ".join(problems))
    if found.stopped:
        tell("Stopped; the tables hold what was measured until then.")
        return 130
    return status


def tell(sentence):
    """Say something on stderr, if anybody listens there."""
    try:
        print(sentence, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def run(options, argv, jobs, left_out):
    if kept := left_behind():
        tell(f"Not passed on, as it would change the figures: {', '.join(kept)}.")
    budget = runner.QUICK_BUDGET if options.quick else None
    neighbours = machine.Neighbours()
    found = runner.run(jobs, options.rounds or ROUNDS, machine.facts(argv), left_out, budget)
    found.facts["machine"]["others"] = neighbours.share()
    if not any(series.metrics for series in found.series.values()) and found.stopped:
        raise KeyboardInterrupt
    return found


def run_targets(options, argv):
    runner.check_gort()
    goals = targets.chosen(options.only)
    jobs, left_out = targets.jobs(goals)
    found = run(options, argv, jobs, left_out)
    verdicts = [targets.judge(goal, found) for goal in goals]
    facts = [f"- {name}: {text}" for name, text in machine.lines(found.facts)]
    left = ["Left out:", *(f"- {reason}" for reason in found.left_out), ""] if found.left_out else []
    status = show(options, found, "\n".join(["# gort's goals", "", *facts, "", *left, targets.report(verdicts)]))
    return 1 if status == 0 and any(verdict.missed for verdict in verdicts) else status


def report(found, workloads):
    """The whole report as Markdown: the machine, the overview, the losses, every table."""
    head = ["# gort benchmarks", "", *tables.preamble(found), "", *overview.report(found, workloads), "", ""]
    return "\n".join(head) + tables.report(found, workloads)


def write_files(options, found):
    """Write what the options name; a sentence for each file that could not be written."""
    problems = []
    for path, text in ((options.json, found.as_json), (options.html, lambda: page.page(found, all_workloads()))):
        if path:
            try:
                results.write(path, text())
            except UsageError as error:
                problems.append(str(error))
            except Exception as error:  # ours, and no reason to lose the rest
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{os.path.basename(place.filename)}, line {place.lineno}"
                problems.append(f"Cannot make {path}: {type(error).__name__} in {where} ({error}).")
    return problems


if __name__ == "__main__":  # python -m benchmarks.cli
    sys.exit(main())
