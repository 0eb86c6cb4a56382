"""Goroutines on several machines at once: what a test does that wants to see them meet."""

from __future__ import annotations

import threading
from typing import Any

import gort
from gort import Chan, go, gosched


def go_all(*calls: tuple[Any, ...]) -> list[gort.Goroutine[Any]]:
    """`go` for each call (function, arguments), by a plain thread.

    For functions that block their machine until the others are there: a goroutine may give way in `go`, when its slice
    is over, to one of those that it has started, and would then never start the others.
    """
    tasks: list[gort.Goroutine[Any]] = []
    starter = threading.Thread(target=lambda: tasks.extend([go(fn, *args) for fn, *args in calls]))
    starter.start()
    while starter.is_alive():
        gosched()
    return tasks


def spread(procs: int, *fns: Any) -> list[gort.Goroutine[Any]]:
    """Start these functions as goroutines on as many machines as there are Ps, and wait until all have begun.

    Each blocks its machine until so many have arrived, and what a blocked machine has not started yet goes to another.
    """
    barrier = threading.Barrier(min(procs, len(fns)))
    arrived: Chan[int] = Chan(len(fns))

    def begin(fn: Any) -> Any:
        barrier.wait()
        arrived.send(1)
        return fn()

    assert len(fns) % barrier.parties == 0
    tasks = go_all(*[(begin, fn) for fn in fns])
    for _ in fns:
        arrived.recv()
    return tasks
