"""Another system, as far as Linux can play it: kqueue over epoll, and an interpreter without what only Linux has."""

from __future__ import annotations

import builtins
import errno
import importlib
import os
import select
import selectors
import socket
import sys
import threading
import time
from select import EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLRDHUP, epoll
from types import SimpleNamespace

_pidfd_open = os.pidfd_open


class FakeKqueue:
    """kqueue's interface over epoll: enough to run KqueuePoller through everything a program does with it."""

    def __init__(self):
        self.epoll = epoll()
        self.filters = {}
        self.edge = EPOLLET
        self.process = None  # a pidfd
        self.lock = threading.Lock()

    def control(self, changes, most, timeout=None):
        for change in changes or ():
            if change.filter == FAKES["KQ_FILTER_PROC"]:
                self.process = _pidfd_open(change.ident)
                self.epoll.register(self.process, EPOLLIN)
                continue
            with self.lock:
                have = self.filters.get(change.ident, 0)
                bit = EPOLLIN | EPOLLRDHUP if change.filter == -1 else EPOLLOUT
                if change.flags & 1:
                    assert change.flags in (1, 1 | 0x20)
                    self.edge = EPOLLET if change.flags & 0x20 else 0  # nobody mixes the two in one object
                    new = have | bit
                    self.filters[change.ident] = new
                    try:
                        self.epoll.register(change.ident, new | self.edge)
                    except FileExistsError:
                        self.epoll.modify(change.ident, new | self.edge)
                    except PermissionError:
                        pass  # the real one takes files
                else:
                    if not have & bit:
                        raise FileNotFoundError(errno.ENOENT, "no such filter")
                    new = have & ~bit
                    if new:
                        self.filters[change.ident] = new
                        self.epoll.modify(change.ident, new | self.edge)
                    else:
                        del self.filters[change.ident]
                        self.epoll.unregister(change.ident)
        if not most:
            return []
        assert timeout is None or timeout >= 0
        events = []
        for fd, bits in self.epoll.poll(-1 if timeout is None else timeout, most):
            if bits & ~EPOLLOUT:
                eof = 0x8000 if bits & ~(EPOLLIN | EPOLLOUT) else 0
                events.append(SimpleNamespace(ident=fd, filter=-1, flags=eof))
            if bits & (EPOLLOUT | EPOLLERR | EPOLLHUP):
                events.append(SimpleNamespace(ident=fd, filter=-2, flags=0))
        return events

    def fileno(self):
        return self.epoll.fileno()

    @property
    def closed(self):
        return self.epoll.closed

    def close(self):
        self.epoll.close()
        if self.process is not None:
            os.close(self.process)
            self.process = None


FAKES = {
    "kqueue": FakeKqueue,
    "kevent": lambda ident, filter_, flags, _notes=0: SimpleNamespace(ident=ident, filter=filter_, flags=flags),
    "KQ_FILTER_READ": -1,
    "KQ_FILTER_WRITE": -2,
    "KQ_FILTER_PROC": -5,
    "KQ_NOTE_EXIT": 0x80000000,
    "KQ_EV_ADD": 1,
    "KQ_EV_DELETE": 2,
    "KQ_EV_CLEAR": 0x20,
    "KQ_EV_EOF": 0x8000,
    "KQ_EV_ERROR": 0x4000,
}
# What macOS does not have.
_LACKS = {
    select: ("epoll", "EPOLL"),
    os: ("eventfd", "EFD_", "sched_", "pidfd", "splice", "SPLICE", "copy_file_range", "memfd", "MFD_", "pipe2", "posix_fadvise",
         "posix_fallocate", "O_PATH", "O_TMPFILE", "getxattr", "setxattr", "getrandom", "timerfd", "TFD_", "unshare", "setns", "P_PIDFD"),
    socket: ("SOCK_NONBLOCK", "SOCK_CLOEXEC", "MSG_NOSIGNAL", "MSG_ERRQUEUE", "MSG_MORE", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG",
             "SO_PEERCRED", "TCP_QUICKACK", "TCP_USER_TIMEOUT", "TCP_DEFER_ACCEPT"),
    time: ("pthread_getcpuclockid", "clock_settime", "CLOCK_BOOTTIME", "CLOCK_TAI"),
}  # fmt: skip


def pretend(proc: bool = False) -> None:
    """Turn this interpreter into one of macOS's, more or less.  Before gort is imported.

    proc: leave /proc there (the tests themselves look at it).
    """
    for module, starts in _LACKS.items():
        for name in list(vars(module)):
            if name.startswith(starts):
                delattr(module, name)
    for name, value in FAKES.items():
        setattr(select, name, value)
    if hasattr(os, "process_cpu_count"):
        os.process_cpu_count = os.cpu_count  # type: ignore[attr-defined]  # which asks sched_getaffinity
    sys.platform = "darwin"
    if hasattr(selectors, "EpollSelector"):
        del selectors.EpollSelector
    importlib.reload(selectors)
    if proc:
        return
    real_open, real_listdir = builtins.open, os.listdir

    def denied(path: object) -> bool:
        return isinstance(path, str) and path.startswith("/proc")

    def open_(path: object, *args: object, **kw: object) -> object:
        if denied(path):
            raise FileNotFoundError(errno.ENOENT, "there is no such thing here", path)
        return real_open(path, *args, **kw)  # type: ignore[call-overload]

    def listdir(path: object = ".") -> list[str]:
        if denied(path):
            raise FileNotFoundError(errno.ENOENT, "there is no such thing here", path)
        return real_listdir(path)  # type: ignore[call-overload,no-any-return]

    builtins.open, os.listdir = open_, listdir  # type: ignore[assignment]
