"""listen and Listener: where connections come from.

A listener never loses a connection.  Those that nobody has accepted wait in the system's queue; an accept that fails
because the process or the system has no descriptor left (EMFILE, ENFILE, no memory) waits a little and tries again,
while the connection stays in the queue; one whose peer has gone meanwhile (ECONNABORTED) is passed over, and so are
the network's errors that Linux reports at accept.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

from ..runtime import overdue as _overdue
from ..runtime.netpoll import Descriptor
from ..runtime.sleep import sleep
from ..runtime.timers import check_seconds, deadline
from ..runtime.wait import give_way, is_late, late
from .address import Inet, Unix, parse
from .alive import keep_asking
from .conn import Conn
from .errors import ConnClosed
from .resolve import labelled, lookup
from .tls import TLSConn, server_context

overdue = False
_overdue.register(globals())

PATIENCE = 0.1  # seconds between two tries, at most, while there are no descriptors left

_FULL = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
# The peer has gone, or (Linux, see accept(2)) an error of the network's that belongs to the new connection alone.
_GONE = {
    getattr(errno, name)
    for name in (
        "ECONNABORTED", "EPROTO", "ECONNRESET", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET", "EHOSTUNREACH",
        "EOPNOTSUPP", "ENETUNREACH", "EPERM", "ETIMEDOUT",
    )
    if hasattr(errno, name)
}  # fmt: skip


class Listener:
    """A socket that accepts connections: what `listen` returns.  Iterate over it, or call `accept`.  Go: net.Listener.

    sock is a listening stream socket, which the Listener takes over.  context: its connections are TLS's.  A context
    manager: leaving it closes the listener.  Several goroutines may accept at once.
    """

    __slots__ = ("__weakref__", "_context", "_d", "_on_close", "_sock", "_unlink", "refused")

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        if not isinstance(sock, socket.socket):
            raise TypeError(f"sock must be a listening socket, not {type(sock).__name__}: use listen(address)")
        sock.setblocking(False)
        self._sock = sock
        self._context = context
        self._d = Descriptor(sock.fileno())
        self._on_close: list[Callable[[], object]] = []  # of each `serve`, which may wait for something else
        self._unlink: tuple[Any, int, int, int] | None = None  # the file, and whose it is
        self.refused = 0  # how often the system had no descriptor for a connection

    def accept(self, timeout: float | None = None) -> Conn:
        """Wait for a connection.

        timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError, and ConnClosed when the listener is
        or gets closed.  Go: Listener.Accept.
        """
        if overdue:
            give_way()
        until = None if timeout is None else deadline(check_seconds(timeout, "timeout"))
        pause = 2e-3
        while True:
            try:
                self._d.check_deadline(self._d.read)
                sock, _peer = self._sock.accept()
            except OSError as exc:
                if self._d.closed:
                    raise ConnClosed(repr(self)) from None
                number = exc.errno
                if number != errno.EAGAIN and number not in _FULL and number not in _GONE:
                    raise  # a deadline's TimeoutError has no number
            else:
                number = 0
            if number:  # out of the handler: who waits in one keeps its exception and traceback in memory
                if number in _FULL or (number == errno.EAGAIN and not self._wait(until, timeout)):
                    pause = self._pause(pause, until, timeout)
                continue
            try:
                return Conn(sock) if self._context is None else TLSConn(sock, self._context, True)
            except BaseException as exc:
                sock.close()
                if not isinstance(exc, OSError):
                    raise
                # The peer has gone already.

    def _wait(self, until: float | None, timeout: float | None) -> bool:
        """Wait for the next connection; False when the system has no descriptor even for that."""
        try:
            self._d.wait_read(None if until is None else max(0.0, until - monotonic()))
            return True
        except TimeoutError as exc:
            if is_late(exc) and until is not None and monotonic() >= until:
                raise late(f"accept on {self!r} timed out after {timeout:g} s") from None
            raise
        except OSError as exc:
            if self._d.closed:
                raise ConnClosed(repr(self)) from None
            if exc.errno in _FULL:
                return False
            raise

    def _pause(self, pause: float, until: float | None, timeout: float | None) -> float:
        self.refused += 1
        if until is not None and monotonic() + pause > until:
            raise late(f"accept on {self!r} timed out after {timeout:g} s: the system has no descriptor left for it")
        sleep(pause)
        return min(2 * pause, PATIENCE)

    def set_deadline(self, when: float | None) -> None:
        """Let `accept` fail with TimeoutError if it is not over at `when` (of ``time.monotonic()``; None: no deadline)."""
        self._d.set_deadline(when)

    def __iter__(self) -> Iterator[Conn]:
        """Accept connections until the listener is closed."""
        while True:
            try:
                conn = self.accept()
            except ConnClosed:
                return
            yield conn

    def close(self) -> None:
        """Accept no more; who waits in `accept` gets ConnClosed.  Open connections live on.  Twice does no harm."""
        if self._d.closed:
            return
        self._d.close()
        self._sock.close()
        for tell in self._on_close:
            tell()
        if self._unlink is not None:
            path, dev, ino, pid = self._unlink
            try:
                st = os.stat(path)
                # Not another's by now; and the child of a fork leaves it to its parent, who may still listen there.
                if (st.st_dev, st.st_ino, os.getpid()) == (dev, ino, pid):
                    os.unlink(path)
            except OSError:
                pass

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Has it been closed?"""
        return self._d.closed

    @property
    def addr(self) -> Any:
        """Where it listens, as the socket module gives it; what `dial` takes.  Go: Listener.Addr."""
        addr = self._sock.getsockname()
        return Unix(addr if isinstance(addr, str) else "\0" + os.fsdecode(addr[1:])) if self._sock.family == socket.AF_UNIX else addr

    @property
    def socket(self) -> socket.socket:
        """The socket itself, for options; it stays non-blocking."""
        return self._sock

    def fileno(self) -> int:
        """The descriptor's number, -1 once closed."""
        return self._sock.fileno()

    def __repr__(self) -> str:
        if self._d.closed:
            return f"<Listener {self._d.fd} closed>"
        addr = self.addr
        return f"<Listener {self._d.fd} at {addr if isinstance(addr, Unix) else Inet(addr[0], addr[1])}>"


def listen(address: Any, *, tls: Any = None, backlog: int | None = None, reuse_port: bool = False) -> Listener:
    """Listen at an address.

    address is "host:port", "[::1]:port", (host, port), "unix:/path" or a path object; port 0: any that is free (`addr`
    tells); no host (":80"): every address of this machine, IPv6 and IPv4.  tls is an ssl.SSLContext or (certificate
    file, key file).  backlog is how many connections may wait to be accepted (None: what the system allows),
    reuse_port lets several processes share the port.  A Unix socket's file is removed when the listener is closed by
    the process that made it, and one that a dead server has left behind is replaced.  Raises the system's errors, which
    name the address.  Go: net.Listen.
    """
    place = parse(address)
    context = None if tls is None or tls is False else server_context(tls)
    if backlog is not None and (not isinstance(backlog, int) or isinstance(backlog, bool) or backlog < 0):
        raise ValueError(f"backlog must be a number of connections, not {backlog!r}")
    sock = _bound_unix(place) if isinstance(place, Unix) else _bound(place, reuse_port)
    try:
        sock.listen(socket.SOMAXCONN if backlog is None else backlog)
        listener = Listener(sock, context)
        if isinstance(place, Unix) and place.path[:1] not in ("\0", b"\0"):
            st = os.stat(place.path)
            listener._unlink = (os.path.abspath(place.path), st.st_dev, st.st_ino, os.getpid())
        return listener
    except OSError as exc:
        sock.close()
        raise _named(exc, place) from None
    except BaseException:
        sock.close()
        raise


def _named(exc: OSError, place: Any) -> OSError:
    return OSError(exc.errno, f"{os.strerror(exc.errno) if exc.errno else exc}: listen at {place}")


def _bound(place: Inet, reuse_port: bool) -> socket.socket:
    infos = labelled(lookup(place.host, place.port), place.flow)
    if not place.host and socket.has_dualstack_ipv6():
        infos = [info for info in infos if info[0] == socket.AF_INET6] or infos
    else:  # of a name's addresses the IPv4 one, as in Go
        infos = [info for info in infos if info[0] == socket.AF_INET] or infos
    family, kind, proto, _name, address = infos[0]
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if place.host else 0)
        keep_asking(sock)
        sock.bind(address)
        return sock
    except OSError as exc:
        sock.close()
        raise _named(exc, place) from None
    except BaseException:
        sock.close()
        raise


def _bound_unix(place: Unix) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(place.path)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or not _left_behind(place.path):
                raise
            os.unlink(place.path)
            sock.bind(place.path)
        return sock
    except OSError as exc:
        sock.close()
        raise _named(exc, place) from None


def _left_behind(path: str | bytes) -> bool:
    """Is this the file of a Unix socket at which nobody listens?"""
    try:
        if path[:1] in ("\0", b"\0") or not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            return probe.connect_ex(path) == errno.ECONNREFUSED
    except OSError:
        return False
