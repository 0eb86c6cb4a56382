"""descriptors: waiting for file descriptors that others have opened.

The idea.  runtime/netpoll.py's `Descriptor` belongs to whoever owns the number: it must be closed before the number
is, and there is one for each number.  Code that merely has a number, or somebody else's object (`os.read`,
`select.select`, a pipe inherited from a parent), owns nothing.  So it waits through a descriptor of its own: an epoll
(kqueue) object that holds the numbers in question, and is itself readable as soon as one of them is ready.  The
machine's poller waits for that one.

It is level-triggered, so what is ready stays so until it is used, whoever else looks; it may be made, used and closed
while others wait for the same number in other ways; and if the number is closed and used again meanwhile, nobody else
is disturbed: a read or write that waits goes on with the file that it was called for (`Held`).  The price is a few more
system calls for a wait, and two descriptors while it lasts.  When there is none to be had (EMFILE), a wait looks again
every 10 ms instead: slow, but nothing fails and nothing is lost.

Those who wait this way must look first (`is_ready`), and again after each wake-up: they may have been woken for
nothing, or another may have been faster.  Reading and writing so is in soon.py.

Refused: to make such a descriptor non-blocking.  That is a property of the open file, not of the number, and so of
the terminal that the shell uses too, or of the pipe that is another process's standard input.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any

from .runtime import overdue as _overdue
from .runtime.fork import in_child
from .runtime.netpoll import NONE_LEFT, Descriptor, DescriptorClosed
from .runtime.sleep import sleep
from .runtime.wait import give_way, late

overdue = False
_overdue.register(globals())

READ = select.POLLIN
WRITE = select.POLLOUT

LOOK = 0.01  # seconds between two looks at descriptors for which there is no descriptor to wait with


def is_ready(fd: int, events: int) -> bool:
    """Is it ready for one of these events (or broken, which a read or write will tell) at this moment?"""
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(0))


class Users:
    """Those who wait for a descriptor that its owner may close, which wakes them.

    Nobody is missed: they are in `held` *before* they look at `closed`, which is set *before* `close` looks there.
    """

    __slots__ = ("closed", "held")

    def __init__(self) -> None:
        self.closed = False
        self.held: set[Held] = set()

    def close(self) -> None:
        """To be called before the number is closed: have them get DescriptorClosed."""
        self.closed = True
        for held in list(self.held):
            held.wake()


class Held:
    """Somebody else's descriptor while one waits for it, as `fd`: a number of our own for the same file.

    So it is with a system call that waits: what becomes of the number meanwhile, closed or used again, does not concern
    it.  (Without a free descriptor it is the number itself after all.)
    """

    __slots__ = ("_events", "_number", "_users", "_watch", "fd")

    def __init__(self, fd: int, events: int, users: Users | None) -> None:
        self._number = self.fd = fd
        self._events = events
        self._users = users
        self._watch: Watch | None = None
        try:
            self.fd = os.dup(fd)
        except OSError as exc:
            if exc.errno not in NONE_LEFT:
                raise
        _all_held.add(self)

    def __enter__(self) -> Held:
        try:
            self._watch = Watch([(self.fd, self._events)])
            if self._users is not None:
                self._users.held.add(self)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait(self) -> None:
        """Park until it is ready.  On a thread that must not park, block.  Raises DescriptorClosed."""
        while not is_ready(self.fd, self._events):
            if self._users is not None and self._users.closed:
                raise DescriptorClosed(self._number)
            if not may_park():
                _block(self.fd, self._events, None)
                return
            assert self._watch is not None
            try:
                self._watch.wait()
            except DescriptorClosed:
                raise DescriptorClosed(self._number) from None

    def wake(self) -> None:
        """Have who waits get DescriptorClosed."""
        if self._watch is not None:
            self._watch.end()

    def __exit__(self, *_: object) -> None:
        _all_held.discard(self)
        if self._users is not None:
            self._users.held.discard(self)
        if self._watch is not None:
            self._watch.close()
        self._free()

    def _free(self) -> None:
        own, self.fd = self.fd, self._number
        if own != self._number:
            os.close(own)


_all_held: set[Held] = set()


def _forget() -> None:
    # In the child of a fork, where nobody waits: an end of a pipe that is kept open would keep its readers waiting.
    for held in _all_held:
        held._free()
    _all_held.clear()


in_child(_forget)


def _pause(seconds: float, timeout: float | None) -> None:
    """Sleep until the next look, but no longer than the time-out allows."""
    sleep(seconds if timeout is None else min(seconds, timeout))


class Watch:
    """Some descriptors to wait for together: (number, events), where events are poll's bits."""

    __slots__ = ("_descriptor", "_set")

    def __init__(self, wanted: Iterable[tuple[int, int]]) -> None:
        self._set: Any = None
        try:
            self._set = select.epoll() if hasattr(select, "epoll") else select.kqueue()  # type: ignore[attr-defined]
        except OSError as exc:
            if exc.errno not in NONE_LEFT:
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
        if events & ~WRITE or not events:  # none: to hear of the peer's end
            changes.append(select.kevent(fd, select.KQ_FILTER_READ, select.KQ_EV_ADD))  # type: ignore[attr-defined]
        if events & WRITE:
            changes.append(select.kevent(fd, select.KQ_FILTER_WRITE, select.KQ_EV_ADD))  # type: ignore[attr-defined]
        self._set.control(changes, 0, 0)  # type: ignore[attr-defined]

    def wait(self, timeout: float | None = None) -> None:
        """Park until one of them may be ready.  timeout is in seconds.  Raises TimeoutError."""
        if timeout is not None and timeout <= 0:
            raise late("timed out")
        if self._set is None:
            _pause(LOOK, timeout)
            return
        self._descriptor.wait_read(timeout)

    def end(self) -> None:
        """Have who waits get DescriptorClosed, if there is a descriptor; else he looks soon by himself."""
        if self._set is not None:
            self._descriptor.close()

    def close(self) -> None:
        """Forget them."""
        if self._set is not None:
            self._descriptor.close()
            self._set.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_exit(pid: int, timeout: float | None = None, tries: int = 0) -> None:
    """Park until a child process may have ended; it is not reaped.

    timeout is in seconds.  tries is how often that was said and the child could not be reaped: the end may be reported
    a little before (kqueue), or long before (the child is traced by another process).  Raises TimeoutError.
    """
    if tries:
        _pause(min(LOOK, 1e-4 * 2 ** min(tries, 10)), timeout)
        return
    try:
        fd, close = _watch_exit(pid)
    except ProcessLookupError:
        return  # gone
    except OSError:  # neither of the two on this system, or no descriptor left
        _pause(LOOK, timeout)
        return
    try:
        descriptor = Descriptor(fd)
        until = None if timeout is None else monotonic() + timeout
        try:
            while True:  # a wait may return for nothing
                descriptor.wait_read(None if until is None else max(0.0, until - monotonic()))
                if is_ready(fd, READ):
                    break
        finally:
            descriptor.close()
    finally:
        close()


def _watch_exit(pid: int) -> tuple[int, Callable[[], None]]:
    """A descriptor that becomes readable when this process ends, and what closes it."""
    if hasattr(os, "pidfd_open"):
        fd = os.pidfd_open(pid)
        return fd, partial(os.close, fd)
    if not hasattr(select, "kqueue"):
        raise OSError
    kqueue = select.kqueue()
    try:
        end = select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)  # type: ignore[attr-defined]
        kqueue.control([end], 0, 0)
    except BaseException:
        kqueue.close()
        raise
    return kqueue.fileno(), kqueue.close


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
