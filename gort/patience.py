"""patience: how long the operations of a green socket wait, and how.

The idea.  The system's socket is always non-blocking.  What the user has set (blocking, a time-out, non-blocking) is
kept here, and `settimeout`, `gettimeout`, `setblocking` and `getblocking` speak of that.  An operation that would block
waits for the descriptor in the machine's poller, for as long as the user's time-out allows, and tries again.

Invariants.
- Nobody waits without having tried first since the last event, so edge-triggered polling loses nothing.
- The time-out is of the whole operation: a wait that was for nothing (another was faster) does not begin it anew.
- What the user wants to hear of "it would block" is an error, if he has set no time to wait (or asks so by a flag).
- The system's own limits (SO_RCVTIMEO, SO_SNDTIMEO), which it minds in blocking mode alone, are minded here.  They are
  the system's socket's, so all duplicates have them in common.

Refused: the standard class's own time-out.  With one set, its C code waits in poll(2), where no goroutine can park.
"""

from __future__ import annotations

import errno
import operator
import os
import socket
import struct
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any
from weakref import WeakSet, ref

from .descriptors import finalizers, give_way_outside, wait_own
from .runtime import overdue as _overdue
from .runtime.netpoll import Descriptor
from .runtime.wait import is_late, late
from .soon import green

overdue = False
_overdue.register(globals())

_DONTWAIT = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_ERRQUEUE", 0)
_LIMITS = (getattr(socket, "SO_RCVTIMEO", None), getattr(socket, "SO_SNDTIMEO", None))
_TIMEVAL = "@ll" if sys.platform == "linux" else "@li"
_LONGEST = 9223372036.0  # seconds that the standard socket's time-out can hold


def check_timeout(value: Any) -> float | None:
    """As the standard settimeout judges it."""
    if value is None:
        return None
    if not isinstance(value, float):
        value = operator.index(value)
    if value != value:
        raise ValueError("Invalid value NaN (not a number)")
    if value < 0:
        raise ValueError("Timeout value out of range")
    if value > _LONGEST:
        raise OverflowError("timestamp too large to convert to C PyTime_t")
    return float(value)


class Patient(socket.socket):
    """A socket that waits in the poller: what gort.green.socket's is built on."""

    __slots__ = ("_descriptor", "_limits", "_timeout", "_twins")

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        super().__init__(family, type, proto, fileno)
        self._timeout: float | None = super().gettimeout()  # the default one, or 0 for SOCK_NONBLOCK
        self._limits: list[float | None] | None = None  # SO_RCVTIMEO and SO_SNDTIMEO, if they have been set
        self._twins: WeakSet[Any] | None = None  # all that have the same system's socket, if there are others
        super().settimeout(0.0)
        fd = self.fileno()
        self._descriptor = Descriptor(fd)
        green[fd] = ref(self)  # for gort.green.os

    # -- what the user has set --------------------------------------------------------------------------------------

    def settimeout(self, value: float | None, /) -> None:
        """None: operations wait; 0: they do not; else: they wait for so many seconds."""
        self._timeout = check_timeout(value)
        super().settimeout(0.0)  # again, should other code have changed it

    def gettimeout(self) -> float | None:
        """What `settimeout` has set."""
        return self._timeout

    def setblocking(self, flag: bool, /) -> None:
        """True: settimeout(None).  False: settimeout(0)."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """False if operations do not wait."""
        return self._timeout != 0.0

    @property
    def timeout(self) -> float | None:
        """What `settimeout` has set."""
        return self._timeout

    def setsockopt(self, *args: Any) -> None:
        """setsockopt(level, option, value[, length]): set an option of the system's socket."""
        super().setsockopt(*args)
        if args[0] == socket.SOL_SOCKET and args[1] in _LIMITS:  # which the system minds only in blocking mode: so do we
            seconds, micros = struct.unpack_from(_TIMEVAL, self.getsockopt(args[0], args[1], 16))
            limits = self._limits or [None, None]
            limits[_LIMITS.index(args[1])] = seconds + micros / 1e6 or None
            for sock in self._twins or (self,):
                sock._limits = limits

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _until(self, write: bool) -> float | None:
        timeout = self._timeout
        if timeout is None and self._limits is not None:
            timeout = self._limits[write]
        return None if timeout is None else monotonic() + timeout

    def _over(self) -> OSError:
        """The error when the time is over: the user's, or the system's, which says that it would block."""
        if self._timeout is not None:
            return late("timed out")
        return BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _wait(self, write: bool, until: float | None) -> None:
        """Wait until it may be readable (writable), at most until a monotonic time.  Raises what `_over` says."""
        left = None
        if until is not None:
            left = until - monotonic()
            if left <= 0:
                raise self._over()
        try:
            if finalizers:
                wait_own(self._descriptor, write, left)
            elif write:
                self._descriptor.wait_write(left)
            else:
                self._descriptor.wait_read(left)
        except TimeoutError as exc:
            if not is_late(exc):
                raise
            raise self._over() from None

    def _again(self, write: bool, call: Callable[..., Any], *args: Any) -> Any:
        """The call, which would have blocked just now, as soon as it does not."""
        until = self._until(write)
        while True:
            self._wait(write, until)
            try:
                return call(self, *args)
            except BlockingIOError:
                pass

    def _must_not_wait(self, flags: int) -> bool:
        """Is "it would block" what the caller wants to hear?  With a time-out the standard socket asks no flag."""
        return self._timeout == 0.0 or (self._timeout is None and bool(flags & _DONTWAIT))

    def _use(self, write: bool, call: Callable[..., Any], flags: int, *args: Any) -> Any:
        """The call, now or as soon as it does not block: one that reads, or writes."""
        if overdue:
            give_way_outside()
        try:
            return call(self, *args)
        except BlockingIOError:
            if self._must_not_wait(flags):
                raise
        return self._again(write, call, *args)
