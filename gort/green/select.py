"""select, cooperatively: `select`, `poll` objects, `epoll` and `kqueue` objects park the goroutine.

The idea.  Each first asks the standard one, without waiting.  If nothing is ready, the goroutine parks until something
may be, and asks again: so the answer is always the system's own.  For `select` and `poll` a `Watch` (see
gort/descriptors.py) waits, which takes a descriptor of the process for as long as the call waits: ten thousand
goroutines in `select` are ten thousand more open descriptors.  (The machine's own poller cannot serve: it knows a number
once, for its owner, edge-triggered.)  When there are no more, the call looks every 10 ms instead.  To wait for one socket,
its own `recv` or `accept` needs neither.  An epoll or kqueue object can itself be waited for.
"""

from __future__ import annotations

import math
import select as _select
from collections.abc import Iterable
from time import monotonic as _monotonic
from typing import Any

from .. import borrow as _borrow
from ..descriptors import Watch as _Watch
from ..descriptors import give_way_outside as _give_way
from ..runtime import overdue as _overdue
from ..runtime.netpoll import Descriptor as _Descriptor
from ..runtime.wait import is_late as _is_late
from ..runtime.wait import parks as _parks

overdue = False
_overdue.register(globals())

_MOST = 2**31 - 1  # milliseconds
_IN = _select.POLLIN | _select.POLLHUP | _select.POLLERR


def _number(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else fileobj.fileno()


def _left(until: float | None) -> float | None:
    return None if until is None else until - _monotonic()


def select(
    rlist: Iterable[Any], wlist: Iterable[Any], xlist: Iterable[Any], timeout: float | None = None, /
) -> tuple[list[Any], list[Any], list[Any]]:
    """As `select.select`: those of three lists that are ready to read, to write, or have urgent data."""
    if overdue:
        _give_way()
    rlist, wlist, xlist = list(rlist), list(wlist), list(xlist)
    if not _parks() or (timeout is not None and not 0 < timeout < 9.2e9):
        return _select.select(rlist, wlist, xlist, timeout)
    ready = _select.select(rlist, wlist, xlist, 0)
    if any(ready):
        return ready
    wanted: dict[int, int] = {}
    for files, events in ((rlist, _IN), (wlist, _select.POLLOUT), (xlist, _select.POLLPRI)):
        for fileobj in files:
            fd = _number(fileobj)
            wanted[fd] = wanted.get(fd, 0) | events
    until = None if timeout is None else _monotonic() + timeout
    with _Watch(wanted.items()) as watch:
        while True:
            ready = _select.select(rlist, wlist, xlist, 0)
            if any(ready):
                return ready
            try:
                watch.wait(_left(until))
            except TimeoutError as exc:
                if not _is_late(exc):
                    raise
                return _select.select(rlist, wlist, xlist, 0)


class poll:
    """As the object that `select.poll` returns."""

    def __init__(self) -> None:
        self._poll = _select.poll()
        self._wanted: dict[int, int] = {}

    def register(self, fd: Any, eventmask: int = _select.POLLIN | _select.POLLPRI | _select.POLLOUT, /) -> None:
        """Watch a descriptor for these events, or change which."""
        self._poll.register(fd, eventmask)
        self._wanted[_number(fd)] = eventmask

    def modify(self, fd: Any, eventmask: int, /) -> None:
        """Change the events of a registered descriptor."""
        self._poll.modify(fd, eventmask)
        self._wanted[_number(fd)] = eventmask

    def unregister(self, fd: Any, /) -> None:
        """Watch a descriptor no more."""
        self._poll.unregister(fd)
        del self._wanted[_number(fd)]

    def poll(self, timeout: float | None = None, /) -> list[tuple[int, int]]:
        """What is ready, as (descriptor, events).  timeout is in *milliseconds*; None, or negative: for ever."""
        if overdue:
            _give_way()
        if not _parks() or (timeout is not None and timeout > _MOST):
            return self._poll.poll(timeout)  # (which says that it is too much)
        ready = self._poll.poll(0)
        if ready or timeout == 0:
            return ready
        until = None if timeout is None or timeout < 0 else _monotonic() + math.ceil(timeout) / 1000
        with _Watch(self._wanted.items()) as watch:
            while True:
                ready = self._poll.poll(0)
                if ready:
                    return ready
                try:
                    watch.wait(_left(until))
                except TimeoutError as exc:
                    if not _is_late(exc):
                        raise
                    return self._poll.poll(0)


if hasattr(_select, "epoll"):

    class epoll:
        """As `select.epoll`."""

        def __init__(self, sizehint: int = -1, flags: int = 0) -> None:
            self._adopt(_select.epoll(sizehint, flags))

        def _adopt(self, inner: _select.epoll) -> None:
            self._epoll = inner
            self._descriptor = _Descriptor(inner.fileno())
            # Everything but waiting and closing goes straight through.
            self.register = inner.register
            self.modify = inner.modify
            self.unregister = inner.unregister
            self.fileno = inner.fileno

        @classmethod
        def fromfd(cls, fd: int, /) -> epoll:
            """An epoll object from a descriptor's number."""
            self = cls.__new__(cls)
            self._adopt(_select.epoll.fromfd(fd))
            return self

        @property
        def closed(self) -> bool:
            """Has it been closed?"""
            return self._epoll.closed

        def poll(self, timeout: float | None = None, maxevents: int = -1) -> list[tuple[int, int]]:
            """What is ready, as (descriptor, events).  timeout is in seconds; None, or negative: for ever."""
            if overdue:
                _give_way()
            if not _parks() or (timeout is not None and timeout * 1000 > _MOST):
                return self._epoll.poll(timeout, maxevents)
            ready = self._epoll.poll(0, maxevents)
            if ready or timeout == 0:
                return ready
            until = None if timeout is None or timeout < 0 else _monotonic() + timeout
            while True:
                left = _left(until)
                if left is not None and left <= 0:
                    return self._epoll.poll(0, maxevents)
                try:
                    self._descriptor.wait_read(left)
                except TimeoutError as exc:
                    if not _is_late(exc):
                        raise
                ready = self._epoll.poll(0, maxevents)  # late or not: it may be ready at the last moment
                if ready:
                    return ready

        def close(self) -> None:
            """Close it.  Who waits in `poll` gets an OSError (EBADF)."""
            self._descriptor.close()
            self._epoll.close()

        def __enter__(self) -> epoll:
            self._epoll.__enter__()
            return self

        def __exit__(self, *_: object) -> None:
            self.close()


if hasattr(_select, "kqueue"):

    class kqueue:
        """As `select.kqueue`."""

        def __init__(self) -> None:
            self._adopt(_select.kqueue())

        def _adopt(self, inner: Any) -> None:
            self._kqueue = inner
            self._descriptor = _Descriptor(inner.fileno())
            self.fileno = inner.fileno

        @classmethod
        def fromfd(cls, fd: int, /) -> kqueue:
            """A kqueue object from a descriptor's number."""
            self = cls.__new__(cls)
            self._adopt(_select.kqueue.fromfd(fd))
            return self

        @property
        def closed(self) -> bool:
            """Has it been closed?"""
            return self._kqueue.closed

        def control(self, changelist: Any, max_events: int, timeout: float | None = None, /) -> list[Any]:
            """Change what is watched, and return up to so many events.  timeout is in seconds; None: for ever."""
            if overdue:
                _give_way()
            if not _parks() or not max_events:
                return self._kqueue.control(changelist, max_events, timeout)
            ready = self._kqueue.control(changelist, max_events, 0)
            until = None if timeout is None else _monotonic() + timeout
            while not ready:
                left = _left(until)
                if left is not None and left <= 0:
                    break
                try:
                    self._descriptor.wait_read(left)
                except TimeoutError as exc:
                    if not _is_late(exc):
                        raise
                ready = self._kqueue.control(None, max_events, 0)
            return ready

        def close(self) -> None:
            """Close it.  Who waits in `control` gets an OSError (EBADF)."""
            self._descriptor.close()
            self._kqueue.close()


_borrow.rest(_select, globals())
