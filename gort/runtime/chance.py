"""Chance: the random choices of the scheduler and of `select`, which GORT_SEED makes the same in each run.

The idea.  Two things in gort are left to chance: at which P a look for work to steal begins, and which of several
ready cases a `select` takes.  Both draw from one generator of gort's own.  So a program that calls ``random.seed`` for
its own purposes neither steers them nor has its sequence disturbed by them.

With GORT_SEED=n in the environment each runtime begins with that generator seeded by n, and a failure that depends on
these choices can be had again.  What is not replayed is what the clock and the system decide: when threads run, when
timers and I/O come due, when a slice ends and the collector runs.  So on one P a run of a few milliseconds, in which
goroutines wait only for each other, is the same each time, and on several Ps the choices are but not who makes them.

Refused: a generator for each P (with GORT_SEED, a goroutine would meet other choices on another P); the choices of
the thread switches too (a scheduler in Python cannot make them).
"""

from __future__ import annotations

import os
import random

_generator = random.Random()

draw = _generator.random  # a float from 0 to less than 1; one C call, and so atomic


def pick(n: int) -> int:
    """A whole number from 0 to less than n."""
    return int(draw() * n)


def forget() -> None:
    """In the child of a fork: not the parent's choices once more."""
    _generator.seed()


def begin() -> None:
    """A runtime begins: as GORT_SEED says, if it says something.  Raises ValueError if that is no whole number."""
    text = os.environ.get("GORT_SEED")
    if text:
        try:
            seed = int(text)
        except ValueError:
            raise ValueError(f"GORT_SEED must be a whole number, not {text!r}") from None
        _generator.seed(seed)
