"""Departure: without a GIL, many threads that are done end in turn, and leave nothing behind.

The idea.  Each thread there has its own copy of the code of every function it has run, in its own memory; CPython 3.14
keeps that when the thread ends, for a later one, and so the memory lies about without an owner.  Each thread that ends looks
at up to a thousand such leftovers, five times over.  When ten thousand end, that is 0.7 ms for each of them, and all but
the whole time that their end takes.  So those that ran a goroutine apart wait in line, a few go at a time, and whenever
some hundreds have gone CPython is asked to drop the code that belongs to no thread any more: then the next to end find
little.  It took 15 s until 10,000 in time.sleep(2) were done (bare threads: 7), and takes 5.

It needs the world stopped, and a look at all objects; so the more of those there are, the more threads go before.

Invariant: a thread in the line has no goroutine any more and belongs to no scheduler's `ms`; its goroutine has ended for
everybody else.  Only sysmon lets threads go, or, once that is over, whoever finds so: each looks at the line again *after*
that is known, so none is left standing there (apart.begin).

Refused: threads that stay for the next goroutine (what one has run lies in its memory, and the context entered at its
bottom stays with it); telling CPython to keep no copies (they make a user's threads fast, and it is not ours to choose).
"""

from __future__ import annotations

import sys
from collections import deque
from time import monotonic
from typing import Any

from .goroutine import FREE_THREADED

AT_ONCE = 16  # that are ending at the same moment: two would do, but sysmon should not have to look all the time
CLEAN = 256  # threads after which the leftovers are dropped...
WORTH = 0.5e-3  # ...unless that takes longer than so many seconds for each of them
SOME = 64  # as many are worth it when the line is empty

# From 3.14 on; documented as releasing just this memory.
_clear: Any = getattr(sys, "_clear_internal_caches", None) if FREE_THREADED else None


class Departures:
    """The line of one scheduler."""

    def __init__(self) -> None:
        self.line: deque[Any] = deque()  # of machines
        self.going: deque[Any] = deque()  # of threads
        self.gone = 0  # since the leftovers were dropped
        self.enough = CLEAN

    def __len__(self) -> int:
        return len(self.line) + len(self.going)

    def look(self) -> bool:
        """By sysmon: let the next of them go; has anything happened?"""
        gone = self.gone
        while self.going and not self.going[0].is_alive():
            self.going.popleft()
            self.gone += 1
        if self.gone >= self.enough or (self.gone >= SOME and not self):
            self._clean()
        while self.line and len(self.going) < AT_ONCE:
            self._let_go()
        return self.gone != gone

    def left(self) -> None:
        """A thread is about to end that did not stand in the line (and counts may be lost, for many may say so at once)."""
        self.gone += 1
        if self.gone >= self.enough:
            self._clean()

    def _let_go(self) -> None:
        try:
            m = self.line.popleft()
        except IndexError:
            return
        self.going.append(m.thread)
        try:
            m.note.release()
        except RuntimeError:
            pass  # it was woken as a machine, at the last moment

    def let_all_go(self) -> None:
        """Nobody will look any more."""
        while self.line:
            self._let_go()
        self.going.clear()

    def _clean(self) -> None:
        self.gone = 0
        if _clear is not None:
            start = monotonic()
            _clear()
            self.enough = max(CLEAN, int((monotonic() - start) / WORTH))
