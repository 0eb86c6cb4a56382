"""subprocess, cooperatively: `Popen.wait`, `communicate`, the pipes, `run`, `check_output` and their like park.

The idea.  `Popen` is the standard one, with the waiting parts overridden.  `wait` parks on a pidfd (kqueue: on a
process's event), which becomes readable when the process has ended.  The pipes are gort's files.  `communicate`, and the
functions that make a Popen, are the standard code over the names of this module (gort/borrow.py): a selector that parks,
this Popen.

Starting a process (fork and exec, about a millisecond) stays where it is: with a GIL the standard library holds it
during that, so another thread would not help, and some things that a child inherits (its parent-death signal) belong
to the very thread that started it.

A goroutine that is cancelled in `run` kills the process and waits for its end, as `run` does with every exception.
"""

from __future__ import annotations

import io as _std_io
import subprocess as _std
from time import monotonic as _monotonic
from types import SimpleNamespace as _SimpleNamespace
from typing import Any

from .. import borrow as _borrow
from ..buffered import TextIOWrapper as _TextIOWrapper
from ..descriptors import wait_exit as _wait_exit
from ..files import open as _open
from ..runtime.wait import is_late as _is_late
from ..runtime.wait import late as _late
from ..runtime.wait import parks as _parks
from . import selectors

# The names that the borrowed code finds instead of the standard module's.
io = _SimpleNamespace(open=_open, TextIOWrapper=_TextIOWrapper, text_encoding=_std_io.text_encoding)
_PopenSelector: Any = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Popen(_std.Popen):
    """As `subprocess.Popen`."""

    __init__ = _borrow.function(_std.Popen.__init__, globals())
    _communicate = _borrow.function(_std.Popen._communicate, globals())

    def _wait(self, timeout: float | None) -> int:
        if not _parks():
            return super()._wait(timeout)
        until = None if timeout is None else _monotonic() + timeout
        tries = 0
        while self.returncode is None and self.poll() is None:
            left = None if until is None else until - _monotonic()
            try:
                if left is not None and left <= 0:
                    raise _late("")
                _wait_exit(self.pid, left, tries)
                tries += 1
            except TimeoutError as exc:
                if not _is_late(exc):
                    raise
                if self.poll() is None:
                    raise _std.TimeoutExpired(self.args, timeout) from None
        return self.returncode


_borrow.rest(_std, globals())
_borrow.functions(_std, globals(), "call check_call check_output getoutput getstatusoutput run")
