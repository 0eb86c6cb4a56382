"""The network poller: a goroutine that waits for I/O holds no thread.

The idea.  A `Descriptor` stands for one open file descriptor, for as long as it is open.  Whoever meets "would block"
on it parks in `wait_read` or `wait_write`; when the kernel says that the descriptor has become readable or writable,
the goroutine is ready again and tries once more.

One poller for each machine, not one for all as in Go: a started goroutine is pinned to its machine, so an event that
another machine fetched would only have to be carried over (5-20 us and a thread's wake-up each).  A machine sleeps in
its own poller (poller.py).  A descriptor is registered, edge-triggered and for both directions at once, with the
poller of each machine whose goroutine has ever waited for it: one registration for its life, no system call for each
wait.

Who waits, and for how long, is a matter of each direction by itself: direction.py.  A plain thread, which has no poller,
waits beside a bell: bell.py.

Closing.  `close` wakes everybody who waits, with an error, and takes the descriptor out of the pollers *before* its
number is given back to the system, so that an event for a new descriptor of the same number never finds the old one.
An event that was already fetched may still name the number: it finds the new Descriptor, and costs it one try.
If other code closed the number behind our back, the kernel tells nobody; the waiters' deadlines hold, `close` still
wakes them, and so does the first wait for a new Descriptor of that number.
"""

from __future__ import annotations

import errno
import select
from math import inf
from time import monotonic
from typing import Any

from ..errors import GortError
from . import wait
from .bell import Bell
from .direction import Direction, take_error
from .poller import Poller
from .sleep import sleep
from .timers import check_seconds, deadline
from .wait import Ticket, park, waiter

_Best: type[Poller] | None = None
if hasattr(select, "epoll"):
    from .epoll import EpollPoller

    _Best = EpollPoller
elif hasattr(select, "kqueue"):
    from .kqueue import KqueuePoller

    _Best = KqueuePoller

NONE_LEFT = (errno.EMFILE, errno.ENFILE)  # the process, or the system, has no descriptor left


def new_poller(ready: Any = None) -> Poller:
    """The system's best.  ready: the queue of the machine that is to sleep in it."""
    if _Best is None:
        raise OSError("gort needs epoll (Linux) or kqueue (macOS, BSD) to wait for I/O")
    return _Best(ready)


class DescriptorClosed(GortError, OSError):
    """The descriptor was closed while somebody waited for it, or before.  Its errno is EBADF."""

    def __init__(self, fd: int = -1) -> None:
        super().__init__(errno.EBADF, f"descriptor {fd} is closed: it was closed by its owner, before this wait or during it")


class Descriptor:
    """An open file descriptor that goroutines can wait for: a socket, pipe, terminal, eventfd, whatever the system polls.

    fd is its number, or something with `fileno()`.  Use it so:

    1. The descriptor must be non-blocking (``os.set_blocking(fd, False)``, ``sock.setblocking(False)``).
    2. Make one Descriptor for it, and keep that as long as the descriptor is open.
    3. *First try* the operation; only when it "would block" call `wait_read` or `wait_write`, *then try again*::

           while True:
               try:
                   return sock.recv(n)
               except BlockingIOError:
                   descriptor.wait_read(timeout)

       A wait may return although the operation still would block (an event that was meant for what another has read
       meanwhile): hence the loop.  A wait without a try before it may never return, for readiness is reported when
       it begins, not while it lasts.
    4. `close` it *before* the descriptor itself is closed: that wakes whoever waits.

    Any number of goroutines, of any machine, and plain threads may wait, in both directions.  Nothing is registered
    with the system before the first wait.
    """

    __slots__ = ("__weakref__", "closed", "fd", "pollers", "read", "write")

    def __init__(self, fd: Any) -> None:
        if not isinstance(fd, int):
            try:
                fd = fd.fileno()
            except AttributeError:
                raise TypeError(
                    f"fd must be a file descriptor's number or have fileno(), not {type(fd).__name__}"
                ) from None
        if fd < 0:
            raise ValueError(f"fd must be the number of an open file descriptor, not {fd}: is it closed already?")
        self.fd: int = fd
        self.closed = False
        self.pollers: list[Poller] = []
        self.read = Direction(self, "read")
        self.write = Direction(self, "write")

    def wait_read(self, timeout: float | None = None) -> None:
        """Park until the descriptor may be readable; return at once if it became so since the last wait.

        timeout is in seconds, None: for ever.  Raises TimeoutError when it or the read deadline is over first,
        DescriptorClosed when it is or gets closed, PermissionError for a file that cannot be waited for.
        """
        self._wait(self.read, timeout)

    def wait_write(self, timeout: float | None = None) -> None:
        """Park until the descriptor may be writable.  See `wait_read`."""
        self._wait(self.write, timeout)

    def wait_across(self, side: Direction, timeout: float | None = None) -> None:
        """Wait in the direction `read` or `write` for an operation of the other, which does not mind its deadline."""
        self._wait(side, timeout, True)

    def set_deadline(self, when: float | None, read: bool = True, write: bool = True) -> None:
        """Let every wait that is not over at `when` (of ``time.monotonic()``), and those to come, fail with TimeoutError.

        None: no deadline.  It holds until it is set anew.  Only waits look at it: who tries first and must fail after
        the deadline even with data ready asks `check_deadline` before.  Go: SetDeadline.
        """
        if when is not None:
            when = check_seconds(when, "when")
        if read:
            self.read.set_deadline(when)
        if write:
            self.write.set_deadline(when)

    def check_deadline(self, side: Direction, across: bool = False) -> None:
        """Raise TimeoutError if the deadline of `read` or `write` is over, DescriptorClosed if it is closed.

        across: as in `wait_across`, the deadline does not matter.
        """
        if self.closed:
            raise DescriptorClosed(self.fd)
        when = side.deadline  # read once: another thread may take it back meanwhile
        if when is not None and not across and monotonic() >= when:
            raise side.late()

    def _wait(self, side: Direction, timeout: float | None, across: bool = False) -> None:
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        w = waiter()
        if type(w) is wait.ThreadWaiter:
            self._wait_thread(side, timeout, across, w.owner)
            return
        m = w.m
        poller = m.poller
        if poller is None:
            try:
                poller = m.poller = new_poller(m.ready)
            except OSError as exc:
                if exc.errno not in NONE_LEFT:
                    raise
            if poller is None:  # no descriptor left for that: have the caller try again in a moment
                self._pause(side, timeout, across)
                return
        if poller not in self.pollers:
            if self.closed:
                raise DescriptorClosed(self.fd)
            poller.add(self)
        if side.deadline is not None or self.closed:
            self.check_deadline(side, across)
        elif side.carrier is not w and hasattr(w, "carries"):
            side.lock()
            if not self.closed and side.deadline is None:
                side.appoint(w)
            side.latch.append(None)
        side.lock()
        if self.closed or side.edge:
            side.edge = False
            side.latch.append(None)
            if self.closed:
                raise DescriptorClosed(self.fd)
            return
        if timeout is not None and timeout <= 0:
            side.latch.append(None)
            raise wait.late(f"{side.name} of descriptor {self.fd} would block, and timeout={timeout:g}")
        ticket: Ticket = [w, None, side, None, None] if across else [w, None, side, None]
        side.publish(ticket)
        side.latch.append(None)
        if side.deadline is not None and not across:
            side.arm(m.sched)
        park(w, ticket, timeout, side.name)
        if ticket[1] is not None:
            raise take_error(ticket)

    def _pause(self, side: Direction, timeout: float | None, across: bool) -> None:
        self.check_deadline(side, across)
        if timeout is not None and timeout <= 0:
            raise wait.late(f"{side.name} of descriptor {self.fd} would block, and timeout={timeout:g}")
        when = side.deadline
        left = inf if when is None or across else when - monotonic()
        sleep(max(0.0, min(0.01, left, inf if timeout is None else timeout)))

    def _wait_thread(self, side: Direction, timeout: float | None, across: bool, owner: Any) -> None:
        """A plain thread waits by itself, beside a bell with which others can end its wait (owner: see plain.py)."""
        limit = inf if timeout is None else deadline(timeout)
        while True:
            self.check_deadline(side, across)
            try:
                bell = Bell()
            except OSError as exc:
                if exc.errno not in NONE_LEFT:
                    raise
                bell = None
            if bell is None:  # no descriptor left for that: as a goroutine does
                self._pause(side, timeout, across)
                return
            ticket: Ticket = [bell, None, side, None, None] if across else [bell, None, side, None]
            outer, waits = None, False
            try:
                try:
                    side.lock()
                    closed, edge = self.closed, side.edge
                    side.edge = False
                    if not closed and not edge:
                        side.publish(ticket)
                    side.latch.append(None)
                    if closed:
                        raise DescriptorClosed(self.fd)
                    if edge:
                        return
                    if owner is not None:
                        outer, waits = owner.waits(bell, ticket), True
                    when = side.deadline
                    until = min(limit, inf if when is None or across else when)
                    came = bell.wait(self.fd, select.POLLIN if side is self.read else select.POLLOUT, until)
                finally:  # a signal handler may have raised at any point of this
                    if not side.withdraw(ticket):
                        bell.rest()  # somebody has claimed it, and is about to ring
                        came = True
                if bell.throws:
                    raise bell.throws.popleft()[1]
            finally:
                if waits:
                    owner.goes_on(bell, outer)
                bell.close()
            if ticket[1] is not None:
                raise take_error(ticket)
            if came:
                return
            if monotonic() >= limit:
                raise wait.late(f"{side.name} of descriptor {self.fd} timed out after {timeout:g} s")

    def forget(self) -> None:
        """In the child of a fork, the parent's poller being closed: who waits here does so in the parent."""
        self.pollers.clear()
        for side in (self.read, self.write):
            side.first = side.others = side.alarm = side.carrier = side.seat = None
            side.latch = [None]

    def close(self) -> None:
        """Wake everybody who waits.  To be called *before* the file descriptor itself is closed; twice does no harm."""
        if self.closed:
            return
        self.closed = True
        for poller in list(self.pollers):
            poller.remove(self)
        for side in (self.read, self.write):
            side.lock()
            side.dismiss()
            side.latch.append(None)
            side.disarm()
            side.fail(lambda: DescriptorClosed(self.fd), True)

    def __repr__(self) -> str:
        return f"<Descriptor {self.fd}{' closed' if self.closed else ''}>"
