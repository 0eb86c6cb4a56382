"""Turns: writers of one connection write one after the other.

The idea.  As in Go, two goroutines' data never mingle, even if the first is half done and waits.  The permit to write is
a list of one item, so that taking it and giving it back cost a `pop` and an `append` where nobody else writes, which
Conn.write does by itself.  Who finds it taken waits for it here.
"""

from __future__ import annotations

import threading
from time import monotonic

from ..cancel import shield
from ..chan import Chan
from ..runtime.timers import check_seconds, deadline
from ..runtime.wait import is_late, late
from ..sync import Mutex

_lines = threading.Lock()


class WriteTurns:
    """The half of Conn that says whose turn it is to write."""

    __slots__ = ()

    _turn: list[None]  # the permit to write
    _line: Mutex | None  # those who wait for it take turns here
    _next: Chan[None] | None  # and the first of them is told here

    def _turn_taken(self, timeout: float | None) -> _Turn:
        """Wait for the permit to write.

        Those who wait stand in line at a Mutex, so that one of them, the first, waits for the permit itself: it leaves
        a channel in `_next`, *then* tries to take the permit.  Who writes gives it back, *then* looks at `_next`.  If
        the try failed then the permit was given back after it, and the look finds the channel.
        """
        turn = self._turn
        try:
            turn.pop()
            return _Turn(self)
        except IndexError:
            pass
        until = None if timeout is None else deadline(check_seconds(timeout, "timeout"))
        try:
            if self._line is None:
                with _lines:
                    if self._line is None:
                        self._line = Mutex()
            self._line.lock(timeout)
            try:
                self._next = told = Chan(1)
                while True:
                    try:
                        turn.pop()
                        return _Turn(self)
                    except IndexError:
                        pass
                    told.recv(None if until is None else max(0.0, until - monotonic()))
            finally:
                self._next = None
                self._line.unlock()
        except TimeoutError as exc:
            if not is_late(exc):
                raise
            error = late(f"write to {self!r}: another's write was not over after {timeout:g} s")
            error.written = 0  # type: ignore[attr-defined]
            raise error from None

    def _turn_over(self) -> None:
        self._turn.append(None)
        self._tell_next()

    def _tell_next(self) -> None:
        told = self._next
        if told is not None:
            with shield():  # `try_send` may give way, and must not be cancelled there
                told.try_send(None)


class _Turn:
    """Gives the turn to write back."""

    __slots__ = ("conn",)

    def __init__(self, conn: WriteTurns) -> None:
        self.conn = conn

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.conn._turn_over()
