"""Addresses, as people write them, and what the socket module wants.

"host:port", "[::1]:80", ":80" (every address of this machine), ("host", 80), "unix:/run/x.sock", "unix:@abstract" (Linux), a path object.
What the socket module gives as an IPv6 address has a scope at its end, the network interface of a link-local one.  It
is kept as a part of the host, as people write it: "[fe80::1%2]:80" (or "[fe80::1%eth0]:80").  Before it there is a flow
label, which only such a tuple can have.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple


class Unix(NamedTuple):
    """A Unix socket's place."""

    path: str | bytes

    def __str__(self) -> str:
        return f"unix:{os.fsdecode(self.path)}".replace("\0", "@")


class Inet(NamedTuple):
    """A host, by name or number, and a port, by number or name."""

    host: str
    port: int | str
    flow: int = 0  # of IPv6: the label that the packets are to have

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(address: Any) -> Unix | Inet:
    """Understand an address.  Raises TypeError or ValueError that shows the forms there are."""
    if isinstance(address, (Unix, Inet)):
        return address
    if isinstance(address, os.PathLike):
        return _unix(address, os.fspath(address))
    if isinstance(address, (tuple, list)) and len(address) >= 2 and isinstance(address[0], str):
        scope = address[3] if len(address) == 4 else 0
        host = f"{address[0]}%{scope}" if scope and "%" not in address[0] else address[0]
        return _inet(address, host, address[1], address[2] if len(address) == 4 else 0)
    if not isinstance(address, str):
        raise TypeError(f"address must be {_FORMS}, not {type(address).__name__}")
    if address.startswith("unix:"):
        path = address[5:]
        return _unix(address, "\0" + path[1:] if path.startswith("@") else path)
    host, colon, port = address.rpartition(":")
    if not colon or (address.startswith("[") and address.endswith("]")):
        raise ValueError(f"address {address!r} has no port: write {_FORMS}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address {address!r} has several colons: write an IPv6 address as '[{host}]:{port}'")
    return _inet(address, host, int(port) if port.isascii() and port.isdigit() else port)


_FORMS = "'host:port', '[::1]:port', (host, port), 'unix:/path' or a path object"


def _unix(address: Any, path: str | bytes) -> Unix:
    if not path or path == "\0":
        raise ValueError(f"address {address!r} names no path: write 'unix:/path'")
    if path[0] not in ("\0", 0) and ("\0" if isinstance(path, str) else b"\0") in path:  # type: ignore[operator]
        raise ValueError(f"address {address!r} has a zero byte in its path, where the system would end it")
    return Unix(path)


def _inet(address: Any, host: str, port: Any, flow: Any = 0) -> Inet:
    if not isinstance(flow, int) or not 0 <= flow < 2**20:
        raise ValueError(f"the flow label in address {address!r} must be a number between 0 and {2**20 - 1}")
    if isinstance(port, str):
        if not port:
            raise ValueError(f"address {address!r} has no port: write {_FORMS}")
        return Inet(host, port, flow)
    if not isinstance(port, int) or isinstance(port, bool):
        raise TypeError(f"the port in address {address!r} must be a number or a service's name, not {type(port).__name__}")
    if not 0 <= port <= 65535:
        raise ValueError(f"the port in address {address!r} must be between 0 and 65535")
    return Inet(host, port, flow)
