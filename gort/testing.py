"""For tests: no goroutine is left behind.

The idea.  A test that starts a goroutine and forgets it passes, and the goroutine disturbs another test, or nobody,
or only production.  `no_leaks` looks which goroutines exist before a block and after it.  Those that came meanwhile get
a short grace in which they may end, for a goroutine that has just handed over its last value is not a leak; the check
*joins* them, so it waits no longer than they take.  Those that are still there are shown with their stacks and the
place of their ``go``.

What is looked at: the caller's runtime, every `run` that is going on, and the background runtime; and each `Runtime`
that is given.  A `run` inside the block ends with all its goroutines, so it leaves none.

Where a goroutine can be: in the GRQ, in an LRQ (or about to be started apart), on a carrier.  It moves on in that order,
except for theft, so the look goes in that order too, twice, and does not miss one that moves meanwhile.
"""

from __future__ import annotations

import time
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any

from .runtime import instance, stacks
from .runtime.carrier import current
from .runtime.goroutine import Goroutine
from .runtime.timers import check_seconds

__all__ = ["GoroutineLeak", "no_leaks"]


class GoroutineLeak(AssertionError):
    """A block of code has left goroutines behind."""


class no_leaks(ContextDecorator):  # noqa: N801 - it is used like a function
    """``with no_leaks():`` raises GoroutineLeak if the block leaves goroutines behind.

    grace is how many seconds they have to end.  runtimes are looked at beside the caller's, the running and the
    background one.  Also a decorator.  If the block raises, that is what is wrong, and nothing is checked.
    """

    def __init__(self, *runtimes: instance.Runtime, grace: float = 1.0) -> None:
        for runtime in runtimes:
            if not isinstance(runtime, instance.Runtime):
                raise TypeError(f"no_leaks looks at gort.Runtime, not at {type(runtime).__name__}")
        self.runtimes = runtimes
        self.grace = check_seconds(grace, "grace")
        self.before: set[Goroutine[Any]] = set()

    def _recreate_cm(self) -> no_leaks:
        # For the decorator: each call has its own look.
        return type(self)(*self.runtimes, grace=self.grace)

    def __enter__(self) -> no_leaks:
        self.before = set(self._goroutines())
        return self

    def __exit__(self, kind: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None) -> None:
        __tracebackhide__ = True  # for pytest
        if kind is None:
            self.check()

    def check(self) -> None:
        """Raise GoroutineLeak if there are goroutines that have come since the block began, and do not end."""
        __tracebackhide__ = True
        deadline = time.monotonic() + self.grace
        while left := self._left():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            for g in left:
                try:
                    g.join(max(0.0, deadline - time.monotonic()))
                except TimeoutError:
                    break
        if left:
            raise GoroutineLeak(_complaint(left, self.grace))

    def _left(self) -> list[Goroutine[Any]]:
        me = current()
        return [g for g in self._goroutines() if g not in self.before and g is not me and not g.done()]

    def _goroutines(self) -> list[Goroutine[Any]]:
        """All that have not ended, of all runtimes that are looked at."""
        background = instance._background
        scheds = [instance._current(), *instance._running, *(runtime._sched for runtime in self.runtimes)]
        if background is not None:
            scheds.append(background._sched)
        found: dict[Goroutine[Any], None] = {}
        for sched in scheds:
            if sched is None:
                continue
            for _ in range(2):  # once more, for those that were stolen meanwhile
                for queue in sched.queues():
                    # Not list(queue), which may fail, without a GIL, if it changes meanwhile.
                    found.update(dict.fromkeys(queue.copy()))
                for m in list(sched.ms):
                    here = [m.solo, *(carrier.g for carrier in list(m.carriers))]
                    found.update(dict.fromkeys(g for g in here if g is not None))
        return sorted(found, key=lambda g: g.id)


def _complaint(left: list[Goroutine[Any]], grace: float) -> str:
    many = f"{len(left)} goroutines were" if len(left) > 1 else "a goroutine was"
    end = "have them end, or join them" if len(left) > 1 else "have it end, or join it"
    text = "\n".join(stacks.describe(g) for g in left)
    return f"{many} left behind, and still there after {grace:g} s: {end}, before the block ends\n\n{text}"
