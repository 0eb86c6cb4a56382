"""Sending files: from the disk to the peer, without a copy where the system can.

The idea.  ``os.sendfile`` has the system move the data itself.  Two things can make it wait: the socket has no room
left, for which the goroutine parks as in any write, and the disk, for which nobody can park.  So each call is made on a
spare thread, on the non-blocking socket, for one piece of the file.  Where there is no such call, or something must be
done with the data on the way (TLS), a piece is read on a spare thread and written.

Invariants.
- A whole file is one write: it is one turn (turns.py), so nobody else's data come in between.
- The thread works with a number of its own for the socket.  Ours may be closed, and given out again, before its call
  has begun, and the file would go to somebody else.  Where no number is left (EMFILE) pieces are read and written.
- An error says in `written` how many bytes the system had taken, as in `write`.

Refused: to move the file's position.  Several goroutines may send one open file at a time.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..runtime.blocking import blocking
from ..runtime.netpoll import NONE_LEFT
from .ahead import CHUNK, LIMIT
from .writing import Writing


class SendFile(Writing):
    """What Conn does with files."""

    __slots__ = ()

    if TYPE_CHECKING:  # this is Conn's

        def _check_size(self, n: Any, name: str = "n") -> None: ...

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None, timeout: float | None = None) -> int:
        """Write a regular file's content, without a copy where the system can; return how many bytes that were.

        file is open in binary mode, or a descriptor's number; its position is neither used nor moved.  offset is where
        to begin, count how many bytes at most (None: up to the file's end).  timeout is in seconds, None: for ever.
        Raises as `write`.  Go: TCPConn.ReadFrom.
        """
        self._check_size(offset, "offset")
        if count is not None:
            self._check_size(count, "count")
        if not hasattr(os, "sendfile"):
            return self._copy_file(file, offset, count, timeout)
        fd = file if isinstance(file, int) else file.fileno()
        until = self._until(timeout)
        sent = 0
        with self._turn_taken(timeout):
            own = self._duplicate()
            if own < 0:
                return self._copy_pieces(fd, offset, count, until, timeout)
            try:
                while count is None or sent < count:
                    self._d.check_deadline(self._d.write)
                    left = LIMIT if count is None else min(count - sent, LIMIT)
                    try:
                        n = self._send_part(own, fd, offset + sent, left)
                    except BlockingIOError:
                        n = -1
                    if n == 0:
                        break
                    if n < 0:
                        self._wait(self._d.write, until, timeout)
                    else:
                        sent += n
            except OSError as exc:
                self._fail(exc, written=sent)
            except BaseException as exc:
                exc.written = sent  # type: ignore[attr-defined]
                raise
            finally:
                os.close(own)
        return sent

    def _duplicate(self) -> int:
        """A descriptor of its own for `sendfile`, whose call is made on another thread: ours might be closed, and its
        number given out again, before it has begun.  -1: there is none left.
        """
        try:
            self._d.check_deadline(self._d.write)
            return os.dup(self._sock.fileno())
        except OSError as exc:
            if exc.errno in NONE_LEFT:
                return -1
            self._fail(exc, written=0)

    def _send_part(self, own: int, fd: int, offset: int, count: int) -> int:
        # On a spare thread, for the file may have to come from a disk.
        return blocking(os.sendfile, own, fd, offset, count)

    def _copy_file(self, file: Any, offset: int, count: int | None, timeout: float | None) -> int:
        """`sendfile` where the system cannot: read a piece (on a spare thread), write it.  One turn for all of them."""
        fd = file if isinstance(file, int) else file.fileno()
        until = self._until(timeout)
        with self._turn_taken(timeout):
            return self._copy_pieces(fd, offset, count, until, timeout)

    def _copy_pieces(self, fd: int, offset: int, count: int | None, until: float | None, timeout: float | None) -> int:
        sent = 0
        while count is None or sent < count:
            try:
                piece = blocking(os.pread, fd, CHUNK if count is None else min(count - sent, CHUNK), offset + sent)
            except BaseException as exc:
                exc.written = sent  # type: ignore[attr-defined]
                raise
            if not piece:
                break
            self._write_rest([memoryview(piece)], sent, until, timeout)
            sent += len(piece)
        return sent
