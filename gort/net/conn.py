"""Conn: a connection.

The idea.  A non-blocking socket, its Descriptor, and the rule "try; if it would block, wait; try again".  Everything
that waits takes ``timeout=`` in seconds for the whole operation; deadlines hold for all operations until they are moved.

The short read.  A read from a TCP socket that brings less than was asked for has emptied it, so the next read need not
try first (a try that fails costs 1.2 us, a tenth of a small request) but may wait at once: `_dry`.  That is sound only
if whatever comes later is an event of its own, and these are the reasons:

- `_dry` is stored True *before* the read and taken back after one that is not short.  So if two goroutines read at
  once, the flag can be left True only by one whose own read, after all others, was short.
- The peer's end may have been reported together with the data, and is then no event of its own.  The poller notes it
  (`hup`; also errors and priority data, which end a read early), and from then on every read tries first.
- Other sockets end reads early for reasons of their own (a Unix socket before a passed descriptor), so only TCP does it.

Writing.  `write` has written everything when it returns.  Writers take turns (`_turn`), as in Go: two goroutines' data
never mingle, even if the first is half done and waits.  An error after some bytes says in `written` how many.

Reading ahead.  `read_until`, `read_exactly` and `lines` keep what they have read too much in `_buf`, and `read` takes
it from there first.  They lose nothing when they are interrupted by a time-out or a cancellation: it stays in `_buf`.
One goroutine at a time may be in one of them (a second gets an error; taking turns would only hide a mistake).

Speed.  `read` and `write` are a server's hot path and written out: the wait of Descriptor._wait, the turn, and one
flag each (`_plain_read`, `_plain_write`) that says that there is no deadline, no buffer and no TLS to think of.  That
saves 1.1 us of 10 for a request and its answer.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Any, TypeAlias

from greenlet import getcurrent

from ..cancel import shield
from ..chan import Chan
from ..errors import GortError
from ..runtime import overdue as _overdue
from ..runtime.blocking import blocking
from ..runtime.latch import contend
from ..runtime.netpoll import Descriptor, Direction, take_error
from ..runtime.timers import check_seconds, deadline
from ..runtime.wait import give_way
from ..sync import Mutex
from .errors import ConnClosed, IncompleteRead, LimitExceeded

overdue = False
_overdue.register(globals())

Data: TypeAlias = "bytes | bytearray | memoryview"

CHUNK = 65536
LIMIT = 2**20
_IOV_MAX = 1024
_TCP = (socket.AF_INET, socket.AF_INET6)


class Conn:
    """A connection: what `dial` and `Listener.accept` return.  Go: net.Conn.

    sock is a connected stream socket, which the Conn takes over.  A context manager: leaving it closes the connection.
    One goroutine may read while another writes, on any machine.  A plain thread may use it too.
    """

    __slots__ = (
        "__weakref__", "_buf", "_d", "_dry", "_in", "_line", "_next", "_plain_read", "_plain_write", "_reading", "_recv",
        "_send", "_sock", "_tcp", "_turn",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        if not isinstance(sock, socket.socket):
            raise TypeError(f"sock must be a connected socket, not {type(sock).__name__}: use dial(address) to get a Conn")
        if sock.type != socket.SOCK_STREAM:
            raise ValueError(f"sock must be a stream socket (TCP, Unix), not {sock.type!r}")
        sock.setblocking(False)
        self._tcp = sock.family in _TCP
        if self._tcp:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Go does
            except OSError:
                pass  # the peer is gone already: reading will tell
        self._d = Descriptor(sock.fileno())
        self._in = self._d.read
        self._dry = False
        self._turn = [None]  # the permit to write
        self._line: Mutex | None = None  # those who wait for it take turns here
        self._next: Chan[None] | None = None  # and the first of them is told here
        self._buf: bytearray | None = None
        self._reading = [None]  # the permit to be in one of the operations that read ahead
        self._adopt(sock)
        self._plain_read = self._plain_write = True

    def _adopt(self, sock: socket.socket) -> None:
        self._sock = sock
        self._recv = sock.recv
        self._send = sock.send

    # -- the two hot ones ---------------------------------------------------------------------------------------

    def read(self, n: int = CHUNK, timeout: float | None = None) -> bytes:
        """Wait for data, and return what there is, up to n bytes; b"" when the peer has ended its side.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError, ConnClosed, and the system's
        errors (ConnectionResetError).  Go: Conn.Read.
        """
        if overdue:
            give_way()
        if timeout is not None or n <= 0 or not self._plain_read:
            return self._read_slowly(n, timeout)
        if self._dry:
            side = self._in
            latch = side.latch
            try:
                latch.pop()
            except IndexError:
                contend(latch)
            if side.edge or side.hup:
                side.edge = False
                latch.append(None)
            else:
                w: Any = getcurrent()
                if side.carrier is w and side.first is None and w.pending is None:
                    side.first = w.wait = ticket = side.ticket
                    ticket[0] = w
                    latch.append(None)
                    m = w.m
                    m.parked = w.seq = m.parked + 1
                    queue = w.ready
                    if queue:
                        queue.popleft().switch()
                    else:
                        m.hub.switch()
                    w.wait = None
                    if ticket[1] is not None:
                        self._fail(take_error(ticket))
                else:
                    latch.append(None)
                    return self._read_slowly(n, None)
        else:
            self._dry = self._tcp
        try:
            data = self._recv(n)
        except BlockingIOError:
            pass  # and out of the handler: who waits in one keeps its exception and traceback in memory
        except OSError as exc:
            self._dry = False
            self._fail(exc)
        else:
            if not 0 < len(data) < n:
                self._dry = False
            return data
        return self._read_slowly(n, None)

    def write(self, data: Data, timeout: float | None = None) -> None:
        """Write all of data; return when the system has taken it.

        timeout is in seconds, None: for ever.  Raises TimeoutError, ConnClosed, and the system's errors
        (BrokenPipeError, ConnectionResetError); their attribute `written` is how many bytes had been taken by then.
        Concurrent writes are done one after the other.  Go: Conn.Write.
        """
        if overdue:
            give_way()
        if timeout is None and self._plain_write and type(data) is bytes:
            turn = self._turn
            try:
                turn.pop()
            except IndexError:
                pass
            else:
                try:
                    sent = self._send(data)
                except BlockingIOError:
                    sent = 0
                except OSError as exc:
                    self._turn_over()
                    self._fail(exc, written=0)
                except BaseException:
                    self._turn_over()
                    raise
                if sent == len(data):
                    turn.append(None)
                    if self._next is not None:
                        self._tell_next()
                    return
                try:
                    self._write_rest([memoryview(data)[sent:]], sent, None)
                finally:
                    self._turn_over()
                return
        self._write_slowly([data], timeout)

    # -- reading ------------------------------------------------------------------------------------------------

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
        """The buffer; from now on `read` looks there first."""
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

    def _read_slowly(self, n: int, timeout: float | None) -> bytes:
        """`read` with a time-out or deadline, with data read ahead, on a plain thread, or over TLS."""
        if type(n) is not int or n <= 0:
            self._check_size(n)
            if n == 0:
                return b""
        until = self._until(timeout)
        if self._buf:
            self._d.check_deadline(self._in)
            return self._take(n)
        return self._some(n, until, timeout)

    def _some(self, n: int, until: float | None, timeout: float | None) -> bytes:
        """Wait for data from the socket."""
        side = self._in
        try:
            while True:
                self._d.check_deadline(side)
                self._dry = self._tcp
                try:
                    data = self._try_read(n)
                except BlockingIOError:
                    pass
                else:
                    if not 0 < len(data) < n:
                        self._dry = False
                    return data
                self._wait(side, until, timeout)
        except OSError as exc:
            if not isinstance(exc, TimeoutError):
                self._dry = False
            self._fail(exc)

    def _try_read(self, n: int) -> bytes:
        return self._recv(n)

    def _wait(self, side: Direction, until: float | None, timeout: float | None) -> None:
        left = None if until is None else max(0.0, until - monotonic())
        try:
            if side is self._in:
                self._d.wait_read(left)
            else:
                self._d.wait_write(left)
        except TimeoutError:
            if until is not None and monotonic() >= until:
                raise TimeoutError(f"{side.name} of {self!r} timed out after {timeout:g} s") from None
            raise TimeoutError(f"{side.name} of {self!r}: its deadline is over") from None

    # -- writing ------------------------------------------------------------------------------------------------

    def writev(self, buffers: Iterable[Data], timeout: float | None = None) -> None:
        """Write all of several buffers, one after the other, with as few system calls as can be.

        timeout is in seconds, None: for ever.  Raises as `write`.  Go: net.Buffers.WriteTo.
        """
        self._write_slowly(list(buffers), timeout)

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
            try:
                self._d.check_deadline(self._d.write)
                # A descriptor of its own: the call is made on another thread, and ours might be closed, and its number
                # given out again, before it has begun.
                own = os.dup(self._sock.fileno())
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
                finally:
                    os.close(own)
            except OSError as exc:
                self._fail(exc, written=sent)
            except BaseException as exc:
                exc.written = sent  # type: ignore[attr-defined]
                raise
        return sent

    def _send_part(self, own: int, fd: int, offset: int, count: int) -> int:
        # On a spare thread, for the file may have to come from a disk.
        return blocking(os.sendfile, own, fd, offset, count)

    def _copy_file(self, file: Any, offset: int, count: int | None, timeout: float | None) -> int:
        """`sendfile` where the system cannot: read a piece (on a spare thread), write it."""
        fd = file if isinstance(file, int) else file.fileno()
        until = self._until(timeout)
        sent = 0
        while count is None or sent < count:
            piece = blocking(os.pread, fd, CHUNK if count is None else min(count - sent, CHUNK), offset + sent)
            if not piece:
                break
            try:
                self.write(piece, None if until is None else max(0.0, until - monotonic()))
            except BaseException as exc:
                exc.written = sent + getattr(exc, "written", 0)  # type: ignore[attr-defined]
                raise
            sent += len(piece)
        return sent

    def _write_slowly(self, buffers: list[Data], timeout: float | None) -> None:
        """`write` with a time-out or deadline, of several buffers, behind others, or over TLS."""
        try:
            views = [view for view in (memoryview(data).cast("B") for data in buffers) if view.nbytes]
        except TypeError:
            raise TypeError("data must be bytes, a bytearray or a contiguous memoryview: encode a str first") from None
        until = self._until(timeout)
        with self._turn_taken(timeout):
            self._write_rest(views, 0, until, timeout)

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
        until = self._until(timeout)
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
        except TimeoutError:
            error = TimeoutError(f"write to {self!r}: another's write was not over after {timeout:g} s")
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

    # -- time ---------------------------------------------------------------------------------------------------

    def set_deadline(self, when: float | None) -> None:
        """Let all operations fail with TimeoutError that are not over at `when`, now and later, until it is set anew.

        when is a time of ``time.monotonic()``; None: no deadline.  Go: SetDeadline.
        """
        self._set_deadline(when, True, True)

    def set_read_deadline(self, when: float | None) -> None:
        """`set_deadline` for reading only.  Go: SetReadDeadline."""
        self._set_deadline(when, True, False)

    def set_write_deadline(self, when: float | None) -> None:
        """`set_deadline` for writing only.  Go: SetWriteDeadline."""
        self._set_deadline(when, False, True)

    def _set_deadline(self, when: float | None, read: bool, write: bool) -> None:
        self._plain_read = self._plain_write = False  # before, so that no fast one slips in between
        self._d.set_deadline(when, read, write)
        self._plain()

    def _plain(self) -> None:
        """May `read` and `write` take the short way?"""
        self._plain_read = self._in.deadline is None and not self._buf and not self._d.closed
        self._plain_write = self._d.write.deadline is None and not self._d.closed

    def _until(self, timeout: float | None) -> float | None:
        return None if timeout is None else deadline(check_seconds(timeout, "timeout"))

    # -- the end ------------------------------------------------------------------------------------------------

    def close_write(self) -> None:
        """Tell the peer that nothing more will come (it reads b""); reading goes on.  Go: CloseWrite."""
        with self._turn_taken(None):
            self._shutdown(socket.SHUT_WR)

    def close_read(self) -> None:
        """Read no more: `read` returns b"".  Go: CloseRead."""
        self._shutdown(socket.SHUT_RD)

    def _shutdown(self, how: int) -> None:
        try:
            self._sock.shutdown(how)
        except OSError as exc:
            if exc.errno != errno.ENOTCONN:  # the peer has reset it, which is an end as well
                self._fail(exc)

    def close(self) -> None:
        """Close the connection; who waits in it gets ConnClosed.  Twice does no harm.  Go: Conn.Close."""
        self._plain_read = self._plain_write = False
        self._d.close()
        self._sock.close()

    def __enter__(self) -> Conn:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fail(self, exc: Any, written: int | None = None) -> Any:
        """Raise what an operation on the socket raised; ConnClosed if the reason is that we are closed."""
        if self._d.closed and not isinstance(exc, ConnClosed):
            exc = ConnClosed(repr(self))
        exc.conn = self  # so that `serve` can tell its own peer's end from another's
        if written is not None:
            exc.written = written
        try:
            raise exc
        finally:
            exc = None

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Has it been closed on this side?"""
        return self._d.closed

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for options; it stays non-blocking, and its data belong to the Conn."""
        return self._sock

    @property
    def local_addr(self) -> Any:
        """This side's address, as the socket module gives it.  Go: LocalAddr."""
        return self._sock.getsockname()

    @property
    def remote_addr(self) -> Any:
        """The peer's address, as the socket module gives it.  Go: RemoteAddr."""
        return self._sock.getpeername()

    def fileno(self) -> int:
        """The descriptor's number, -1 once closed."""
        return self._sock.fileno()

    def _check_size(self, n: Any, name: str = "n") -> None:
        if not isinstance(n, int) or isinstance(n, bool):
            raise TypeError(f"{name} must be a whole number of bytes, not {type(n).__name__}")
        if n < 0:
            hint = ": read_all() reads up to the end" if name == "n" else ""
            raise ValueError(f"{name} must be 0 or more, not {n}{hint}")

    def __repr__(self) -> str:
        if self._d.closed:
            return f"<{type(self).__name__} {self._d.fd} closed>"
        try:
            peer = self._sock.getpeername()
        except OSError:
            peer = "nobody any more"
        if isinstance(peer, tuple):
            peer = f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
        return f"<{type(self).__name__} {self._d.fd} to {peer or 'a Unix socket'}>"


_lines = threading.Lock()


class _Turn:
    """Gives the turn to write back."""

    __slots__ = ("conn",)

    def __init__(self, conn: Conn) -> None:
        self.conn = conn

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.conn._turn_over()


class _OneReader:
    """Holds the permit to read ahead."""

    __slots__ = ("conn",)

    def __init__(self, conn: Conn) -> None:
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
