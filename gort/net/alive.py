"""Half-open connections: the peer that is gone without having said so.

A computer that loses its power or its network ends no connection, and who only reads from it would wait for ever.  So the
system is told to ask a silent peer for a sign of life, as Go does: after 15 s of silence, every 15 s, and to give up when
nine have not been answered; then the read raises (ETIMEDOUT).  Connections have this from the listener that accepted them.
"""

from __future__ import annotations

import socket

_IDLE = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # the latter is macOS's name
_OPTIONS = ((_IDLE, 15), (getattr(socket, "TCP_KEEPINTVL", None), 15), (getattr(socket, "TCP_KEEPCNT", None), 9))


def keep_asking(sock: socket.socket) -> None:
    """Have the system look after the peer of a TCP socket, or of those that a listening one will accept."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _OPTIONS:
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:
        pass  # a system that has other ideas; what matters is the connection
