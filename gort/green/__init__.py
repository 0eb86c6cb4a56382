"""gort.green: cooperative twins of the standard library's modules.

::

    from gort.green import socket, ssl, subprocess, time      # instead of: import socket, ssl, subprocess, time

Each has the names, signatures and exceptions of the module it is named after; what would block a thread parks the
goroutine instead, or runs on a spare thread.  On a plain thread, outside of any goroutine, they do what the standard
ones do.  Everything that cannot block is the standard module's own object, so that ``except``, ``isinstance`` and
identities agree between the two.

How each of them waits:

    socket      would block: wait for the descriptor in the machine's poller.  Names are looked up on spare threads
    ssl         the same, on WANT_READ and WANT_WRITE
    select      an inner epoll holds the caller's descriptors; the machine's poller waits for that one
    selectors   the standard classes over that select: so a selectors-based server, or asyncio's loop, runs on it
    time        sleep parks
    subprocess  wait parks on a pidfd, communicate on select, the pipes are files that park
    os          read and write park on pipes, terminals and sockets; what concerns files runs on spare threads
    threading   threads are goroutines; locks and their like park
    queue       the standard queues over that threading

A twin borrows the code that needs no change from the standard module as it is (gort/borrow.py).

Inside a twin's file ``import socket`` means the standard module, for imports are absolute.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["os", "queue", "select", "selectors", "socket", "ssl", "subprocess", "threading", "time"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # when first asked for: ssl alone takes as long to import as all of gort
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
