"""kqueue: what a machine sleeps in on macOS and the BSDs.

Each direction of a descriptor is a filter of its own, edge-triggered (KQ_EV_CLEAR).  `wake` writes to a pipe, which is full of
wake-ups at worst.  What epoll refuses kqueue would take, and be silent at a regular file's end: so that is refused here.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from typing import Any

from .poller import GONE, MOST, Poller, close_own, poll_gone, strays


def _waking(fd: int) -> Any:
    return select.kevent(fd, select.KQ_FILTER_READ, select.KQ_EV_ADD | select.KQ_EV_CLEAR)  # type: ignore[attr-defined]


class KqueuePoller(Poller):
    """macOS and the BSDs."""

    def __init__(self, ready: Any = None) -> None:
        super().__init__(ready)
        self._open()

    def _open(self) -> None:
        kqueue = select.kqueue()  # type: ignore[attr-defined]
        pipe: tuple[int, ...] = ()
        try:
            pipe = os.pipe()
            for fd in pipe:
                os.set_blocking(fd, False)
            kqueue.control([_waking(pipe[0])], 0, 0)
            self.ends = [os.fstat(fd) for fd in pipe]
        except BaseException:
            kqueue.close()
            for fd in pipe:
                os.close(fd)
            raise
        self.kqueue, self.poll = kqueue, kqueue.control
        self.waker, self.bell = pipe
        self.bells[self.waker] = self.ends[0], lambda: None  # whoever rings finds that

    def _numbers(self) -> tuple[int, ...]:
        return self.kqueue.fileno(), self.waker, self.bell

    def _reopen(self) -> None:
        old = self.kqueue
        self.bells.pop(self.waker, None)  # before there is a new one, which may have the same number
        self._open()
        strays.append(old)

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

    def _touch(self) -> None:
        self.kqueue.control([_waking(self.waker)], 0, 0)

    def _unregister(self, fd: int) -> None:
        for filter_ in (select.KQ_FILTER_READ, select.KQ_FILTER_WRITE):  # type: ignore[attr-defined]
            try:
                self._control(fd, filter_, select.KQ_EV_DELETE)  # type: ignore[attr-defined]
            except OSError:
                pass

    def fetch(self, timeout: float) -> list[Any]:
        # Not longer than systems take it; the machine then just looks, and sleeps again.
        try:
            return self.poll(None, MOST, None if timeout < 0 else min(timeout, 2e6))
        except OSError as exc:
            if exc.errno not in GONE:
                raise
        return self._fetch_anew(timeout)

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
            self.poll = poll_gone  # so that it finds that when something else has woken it
            self._cannot_wake(f"{self.waker} and {self.bell}")

    def _close(self) -> None:
        try:
            self.kqueue.close()
        except OSError:
            pass  # in the child of a fork, which does not inherit it
        close_own((self.waker, self.bell), self.ends)
