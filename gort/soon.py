"""soon: reads and writes with a number that others have opened, which park instead of blocking the thread.

The idea.  Try without waiting; if it would block, wait as descriptors.py does, and try again.  On Linux look and act
are one: RWF_NOWAIT asks the system for this one operation not to wait, which needs no change of the descriptor's mode,
so nobody else can come in between.  Elsewhere, and for what knows no RWF_NOWAIT, it is a look and then the usual call.

A descriptor that is non-blocking stays so: BlockingIOError is what its owner wants to hear.  But a green socket's is
always non-blocking, and what counts is what its user has set; so green sockets are known here by their number.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import sys
from collections.abc import Callable
from typing import Any
from weakref import ref

from .descriptors import READ, WRITE, Held, Users, give_way_outside, is_ready
from .runtime import overdue as _overdue

overdue = False
_overdue.register(globals())

_NOWAIT = getattr(os, "RWF_NOWAIT", None) if sys.platform == "linux" else None
_CANNOT = (errno.EOPNOTSUPP, errno.ENOSYS)  # no such call for such a file, or on such a system

# What a descriptor is, as far as waiting for it goes.
FILE, PIPE, STREAM = "file", "pipe", "stream"


def kind(fd: int) -> str:
    """How to wait for a descriptor.

    FILE: not at all, the system knows no waiting for it (files, directories, /dev/null).  PIPE: for both directions; a
    write of at most PIPE_BUF bytes does not block when it is writable.  STREAM: for reading (sockets, terminals,
    eventfds and their like); how much could be written is not known.  Raises OSError if it is not open.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        return PIPE
    if stat.S_ISSOCK(mode) or not stat.S_IFMT(mode) or (stat.S_ISCHR(mode) and os.isatty(fd)):
        return STREAM
    return FILE


# The last green socket of each number.  It may be gone, or closed, and the number be something else's.
green: dict[int, ref[Any]] = {}


def green_socket(fd: int) -> Any:
    """The green socket of this number, or None."""
    known = green.get(fd)
    sock = None if known is None else known()
    return sock if sock is not None and sock.fileno() == fd else None


def blocks(fd: int) -> bool:
    """Does its owner want a call with this number to wait?"""
    sock = green_socket(fd)
    return os.get_blocking(fd) if sock is None else sock.gettimeout() is None


def read_soon(fd: int, buffers: list[Any], kind: str, users: Users | None = None) -> int | None:
    """Read into buffers without blocking the thread, parking until there is something; how many bytes?

    None: it is a FILE, and the usual call has to be made, which may block.  users are those of a file that its owner
    may close.  Raises BlockingIOError if it is the descriptor's own mode not to wait.
    """
    if kind is not FILE:
        return soon(fd, READ, lambda number: _read(number, buffers), users)
    if overdue:
        give_way_outside()
    if _NOWAIT is None:
        return None
    try:
        # 0 should be the end, but some versions of Linux also say so when they would have to wait for the disk.
        return os.preadv(fd, buffers, -1, _NOWAIT) or None
    except OSError:
        return None


def write_soon(fd: int, data: memoryview, users: Users | None = None) -> int:
    """Write to a PIPE without blocking the thread, parking until there is room; how many bytes?

    Raises BlockingIOError if it is the descriptor's own mode not to wait.
    """
    return soon(fd, WRITE, lambda number: _write(number, data), users)


def write_all(fd: int, data: memoryview) -> int:
    """Write everything to a PIPE or a green socket, as the system does in blocking mode; what came before an error counts."""
    written = 0

    def write(number: int) -> int:
        nonlocal written
        while True:
            written += _write(number, data[written:])
            if written >= len(data):
                return written

    try:
        return soon(fd, WRITE, write)
    except OSError:  # it comes again with the next write
        if written:
            return written
        raise
    except BaseException as exc:  # a cancellation: whoever is interested can ask it how far the write came
        exc.written = written  # type: ignore[attr-defined]
        raise


def soon(fd: int, events: int, call: Callable[[int], int], users: Users | None = None) -> int:
    """Make the call, which must not block, with this number or another for the same file, until it has done something."""
    if overdue:
        give_way_outside()
    try:
        return call(fd)
    except BlockingIOError:
        if not blocks(fd):
            raise
    with Held(fd, events, users) as held:
        while True:
            held.wait()
            try:
                return call(held.fd)
            except BlockingIOError:
                pass


def _would_block(fd: int, wrong: int) -> OSError:
    """What to raise where a call would block; a descriptor that is open for the other direction alone never gets ready."""
    mode = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
    code = errno.EBADF if mode == wrong else errno.EAGAIN
    return OSError(code, os.strerror(code))


def _read(fd: int, buffers: list[Any]) -> int:
    if _NOWAIT is not None:
        try:
            return os.preadv(fd, buffers, -1, _NOWAIT)
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise
    if os.get_blocking(fd) and any(memoryview(buffer).nbytes for buffer in buffers) and not is_ready(fd, READ):
        raise _would_block(fd, os.O_WRONLY)
    return os.readv(fd, buffers)


def _write(fd: int, data: memoryview) -> int:
    if _NOWAIT is not None:
        try:
            return os.pwritev(fd, [data], -1, _NOWAIT)
        except OSError as exc:
            if exc.errno not in _CANNOT:
                raise
    if os.get_blocking(fd):
        if data and not is_ready(fd, WRITE):
            raise _would_block(fd, os.O_RDONLY)
        data = data[: select.PIPE_BUF]
    return os.write(fd, data)
