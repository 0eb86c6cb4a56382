"""Reading ahead: lines, exact sizes, all there is.

The idea.  `read_until`, `read_exactly` and `lines` keep what they have read too much in `_buf`, and `read` takes it
from there first.  They lose nothing when they are interrupted by a time-out or a cancellation: it stays in `_buf`.
One goroutine at a time may be in one of them (a second gets an error; taking turns would only hide a mistake).

`ReadAhead` is the half of Conn that knows nothing of sockets: it asks `_some` for more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import GortError
from ..runtime import overdue as _overdue
from ..runtime.timers import check_seconds, deadline
from ..runtime.wait import give_way
from .errors import IncompleteRead, LimitExceeded

overdue = False
_overdue.register(globals())

CHUNK = 65536
MOST = 1 << 24  # bytes asked of the system at once: it makes room for all of them
LIMIT = 2**20


class ReadAhead:
    """What Conn reads in pieces of its caller's choice."""

    __slots__ = ()

    _buf: bytearray | None
    _plain_read: bool  # may Conn.read take the short way?
    _reading: list[None]  # the permit to be in one of the operations that read ahead

    def _some(self, n: int, until: float | None, timeout: float | None) -> bytes:
        """Wait for data, and return up to n bytes; b"" at the end."""
        raise NotImplementedError

    def _check_read(self) -> None:
        """Raise what a read would raise before it looks for data: the deadline is over, the connection closed."""
        raise NotImplementedError

    def _plain(self) -> None:
        """See to `_plain_read`, for the buffer is empty now, perhaps."""
        raise NotImplementedError

    def read_exactly(self, n: int, timeout: float | None = None) -> bytes:
        """Read exactly n bytes.

        timeout is in seconds, None: for ever.  Raises IncompleteRead when the peer ends its side before (`partial` is
        what had come), and otherwise as `read`; after a time-out, what has come stays readable.  Go: io.ReadFull.
        """
        self._check_size(n)
        with _OneReader(self):
            buf = self._ahead()
            until = self._until(timeout)
            while len(buf) < n:
                if not self._fill(max(CHUNK, min(n - len(buf), LIMIT)), until, timeout):
                    partial = self._take(len(buf))
                    raise IncompleteRead(f"the peer ended its side after {len(partial)} of {n} bytes", partial)
            return self._take(n)

    def read_until(self, separator: bytes = b"\n", limit: int = LIMIT, timeout: float | None = None) -> bytes:
        """Read up to and with the separator.

        limit is the largest number of bytes to return.  timeout is in seconds, None: for ever.  Raises IncompleteRead
        when the peer ends its side before (`partial` is what had come), LimitExceeded, and otherwise as `read`; after
        a time-out or LimitExceeded, what has come stays readable.  Go: bufio.Reader.ReadBytes.
        """
        _check_separator(separator, limit)
        with _OneReader(self):
            line = self._until_separator(separator, limit, self._until(timeout), timeout)
            if not line.endswith(separator):
                raise IncompleteRead(f"the peer ended its side after {len(line)} bytes, without {separator!r}", line)
            return line

    def lines(self, separator: bytes = b"\n", limit: int = LIMIT, timeout: float | None = None) -> Iterator[bytes]:
        """Iterate over the lines, each with its separator (the last may have none), until the peer ends its side.

        limit is the largest length of a line, timeout how many seconds each may take, None: for ever.  Raises as
        `read_until`.  Go: bufio.Scanner.
        """
        _check_separator(separator, limit)
        return self._lines(separator, limit, timeout)

    def _lines(self, separator: bytes, limit: int, timeout: float | None) -> Iterator[bytes]:
        while True:
            with _OneReader(self):
                line = self._until_separator(separator, limit, self._until(timeout), timeout)
            if line:
                yield line
            if not line.endswith(separator):
                return

    def read_all(self, limit: int | None = None, timeout: float | None = None) -> bytes:
        """Read until the peer ends its side.

        limit is how many bytes there may be (None: any number); with more LimitExceeded is raised and what has come
        stays readable.  timeout is in seconds, None: for ever.  Otherwise raises as `read`.  Go: io.ReadAll.
        """
        if limit is not None:
            self._check_size(limit, "limit")
        with _OneReader(self):
            buf = self._ahead()
            until = self._until(timeout)
            while self._fill(LIMIT, until, timeout):
                if limit is not None and len(buf) > limit:
                    raise LimitExceeded(f"the peer has sent more than {limit} bytes: raise limit=, or read in pieces")
            return self._take(len(buf))

    def _until_separator(self, separator: bytes, limit: int, until: float | None, timeout: float | None) -> bytes:
        """Up to and with the separator; without it when the peer ends its side."""
        buf = self._ahead()
        start = 0
        while True:
            found = buf.find(separator, start)
            end = found + len(separator)
            if (end if found >= 0 else len(buf)) > limit:
                raise LimitExceeded(f"no {separator!r} within {limit} bytes: raise limit=, or read it in pieces with read()")
            if found >= 0:
                return self._take(end)
            start = max(0, len(buf) - len(separator) + 1)
            if not self._fill(CHUNK, until, timeout):
                return self._take(len(buf))

    def _ahead(self) -> bytearray:
        """The buffer; from now on `read` looks there first.  Raises as `_check_read`, for data that are there too."""
        self._check_read()
        if self._buf is None:
            self._buf = bytearray()
        return self._buf

    def _take(self, n: int) -> bytes:
        buf = self._buf
        assert buf is not None
        if n >= len(buf):
            data = bytes(buf)
            buf.clear()
        else:
            data = bytes(memoryview(buf)[:n])  # a slice of the bytearray would be copied twice
            del buf[:n]
        self._plain()
        return data

    def _fill(self, n: int, until: float | None, timeout: float | None) -> bool:
        """Read some more into the buffer; False at the end."""
        data = self._some(n, until, timeout)
        if data:
            assert self._buf is not None
            self._buf += data
            self._plain_read = False
        return bool(data)

    def _until(self, timeout: float | None) -> float | None:
        return None if timeout is None else deadline(check_seconds(timeout, "timeout"))

    def _check_size(self, n: Any, name: str = "n") -> None:
        if not isinstance(n, int) or isinstance(n, bool):
            raise TypeError(f"{name} must be a whole number of bytes, not {type(n).__name__}")
        if n < 0:
            hint = ": read_all() reads up to the end" if name == "n" else ""
            raise ValueError(f"{name} must be 0 or more, not {n}{hint}")


class _OneReader:
    """Holds the permit to read ahead."""

    __slots__ = ("conn",)

    def __init__(self, conn: ReadAhead) -> None:
        self.conn = conn

    def __enter__(self) -> None:
        if overdue:
            give_way()
        try:
            self.conn._reading.pop()
        except IndexError:
            raise GortError(
                f"two goroutines read from {self.conn!r} at once: let one read, and send what it has read through a channel"
            ) from None

    def __exit__(self, *_: object) -> None:
        self.conn._reading.append(None)


def _check_separator(separator: Any, limit: Any) -> None:
    if not isinstance(separator, (bytes, bytearray)):
        raise TypeError(f"separator must be bytes, not {type(separator).__name__}")
    if not separator:
        raise ValueError("separator must not be empty")
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"limit must be a whole number of bytes, not {type(limit).__name__}")
    if limit < len(separator):
        raise ValueError(f"limit must leave room for the separator, so be at least {len(separator)}, not {limit}")
