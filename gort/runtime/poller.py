"""What a machine sleeps in once one of its goroutines has waited for I/O: epoll on Linux, kqueue on macOS and the BSDs.

A poller belongs to one machine.  That machine's thread alone fetches events and adds descriptors; any thread may
remove one, or wake the machine.  `fetch` and `fire` are two steps, because the machine must say that it is awake
between them (Machine.doze), or those who are made ready here would wake it once more.

Events are fetched and then delivered, and each is reported once.  If a signal handler of the program's own raises in
between, events are lost; then (`lost`) the next `fire` treats every descriptor as if it had become ready, which costs
each waiter one try and loses nothing.

`wake` has the kernel report an eventfd once more that is always readable: to modify an edge-triggered registration is
an event of its own.  (Where there is no eventfd a pipe is written to.)  That costs what a write costs, and unlike a write
it does no harm to whoever has got the number meanwhile, but fails, and so we learn of it.  It must not be done after
`close`: hence the lock, which is re-entrant because signal handlers wake machines too.

Numbers closed by other code.  Who closes a number twice may close ours.  An epoll that a thread sleeps in goes on until
that sleep ends, so: whoever finds a number gone rings with what is left (`_ring_anew`), and the machine's next fetch makes
a new pair, registers every descriptor with it, and treats all as ready (`_renew`).  What is left of the old pair stays
open, for it may be somebody else's by now.  If both are gone, and the thread sleeps in them (`os.closerange` in another
thread), nothing can wake it but I/O; that is said on stderr.  If the epoll's number has become *another epoll's*, only the
next wake-up from another thread shows it.

`EpollPoller.fire` is a server's hot path, and delivers the common events (one reader waits, in the seat or without it:
direction.py) without a call: 0.25 us where Direction.fire takes 0.6.  tests/test_netpoll.py holds the two to the same behaviour.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import threading
import time
from typing import Any

from .latch import contend

MOST = 1024  # events fetched at a time
PAUSE = 0.01  # seconds between two tries to make a new poller, when there is no descriptor for it

_GONE = (errno.EBADF, errno.EINVAL)  # what a call says of a number that has been closed, or is now something else's
_strays: list[Any] = []  # objects whose number may be somebody else's: to drop one would close that


def _is_ours(fd: int) -> bool:
    """May this number still be an epoll or eventfd, as far as one can tell?  It certainly is no file, pipe or socket."""
    try:
        return not stat.S_IFMT(os.fstat(fd).st_mode)
    except OSError:
        return False


class Poller:
    """The common part."""

    def __init__(self, ready: Any = None) -> None:
        self.ready = ready  # its machine's: who is put there need wake nobody, for the machine is here
        self.lock = threading.RLock()
        self.closed = False
        self.lost = False  # events were fetched, and an exception came before they were delivered
        self.descriptors: dict[int, Any] = {}
        self.bells: set[int] = set()
        self.told = False

    def add(self, descriptor: Any) -> None:
        """Register; called by the poller's own machine.  Raises DescriptorClosed if it is closed meanwhile."""
        fd = descriptor.fd
        with self.lock:
            old = self.descriptors.get(fd)
            self.descriptors[fd] = descriptor
            descriptor.pollers.append(self)
            try:
                self._register(fd)
            except BaseException as exc:
                descriptor.pollers.remove(self)
                del self.descriptors[fd]
                if isinstance(exc, PermissionError):
                    raise PermissionError(
                        errno.EPERM,
                        f"descriptor {fd} is a regular file or a directory, which is always ready and cannot be waited for: "
                        "read it through gort.open or gort.blocking",
                    ) from None
                raise
        if old is not None and old is not descriptor:
            # The number was closed behind our back, by other code, and given out again.
            old.close()
        if descriptor.closed:  # by another thread, which may have looked at `pollers` before we were in there
            self.remove(descriptor)

    def remove(self, descriptor: Any) -> None:
        """Unregister; from any thread."""
        with self.lock:
            if self.descriptors.get(descriptor.fd) is descriptor:
                del self.descriptors[descriptor.fd]
                try:
                    self._unregister(descriptor.fd)
                except (OSError, ValueError):
                    pass  # already closed by other code, or the poller is
            if self in descriptor.pollers:
                descriptor.pollers.remove(self)

    def add_bell(self, fd: int) -> None:
        """End a `fetch` whenever something is written to this pipe; it is read and thrown away."""
        self.bells.add(fd)
        self._register(fd)

    def _drain(self, fd: int) -> None:
        if fd in self.bells:
            try:
                while len(os.read(fd, 4096)) == 4096:
                    pass
            except OSError:
                pass  # empty, or closed by now

    def fire_all(self) -> None:
        """Treat every descriptor as ready."""
        self.lost = False
        for fd in self.bells:
            self._drain(fd)
        for descriptor in list(self.descriptors.values()):
            descriptor.read.hup = True  # nothing is known about it any more
            descriptor.read.fire()
            descriptor.write.fire()

    def close(self) -> None:
        """The machine ends."""
        with self.lock:
            self.closed = True
            descriptors = list(self.descriptors.values())
            self.descriptors.clear()
            for descriptor in descriptors:
                if self in descriptor.pollers:
                    descriptor.pollers.remove(self)
            self._close()

    def wake(self) -> None:
        """End a `fetch` that waits, or the next one.  From any thread and from signal handlers."""
        with self.lock:
            if not self.closed:
                self._ring()

    def fetch(self, timeout: float) -> list[Any]:
        """The events there are; wait for one up to so many seconds (0: do not, -1: without end)."""
        raise NotImplementedError

    def _renew(self) -> list[Any]:
        """Other code has closed our numbers: get new ones.  By the poller's own machine."""
        self.lost = True
        try:
            with self.lock:
                self._reopen()
                for fd in (*self.bells, *self.descriptors):
                    try:
                        self._register(fd)
                    except OSError:
                        pass  # closed too: who uses it is told so when it tries
        except OSError:
            time.sleep(PAUSE)  # no descriptor left: the next fetch tries again
        return []

    def _cannot_wake(self, fds: str) -> None:
        if not self.told:
            self.told = True
            try:
                sys.stderr.write(
                    f"gort: other code has closed descriptors {fds}, in which a thread of gort's waits for I/O and for being "
                    "woken; its goroutines may hang: look for os.close() or os.closerange() of numbers that are not the "
                    "caller's own, or closed twice\n"
                )
            except Exception:
                pass  # there is no stderr any more

    def _reopen(self) -> None:
        raise NotImplementedError

    def fire(self, events: list[Any]) -> None:
        """Make ready whoever waits for these events."""
        raise NotImplementedError

    def _register(self, fd: int) -> None:
        raise NotImplementedError

    def _unregister(self, fd: int) -> None:
        raise NotImplementedError

    def _ring(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError


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

    def _reopen(self) -> None:
        old = self.epoll
        self._open()
        _strays.append(old)
        self._drop_makeshift()

    def _drop_makeshift(self) -> None:
        if self.makeshift is not None:
            os.close(self.makeshift)
            self.makeshift = None

    def _register(self, fd: int) -> None:
        try:
            self.epoll.register(fd, self.flags)
        except FileExistsError:
            self.epoll.modify(fd, self.flags)
        except OSError as exc:
            if exc.errno not in _GONE or not self._is_gone(fd):
                raise
            self._renew()
            try:
                self.epoll.register(fd, self.flags)
            except FileExistsError:
                pass  # `_renew` has done it

    def _is_gone(self, fd: int) -> bool:
        """A call with our number and fd has failed: because of ours?"""
        try:
            os.fstat(fd)
        except OSError:
            return False
        try:
            self.epoll.modify(self.event, self.ring)
            return False
        except OSError:
            return True

    def _unregister(self, fd: int) -> None:
        self.epoll.unregister(fd)

    def fetch(self, timeout: float) -> list[Any]:
        if timeout > 2e6:  # the kernel counts milliseconds in an int
            timeout = 2e6
        try:
            return self.poll(timeout, MOST)
        except OSError as exc:
            if exc.errno not in _GONE:
                raise
        return self._renew()

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
            self.epoll.modify(self.event, self.ring)
        except OSError:
            self._ring_anew()

    def _ring_anew(self) -> None:
        """One of our numbers is gone, or somebody else's: wake the machine all the same.  Under the lock."""
        self.poll = _poll_gone  # first, so that it finds that when it has come
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
            _strays.append(self.epoll)
        if _is_ours(self.event):
            os.close(self.event)


def _poll_gone(timeout: float, most: int) -> list[Any]:
    raise OSError(errno.EBADF, "the poller's descriptors were closed by other code")


class KqueuePoller(Poller):
    """macOS and the BSDs."""

    def __init__(self, ready: Any = None) -> None:
        super().__init__(ready)
        self._open()

    def _open(self) -> None:
        kqueue = select.kqueue()  # type: ignore[attr-defined]
        try:
            self.waker, self.bell = os.pipe()
        except BaseException:
            kqueue.close()
            raise
        self.kqueue = kqueue
        os.set_blocking(self.waker, False)
        os.set_blocking(self.bell, False)
        self._control(self.waker, select.KQ_FILTER_READ, select.KQ_EV_ADD | select.KQ_EV_CLEAR)  # type: ignore[attr-defined]
        self.bells.add(self.waker)

    def _reopen(self) -> None:
        old, waker = self.kqueue, self.waker
        self._open()
        self.bells.discard(waker)
        _strays.append(old)

    def _control(self, fd: int, filter_: int, flags: int) -> None:
        self.kqueue.control([select.kevent(fd, filter_, flags)], 0, 0)  # type: ignore[attr-defined]

    def _register(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # kqueue would take it, and be silent at the end of the file
            raise PermissionError(errno.EPERM, "a regular file or a directory")
        flags = select.KQ_EV_ADD | select.KQ_EV_CLEAR  # type: ignore[attr-defined]
        self._control(fd, select.KQ_FILTER_READ, flags)  # type: ignore[attr-defined]
        try:
            self._control(fd, select.KQ_FILTER_WRITE, flags)  # type: ignore[attr-defined]
        except OSError as exc:
            # Some kinds can only be read; and the peer of a pipe may be gone, which a write will be told.
            if exc.errno not in (errno.EINVAL, errno.EPIPE):
                self._control(fd, select.KQ_FILTER_READ, select.KQ_EV_DELETE)  # type: ignore[attr-defined]
                raise

    def _unregister(self, fd: int) -> None:
        for filter_ in (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE):  # type: ignore[attr-defined]
            try:
                self._control(fd, filter_, select.KQ_EV_DELETE)  # type: ignore[attr-defined]
            except OSError:
                pass

    def fetch(self, timeout: float) -> list[Any]:
        # Not longer than systems take it; the machine then just looks, and sleeps again.
        try:
            return self.kqueue.control(None, MOST, None if timeout < 0 else min(timeout, 2e6))
        except OSError as exc:
            if exc.errno not in _GONE:
                raise
        return self._renew()

    def fire(self, events: list[Any]) -> None:
        for event in events:
            descriptor = self.descriptors.get(event.ident)
            if descriptor is None:
                self._drain(event.ident)
                continue
            if event.flags & (select.KQ_EV_EOF | select.KQ_EV_ERROR):  # type: ignore[attr-defined]
                descriptor.read.hup = True
            if event.filter == select.KQ_FILTER_READ:  # type: ignore[attr-defined]
                descriptor.read.fire()
            else:
                descriptor.write.fire()
        if self.lost:
            self.fire_all()

    def _ring(self) -> None:
        try:
            os.write(self.bell, b"x")
        except BlockingIOError:
            pass  # it is full of wake-ups already
        except OSError:
            self._cannot_wake(f"{self.waker} and {self.bell}")

    def _close(self) -> None:
        try:
            self.kqueue.close()
        except OSError:
            pass  # in the child of a fork, which does not inherit it
        for fd in (self.waker, self.bell):
            try:
                os.close(fd)
            except OSError:
                pass  # other code has closed it


def new_poller(ready: Any = None) -> Poller:
    """The system's best.  ready: the queue of the machine that is to sleep in it."""
    if hasattr(select, "epoll"):
        return EpollPoller(ready)
    if hasattr(select, "kqueue"):
        return KqueuePoller(ready)
    raise OSError("gort needs epoll (Linux) or kqueue (macOS, BSD) to wait for I/O")
