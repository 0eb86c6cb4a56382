"""SIGQUIT (Ctrl-\\ on a terminal): print what every goroutine does, and go on.

The idea.  A program that hangs is asked from outside.  While any runtime lives, and if the program has no handler of
its own, SIGQUIT prints the stacks of all goroutines of all runtimes on stderr: state, what each waits for and for how
long, where it was started.  Unlike Go's, the process lives on.  `gort.stacks()` gives the same text to the program.

It is read without stopping or locking anything (stacks.py), so it works while a machine is stuck, and whatever the
signal has interrupted.  Written by `os.write`, because sys.stderr's own lock may be what was interrupted.

The limit: CPython runs signal handlers on the main thread, between two instructions or inside a call that lets itself be
interrupted (a sleep, a lock, a socket).  A C extension that holds the main thread and does neither delays it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from . import stacks
from .wait import on_main_thread


class Quit:
    """The handler, installed as long as there are users."""

    gort_own = True

    def __init__(self, schedulers: Callable[[], Iterable[Any]]) -> None:
        self.users = 0
        self.schedulers = schedulers

    def __call__(self, number: int, _frame: Any) -> None:
        if self.users <= 0:  # the last runtime was closed by another thread, which could not put the handler back
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        text = "\n".join(stacks.dump(sched) for sched in self.schedulers())
        try:
            fd = sys.stderr.fileno() if sys.stderr is not None else 2
        except (OSError, ValueError, AttributeError):
            fd = 2
        data = (text or "gort: there are no goroutines\n").encode(errors="backslashreplace")
        try:
            while data:
                data = data[os.write(fd, data) :]
        except OSError:
            pass  # nobody can read it

    def install(self) -> None:
        """A runtime begins.  Only the main thread may set handlers; elsewhere this only counts."""
        self.users += 1
        if on_main_thread():
            if getattr(signal, "SIGQUIT", None) and signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL:
                signal.signal(signal.SIGQUIT, self)

    def rightful(self, before: Any) -> Any:
        """Whose SIGQUIT is now, if it was once before's: see interrupt.py."""
        if before is not self and before is not signal.SIG_DFL:
            return before
        return self if self.users > 0 else signal.SIG_DFL

    def forget(self) -> None:
        """In the child of a fork there is no runtime."""
        self.users = 1
        self.remove()

    def remove(self) -> None:
        """A runtime has ended."""
        self.users -= 1
        if self.users <= 0 and on_main_thread():
            if getattr(signal, "SIGQUIT", None) and signal.getsignal(signal.SIGQUIT) is self:
                signal.signal(signal.SIGQUIT, signal.SIG_DFL)
