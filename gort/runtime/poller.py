"""What a machine sleeps in once one of its goroutines has waited for I/O: what epoll (epoll.py) and kqueue (kqueue.py) share.

A poller belongs to one machine.  That machine's thread alone fetches events and adds descriptors; any thread may
remove one, or wake the machine.  `fetch` and `fire` are two steps, because the machine must say that it is awake
between them (Machine.doze), or those who are made ready here would wake it once more.

Events are fetched and then delivered, and each is reported once.  If a signal handler of the program's own raises in
between, events are lost; then (`lost`) the next `fire` treats every descriptor as if it had become ready, which costs
each waiter one try and loses nothing.

Numbers closed by other code.  Who closes a number twice may close ours.  An epoll that a thread sleeps in goes on until
that sleep ends, so: whoever finds a number gone rings with what is left (`_ring_anew`), and the machine's next fetch makes
a new pair, registers every descriptor with it, and treats all as ready (`_renew`).  What is left of the old pair stays
open, for it may be somebody else's by now.  A descriptor with one of our own numbers proves that this was closed: then we
renew at once (`_enlist`), for to register it would have the next wake-up touch the descriptor, and look like a success.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

MOST = 1024  # events fetched at a time
PAUSE = 0.01  # seconds between two tries to make a new poller, when there is no descriptor for it

GONE = (errno.EBADF, errno.EINVAL)  # what a call says of a number that has been closed, or is now something else's
strays: list[Any] = []  # objects whose number may be somebody else's: to drop one would close that


def poll_gone(*_: Any) -> list[Any]:
    """Stands for the system's call while we know that our numbers are gone."""
    raise OSError(errno.EBADF, "the poller's descriptors were closed by other code")


def is_still(fd: int, end: os.stat_result) -> bool:
    """Is this number what it was?  Else other code has closed it, and it may be somebody else's by now."""
    try:
        return os.path.samestat(os.fstat(fd), end)
    except OSError:
        return False


def close_own(fds: Iterable[int], ends: Iterable[os.stat_result]) -> None:
    """Close those numbers that are still ours."""
    for fd, end in zip(fds, ends):
        if is_still(fd, end):
            os.close(fd)


class Poller:
    """The common part."""

    def __init__(self, ready: Any = None) -> None:
        self.ready = ready  # its machine's: who is put there need wake nobody, for the machine is here
        self.lock = threading.RLock()
        self.closed = False
        self.lost = False  # events were fetched, and an exception came before they were delivered
        self.descriptors: dict[int, Any] = {}
        self.bells: dict[int, tuple[os.stat_result, Callable[[], None]]] = {}
        self.told = False
        self.poll: Any = poll_gone

    def add(self, descriptor: Any) -> None:
        """Register; called by the poller's own machine.  Raises DescriptorClosed if it is closed meanwhile."""
        fd = descriptor.fd
        old = None
        try:
            with self.lock:
                old = self.descriptors.get(fd)
                self.descriptors[fd] = descriptor
                descriptor.pollers.append(self)
                try:
                    self._enlist(fd)
                except BaseException as exc:
                    descriptor.pollers.remove(self)
                    del self.descriptors[fd]
                    if isinstance(exc, PermissionError):
                        raise PermissionError(
                            errno.EPERM,
                            f"descriptor {fd} is a regular file or a directory, which is always ready and cannot be waited "
                            "for: read it through gort.open or gort.blocking",
                        ) from None
                    raise
        finally:
            if old is not None and old is not descriptor:
                # The number was closed behind our back, by other code, and given out again.  Not under our lock: this takes
                # other pollers', and their machines may be doing the same.
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

    def add_bell(self, fd: int, gone: Callable[[], None]) -> None:
        """End a `fetch` whenever something is written to this pipe; it is read and thrown away.

        gone: what is called when we find that other code has closed it.
        """
        self.bells[fd] = os.fstat(fd), gone
        self._enlist(fd)

    def _has_bell(self, fd: int) -> bool:
        if fd not in self.bells:
            return False
        end, gone = self.bells[fd]
        if is_still(fd, end):
            return True
        del self.bells[fd]
        gone()
        return False

    def _enlist(self, fd: int) -> None:
        """`_register`; and if it turns out that our own numbers are gone, with new ones."""
        if fd not in self._numbers():
            try:
                self._register(fd)
                return
            except OSError as exc:
                if exc.errno not in GONE or not self._is_gone(fd):
                    raise
        if self._renew():
            self._register(fd)  # once more, to hear what is wrong with this one
        # Else the next fetch tries again, and what we wait for is registered then.

    def _is_gone(self, fd: int) -> bool:
        """A call with our number and fd has failed: because of ours?"""
        try:
            os.fstat(fd)
        except OSError:
            return False
        try:
            self._touch()
            return False
        except OSError:
            return True

    def _drain(self, fd: int) -> None:
        if self._has_bell(fd):
            try:
                while len(data := os.read(fd, 4096)) == 4096:
                    pass
                if not data:  # other code has closed the end that is written to
                    self.bells.pop(fd)[1]()
            except OSError:
                pass  # empty, or closed by now

    def fire_all(self) -> None:
        """Treat every descriptor as ready."""
        self.lost = False
        for fd in list(self.bells):
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

    def _fetch_anew(self, timeout: float) -> list[Any]:
        """A `fetch` that has found out that our numbers are gone."""
        if not self._renew() and timeout:  # else our machine has something else to do
            time.sleep(PAUSE)
        return []

    def _renew(self) -> bool:
        """Other code has closed our numbers: get new ones.  By the poller's own machine.  False: there are none now."""
        self.lost = True
        with self.lock:
            self.poll = poll_gone  # if there are none, the next fetch tries again
            try:
                self._reopen()
            except OSError:
                return False
            for fd in (*filter(self._has_bell, list(self.bells)), *self.descriptors):
                try:
                    self._register(fd)
                except OSError:
                    pass  # closed too: who uses it is told so when it tries
            return True

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

    def _numbers(self) -> tuple[int, ...]:
        """Our own."""
        raise NotImplementedError

    def _reopen(self) -> None:
        """Get new numbers, and `poll`.  Raises OSError if there are none."""
        raise NotImplementedError

    def fire(self, events: list[Any]) -> None:
        """Make ready whoever waits for these events."""
        raise NotImplementedError

    def _register(self, fd: int) -> None:
        raise NotImplementedError

    def _touch(self) -> None:
        """Register again what wakes us, which ends a `fetch` at most.  Raises OSError if our numbers are gone."""
        raise NotImplementedError

    def _unregister(self, fd: int) -> None:
        raise NotImplementedError

    def _ring(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError
