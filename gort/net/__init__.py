"""The network for people: connect, listen, serve; every operation parks its goroutine and no thread.

    from gort import net, run

    def echo(conn):
        while data := conn.read():
            conn.write(data)

    run(net.serve, "127.0.0.1:7000", echo)

Go: package net.
"""

from __future__ import annotations

from ..runtime.netpoll import Descriptor, DescriptorClosed
from .conn import Conn
from .dialing import dial
from .errors import ConnClosed, IncompleteRead, LimitExceeded
from .listener import Listener, listen
from .resolve import lookup
from .serving import serve
from .tls import TLSConn, start_tls

__all__ = [
    "Conn",
    "ConnClosed",
    "Descriptor",
    "DescriptorClosed",
    "IncompleteRead",
    "LimitExceeded",
    "Listener",
    "TLSConn",
    "dial",
    "listen",
    "lookup",
    "serve",
    "start_tls",
]
