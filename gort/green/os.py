"""os, cooperatively: what waits for other processes, for pipes and terminals, or for a disk's data.

The idea.  `read` and `write` park where the system can wait (pipes, terminals, sockets; see gort/soon.py) and
run on a spare thread where it cannot (files).  `waitpid` of one child parks on a pidfd.  The other calls that may take
long run on a spare thread.  A descriptor that is non-blocking stays so: BlockingIOError is the answer its owner wants.

What only looks at names (`stat`, `listdir`, `rename`, ...) is the standard function: it takes microseconds, less than
it would to change threads, and should it hang after all (a lost network file system), sysmon gives the P to another
machine, as for every call that nobody announced.
"""

from __future__ import annotations

import io as _io
import os as _std
from collections.abc import Callable as _Callable
from sys import byteorder as _byteorder
from typing import Any

from .. import borrow as _borrow
from ..descriptors import wait_exit as _wait_exit
from ..runtime.blocking import blocking as _blocking
from ..runtime.wait import parks as _parks
from ..soon import FILE as _FILE
from ..soon import PIPE as _PIPE
from ..soon import WRITE as _WRITE
from ..soon import blocks as _blocks
from ..soon import green_socket as _green_socket
from ..soon import kind as _kind
from ..soon import read_soon as _read_soon
from ..soon import soon as _soon
from ..soon import write_all as _write_all


def _standard(fd: int) -> bool:
    """Is the standard call the right one?  On a plain thread; but not for a green socket, which is non-blocking."""
    return not _parks() and _green_socket(fd) is None


def read(fd: int, length: int, /) -> bytes:
    """As `os.read`."""
    if _standard(fd) or not isinstance(length, int) or length <= 0:
        return _std.read(fd, length)
    buffer = bytearray(length)
    n = _read_soon(fd, [buffer], _kind(fd))
    return _blocking(_std.read, fd, length) if n is None else bytes(memoryview(buffer)[:n])


def readv(fd: int, buffers: Any, /) -> int:
    """As `os.readv`."""
    if _standard(fd):
        return _std.readv(fd, buffers)
    n = _read_soon(fd, buffers, _kind(fd))
    return _blocking(_std.readv, fd, buffers) if n is None else n


if hasattr(_std, "readinto"):  # since Python 3.14

    def readinto(fd: int, buffer: Any, /) -> int:
        """As `os.readinto`."""
        if _standard(fd) or memoryview(buffer).readonly or not memoryview(buffer).nbytes:
            return _std.readinto(fd, buffer)
        n = _read_soon(fd, [buffer], _kind(fd))
        return _blocking(_std.readinto, fd, buffer) if n is None else n


def write(fd: int, data: Any, /) -> int:
    """As `os.write`."""
    if _standard(fd):
        return _std.write(fd, data)
    kind = _kind(fd)
    if kind is not _FILE and not _blocks(fd):
        return _std.write(fd, data)
    if kind is not _PIPE and _green_socket(fd) is None:
        return _blocking(_std.write, fd, data)
    with memoryview(data) as view, view.cast("B") as octets:
        return _write_all(fd, octets)


def writev(fd: int, buffers: Any, /) -> int:
    """As `os.writev`."""
    if _green_socket(fd) is not None:
        return write(fd, b"".join(buffers))
    return _blocking(_std.writev, fd, buffers)


if hasattr(_std, "sendfile"):

    def sendfile(out_fd: int, in_fd: int, *args: Any, **kw: Any) -> int:
        """As `os.sendfile`, on a spare thread: the file may have to come from a disk."""

        def send(number: int) -> int:
            return _blocking(_std.sendfile, number, in_fd, *args, **kw)

        return send(out_fd) if _green_socket(out_fd) is None else _soon(out_fd, _WRITE, send)

    sendfile.__wrapped__ = _std.sendfile  # type: ignore[attr-defined]  # for its signature, which the system decides


if hasattr(_std, "eventfd_read"):

    def eventfd_read(fd: Any) -> int:
        """As `os.eventfd_read`."""
        if not isinstance(fd, int) and hasattr(fd, "fileno"):
            fd = fd.fileno()
        if not _parks() or not isinstance(fd, int):
            return _std.eventfd_read(fd)
        return int.from_bytes(read(fd, 8), _byteorder)


def _reap(call: _Callable[[int, int], Any], pid: int, options: int) -> Any:
    if options & _std.WNOHANG or not _parks():
        return call(pid, options)
    if pid > 0 and not options:  # WUNTRACED and WCONTINUED mean other events than the end
        tries = 0
        while True:
            outcome = call(pid, _std.WNOHANG)  # which also says whether it is a child of ours
            if outcome[0]:
                return outcome
            _wait_exit(pid, None, tries)
            tries += 1
    return _blocking(call, pid, options)


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """As `os.waitpid`."""
    return _reap(_std.waitpid, pid, options)


def wait4(pid: int, options: int) -> Any:
    """As `os.wait4`."""
    return _reap(_std.wait4, pid, options)


def _on_spare(name: str) -> None:
    call = getattr(_std, name, None)
    if call is None:
        return  # not on this system

    def spare(*args: Any, **kw: Any) -> Any:
        return _blocking(call, *args, **kw)

    spare.__name__ = spare.__qualname__ = name
    spare.__wrapped__ = call  # type: ignore[attr-defined]  # so `help` and `inspect` show its signature
    spare.__doc__ = f"As `os.{name}`, on a spare thread.\n\n{call.__doc__ or ''}"
    globals()[name] = spare


for _name in (
    "copy_file_range eventfd_write fdatasync fsync ftruncate lockf posix_fallocate pread preadv pwrite pwritev splice "
    "sync system truncate wait wait3 waitid"
).split():
    _on_spare(_name)


def open(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
    """As `os.open`, on a spare thread."""
    from ..files import is_fifo, meet

    if dir_fd is None and _parks() and is_fifo(path):
        fd: int = meet(_std.open, _std.close, path, flags, mode)
        return fd
    return _blocking(_std.open, path, flags, mode, dir_fd=dir_fd)


def fdopen(
    fd: int, mode: str = "r", buffering: int = -1, encoding: str | None = None, *args: Any, **kwargs: Any
) -> Any:
    """As `os.fdopen`: `gort.open` of a descriptor's number."""
    from ..files import open as open_file

    if not isinstance(fd, int):
        raise TypeError(f"invalid fd type ({type(fd)}, expected integer)")
    if "b" not in mode:
        encoding = _io.text_encoding(encoding)
    return open_file(fd, mode, buffering, encoding, *args, **kwargs)


def popen(cmd: str, mode: str = "r", buffering: int = -1) -> Any:
    """As `os.popen`: a pipe to or from a shell command."""
    if not isinstance(cmd, str):
        raise TypeError(f"invalid cmd type ({type(cmd)}, expected string)")
    if mode not in ("r", "w"):
        raise ValueError(f"invalid mode {mode!r}")
    if buffering == 0 or buffering is None:
        raise ValueError("popen() does not support unbuffered streams")
    from . import subprocess

    if mode == "r":
        process = subprocess.Popen(cmd, shell=True, text=True, stdout=subprocess.PIPE, bufsize=buffering)
        return _std._wrap_close(process.stdout, process)
    process = subprocess.Popen(cmd, shell=True, text=True, stdin=subprocess.PIPE, bufsize=buffering)
    return _std._wrap_close(process.stdin, process)


_borrow.rest(_std, globals())
_borrow.functions(_std, globals(), "_spawnvef spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe")
