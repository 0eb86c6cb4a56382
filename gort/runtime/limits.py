"""How many Ps and threads there may be, from the arguments, the environment and the machine."""

from __future__ import annotations

import os
from typing import Any


def default_procs() -> int:
    """GORT_PROCS, else the number of CPUs this process may use."""
    text = os.environ.get("GORT_PROCS", "")
    if text:
        return check_procs(_int(text, "GORT_PROCS"), "GORT_PROCS")
    return num_cpu()


def num_cpu() -> int:
    """How many CPUs this process may use.  Go: runtime.NumCPU."""
    try:
        return len(os.sched_getaffinity(0)) or 1
    except AttributeError:
        return os.cpu_count() or 1


def default_max_threads() -> int:
    """GORT_MAXTHREADS, else 10,000, as in Go."""
    text = os.environ.get("GORT_MAXTHREADS", "")
    return check_procs(_int(text, "GORT_MAXTHREADS"), "GORT_MAXTHREADS") if text else 10_000


def _int(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, not {text!r}") from None


def check_procs(n: Any, name: str = "procs") -> int:
    """Give n back if it can be a number of Ps."""
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"{name} must be a whole number, not {type(n).__name__}")
    if n < 1:
        raise ValueError(f"{name} must be at least 1, not {n}")
    return n
