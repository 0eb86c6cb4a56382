"""Names: look-ups that never block a machine.

The system's resolver (getaddrinfo) blocks, so it runs on a spare thread, in a goroutine of its own.  It cannot be
interrupted, and may take half a minute.  Nobody waits for that: a caller whose time is over, or who is cancelled, goes
away, and the look-up's goroutine ends when the resolver has answered, or at the end of the program: it can be cancelled
in its call (`inquire`).  A plain thread that has a time limit asks such a goroutine too, of the background runtime.
Numbers need no resolver.
"""

from __future__ import annotations

import socket
from typing import Any

from ..runtime.blocking import inquire
from ..runtime.instance import go
from ..runtime.wait import is_late, late, parks
from ..sync import Semaphore

Info = tuple[int, int, int, str, Any]

# As many look-ups at a time: each holds a thread, and the name server thinks its own of those who ask too much.
_turn = Semaphore(100)


def lookup(host: str, port: int | str = 0, timeout: float | None = None, family: int = 0) -> list[Info]:
    """Look a host's addresses up: what socket.getaddrinfo returns for a stream socket.

    host "" stands for every address of this machine.  timeout is in seconds, None: as long as the resolver takes.
    family is socket.AF_INET or AF_INET6, 0: both.  Raises socket.gaierror, an OSError, when there is none, and
    TimeoutError.  Go: net.LookupHost.
    """
    if not isinstance(host, str):
        raise TypeError(f"host must be a str, not {type(host).__name__}")
    flags = socket.AI_PASSIVE if not host else 0
    args = (host or None, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if isinstance(port, int):
        try:
            return socket.getaddrinfo(*args, flags | socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
        except (socket.gaierror, UnicodeError):
            pass  # a name
    if timeout is None and not parks():  # a plain thread that nothing can interrupt
        return _name(socket.getaddrinfo, host, *args, flags)
    g = go(_resolve, host, args, flags)
    g.name = f"look-up of {host!r}"
    try:
        found, error = g.result(timeout)
    except TimeoutError as exc:
        if not is_late(exc):
            raise
        raise late(f"the look-up of {host!r} was not over after {timeout:g} s") from None
    if error is not None:
        try:
            raise error
        finally:
            error = None
    return found


def labelled(infos: list[Info], flow: int) -> list[Info]:
    """What `lookup` has found, with the address's flow label, of which the system's resolver knows nothing."""
    return [(*rest, (*at[:2], flow, *at[3:]) if len(at) == 4 else at) for *rest, at in infos] if flow else infos


def _resolve(host: str, args: Any, flags: int) -> tuple[list[Info], OSError | None]:
    """The look-up's goroutine: an error is returned, for it is no failure of a goroutine's if nobody waits any more."""
    try:
        with _turn:
            return _name(inquire, host, socket.getaddrinfo, *args, flags), None
    except OSError as exc:
        return [], exc


def _name(call: Any, host: str, *args: Any) -> list[Info]:
    """Make the call, and have its errors name the host."""
    try:
        return call(*args)
    except socket.gaierror as exc:
        raise socket.gaierror(exc.errno, f"{exc.strerror}: {host!r}") from None
    except UnicodeError as exc:
        raise socket.gaierror(socket.EAI_NONAME, f"no valid host name: {host!r} ({exc})") from None
