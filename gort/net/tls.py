"""TLS by the standard ssl module, on the same non-blocking socket.

The idea.  An SSLSocket that does not block says by an exception whether it wants to read or to write; a TLSConn waits
for that in the descriptor's direction and calls it again.  Everything else is Conn's.

OpenSSL's connection object is no place for two threads at once, and a goroutine that reads may run on another machine
than one that writes.  So every call to it is made under a lock.  None of these calls blocks, but some give way: those of
a socket of gort.green.ssl, and those that call back into the program (`sni_callback`).  Hence a Mutex.

A stream that the peer ends without TLS's own farewell (close_notify) ends like any other, as in the standard module: who
must know that nothing was cut off needs a length or an end mark in his protocol.

A client verifies certificates and host names unless it is given a context that says otherwise.  The handshake is part
of `dial`; on a server it is part of the first operation, or of `handshake`, so that a slow client holds up nobody else.

Whose time is over.  An operation may have to wait for the other direction: the handshake reads and writes, whoever does
it.  It is ended by its own timeout and its own direction's deadline, never by the other direction's, which is another
goroutine's business.  What OpenSSL had done by then stays: whoever comes next goes on with the handshake from there.
But one that has failed is over for all who come later, who get the same error: OpenSSL itself would tell them of an EOF.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable
from copy import copy
from functools import partial
from time import monotonic
from typing import Any

from ..runtime.blocking import blocking
from ..runtime.direction import Direction
from ..runtime.scope import Scope
from ..runtime.wait import is_late, late
from ..sync import Mutex
from .ahead import CHUNK, MOST
from .conn import Conn
from .errors import ConnClosed
from .writing import Data

_default: ssl.SSLContext | None = None
MOST_DRAINED = 2**24  # bytes
RECORD = 16384  # as much as a record holds: so that `written` is exact
_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def client_context(tls: Any) -> ssl.SSLContext:
    """What `tls=` means to a client: True, or a context."""
    global _default
    if isinstance(tls, ssl.SSLContext):
        return tls
    if tls is not True:
        raise TypeError(f"tls must be True (verify as browsers do) or an ssl.SSLContext, not {type(tls).__name__}")
    if _default is None:
        _default = blocking(ssl.create_default_context)  # reads the system's certificates
    return _default


def server_context(tls: Any) -> ssl.SSLContext:
    """What `tls=` means to a server: a context, or the files of a certificate and its key."""
    if isinstance(tls, ssl.SSLContext):
        return tls
    if isinstance(tls, (tuple, list)) and len(tls) == 2:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
        return context
    raise TypeError(f"tls must be an ssl.SSLContext or (certificate file, key file) for a server, not {tls!r}")


class TLSConn(Conn):
    """A connection over TLS: a Conn whose data are encrypted.  Go: tls.Conn."""

    __slots__ = ("_across", "_done", "_drained", "_failed", "_limit", "_owed", "_ssl", "_ssl_lock")

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, server_side: bool = False, server_hostname: str | None = None
    ) -> None:
        sock.setblocking(False)
        wrapped = context.wrap_socket(
            sock, server_side=server_side, server_hostname=server_hostname, do_handshake_on_connect=False
        )
        self._ssl: ssl.SSLSocket = wrapped
        self._ssl_lock = Mutex()
        self._done = False
        self._failed: ssl.SSLError | None = None  # what the handshake ended with
        self._drained = bytearray()  # read when writing was closed, for those who read later
        self._limit: tuple[float | None, float | None] = (None, None)
        self._across: set[Scope] = set()  # one for each operation that waits for the other direction than its own
        self._owed = False  # OpenSSL keeps a record that is half sent
        super().__init__(wrapped)
        self._plain()

    def _plain(self) -> None:
        self._plain_read = self._plain_write = self._dries = False

    def handshake(self, timeout: float | None = None) -> None:
        """Agree on keys with the peer, if that has not been done yet; every operation does so first.

        timeout is in seconds, None: for ever.  Raises ssl.SSLError (an OSError; SSLCertVerificationError), TimeoutError
        (its own, or a deadline of either direction; the next operation goes on with the handshake), and the system's
        errors.  Go: tls.Conn.Handshake.
        """
        if not self._done:
            self._shake_hands(self._until(timeout), timeout, None)

    def _shake_hands(self, until: float | None, timeout: float | None, of: Direction | None) -> None:
        """`handshake`, as part of an operation of that direction (None: for its own sake)."""
        try:
            turn = None
            while turn is None:
                turn = self._wait_across(self._turn_until, of, until, timeout)
            with turn:
                if self._failed is not None:
                    raise copy(self._failed)  # one for each, for it will have a traceback of its own
                self._go_on(of, until, timeout)
        except (OSError, AttributeError) as exc:  # the latter is what an SSLSocket says that has been closed
            self._fail(exc)

    def _go_on(self, of: Direction | None, until: float | None, timeout: float | None) -> None:
        while True:
            try:
                with self._ssl_lock:
                    self._ssl.do_handshake()
                    self._done = True
                return
            except _WANTS as exc:
                side = self._wanted(exc)
            except ssl.SSLError as exc:
                self._failed = copy(exc)
                raise
            self._wait_side(side, of, until, timeout)

    def _turn_until(self, until: float | None) -> Any:
        return self._turn_taken(_left(until))

    def _side_until(self, side: Direction, until: float | None) -> None:
        self._d.wait_across(side, _left(until))

    def _wait_side(self, side: Direction, of: Direction | None, until: float | None, timeout: float | None) -> None:
        """Wait for one direction in an operation of perhaps the other.  It may return for nothing."""
        if of is side:
            self._wait(side, until, timeout)
        else:
            self._wait_across(partial(self._side_until, side), of, until, timeout)

    def _wait_across(self, wait: Callable[..., Any], of: Direction | None, until: float | None, timeout: float | None) -> Any:
        """wait(until), for something that knows nothing of the deadline of our operation's direction.

        If a deadline is moved meanwhile, our scope is cancelled, and the caller, who gets None, comes back with the new
        one.  None is missed: we are in `_across` *before* we read the deadline, and `_set_deadline` looks
        there *after* it has stored one; and a scope keeps its cancellation until we wait.
        """
        moved = Scope()
        self._across.add(moved)
        try:
            moved.enter("a TLS operation")
            try:
                value = self._wait_until(wait, of, until, timeout)
            except BaseException as exc:
                if not moved.exit(exc):
                    raise
                return None
            moved.exit(None)
            return value
        finally:
            self._across.discard(moved)

    def _wait_until(self, wait: Callable[..., Any], of: Direction | None, until: float | None, timeout: float | None) -> Any:
        limits = [] if until is None else [until]
        for side in (self._in, self._d.write) if of is None else (of,):
            self._d.check_deadline(side)
            when = side.deadline
            if when is not None:
                limits.append(when)
        end = min(limits, default=None)
        try:
            return wait(end)
        except TimeoutError as exc:
            if not is_late(exc) or end is None or monotonic() < end:
                raise
            what = "handshake" if of is None else of.name
            why = f" timed out after {timeout:g} s" if end == until else ": its deadline is over"
            raise late(f"{what} of {self!r}{why}") from None

    def _set_deadline(self, when: float | None, read: bool, write: bool) -> None:
        super()._set_deadline(when, read, write)
        for waiting in list(self._across):
            waiting.cancel("a deadline was moved")

    def _wanted(self, exc: ssl.SSLError) -> Direction:
        return self._in if isinstance(exc, ssl.SSLWantReadError) else self._d.write

    def _some(self, n: int, until: float | None, timeout: float | None) -> bytes:
        if not self._done:
            self._shake_hands(until, timeout, self._in)
        if self._shut:
            return b""
        try:
            while True:
                self._d.check_deadline(self._in)
                try:
                    with self._ssl_lock:
                        if not self._drained:
                            return self._ssl.recv(min(n, MOST))
                        data = bytes(self._drained[:n])
                        del self._drained[:n]
                        return data
                except _WANTS as exc:
                    side = self._wanted(exc)
                self._wait_side(side, self._in, until, timeout)
        except ssl.SSLZeroReturnError:
            return b""
        except OSError as exc:
            self._fail(exc)

    def _write_slowly(self, buffers: list[Data], timeout: float | None) -> None:
        super()._write_slowly(buffers, self._shake_hands_first(timeout))

    def _shake_hands_first(self, timeout: float | None) -> float | None:
        """Before a write; returns what is left of the time."""
        if self._done:
            return timeout
        until = self._until(timeout)
        try:
            self._shake_hands(until, timeout, self._d.write)
        except BaseException as exc:
            exc.written = 0  # type: ignore[attr-defined]
            raise
        return _left(until)

    def _write_rest(self, views: list[memoryview], written: int, until: float | None, timeout: float | None = None) -> None:
        if self._owed:  # an earlier write was interrupted: OpenSSL takes whatever comes for the rest of that one
            self._fail(OSError(errno.EPIPE, "an interrupted write has broken the TLS connection: close it"), written=written)
        self._limit = until, timeout  # of whose turn it is to write
        super()._write_rest(views, written, until, timeout)

    def _try_write(self, views: list[memoryview]) -> int:
        while True:
            try:
                with self._ssl_lock:
                    n = self._ssl.send(views[0][:RECORD])
                    self._owed = False
                    return n
            except ssl.SSLWantWriteError:
                self._owed = True
                raise BlockingIOError from None
            except ssl.SSLWantReadError:
                self._wait_side(self._in, self._d.write, *self._limit)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):  # so OpenSSL takes a broken pipe for the end of its own data
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None, timeout: float | None = None) -> int:
        """`Conn.sendfile`; here the content is read, encrypted and written piece by piece."""
        self._check_size(offset, "offset")
        if count is not None:
            self._check_size(count, "count")
        return self._copy_file(file, offset, count, self._shake_hands_first(timeout))

    def close_write(self) -> None:
        """Tell the peer that nothing more will come (it reads b""), after the handshake; reading goes on.

        What has come by then is read at once, up to 16 MiB, and kept.  Raises OSError if there is more, or if data come
        at the very moment when the peer is told: the ssl module cannot send the message without looking for the
        peer's own, and takes data for an error.  Go: tls.Conn.CloseWrite.
        """
        if not self._done:
            self._shake_hands(None, None, self._d.write)
        super().close_write()

    def _shutdown(self, how: int) -> None:
        if how == socket.SHUT_RD:
            super()._shutdown(how)
            return
        try:
            while not self._notify(drain=True):
                self._wait(self._d.write, None, None)
        except OSError as exc:
            self._fail(exc)
        finally:
            if self._drained:
                self._in.fire()  # who waits to read finds it there

    def _drain(self) -> None:
        """Read all there is, which `shutdown` would throw away.  Under the lock."""
        while len(self._drained) <= MOST_DRAINED:
            try:
                data = self._ssl.recv(CHUNK)
            except OSError:
                return  # nothing more; or an end, which the next read is told again
            if not data:
                return
            self._drained += data
        raise OSError(errno.ENOBUFS, f"more than {MOST_DRAINED} bytes wait to be read: read them before close_write()")

    def _notify(self, drain: bool = False) -> bool:
        """Tell the peer, under the encryption, that nothing more will come; False: once the socket is writable, again."""
        with self._ssl_lock:
            if drain and self._done and self._ssl._sslobj is not None:  # type: ignore[attr-defined]
                self._drain()
            sslobj = self._ssl._sslobj  # type: ignore[attr-defined]
            if sslobj is not None and self._done:
                try:
                    sslobj.shutdown()
                except ssl.SSLWantWriteError:
                    return False
                except ssl.SSLWantReadError:
                    pass  # told; the peer has not answered yet, and need not
                except ssl.SSLError as exc:
                    if exc.reason != "SHUTDOWN_WHILE_IN_INIT":
                        raise OSError(errno.EPIPE, f"the TLS connection is broken: {exc}") from exc
        return True

    def close(self) -> None:
        """Tell the peer, and close the connection; who waits in it gets ConnClosed.  Twice does no harm."""
        try:
            if self._done and not self._d.closed:
                self._notify()
        except (OSError, ValueError):
            pass
        finally:
            super().close()

    @property
    def tls(self) -> ssl.SSLSocket:
        """The ssl module's view: version(), cipher(), getpeercert(), selected_alpn_protocol().  Go: ConnectionState."""
        return self._ssl


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - monotonic())


def start_tls(
    conn: Conn,
    tls: Any = True,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    timeout: float | None = None,
) -> TLSConn:
    """Go on with an open connection over TLS (STARTTLS); return the new Conn, conn itself is used up.

    tls is True (a client that verifies as browsers do) or an ssl.SSLContext.  server_hostname is the name that the
    peer's certificate must have, timeout the seconds for the handshake.  Raises as TLSConn.handshake; the connection
    is closed then.
    """
    context = server_context(tls) if server_side else client_context(tls)
    if conn.closed:
        raise ConnClosed(repr(conn))
    if conn._buf:
        raise ValueError(
            f"{len(conn._buf)} bytes of {conn!r} have been read ahead and belong to the TLS connection: "
            "read no further than the end of the protocol's answer before start_tls()"
        )
    sock = conn._sock
    conn._plain_read = conn._plain_write = False
    conn._d.close()
    try:
        secure = TLSConn(sock, context, server_side, server_hostname)
    except BaseException:
        sock.close()
        raise
    try:
        secure.handshake(timeout)
    except BaseException:
        secure.close()
        raise
    return secure
