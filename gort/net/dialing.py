"""dial: from an address to a connection.

The idea.  Look the name up, and try the addresses as browsers do (RFC 8305, "happy eyeballs"): IPv6 and IPv4 by turns,
the next one when the one before has failed or has not answered for a quarter of a second; the first that answers wins.
Each attempt is a goroutine; the losers are cancelled and have closed their sockets when `dial` returns.

No connection is lost: an attempt that succeeds puts its socket into a channel with room for all, and `dial` closes
what it leaves there.  On a plain thread, which has no goroutines to wait for, the addresses are tried one by one.
"""

from __future__ import annotations

import errno
import os
import socket
from time import monotonic
from typing import Any

from ..cancel import shield
from ..chan import Chan
from ..runtime.goroutine import Goroutine
from ..runtime.instance import go
from ..runtime.netpoll import Descriptor
from ..runtime.sleep import sleep
from ..runtime.timers import check_seconds, deadline
from ..runtime.wait import is_late, late, on_goroutine
from .address import Inet, Unix, parse
from .alive import keep_asking
from .conn import Conn
from .resolve import Info, labelled, lookup
from .tls import TLSConn, client_context

HEAD_START = 0.25  # seconds that an attempt has before the next one begins beside it


def dial(
    address: Any,
    *,
    timeout: float | None = None,
    tls: Any = None,
    server_hostname: str | None = None,
    local: tuple[str, int] | None = None,
) -> Conn:
    """Connect to an address and return the connection.

    address is "host:port", "[::1]:port", (host, port), "unix:/path" or a path object.  timeout is in seconds for
    everything together: look-up, connecting, handshake.  tls=True makes it a TLS connection that verifies the peer's
    certificate, for server_hostname (the host, if not given); tls may be an ssl.SSLContext instead.  local is the
    address to connect from.  Raises TimeoutError, socket.gaierror, ssl.SSLError, and the system's errors
    (ConnectionRefusedError), which name the address.  Go: net.Dial, tls.Dial.
    """
    place = parse(address)
    until = None if timeout is None else deadline(check_seconds(timeout, "timeout"))
    context = None if tls is None or tls is False else client_context(tls)
    try:
        if isinstance(place, Unix):
            sock = _connect(socket.AF_UNIX, place.path, str(place), None, until)
        else:
            infos = labelled(lookup(place.host or "localhost", place.port, _left(until)), place.flow)
            sock = _first(by_turns(infos), place, local, until)
    except TimeoutError as exc:
        if until is None or not is_late(exc):
            raise  # the system's own: its patience ended
        raise late(f"dial {place} timed out after {timeout:g} s") from None
    if context is None:
        return Conn(sock)
    if server_hostname is None and isinstance(place, Inet):
        server_hostname = place.host.partition("%")[0] or "localhost"  # the peer knows nothing of our interfaces
    try:
        conn = TLSConn(sock, context, False, server_hostname)
    except BaseException:
        sock.close()
        raise
    try:
        conn.handshake(_left(until))
    except BaseException as exc:
        conn.close()
        if is_late(exc) and until is not None and monotonic() >= until:
            raise late(f"dial {place} timed out after {timeout:g} s, during the TLS handshake") from None
        raise
    return conn


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - monotonic())


def by_turns(infos: list[Info]) -> list[Info]:
    """The addresses in the order to try them: the families alternate, beginning with that of the first."""
    first = [info for info in infos if info[0] == infos[0][0]]
    rest = [info for info in infos if info[0] != infos[0][0]]
    order = []
    while first or rest:
        if first:
            order.append(first.pop(0))
        first, rest = rest, first
    return order


def _first(infos: list[Info], place: Inet, local: Any, until: float | None) -> socket.socket:
    """Connect to the first of these addresses that answers."""
    if len(infos) == 1 or not on_goroutine():
        errors: list[OSError] = []
        for info in infos:
            try:
                return _connect(info[0], info[4], str(place), local, until)
            except TimeoutError as exc:
                if exc.errno is None:  # not the system's own
                    raise
                errors.append(exc)
            except OSError as exc:
                errors.append(exc)
        raise _all_failed(errors)
    return _race(infos, place, local, until)


def _race(infos: list[Info], place: Inet, local: Any, until: float | None) -> socket.socket:
    results: Chan[socket.socket | Exception] = Chan(len(infos))
    attempts: list[Goroutine[None]] = []
    errors: list[OSError] = []
    won: Any = None

    def attempt(info: Info) -> None:
        try:
            result: Any = _connect(info[0], info[4], str(place), local, until)
        except Exception as exc:
            result = exc
        try:
            results.send(result)  # there is room for all, so this does not wait
        except BaseException:  # but it may give way, and be cancelled there
            if not isinstance(result, Exception):
                result.close()
            raise

    try:
        while len(errors) < len(infos):
            more = len(attempts) < len(infos)
            if more:
                attempts.append(go(attempt, infos[len(attempts)]))
                more = len(attempts) < len(infos)
            wait = _left(until)
            if more:
                wait = HEAD_START if wait is None else min(wait, HEAD_START)
            try:
                won = results.recv(wait)
            except TimeoutError as exc:
                if not is_late(exc) or (until is not None and monotonic() >= until):
                    raise
                continue
            if not isinstance(won, Exception):
                return won
            if not isinstance(won, OSError) or is_late(won):
                raise won  # a bad argument, which is bad for every address; or an attempt saw sooner than we that time is over
            errors.append(won)
            won = None
        raise _all_failed(errors)
    finally:
        with shield():
            for g in attempts:
                g.cancel()
            for g in attempts:
                g.join()
            while len(results):
                other = results.recv()
                if not isinstance(other, Exception):
                    other.close()
            won = None  # an error would be a cycle with this frame


def _all_failed(errors: list[OSError]) -> OSError:
    for other in errors[1:]:
        errors[0].add_note(f"and {other.strerror or other}")
    return errors[0]


def _connect(family: int, address: Any, name: str, local: Any, until: float | None) -> socket.socket:
    """Connect one socket to one address; it is closed again if that fails or is cancelled."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    descriptor = None
    try:
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            keep_asking(sock)
        if local is not None:
            sock.bind(local)
        pause = 1e-3
        while True:
            error = sock.connect_ex(address)
            if error != errno.EAGAIN or family != socket.AF_UNIX:
                break
            # A Unix socket whose queue is full: nothing can be waited for, so ask again.
            if until is not None and monotonic() >= until:
                raise late("")
            sleep(pause)
            pause = min(2 * pause, 0.1)
        if error in (errno.EINPROGRESS, errno.EINTR):
            descriptor = Descriptor(sock.fileno())
            while True:
                descriptor.wait_write(_left(until))
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error or _connected(sock):
                    break
        if not error and family != socket.AF_UNIX and _is_same(sock.getsockname(), address):
            # The system gave it the very port that it looked for: it is connected to itself, and nobody is there.
            error = errno.ECONNREFUSED
        if error:
            where = name if family == socket.AF_UNIX else f"{name} ({address[0]})"
            raise OSError(error, f"{os.strerror(error)}: dial {where}")
        if descriptor is not None:
            descriptor.close()  # the Conn makes its own
        return sock
    except BaseException:
        if descriptor is not None:
            descriptor.close()
        sock.close()
        raise


def _is_same(one: Any, other: Any) -> bool:
    """Are these the same place?  A flow label (the third part of four) is none of it."""
    return one[:2] == other[:2] and one[3:] == other[3:]


def _connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
        return True
    except OSError:
        return False
