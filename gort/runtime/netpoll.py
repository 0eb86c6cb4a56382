"""The network poller: a goroutine that waits for I/O holds no thread.

The idea.  A `Descriptor` stands for one open file descriptor, for as long as it is open.  Whoever meets "would block"
on it parks in `wait_read` or `wait_write`; when the kernel says that the descriptor has become readable or writable,
the goroutine is ready again and tries once more.

One poller for each machine, not one for all as in Go: a started goroutine is pinned to its machine, so an event that
another machine fetched would only have to be carried over (5-20 us and a thread's wake-up each).  A machine sleeps in
its own poller (poller.py).  A descriptor is registered, edge-triggered and for both directions at once, with the
poller of each machine whose goroutine has ever waited for it: one registration for its life, no system call for each
wait.

No event is lost.  The kernel reports an edge once.  If nobody waits at that moment, the descriptor's direction
remembers it (`edge`), and the next wait returns at once, to try again.  Waiting and the arrival of an event exclude
each other by the direction's latch.  A remembered edge may be stale; that costs one more "would block".  The first
registration reports what is already there, so nothing can have been missed before it.  An event wakes all who wait in
its direction, for it may stand for more than one of them can take; all try, and who fails waits again.

Deadlines belong to a direction, as in Go: set once, they hold for every wait until they are moved.  A wait with a
deadline needs a timer, but one timer for a direction, and a later deadline leaves it where it is: when it rings too
early it is planned anew.  So a program that moves the deadline before each read pays for a store, not for a timer.
A write that must read first (TLS) waits among the readers without minding their deadline: `wait_across`.

Closing.  `close` wakes everybody who waits, with an error, and takes the descriptor out of the pollers *before* its
number is given back to the system, so that an event for a new descriptor of the same number never finds the old one.
An event that was already fetched may still name the number: it finds the new Descriptor, and costs it one try.
If other code closed the number behind our back, the kernel tells nobody; the waiters' deadlines hold, `close` still
wakes them, and so does the first wait for a new Descriptor of that number.

What a wake-up means is written into the ticket: None, "try again", or the error to raise (closed, deadline).
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections import deque
from math import ceil, inf
from time import monotonic
from typing import Any

from ..errors import GortError
from . import wait
from .latch import contend
from .poller import Poller, new_poller
from .sleep import sleep
from .timers import check_seconds, deadline
from .wait import Ticket, park, ready, waiter

NONE_LEFT = (errno.EMFILE, errno.ENFILE)  # the process, or the system, has no descriptor left


class DescriptorClosed(GortError, OSError):
    """The descriptor was closed while somebody waited for it, or before.  Its errno is EBADF."""

    def __init__(self, fd: int = -1) -> None:
        super().__init__(errno.EBADF, f"descriptor {fd} is closed: it was closed by its owner, before this wait or during it")


class Direction:
    """The waiters of one descriptor in one direction: the place where their tickets are.

    `first` and `others` are the tickets that wait; others is None while there is at most one.  A fifth item marks a
    ticket that does not mind the deadline.  All but `edge` and `deadline` are read and changed under `latch`.
    """

    __slots__ = ("alarm", "carrier", "deadline", "edge", "first", "hup", "latch", "name", "others", "owner", "ticket")

    external = True  # what waits here may be woken from outside the program: see deadlock.py

    def __init__(self, owner: Descriptor, name: str) -> None:
        self.owner = owner
        self.name = name
        self.edge = False  # an event came while nobody waited
        self.hup = False  # the peer has ended its side, or something else is not as usual: see net/conn.py
        self.first: Ticket | None = None
        self.others: list[Ticket] | None = None
        self.latch: list[None] = [None]
        self.deadline: float | None = None
        self.alarm: list[Any] | None = None  # the timer's entry: [self or None, sched, heap, when]
        # The carrier that may take the short way of waiting (Descriptor.wait_read): it has waited here before, so its
        # machine's poller knows us, and there is no deadline, and we are not closed.
        self.carrier: Any = None
        # And the ticket it uses there, again and again.  Nobody can mistake one wait for the next: such a wait has no
        # timer, and who claims the ticket is done with it before the waiter can run.
        self.ticket: Ticket = [None, None, self, None]

    def lock(self) -> None:
        try:
            self.latch.pop()
        except IndexError:
            contend(self.latch)

    def publish(self, ticket: Ticket) -> None:
        """Have the ticket wait.  Under the latch."""
        if self.first is None:
            self.first = ticket
        elif self.others is None:
            self.others = [ticket]
        else:
            self.others.append(ticket)

    def withdraw(self, ticket: Ticket) -> bool:
        self.lock()
        alive = ticket[0] is not None
        if alive:
            ticket[0] = None
            others = self.others
            if ticket is self.first:
                self.first = others.pop(0) if others else None
            elif others is not None and ticket in others:  # else it was never published: see _wait_thread
                others.remove(ticket)
            if not others:
                self.others = None
        self.latch.append(None)
        return alive

    def reason(self, _ticket: Ticket) -> str:
        return f"I/O: {self.name} of descriptor {self.owner.fd}"

    def _claim(self, across: bool) -> list[tuple[Any, Ticket]]:
        """Claim the tickets that wait, with those of `wait_across` or without.  Under the latch."""
        tickets = [] if self.first is None else [self.first, *(self.others or ())]
        self.first = self.others = None
        if not across:
            for ticket in tickets:
                if len(ticket) > 4:
                    self.publish(ticket)
            tickets = [ticket for ticket in tickets if len(ticket) == 4]
        claimed = [(ticket[0], ticket) for ticket in tickets]
        for ticket in tickets:
            ticket[0] = None
        return claimed

    def fire(self) -> None:
        """An event: wake all who wait in this direction, or remember it."""
        self.lock()
        claimed = self._claim(True)
        if not claimed:
            self.edge = True
        self.latch.append(None)
        for w, _ticket in claimed:
            ready(w)

    def fail(self, error: Any, across: bool) -> None:
        """Wake all who wait (across: also in `wait_across`) with error() for each."""
        self.lock()
        claimed = self._claim(across)
        self.latch.append(None)
        for w, ticket in claimed:
            ticket[1] = error()
            ready(w)

    # -- deadlines ----------------------------------------------------------------------------------------------

    def set_deadline(self, when: float | None) -> None:
        self.lock()
        before, self.deadline = self.deadline, when
        self.carrier = None
        waits = self.first is not None
        self.latch.append(None)
        if when is None:
            self.disarm()
        elif waits and (before is None or when < before):
            # They wait too long: have them try again, and wait anew.  With a later deadline the timer sees to it.
            self.fail(self.late if monotonic() >= when else lambda: None, False)

    def late(self) -> TimeoutError:
        return wait.late(f"{self.name} of descriptor {self.owner.fd}: its deadline is over")

    def arm(self, sched: Any) -> None:
        """See to it that a timer of this scheduler rings at the deadline or before.

        Two threads may do so at once; then there are two timers, and one rings for nothing.
        """
        when = self.deadline
        alarm = self.alarm
        if when is None or when == inf:
            return
        if alarm is not None and alarm[0] is self and alarm[1] is sched and alarm[3] <= when:
            return
        self.disarm()
        self.alarm = entry = [self, sched, None, when]
        sched.add_timer(when, entry, _ring)

    def disarm(self) -> None:
        alarm, self.alarm = self.alarm, None
        if alarm is not None and alarm[0] is not None:
            alarm[0] = None
            if alarm[2] is not None:
                alarm[2].dead += 1


def _ring(entry: list[Any]) -> None:
    """A direction's timer, in the hub: the deadline is over, or was moved since the timer was planned."""
    side = entry[0]
    if side is None:
        return
    entry[0] = None
    when = side.deadline
    if when is None:
        return
    if monotonic() >= when:
        side.fail(side.late, False)
    elif side.first is not None:
        side.arm(entry[1])


def take_error(ticket: Ticket) -> BaseException:
    """The error in a ticket.  It is taken out, for a frame that keeps its own exception is a cycle for the collector."""
    ticket[1], error = None, ticket[1]
    return error


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
        if side.deadline is not None and not across and monotonic() >= side.deadline:
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
                poller = m.poller = new_poller()
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
                side.carrier = w
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
        left = inf if side.deadline is None or across else side.deadline - monotonic()
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
                    until = min(limit, inf if side.deadline is None or across else side.deadline)
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
            side.first = side.others = side.alarm = side.carrier = None
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
            side.carrier = None
            side.latch.append(None)
            side.disarm()
            side.fail(lambda: DescriptorClosed(self.fd), True)

    def __repr__(self) -> str:
        return f"<Descriptor {self.fd}{' closed' if self.closed else ''}>"


class Bell:
    """The waiter of a plain thread: like a carrier for those who wake it; behind it a pipe that the thread polls."""

    __slots__ = ("pipe", "throws", "woken")

    asleep = False

    def __init__(self) -> None:
        self.pipe = (-1, -1)
        self.pipe = os.pipe()
        self.throws: deque[tuple[Any, BaseException]] = deque()
        self.woken = False

    @property
    def ready(self) -> Bell:
        return self

    @property
    def m(self) -> Bell:
        return self

    def append(self, _item: Any) -> None:
        if self.pipe[1] >= 0:  # else a signal handler has raised while the thread took its ticket back
            os.write(self.pipe[1], b"x")
        self.woken = True

    def wait(self, fd: int, what: int, until: float) -> bool:
        """Wait for the descriptor or the bell; was it the descriptor?"""
        poll = select.poll()
        poll.register(fd, what)
        poll.register(self.pipe[0], select.POLLIN)
        left = max(0.0, until - monotonic())
        events = poll.poll(None if left == inf else min(ceil(left * 1000), 2**31 - 1))
        return any(number == fd for number, _bits in events)

    def rest(self) -> None:
        os.read(self.pipe[0], 1)  # blocks until it has been rung
        while not self.woken:  # and until the one who rang no longer needs the pipe
            time.sleep(0)

    def close(self) -> None:
        (read, write), self.pipe = self.pipe, (-1, -1)
        if read >= 0:
            os.close(read)
            os.close(write)

    __del__ = close  # a signal handler may have raised as soon as it was made
