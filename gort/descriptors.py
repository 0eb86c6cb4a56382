"""descriptors: waiting for file descriptors that others have opened.

The idea.  runtime/netpoll.py's `Descriptor` belongs to whoever owns the number: it must be closed before the number
is, and there is one for each number.  Code that merely has a number, or somebody else's object (`os.read`,
`select.select`, a pipe inherited from a parent), owns nothing.  So it waits through a descriptor of its own: an epoll
(kqueue) object that holds the numbers in question, and is itself readable as soon as one of them is ready.  The
machine's poller waits for that one.

It is level-triggered, so what is ready stays so until it is used, whoever else looks; it may be made, used and closed
while others wait for the same number in other ways; and if the number is closed and used again meanwhile, nobody else
is disturbed.  The price is three more system calls for a wait, and a descriptor while it lasts.  When there is none to
be had (EMFILE), a wait looks again every 10 ms instead: slow, but nothing fails and nothing is lost.

Those who wait this way must look first (`is_ready`), and again after each wake-up: they may have been woken for
nothing, or another may have been faster.  On Linux look and act are one: `read_soon` and `write_soon` ask the system
for this one operation not to wait (RWF_NOWAIT), which needs no change of mode, so nobody else can come in between.

Refused: to make such a descriptor non-blocking.  That is a property of the open file, not of the number, and so of
the terminal that the shell uses too, or of the pipe that is another process's standard input.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from .runtime import overdue as _overdue
from .runtime.netpoll import Descriptor
from .runtime.sleep import sleep
from .runtime.wait import give_way, late

overdue = False
_overdue.register(globals())

READ = select.POLLIN
WRITE = select.POLLOUT

LOOK = 0.01  # seconds between two looks at descriptors for which there is no descriptor to wait with

_NOWAIT = getattr(os, "RWF_NOWAIT", None) if sys.platform == "linux" else None

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


def is_ready(fd: int, events: int) -> bool:
    """Is it ready for one of these events (or broken, which a read or write will tell) at this moment?"""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(0))


def read_soon(fd: int, buffers: list[Any], kind: str) -> int | None:
    """Read into buffers without blocking the thread, parking until there is something; how many bytes?

    None: the usual call has to be made, which will not block (but on a FILE it will): it is the end, or an error, or
    this system cannot read so.  Raises BlockingIOError if it is the descriptor's own mode not to wait.
    """
    if overdue:
        give_way_outside()
    while _NOWAIT is not None:
        try:
            # 0 should be the end, but some versions of Linux also say so when they would have to wait for the disk.
            n = os.preadv(fd, buffers, -1, _NOWAIT)
            if n:
                return n
            break
        except BlockingIOError:
            if kind is FILE:
                return None
            if not os.get_blocking(fd):
                raise
        except OSError as exc:
            if exc.errno == errno.EBADF:  # the other end of a pipe, say, which will never be ready
                return None
            break
        wait(fd, READ)
    if kind is not FILE and os.get_blocking(fd):
        wait(fd, READ)
    return None


def write_soon(fd: int, data: Any) -> int | None:
    """Write to a PIPE without blocking the thread, parking until there is room; how many bytes?

    None: the usual call has to be made, and will not block, with PIPE_BUF bytes at most.  Raises BlockingIOError if it
    is the descriptor's own mode not to wait.
    """
    if overdue:
        give_way_outside()
    while _NOWAIT is not None:
        try:
            return os.pwritev(fd, [data], -1, _NOWAIT)
        except BlockingIOError:
            if not os.get_blocking(fd):
                raise
        except OSError as exc:
            if exc.errno == errno.EBADF:
                return None
            break
        wait(fd, WRITE)
    if os.get_blocking(fd):
        wait(fd, WRITE)
    return None


def wait(fd: int, events: int, timeout: float | None = None) -> None:
    """Park until the descriptor is ready for one of these events: READ, WRITE.  On a plain thread, block.

    timeout is in seconds.  Raises TimeoutError.
    """
    if is_ready(fd, events):
        return
    if not may_park():
        _block(fd, events, timeout)
        return
    until = None if timeout is None else monotonic() + timeout
    with Watch([(fd, events)]) as watch:
        while not is_ready(fd, events):
            watch.wait(None if until is None else until - monotonic())


class Watch:
    """Some descriptors to wait for together: (number, events), where events are poll's bits."""

    __slots__ = ("_descriptor", "_set")

    def __init__(self, wanted: Iterable[tuple[int, int]]) -> None:
        self._set: Any = None
        try:
            self._set = select.epoll() if hasattr(select, "epoll") else select.kqueue()  # type: ignore[attr-defined]
        except OSError as exc:
            if exc.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            return  # no descriptor left: see `wait`
        add: Callable[[int, int], None] = self._set.register if hasattr(select, "epoll") else self._add_to_kqueue
        try:
            for fd, events in wanted:
                try:
                    add(fd, events)
                except PermissionError:
                    pass  # a file, which is always ready, or for such events never
            self._descriptor = Descriptor(self._set.fileno())
        except BaseException:
            self._set.close()
            raise

    def _add_to_kqueue(self, fd: int, events: int) -> None:
        changes = []
        if events & ~WRITE:
            changes.append(select.kevent(fd, select.KQ_FILTER_READ, select.KQ_EV_ADD))  # type: ignore[attr-defined]
        if events & WRITE:
            changes.append(select.kevent(fd, select.KQ_FILTER_WRITE, select.KQ_EV_ADD))  # type: ignore[attr-defined]
        self._set.control(changes, 0, 0)  # type: ignore[attr-defined]

    def wait(self, timeout: float | None = None) -> None:
        """Park until one of them may be ready.  timeout is in seconds.  Raises TimeoutError."""
        if timeout is not None and timeout <= 0:
            raise late("timed out")
        if self._set is None:
            sleep(LOOK if timeout is None else min(LOOK, timeout))
            return
        self._descriptor.wait_read(timeout)

    def close(self) -> None:
        """Forget them."""
        if self._set is not None:
            self._descriptor.close()
            self._set.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_exit(pid: int, timeout: float | None = None) -> bool:
    """Park until a child process has ended; it is not reaped.

    timeout is in seconds.  Returns False if this system cannot wait for that without a thread.  Raises TimeoutError.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True  # gone
    except (AttributeError, OSError):  # another system, an old kernel, no descriptor left
        return False
    descriptor = Descriptor(fd)
    try:
        descriptor.wait_read(timeout)
    finally:
        descriptor.close()
        os.close(fd)
    return True


# -- finalizers -------------------------------------------------------------------------------------------------------

finalizers: set[int] = set()  # the threads that are in one


class Finalizer:
    """``with Finalizer():`` what this thread does inside must not switch to another goroutine: it is in a ``__del__``.

    A file that is dropped without being closed is closed by the collector, which flushes it.  There the thread blocks,
    as with the standard library's files.  Nothing else can run on the thread meanwhile, so its number is enough.
    """

    __slots__ = ("_outer",)

    def __enter__(self) -> None:
        self._outer = threading.get_ident() in finalizers
        finalizers.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        if not self._outer:
            finalizers.discard(threading.get_ident())


def may_park() -> bool:
    """Is the caller outside of such a finalizer?"""
    return not finalizers or threading.get_ident() not in finalizers


def give_way_outside() -> None:
    """`give_way`, unless in a finalizer."""
    if may_park():
        give_way()


def wait_own(descriptor: Descriptor, write: bool, timeout: float | None) -> None:
    """Park until one's own descriptor may be readable (or writable); block, in a finalizer.  Raises TimeoutError."""
    if may_park():
        if write:
            descriptor.wait_write(timeout)
        else:
            descriptor.wait_read(timeout)
        return
    _block(descriptor.fd, WRITE if write else READ, timeout)


def _block(fd: int, events: int, timeout: float | None) -> None:
    poll = select.poll()
    poll.register(fd, events)
    if not poll.poll(None if timeout is None else timeout * 1000):
        raise late("timed out")
