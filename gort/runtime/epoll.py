"""epoll: what a machine sleeps in on Linux.

`wake` has the kernel report an eventfd once more that is always readable: to modify an edge-triggered registration is
an event of its own.  (Where there is no eventfd a pipe is written to.)  That costs what a write costs, and unlike a write
it does no harm to whoever has got the number meanwhile, but fails, and so we learn of it.  It must not be done after
`close`: hence the lock, which is re-entrant because signal handlers wake machines too.

Numbers closed by other code (poller.py).  If both are gone, and the thread sleeps in them (`os.closerange` in another
thread), nothing can wake it but I/O; that is said on stderr.  If the epoll's number has become *another epoll's*, only the
next wake-up from another thread shows it.

`EpollPoller.fire` is a server's hot path, and delivers the common events (one reader waits, in the seat or without it:
direction.py) without a call: 0.25 us where Direction.fire takes 0.6.  tests/test_netpoll.py holds the two to the same
behaviour.
"""

from __future__ import annotations

import os
import select
import stat
from typing import Any

from .latch import contend
from .poller import GONE, MOST, Poller, poll_gone, strays


def _is_ours(fd: int) -> bool:
    """May this number still be an epoll or eventfd, as far as one can tell?  It certainly is no file, pipe or socket."""
    try:
        return not stat.S_IFMT(os.fstat(fd).st_mode)
    except OSError:
        return False


class EpollPoller(Poller):
    """Linux."""

    def __init__(self, ready: Any = None) -> None:
        super().__init__(ready)
        # Priority data too, though nobody here reads any: it ends a read early, see net/conn.py.
        self.flags = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLPRI | select.EPOLLET
        self.ring = select.EPOLLIN | select.EPOLLET
        self.makeshift: int | None = None  # an eventfd that is only used until `_reopen`
        self._open()

    def _open(self) -> None:
        epoll = select.epoll()
        try:
            event = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                epoll.register(event, self.ring)
                epoll.poll(0)  # the event that it is readable now
            except BaseException:
                os.close(event)
                raise
        except BaseException:
            epoll.close()
            raise
        self.epoll, self.event, self.poll = epoll, event, epoll.poll

    def _numbers(self) -> tuple[int, ...]:
        return self.epoll.fileno(), self.event

    def _reopen(self) -> None:
        old = self.epoll
        self._open()
        strays.append(old)
        self._drop_makeshift()

    def _drop_makeshift(self) -> None:
        if self.makeshift is not None:
            if _is_ours(self.makeshift):
                os.close(self.makeshift)
            self.makeshift = None

    def _register(self, fd: int) -> None:
        try:
            self.epoll.register(fd, self.flags)
        except FileExistsError:
            self.epoll.modify(fd, self.flags)

    def _touch(self) -> None:
        self.epoll.modify(self.event, self.ring)

    def _unregister(self, fd: int) -> None:
        self.epoll.unregister(fd)

    def fetch(self, timeout: float) -> list[Any]:
        if timeout > 2e6:  # the kernel counts milliseconds in an int
            timeout = 2e6
        try:
            return self.poll(timeout, MOST)
        except OSError as exc:
            if exc.errno not in GONE:
                raise
        return self._fetch_anew(timeout)

    def fire(
        self,
        events: list[Any],
        both: int = select.EPOLLIN | select.EPOLLOUT,
        readable: int = ~select.EPOLLOUT,
        writable: int = ~(select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLPRI),
        special: int = ~(select.EPOLLIN | select.EPOLLOUT),
    ) -> None:
        descriptors = self.descriptors
        mine = self.ready
        for fd, bits in events:
            try:
                descriptor = descriptors[fd]
            except KeyError:
                self._drain(fd)  # a bell, or our own wake-up, or one that was closed just now
                continue
            side = descriptor.read
            if bits != both:  # else: there are data, and it is writable, as ever
                if not bits & readable:
                    descriptor.write.fire()
                    continue
                if bits & special:
                    side.hup = True
            seat = side.seat
            if seat:
                try:
                    w = seat.pop()
                except IndexError:
                    side.fire()
                except BaseException:  # a signal handler has raised, behind the `pop`
                    side.seat_again(seat)
                    raise
                else:
                    queue = w.ready
                    queue.append(w)
                    if queue is not mine and w.m.asleep:
                        w.m.wake()
                    if side.first is not None or side.seat:
                        side.fire()
            else:
                latch = side.latch
                try:
                    latch.pop()
                except IndexError:
                    contend(latch)
                ticket = side.first
                if ticket is not None and side.others is None:
                    w = ticket[0]
                    side.first = ticket[0] = None
                    latch.append(None)
                    w.ready.append(w)
                    if w.m.asleep:
                        w.m.wake()
                else:
                    latch.append(None)
                    side.fire()
            # Without the latch: a remembered edge that is still there now is consumed after this event, by one who
            # then tries.  So the usual "and it is writable" of each event costs 20 ns.
            if not descriptor.write.edge and bits & writable:
                descriptor.write.fire()
        if self.lost:
            self.fire_all()

    def _ring(self) -> None:
        try:
            self._touch()  # the event is readable, and so is reported once more
        except OSError:
            self._ring_anew()

    def _ring_anew(self) -> None:
        """One of our numbers is gone, or somebody else's: wake the machine all the same.  Under the lock."""
        self.poll = poll_gone  # first, so that it finds that when it has come
        rung = False
        if _is_ours(self.event):  # then the epoll's has been closed, and a thread that sleeps in it still hears the event
            try:
                os.eventfd_write(self.event, 1)
                rung = True
            except OSError:
                pass
        if not rung or _is_ours(self.epoll.fileno()):  # the event's number, or both are somebody else's
            try:
                event = os.eventfd(1, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
                try:
                    self.epoll.register(event, self.ring)
                    self._drop_makeshift()
                    self.event = self.makeshift = event
                    rung = True
                except OSError:
                    os.close(event)
            except OSError:
                pass
        if not rung:
            self._cannot_wake(f"{self.epoll.fileno()} and {self.event}")

    def _close(self) -> None:
        if _is_ours(self.epoll.fileno()):
            self.epoll.close()
        else:
            strays.append(self.epoll)
        if _is_ours(self.event):
            os.close(self.event)
