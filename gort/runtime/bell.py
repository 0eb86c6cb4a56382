"""A bell: by it a plain thread that waits for I/O is woken.

The idea.  A plain thread has no machine, and so no poller: it polls its one descriptor itself, and beside it a pipe.  Who
would make a goroutine ready, because of a deadline that was moved, a close, or a cancellation, writes into that pipe.
To them a `Bell` looks like a carrier and its machine: ``w.ready.append(w); if w.m.asleep: w.m.wake()``.

Invariants.
- A bell is made for one wait, and rung once at most: by the one who has claimed its ticket.
- The thread closes the pipe only when nobody can be about to ring: it has taken its ticket back itself, or it has waited
  for the ringing to be over (`rest`).  Else the byte might go into whatever has the pipe's number by then.

Refused: a pipe for each thread, kept (two descriptors for as long as the thread lives, and a late ring would wake its
next wait); a condition variable (no thread can wait for that and for a descriptor).
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from math import ceil, inf
from time import monotonic
from typing import Any

from .wait import glances, on_main_thread


class Bell:
    """The waiter of a plain thread: like a carrier for those who wake it; behind it a pipe that the thread polls."""

    __slots__ = ("pipe", "throws", "woken")

    asleep = False

    def __init__(self) -> None:
        self.pipe = (-1, -1)
        self.pipe = os.pipe()
        self.throws: deque[tuple[Any, BaseException]] = deque()
        self.woken = False

    @property
    def ready(self) -> Bell:
        return self

    @property
    def m(self) -> Bell:
        return self

    def append(self, _item: Any) -> None:
        if self.pipe[1] >= 0:  # else a signal handler has raised while the thread took its ticket back
            os.write(self.pipe[1], b"x")
        self.woken = True

    def wait(self, fd: int, what: int, until: float) -> bool:
        """Wait for the descriptor or the bell; was it the descriptor?"""
        poll = select.poll()
        poll.register(fd, what)
        poll.register(self.pipe[0], select.POLLIN)
        left = max(0.0, until - monotonic())
        for seconds in glances(None if left == inf else left) if on_main_thread() else (left,):
            events = poll.poll(None if seconds == inf else min(ceil(seconds * 1000), 2**31 - 1))
            if events:
                return any(number == fd for number, _bits in events)
        return False

    def rest(self) -> None:
        os.read(self.pipe[0], 1)  # blocks until it has been rung
        while not self.woken:  # and until the one who rang no longer needs the pipe
            time.sleep(0)

    def close(self) -> None:
        (read, write), self.pipe = self.pipe, (-1, -1)
        if read >= 0:
            os.close(read)
            os.close(write)

    __del__ = close  # a signal handler may have raised as soon as it was made
