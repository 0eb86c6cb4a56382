"""What every goroutine is doing, as text: for deadlocks, for `stacks()`, for people.

A started goroutine's frames are its carrier's (`gr_frame`) while it is suspended, and its thread's current frame while
it runs.  A fresh one has no frames, only the place of its ``go``.  All of it is read without stopping anything, so a
goroutine that runs meanwhile may be shown where it was a moment ago.
"""

from __future__ import annotations

import os
import sys
import traceback
from time import monotonic
from types import FrameType
from typing import Any

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def of_gort(frame: FrameType) -> bool:
    """Does gort's own code run in this frame, and not the program's?"""
    name = frame.f_globals.get("__name__", "")
    return name == "gort" or name.startswith("gort.")


def dump(sched: Any) -> str:
    """The stacks of all goroutines of a scheduler, most useful first: main, then by number."""
    running = sys._current_frames()
    out = []
    for m in list(sched.ms):
        solo = m.solo
        if solo is not None:
            out.append((True, solo.id, describe(solo, running)))
        for carrier in list(m.carriers):
            g = carrier.g
            if g is not None and not g.done():
                out.append((g is not sched.main, g.id, describe(g, running)))
    for queue in sched.queues():
        for g in queue.copy():  # not list(queue): without a GIL that may meet a change half-way
            out.append((True, g.id, describe(g, running)))
    for m in list(sched.ms):
        solo = m.solo
        if solo is not None:
            out.append((True, solo.id, describe(solo, running)))
    return "\n".join(text for _main, _id, text in sorted(out))


def describe(g: Any, running: dict[int, FrameType] | None = None) -> str:
    """One goroutine: state, what it waits for, where it was started, its stack.

    running: what sys._current_frames() gave, for a caller that describes many.
    """
    carrier = g.carrier
    if carrier is None:
        return f"{_head(g, 'runnable, not started', None)}\n"
    m = carrier.m
    reason = carrier.wait_reason()
    age = carrier.waited(monotonic()) if reason else 0.0
    if age >= 0.5:
        reason += f", {age:.0f} s"
    frame = carrier.suspended()
    if frame is not None:
        what = f"waiting: {reason}" if reason else "runnable"
        return f"{_head(g, what, m)}\n{frames(frame)}"
    what = f"waiting: {reason}" if reason else "running"
    if running is None:
        running = sys._current_frames()
    return f"{_head(g, what, m)}\n{frames(running.get(m.ident))}"


def _head(g: Any, what: str, m: Any) -> str:
    where = f" on M {m.id}" if m is not None else ""
    return f"goroutine {g.id} {g.name!r} [{what}]{where}, started at {g.started_at}:"


def frames(frame: FrameType | None) -> str:
    """The frames of one goroutine, oldest first, without those of gort itself."""
    summary = traceback.StackSummary.extract(
        (f, n) for f, n in traceback.walk_stack(frame) if not f.f_code.co_filename.startswith(_HERE)
    )
    summary.reverse()
    return "".join(summary.format())
