"""Departure: without a GIL, many threads that are done end in turn.

The idea.  Each thread there has its own copy of the code of every function it has run, in its own memory; CPython 3.14
keeps that when the thread ends, for a later one, and so the memory lies about without an owner.  Each thread that ends looks
at up to a thousand such leftovers, five times over.  When ten thousand end at once, that is all but the whole time until
their goroutines have ended.  So those that ran a goroutine apart let the goroutine end first, then wait in line, and a few
go at a time.  It took 13 s until 10,000 in time.sleep(2) were done, and takes 3 to 5; their threads need 10 s more.

Invariant: a thread in the line has no goroutine any more and belongs to no scheduler's `ms`; its goroutine has ended for
everybody else.  Only sysmon lets threads go, or, once that is over, whoever finds so: each looks at the line again *after*
that is known, so none is left standing there (apart.begin).

Refused: to have CPython drop the leftovers now and then (sys._clear_internal_caches; it would halve those 10 s).  A generator,
a coroutine or a traceback's frame that began on a thread that has ended still stands in that thread's copy, and its next
step would crash the process.  Threads that run the next goroutine meanwhile (what one has made and others drop would be
freed only when that one has ended; its context, and what it keeps for each thread, live as long).  Telling CPython to keep
no copies (they make a user's threads fast, and it is not ours to choose).
"""

from __future__ import annotations

from collections import deque
from typing import Any

AT_ONCE = 16  # that are ending at the same moment: two would do, but sysmon should not have to look all the time


class Departures:
    """The line of one scheduler."""

    def __init__(self) -> None:
        self.line: deque[Any] = deque()  # of machines
        self.going: deque[Any] = deque()  # of threads

    def __len__(self) -> int:
        return len(self.line) + len(self.going)

    def look(self) -> bool:
        """By sysmon: let the next of them go; has anything happened?"""
        going = list(self.going)
        left = [thread for thread in going if thread.is_alive()]  # (not only the first: what it has left there may hold it up)
        gone = len(left) < len(going)
        if gone:
            self.going = deque(left)
        while self.line and len(self.going) < AT_ONCE:
            self._let_go()
        return gone

    def _let_go(self) -> None:
        try:
            m = self.line.popleft()
        except IndexError:
            return
        if m.thread is not None:  # else a signal handler has raised where it was started
            self.going.append(m.thread)
        m.wake()

    def let_all_go(self) -> None:
        """Nobody will look any more."""
        while self.line:
            self._let_go()
        self.going.clear()
