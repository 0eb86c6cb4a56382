"""ssl, cooperatively: the handshake, reads, writes and the closing park the goroutine.

The idea.  A green TLS socket is both a standard SSLSocket and a green socket, in this order, so that where the standard
class calls its base (``super().connect``, ``accept``, ``recv`` without TLS) it reaches the green one.  The C code below
sees a non-blocking socket and raises SSLWantReadError or SSLWantWriteError instead of waiting; here that means: wait
for the descriptor, try again.

Two goroutines, one that reads and one that writes, may share a TLS socket, on different threads too.  OpenSSL's object
must not be entered twice at a time (Python itself sees to that in its newest versions only), hence the mutex around
each try.  No try waits, so it is held shortly.

A context made by `create_default_context` of *this* module, or an `SSLContext` of it, makes green sockets, of whatever
socket it is given.  A context of the standard module makes standard ones, which block.
"""

from __future__ import annotations

import ssl as _std
from collections.abc import Callable as _Callable
from time import monotonic as _monotonic
from typing import Any

from .. import borrow as _borrow
from ..sync.mutex import Mutex as _Mutex
from .socket import socket as _socket


class SSLSocket(_std.SSLSocket, _socket):
    """As `ssl.SSLSocket`."""

    def _tls(self, timeout: float | None, call: _Callable[..., Any], *args: Any) -> Any:
        """The call, as soon as it needs not wait for the other side."""
        until = None if timeout is None else _monotonic() + timeout
        mutex = self.__dict__.get("_mutex") or self.__dict__.setdefault("_mutex", _Mutex())
        while True:
            try:
                with mutex:
                    return call(*args)
            except _std.SSLWantReadError:
                if timeout == 0.0:
                    raise
                write = False
            except _std.SSLWantWriteError:
                if timeout == 0.0:
                    raise
                write = True
            self._wait(write, until)

    def do_handshake(self, block: bool = False) -> None:
        """Do the TLS handshake."""
        timeout = self._timeout
        if timeout == 0.0 and block:
            timeout = None
        self._tls(timeout, super().do_handshake)

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """Read up to so many bytes, into the buffer if one is given."""
        secure = self._sslobj is not None
        try:
            return self._tls(self._timeout, super().read, len, buffer)
        except ValueError:
            # `shutdown` by another goroutine while we waited takes TLS away; for a reader it is the end of the data.
            if secure and self._sslobj is None and self.fileno() != -1 and self.suppress_ragged_eofs:
                return b"" if buffer is None else 0
            raise

    def write(self, data: Any) -> int:
        """Write; how many bytes?"""
        return self._tls(self._timeout, super().write, data)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send what there is room for; how many bytes?"""
        if self._sslobj is None:
            return super().send(data, flags)
        return self._tls(self._timeout, super().send, data, flags)

    def unwrap(self) -> Any:
        """End TLS on the connection; the socket below."""
        return self._tls(self._timeout, super().unwrap)

    def verify_client_post_handshake(self) -> None:
        """Ask a TLS 1.3 client for its certificate."""
        self._tls(self._timeout, super().verify_client_post_handshake)


class SSLContext(_std.SSLContext):
    """As `ssl.SSLContext`; its `wrap_socket` gives green sockets."""

    sslsocket_class = SSLSocket


_borrow.rest(_std, globals())
_borrow.functions(
    _std, globals(), "create_default_context get_server_certificate _create_unverified_context wrap_socket"
)
_create_default_https_context = globals()["create_default_context"]
_create_stdlib_context = globals()["_create_unverified_context"]
