"""The flag that every runtime call reads first: some goroutine's time slice is over.

The idea.  A goroutine is never interrupted: it gives way in a runtime call.  So each runtime call has to learn, as
cheaply as can be, whether it should.  Sysmon knows (a machine has not come back to its hub for a slice) and the
garbage collector's callback knows (this goroutine has just paid for a collection).  Both happen about a hundred
times a second; runtime calls happen millions of times.  So the price belongs on the raising side: the flag is a
plain module global named ``overdue`` in *every* module with a hot path, put there by `register`, and read as
``if overdue:`` (4 ns; an attribute of the machine would first need the machine, 40 ns).

What it means.  ``overdue`` is only a hint that some machine is late.  `Machine.late` of the machine at hand is the
truth, read in the slow path `gort.runtime.wait.give_way`.  A call that sees a stale False gives way one call later;
one that sees a stale True loses the price of one slow path.  Neither loses anything else, so no ordering is needed
between the flag and the truth.

Refused: a counter in each call (30 ns, and no clock); a shared list or object (on a free-threaded build every
machine would bounce its reference count; True and False are immortal).
"""

from __future__ import annotations

import threading
from typing import Any

_namespaces: list[dict[str, Any]] = []
_late: set[Any] = set()
_lock = threading.RLock()  # for a signal handler's runtime calls, which may come while it is held


def register(namespace: dict[str, Any]) -> None:
    """Keep ``overdue`` in this module's globals up to date."""
    with _lock:
        namespace["overdue"] = bool(_late)
        _namespaces.append(namespace)


def _publish() -> None:
    value = None
    while value is not bool(_late):  # a signal handler may have changed it meanwhile
        value = bool(_late)
        for namespace in _namespaces:
            namespace["overdue"] = value


def mark(machine: Any, wait: bool = True) -> None:
    """Ask the goroutine that runs on this machine to give way at its next runtime call.

    With wait=False (from inside a garbage collection, which stops more than its thread) the request is dropped when
    another thread has the lock: a hint may be lost, a thread may not be.
    """
    if _lock.acquire(wait):
        try:
            machine.late = True
            _late.add(machine)
            _publish()
        finally:
            _lock.release()


def forget() -> None:
    """In the child of a fork: there are no machines any more."""
    _lock._at_fork_reinit()  # type: ignore[attr-defined]
    _late.clear()
    _publish()


def clear(machine: Any) -> None:
    """This machine has given way (or is gone, or is known to be stuck and watched by other means)."""
    with _lock:
        machine.late = False
        _late.discard(machine)
        _publish()
