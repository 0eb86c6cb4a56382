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
- Who sits down at once, and waits for an event that another reader has been woken for, is woken when that one leaves data
  (`_left_some`).
- Other sockets end reads early for reasons of their own (a Unix socket before a passed descriptor), so only TCP does it, and
  not with kqueue, which does not report priority data.

Asking for little.  The object that `recv` fills is made before it is known how much will come; 64 KiB come from the C
library, 448 bytes from Python's own allocator, which saves 0.25 us of 8.  So `read` asks for 448 bytes first, and if so
many come, at once for the rest (`_guess`: the next read will ask for all at once, until reads are small again).

The rest of writing is in writing.py (and turns.py), reading ahead in ahead.py, files are sent in sending.py.

Speed.  `read` and `write` are a server's hot path and written out: the wait in the seat (direction.py), the turn, and one
flag each (`_plain_read`, `_plain_write`) that says that there is no deadline, no buffer and no TLS to think of.  That
saves 1.1 us of 10 for a request and its answer.
"""

from __future__ import annotations

import errno
import select
import socket
from time import monotonic
from typing import Any

from greenlet import getcurrent

from ..runtime import overdue as _overdue
from ..runtime.direction import Direction, rise, take_error
from ..runtime.netpoll import Descriptor
from ..runtime.wait import give_way, is_late, late
from .ahead import CHUNK, MOST, ReadAhead
from .errors import ConnClosed
from .sending import SendFile
from .writing import Data

overdue = False
_overdue.register(globals())

SMALL = 448  # bytes: the largest that come from Python's own allocator
_TCP = (socket.AF_INET, socket.AF_INET6)
_DRIES = _TCP if hasattr(select, "epoll") else ()  # where a short read means that there is no more


class Conn(ReadAhead, SendFile):
    """A connection: what `dial` and `Listener.accept` return.  Go: net.Conn.

    sock is a connected stream socket, which the Conn takes over.  A context manager: leaving it closes the connection.
    One goroutine may read while another writes, on any machine.  A plain thread may use it too.
    """

    __slots__ = (
        "__weakref__", "_buf", "_d", "_dries", "_dry", "_grown", "_guess", "_in", "_late", "_line", "_next", "_plain_read",
        "_plain_write", "_reading", "_recv", "_send", "_shut", "_sock", "_turn",
    )  # fmt: skip

    def __init__(self, sock: socket.socket) -> None:
        if not isinstance(sock, socket.socket):
            raise TypeError(f"sock must be a connected socket, not {type(sock).__name__}: use dial(address) to get a Conn")
        if sock.type != socket.SOCK_STREAM:
            raise ValueError(f"sock must be a stream socket (TCP, Unix), not {sock.type!r}")
        sock.setblocking(False)
        self._dries = sock.family in _DRIES
        if sock.family in _TCP:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as Go does
            except OSError:
                pass  # the peer is gone already: reading will tell
        self._dry = False
        self._late: OSError | None = None  # an error that the next read is to raise
        self._shut = False
        self._line = self._next = None
        self._buf = None
        self._reading = [None]
        self._adopt(sock)
        self._plain_read = self._plain_write = True

    def _adopt(self, sock: socket.socket) -> None:
        """Make what each operation touches.

        Whoever gives a new connection to another thread, which nobody else knows yet, has that do so once more: without a
        GIL the objects that a thread has made itself cost it 0.3 us less for each request.
        """
        self._sock = sock
        self._guess = SMALL + 0  # for how many bytes to ask first; a number of our own, not the one that all share
        self._grown = False  # is that more than SMALL?
        self._recv = sock.recv
        self._send = sock.send
        self._d = Descriptor(sock.fileno())
        self._in = self._d.read
        self._turn = [None]

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
            if side.edge or side.hup:
                side.edge = False
            else:
                w: Any = getcurrent()
                seat = side.seat
                ticket = side.ticket
                if side.carrier is not w or w.pending is not None:  # read after the two, which change while there is none
                    return self._read_slowly(n, None)
                w.wait = ticket
                seat.append(w)  # type: ignore[union-attr]
                if (side.edge or side.carrier is not w) and rise(seat, w):
                    w.wait = None
                    return self._read_slowly(n, None)
                m = w.m
                m.parked = w.seq = m.parked + 1
                queue = w.ready
                if queue:
                    queue.popleft().switch()
                else:
                    m.hub.switch()
                w.wait = None
                if ticket[1] is not None:  # type: ignore[index]
                    self._fail(take_error(ticket))  # type: ignore[arg-type]
        else:
            self._dry = self._dries
        asked = self._guess
        if n < asked:
            asked = n
        try:
            data = self._recv(asked)
        except BlockingIOError:
            pass  # and out of the handler: who waits in one keeps its exception and traceback in memory
        except OSError as exc:
            self._dry = False
            self._fail(exc)
        else:
            if not 0 < len(data) < asked:
                return self._read_on(data, asked, n)
            if self._grown and asked > SMALL > len(data):
                self._guess = max(SMALL, asked >> 1)
                self._grown = self._guess > SMALL
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

    def _read_on(self, data: bytes, asked: int, n: int) -> bytes:
        """The end of `read`: it was no short read, so there may be more than was asked for."""
        self._dry = False
        if data and asked < n:
            self._guess = n
            self._grown = n > SMALL
            try:
                data += self._recv(min(n - asked, MOST))
            except BlockingIOError:
                pass
            except OSError as exc:  # which the system tells only once, and we have data to return
                self._late = exc
                self._plain_read = False
        self._left_some()
        return data

    def _left_some(self) -> None:
        """There may be data left: the next read tries first, and so does whoever waits."""
        self._dry = False
        side = self._in
        if side.seat or side.first is not None:
            side.fire()

    def _read_slowly(self, n: int, timeout: float | None) -> bytes:
        """`read` with a time-out or deadline, with data read ahead, on a plain thread, or over TLS."""
        if type(n) is not int or n <= 0:
            self._check_size(n)
            if n == 0:
                return b""
        until = self._until(timeout)
        if self._buf:
            self._check_read()
            return self._take(n)
        return self._some(n, until, timeout)

    def _check_read(self) -> None:
        if self._in.deadline is not None or self._d.closed:
            try:
                self._d.check_deadline(self._in)
            except OSError as exc:
                self._fail(exc)

    def _some(self, n: int, until: float | None, timeout: float | None) -> bytes:
        """Wait for data from the socket."""
        if self._shut:
            return b""
        side = self._in
        try:
            if self._late is not None:
                exc, self._late = self._late, None
                self._plain()
                raise exc
            while True:
                self._d.check_deadline(side)
                self._dry = self._dries
                try:
                    data = self._try_read(n)
                except BlockingIOError:
                    pass
                else:
                    if not 0 < len(data) < n:
                        self._left_some()
                    return data
                self._wait(side, until, timeout)
        except OSError as exc:
            if not isinstance(exc, TimeoutError):
                self._dry = False
            self._fail(exc)

    def _try_read(self, n: int) -> bytes:
        return self._recv(min(n, MOST))

    def _wait(self, side: Direction, until: float | None, timeout: float | None) -> None:
        left = None if until is None else max(0.0, until - monotonic())
        try:
            if side is self._in:
                self._d.wait_read(left)
            else:
                self._d.wait_write(left)
        except TimeoutError as exc:
            if not is_late(exc):
                raise
            if until is not None and monotonic() >= until:
                raise late(f"{side.name} of {self!r} timed out after {timeout:g} s") from None
            raise late(f"{side.name} of {self!r}: its deadline is over") from None

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
        self._plain_read = self._in.deadline is None and not (self._buf or self._late or self._shut or self._d.closed)
        self._plain_write = self._d.write.deadline is None and not self._d.closed

    # -- the end ------------------------------------------------------------------------------------------------

    def close_write(self) -> None:
        """Tell the peer that nothing more will come (it reads b""); reading goes on.  Go: CloseWrite."""
        with self._turn_taken(None):
            self._shutdown(socket.SHUT_WR)

    def close_read(self) -> None:
        """Read no more: `read` returns b"", whatever still comes.  Go: CloseRead."""
        self._shut = True
        self._plain_read = False
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
