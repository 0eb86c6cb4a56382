"""hosts: the look-ups of names that green sockets make.

The idea.  The system's resolver blocks, for seconds sometimes, and no descriptor tells when it is done.  So it runs on a
spare thread (`inquire`), while the goroutine parks.  What is a number already needs no resolver, and no thread.

A standard socket looks names up itself: ``connect(("example.org", 80))`` does it in its C code, which nobody
can wait for.  So a green socket makes the address numeric before (`numeric`), by the same rules: for the socket's family,
and the first answer counts.  What is no address at all is left as it is, for the system to say what is wrong with it.

Refused: the look-up of gort.net (net/resolve.py), whose errors name the host, and which has a time limit of its own:
these are twins of standard functions, with their errors and nothing else.
"""

from __future__ import annotations

import socket
from typing import Any

from .runtime.blocking import inquire
from .runtime.wait import on_goroutine


def is_numeric(host: Any) -> bool:
    """Is it an IPv4 or IPv6 address, and no name?"""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
            return True
        except (OSError, ValueError):
            pass
    return False


def numeric(sock: socket.socket, address: Any) -> Any:
    """The address with a host's name replaced by its number, as the standard socket itself would look it up."""
    family = sock.family
    if family not in (socket.AF_INET, socket.AF_INET6) or not isinstance(address, tuple) or not on_goroutine():
        return address
    host = address[0] if address else None
    if isinstance(host, str):
        try:
            host = host.encode("ascii")
        except UnicodeEncodeError:
            host = host.encode("idna")
    if not isinstance(host, (bytes, bytearray)) or host in (b"", b"<broadcast>") or b"\0" in host:
        return address  # or something bad, of which the system will say what is wrong with it
    if is_numeric(host.decode("latin-1")):
        return address
    found = inquire(socket.getaddrinfo, bytes(host), None, family, socket.SOCK_DGRAM)
    return (found[0][4][0], *address[1:])


def getaddrinfo(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:
    """As `socket.getaddrinfo`, on a spare thread unless nothing is to be looked up."""
    if (host is None or (isinstance(host, str) and is_numeric(host))) and (port is None or isinstance(port, int)):
        return socket.getaddrinfo(host, port, family, type, proto, flags)
    return inquire(socket.getaddrinfo, host, port, family, type, proto, flags)


def gethostbyname(hostname: Any, /) -> str:
    """As `socket.gethostbyname`, on a spare thread."""
    return inquire(socket.gethostbyname, hostname)


def gethostbyname_ex(hostname: Any, /) -> tuple[str, list[str], list[str]]:
    """As `socket.gethostbyname_ex`, on a spare thread."""
    return inquire(socket.gethostbyname_ex, hostname)


def gethostbyaddr(ip_address: Any, /) -> tuple[str, list[str], list[str]]:
    """As `socket.gethostbyaddr`, on a spare thread."""
    return inquire(socket.gethostbyaddr, ip_address)


def getnameinfo(sockaddr: Any, flags: int, /) -> tuple[str, str]:
    """As `socket.getnameinfo`, on a spare thread."""
    return inquire(socket.getnameinfo, sockaddr, flags)
