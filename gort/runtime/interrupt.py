"""Ctrl-C while `run` owns the main thread.

The idea.  Python's own handler raises KeyboardInterrupt wherever the main thread happens to be; in the middle of the
scheduler that would lose a goroutine or a lock.  So while `run` runs, SIGINT belongs to gort:

- if the main goroutine's own code is what runs on the main thread right now, KeyboardInterrupt is raised there, as in
  any program;
- otherwise it is delivered to the main goroutine as a cancellation is: at its wait, or at its next blocking operation;
- a second Ctrl-C, while the first is still on its way, is raised in whatever goroutine's own code runs there, so that
  one that computes without end can be stopped.

"Own code" means: no frame of gort between the goroutine's base and the interrupted line.

A program that has installed its own SIGINT handler keeps it.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from greenlet import getcurrent

from .carrier import Carrier
from .goroutine import Goroutine

_RUN_CODE = Carrier.run.__code__


def _in_own_code(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is _RUN_CODE:
            return True
        name = frame.f_globals.get("__name__", "")
        if name == "gort" or name.startswith("gort."):
            return False
        frame = frame.f_back
    return False


class Interrupt:
    """The SIGINT handler of one `run`; a context manager that puts back what was there."""

    gort_own = True

    def __init__(self, m: Any, main: Goroutine[Any]) -> None:
        self.m = m
        self.main = main
        self.count = 0
        self.installed = False

    def __call__(self, _number: int, frame: FrameType | None) -> None:
        self.count += 1
        current: Any = getcurrent()
        if type(current) is Carrier and _in_own_code(frame) and (current.g is self.main or self.count > 1):
            raise KeyboardInterrupt
        # In the middle of the scheduler, or of another goroutine: only record and wake (a handler must not switch).
        target = None if self.main.done() else self.main
        self.m.mail.append((target, KeyboardInterrupt()))
        self.m.nudge()

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self)
                self.installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self.installed and signal.getsignal(signal.SIGINT) is self:
            signal.signal(signal.SIGINT, signal.default_int_handler)
