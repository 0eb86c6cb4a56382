"""The network poller: a goroutine that waits for I/O holds no thread.

The idea.  A `Descriptor` stands for one open file descriptor, for as long as it is open.  Whoever meets "would block"
on it parks in `wait_read` or `wait_write`; when the kernel says that the descriptor has become readable or writable,
the goroutine is ready again and tries once more.

One poller for each machine, not one for all as in Go: a started goroutine is pinned to its machine, so an event that
another machine fetched would only have to be carried over (5-20 us and a thread's wake-up each).  A machine sleeps in
its own poller.  A descriptor is registered, edge-triggered and for both directions at once, with the poller of each
machine whose goroutine has ever waited for it: one registration for its life, no system call for each wait.

No event is lost.  The kernel reports an edge once.  If nobody waits at that moment, the descriptor remembers it
(`readable`, `writable`), and the next wait returns at once, to try again.  Waiting and the arrival of an event exclude
each other by the descriptor's latch.  A remembered edge may be stale; that costs one more "would block".  The first
registration reports what is already there, so nothing can have been missed before it.

Closing.  `close` wakes everybody who waits, with an error, and takes the descriptor out of the pollers *before* its
number is given back to the system, so that an event for a new descriptor of the same number never finds the old one.
An event that was already fetched may still name the number: it finds the new Descriptor, and costs it one try.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from typing import Any

from . import wait
from .latch import contend
from .wait import Ticket, park, ready, waiter

READ, WRITE = 0, 1


class DescriptorClosed(OSError):
    """The descriptor was closed while somebody waited for it, or before."""

    def __init__(self) -> None:
        super().__init__(errno.EBADF, "the descriptor was closed while a goroutine waited for it")


class _Direction:
    """The waiters of one descriptor in one direction: the place where their tickets are."""

    __slots__ = ("edge", "latch", "name", "owner", "tickets")

    external = True  # what waits here may be woken from outside the program: see Scheduler.check_deadlock

    def __init__(self, owner: Descriptor, name: str) -> None:
        self.owner = owner
        self.name = name
        self.edge = False  # an event came while nobody waited
        self.tickets: list[Ticket] = []
        self.latch: list[None] = [None]

    def _lock(self) -> None:
        try:
            self.latch.pop()
        except IndexError:
            contend(self.latch)

    def withdraw(self, ticket: Ticket) -> bool:
        self._lock()
        alive = ticket[0] is not None
        if alive:
            ticket[0] = None
            self.tickets = [other for other in self.tickets if other is not ticket]
        self.latch.append(None)
        return alive

    def reason(self, _ticket: Ticket) -> str:
        return f"I/O: {self.name} of descriptor {self.owner.fd}"

    def fire(self) -> None:
        """An event: wake all who wait in this direction (they try, and one of them succeeds), or remember it."""
        self._lock()
        tickets, self.tickets = self.tickets, []
        woken = [ticket[0] for ticket in tickets]
        for ticket in tickets:
            ticket[0] = None
        if not tickets:
            self.edge = True
        self.latch.append(None)
        for w in woken:
            ready(w)


class Descriptor:
    """An open file descriptor that goroutines can wait for."""

    __slots__ = ("__weakref__", "closed", "fd", "pollers", "read", "write")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.closed = False
        self.pollers: list[Poller] = []
        self.read = _Direction(self, "read")
        self.write = _Direction(self, "write")

    def wait_read(self, timeout: float | None = None) -> None:
        """Park until the descriptor may be readable; return at once if it became so since the last wait.

        timeout is in seconds.  Raises TimeoutError, and DescriptorClosed when it is or gets closed.
        """
        self._wait(self.read, timeout)

    def wait_write(self, timeout: float | None = None) -> None:
        """Park until the descriptor may be writable.  See `wait_read`."""
        self._wait(self.write, timeout)

    def _wait(self, side: _Direction, timeout: float | None) -> None:
        w = waiter()
        if type(w) is wait.ThreadWaiter:
            self._wait_thread(side, timeout)
            return
        m = w.m
        poller = m.poller
        if poller is None:
            poller = m.poller = new_poller()
        if poller not in self.pollers:
            if self.closed:
                raise DescriptorClosed
            poller.add(self)
        side._lock()
        if self.closed or side.edge:
            closed, side.edge = self.closed, False
            side.latch.append(None)
            if closed:
                raise DescriptorClosed
            return
        ticket: Ticket = [w, None, side, None]
        side.tickets.append(ticket)
        side.latch.append(None)
        park(w, ticket, timeout, side.name)
        if self.closed:
            raise DescriptorClosed

    def _wait_thread(self, side: _Direction, timeout: float | None) -> None:
        """A plain thread waits by itself."""
        if self.closed:
            raise DescriptorClosed
        poll = select.poll()
        poll.register(self.fd, select.POLLIN if side is self.read else select.POLLOUT)
        if not poll.poll(None if timeout is None else max(0, int(timeout * 1000 + 0.999))):
            raise TimeoutError(f"{side.name} timed out after {timeout:g} s")
        if self.closed:
            raise DescriptorClosed

    def close(self) -> None:
        """Wake everybody who waits.  To be called *before* the file descriptor itself is closed; twice does no harm."""
        if self.closed:
            return
        self.closed = True
        for poller in list(self.pollers):
            poller.remove(self)
        self.read.fire()
        self.write.fire()


class Poller:
    """What a machine sleeps in once one of its goroutines has waited for I/O."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.descriptors: dict[int, Descriptor] = {}

    def add(self, descriptor: Descriptor) -> None:
        """Register; called by the poller's own machine."""
        fd = descriptor.fd
        with self.lock:
            old = self.descriptors.get(fd)
            self.descriptors[fd] = descriptor
            descriptor.pollers.append(self)
            try:
                self._register(fd)
            except OSError:
                descriptor.pollers.remove(self)
                del self.descriptors[fd]
                raise
        if old is not None and old is not descriptor:
            # The number was closed behind our back, by other code, and given out again.
            old.close()

    def remove(self, descriptor: Descriptor) -> None:
        """Unregister; from any thread."""
        with self.lock:
            if self.descriptors.get(descriptor.fd) is descriptor:
                del self.descriptors[descriptor.fd]
                try:
                    self._unregister(descriptor.fd)
                except (OSError, ValueError):
                    pass  # already closed by other code
        if self in descriptor.pollers:
            descriptor.pollers.remove(self)

    def _register(self, fd: int) -> None:
        raise NotImplementedError

    def _unregister(self, fd: int) -> None:
        raise NotImplementedError

    def fetch(self, timeout: float) -> list[Any]:
        """The events there are; wait for one up to so many seconds (0: do not, -1: without end)."""
        raise NotImplementedError

    def fire(self, events: list[Any]) -> None:
        """Make ready whoever waits for these events."""
        raise NotImplementedError

    def wake(self) -> None:
        """End a `fetch` that waits, or the next one.  From any thread and from signal handlers."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class EpollPoller(Poller):
    """Linux."""

    def __init__(self) -> None:
        super().__init__()
        self.epoll = select.epoll()
        self.event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.epoll.register(self.event, select.EPOLLIN | select.EPOLLET)
        self.flags = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

    def _register(self, fd: int) -> None:
        try:
            self.epoll.register(fd, self.flags)
        except FileExistsError:
            self.epoll.modify(fd, self.flags)

    def _unregister(self, fd: int) -> None:
        self.epoll.unregister(fd)

    def fetch(self, timeout: float) -> list[Any]:
        if timeout > 0:
            timeout = min(timeout, 2_000_000.0)  # the kernel counts milliseconds in an int
        return self.epoll.poll(timeout, 1024)

    def fire(self, events: list[Any]) -> None:
        for fd, bits in events:
            descriptor = self.descriptors.get(fd)
            if descriptor is None:
                continue  # our own wake-up (edge-triggered, so it need not be read), or just closed
            if bits & ~select.EPOLLOUT:
                descriptor.read.fire()
            if bits & ~(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI):
                descriptor.write.fire()

    def wake(self) -> None:
        os.eventfd_write(self.event, 1)

    def close(self) -> None:
        self.epoll.close()
        os.close(self.event)


class KqueuePoller(Poller):
    """macOS and the BSDs."""

    def __init__(self) -> None:
        super().__init__()
        self.kqueue = select.kqueue()  # type: ignore[attr-defined]
        self.waker, self.bell = os.pipe()
        os.set_blocking(self.waker, False)
        os.set_blocking(self.bell, False)
        self._control(self.waker, (select.KQ_FILTER_READ,), select.KQ_EV_ADD | select.KQ_EV_CLEAR)  # type: ignore[attr-defined]

    def _control(self, fd: int, filters: tuple[int, ...], flags: int) -> None:
        changes = [select.kevent(fd, filter_, flags) for filter_ in filters]  # type: ignore[attr-defined]
        self.kqueue.control(changes, 0, 0)

    def _register(self, fd: int) -> None:
        both = (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE)  # type: ignore[attr-defined]
        self._control(fd, both, select.KQ_EV_ADD | select.KQ_EV_CLEAR)  # type: ignore[attr-defined]

    def _unregister(self, fd: int) -> None:
        both = (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE)  # type: ignore[attr-defined]
        self._control(fd, both, select.KQ_EV_DELETE)  # type: ignore[attr-defined]

    def fetch(self, timeout: float) -> list[Any]:
        return self.kqueue.control(None, 1024, None if timeout < 0 else timeout)

    def fire(self, events: list[Any]) -> None:
        for event in events:
            if event.ident == self.waker:
                try:
                    while os.read(self.waker, 4096):
                        pass
                except BlockingIOError:
                    pass
                continue
            descriptor = self.descriptors.get(event.ident)
            if descriptor is None:
                continue
            if event.filter == select.KQ_FILTER_READ:  # type: ignore[attr-defined]
                descriptor.read.fire()
            else:
                descriptor.write.fire()

    def wake(self) -> None:
        try:
            os.write(self.bell, b"x")
        except BlockingIOError:
            pass  # it is full of wake-ups already

    def close(self) -> None:
        self.kqueue.close()
        os.close(self.waker)
        os.close(self.bell)


def new_poller() -> Poller:
    """The system's best."""
    if hasattr(select, "epoll"):
        return EpollPoller()
    if hasattr(select, "kqueue"):
        return KqueuePoller()
    raise OSError("gort needs epoll (Linux) or kqueue (macOS, BSD) to wait for I/O")
