"""Exceptions that nobody asked for.

The idea.  A goroutine's exception is kept for whoever calls `result` or `exception`.  If the goroutine's handle is
gone and nobody has, the exception is reported, once, through the hook.  The moment "the handle is gone" is a
finalizer: a failed goroutine (only a failed one: successes pay nothing) holds an `Unasked`, whose ``__del__`` runs
with it.

A finalizer may run anywhere, in the middle of any lock, and must not switch; and printing an exception may run the
program's own code (an exception's ``__str__``), which may use the runtime.  So the finalizer only records and wakes:
the report is printed by a goroutine of its own.  Where no runtime is left to run one, it is printed on the spot.
"""

from __future__ import annotations

import sys
import traceback
from types import SimpleNamespace, TracebackType
from typing import Any, TextIO


class ExceptHookArgs(SimpleNamespace):
    """What `gort.excepthook` is called with."""

    exc_type: type[BaseException]
    exc_value: BaseException
    exc_traceback: TracebackType | None
    goroutine: str


def excepthook(args: ExceptHookArgs, /) -> None:
    """Print an exception of a goroutine that nobody asked for, on stderr.

    Assign another function to ``gort.excepthook`` to change what happens.  args has exc_type, exc_value,
    exc_traceback and goroutine (a text: its number, its name and where its ``go`` was).  Like threading.excepthook.
    """
    file: TextIO | None = sys.stderr
    if file is None:
        return
    lines = [f"Exception in {args.goroutine}:\n"]
    lines += traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
    file.write("".join(lines))
    file.flush()


# The package's top replaces this by a look-up of ``gort.excepthook``, so that a program can assign to it there.
current_hook = [lambda args: excepthook(args)]


def report(exc: BaseException, label: str) -> None:
    """Call the hook for one exception; an error of the hook itself goes to sys.unraisablehook's place, stderr."""
    args = ExceptHookArgs(exc_type=type(exc), exc_value=exc, exc_traceback=exc.__traceback__, goroutine=label)
    try:
        current_hook[0](args)
    except BaseException:  # also what is no Exception: this must not fail, or its failure would be reported in turn
        try:
            if sys.is_finalizing():  # the modules that a hook needs are being taken apart: say what can be said
                sys.stderr.write(f"Exception in {label}:\n{type(exc).__name__}: {exc}\n")
                return
            sys.stderr.write(f"gort.excepthook failed for {label}:\n")
            traceback.print_exc()
        except BaseException:
            pass  # stderr itself is gone


class Unasked:
    """Held by a failed goroutine until somebody asks; reports when it goes unasked."""

    __slots__ = ("exc", "label", "sched")

    def __init__(self, exc: BaseException, label: str, sched: Any) -> None:
        self.exc: BaseException | None = exc
        self.label = label
        self.sched = sched

    def __del__(self) -> None:
        exc = self.exc
        if exc is not None and not (self.sched is not None and self.sched.add_report(exc, self.label)):
            report(exc, self.label)
