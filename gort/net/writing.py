"""Writing: all of it, or an error that says how far it came.

The idea.  As in Go, and other than in the system's call, a write has written everything when it returns.  What the
socket takes only in part, or not at once, is written in a loop: try, wait until there is room, go on where it stopped.

Invariants.
- One write is one turn (turns.py), from its first byte to its last or to its error.  So a stream never has the middle of
  one write inside another.
- Whatever ends a write, a cancellation too, has `written`: how many of its bytes the system has taken.  Only with that
  number can one go on after a time-out.
- Several buffers need no copy into one: the system takes them as they are (`sendmsg`), 1024 at most.

Conn.write does the common case by itself, one `bytes` that the socket takes at once, and comes here for the rest.

Refused: a buffer of unsent data and a task that empties it, as asyncio has.  Who writes faster than the peer reads would
fill the memory, and would be told of an error by some later write.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from ..runtime.direction import Direction
from ..runtime.netpoll import Descriptor
from .turns import WriteTurns

Data: TypeAlias = "bytes | bytearray | memoryview"

_IOV_MAX = 1024


class Writing(WriteTurns):
    """The half of Conn that writes, but for the shortest way."""

    __slots__ = ()

    _d: Descriptor
    _send: Callable[..., int]
    _sock: socket.socket

    if TYPE_CHECKING:  # these are Conn's

        def _until(self, timeout: float | None) -> float | None: ...
        def _wait(self, side: Direction, until: float | None, timeout: float | None) -> None: ...
        def _fail(self, exc: Any, written: int | None = None) -> Any: ...

    def writev(self, buffers: Iterable[Data], timeout: float | None = None) -> None:
        """Write all of several buffers, one after the other, with as few system calls as can be.

        timeout is in seconds, None: for ever.  Raises as `write`.  Go: net.Buffers.WriteTo.
        """
        self._write_slowly(list(buffers), timeout)

    def _write_slowly(self, buffers: list[Data], timeout: float | None) -> None:
        """`write` with a time-out or deadline, of several buffers, behind others, or over TLS."""
        try:
            views = [view for view in (memoryview(data).cast("B") for data in buffers) if view.nbytes]
        except TypeError:
            raise TypeError("data must be bytes, a bytearray or a contiguous memoryview: encode a str first") from None
        until = self._until(timeout)
        with self._turn_taken(timeout):
            self._write_rest(views, 0, until, timeout)

    def _write_rest(self, views: list[memoryview], written: int, until: float | None, timeout: float | None = None) -> None:
        """Write what is left; it is the caller's turn."""
        side = self._d.write
        try:
            while True:
                self._d.check_deadline(side)
                if not views:
                    return
                try:
                    sent = self._try_write(views)
                except BlockingIOError:
                    sent = -1
                if sent < 0:
                    self._wait(side, until, timeout)
                    continue
                written += sent
                while views and sent >= views[0].nbytes:
                    sent -= views.pop(0).nbytes
                if not views:
                    return
                views[0] = views[0][sent:]
        except OSError as exc:
            self._fail(exc, written=written)
        except BaseException as exc:  # a cancellation: whoever is interested can ask it how far the write came
            exc.written = written  # type: ignore[attr-defined]
            raise

    def _try_write(self, views: list[memoryview]) -> int:
        if len(views) == 1:
            return self._send(views[0])
        return self._sock.sendmsg(views[:_IOV_MAX])
