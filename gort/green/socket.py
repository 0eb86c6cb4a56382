"""socket, cooperatively.

The idea.  A green socket *is* a standard socket (a subclass), so whatever takes one takes the other.  An operation
tries; if it would block, it waits for as long as the user's time-out allows, and tries again: gort/patience.py.

Invariants.
- A `Descriptor` exists for each green socket as long as its number is open, and is closed before the number is: those
  who wait get OSError (EBADF), and an event for a new socket of that number never reaches an old waiter.
- Cancelled in a wait, a receive has taken nothing, and a send has sent nothing more than what it already had
  (`sendall`, as with a time-out of the standard socket, may have sent a part).

Names are looked up on spare threads: gort/hosts.py.

`detach` gives the number back in the mode that the user had set.  A green socket's number that is used while it is
attached (``os.read(sock.fileno(), n)``, a child process that inherits it) is non-blocking: use gort.green.os, or
`detach`.  The mode is one for all duplicates (`dup`, `fromfd`), so a number that is detached while another green socket
still has the same system's socket stays non-blocking: else that one would stop its machine.

What the standard module writes in Python (`create_connection`, `create_server`, `getfqdn`, `makefile`) is its own code
over the names here.
"""

from __future__ import annotations

import errno as _errno
import io as _io
import os as _os
import socket as _std
import sys as _sys
from _socket import socket as _base
from contextvars import ContextVar as _ContextVar
from time import monotonic as _monotonic
from types import SimpleNamespace as _SimpleNamespace
from typing import Any
from weakref import WeakSet as _WeakSet

from .. import borrow as _borrow
from .. import buffered as _buffered
from ..descriptors import give_way_outside as _give_way
from ..hosts import getaddrinfo as getaddrinfo
from ..hosts import gethostbyaddr as gethostbyaddr
from ..hosts import gethostbyname as gethostbyname
from ..hosts import gethostbyname_ex as gethostbyname_ex
from ..hosts import getnameinfo as getnameinfo
from ..hosts import numeric as _numeric
from ..patience import Patient as _Patient
from ..runtime import overdue as _overdue
from ..runtime.sleep import sleep as _sleep
from ..runtime.wait import is_late as _is_late
from ..soon import green_socket as _green_socket

overdue = False
_overdue.register(globals())

_WAITALL = getattr(_std, "MSG_WAITALL", 0)
_PEEK = getattr(_std, "MSG_PEEK", 0)
_UNDER_WAY = (_errno.EINPROGRESS, _errno.EALREADY, _errno.EINTR)
_accept, _recv, _send, _close = _base._accept, _base.recv, _base.send, _base.close


class socket(_Patient):
    """As `socket.socket`."""

    __slots__ = ()

    # -- receiving ----------------------------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Receive up to so many bytes; b"": the other side has closed."""
        if overdue:
            _give_way()
        if flags and bufsize > 0 and self._wants_all(flags):
            buffer = bytearray(bufsize)
            return bytes(buffer[: self._fill(memoryview(buffer), flags)])
        try:
            return _recv(self, bufsize, flags)
        except BlockingIOError:
            if self._must_not_wait(flags):
                raise
        return self._again(False, _recv, bufsize, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into a buffer; how many bytes?"""
        if flags and self._wants_all(flags):
            with memoryview(buffer) as view, view.cast("B") as octets:
                if 0 <= nbytes <= len(octets):
                    return self._fill(octets[:nbytes] if nbytes else octets, flags)
        return self._use(False, _base.recv_into, flags, buffer, nbytes, flags)

    def _wants_all(self, flags: int) -> bool:
        """Is it to wait until all has come?  The system does that for a stream without a time-out only."""
        return bool(flags & _WAITALL) and not flags & _PEEK and self._timeout is None and self.type == _std.SOCK_STREAM

    def _fill(self, view: memoryview, flags: int) -> int:
        """Receive until the buffer is full, or the other side has closed; after an error, what had come before it."""
        got = 0
        while got < len(view):
            try:
                n = self._use(False, _base.recv_into, flags, view[got:], 0, flags)
            except OSError:
                if not got:
                    raise
                break
            if not n:
                break
            got += n
        return got

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Receive up to so many bytes; also from whom."""
        return self._use(False, _base.recvfrom, flags, bufsize, flags)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive into a buffer; also from whom."""
        return self._use(False, _base.recvfrom_into, flags, buffer, nbytes, flags)

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """Receive bytes and ancillary data: (data, ancillary, flags, address)."""
        return self._use(False, _base.recvmsg, flags, bufsize, ancbufsize, flags)

    def recvmsg_into(self, buffers: Any, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """Receive into several buffers, and ancillary data."""
        # A list, since an iterator would be used up by the first try.
        return self._use(False, _base.recvmsg_into, flags, list(buffers), ancbufsize, flags)

    # -- sending ------------------------------------------------------------------------------------------------------

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Send what there is room for; how many bytes?"""
        if overdue:
            _give_way()
        try:
            return _send(self, data, flags)
        except BlockingIOError:
            if self._must_not_wait(flags):
                raise
        return self._again(True, _send, data, flags)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all of it, within one time-out.  After an error it is unknown how much has been sent."""
        if overdue:
            _give_way()
        sent = 0
        try:
            sent = _send(self, data, flags)
            if type(data) is bytes and sent == len(data):
                return
        except BlockingIOError:
            if self._must_not_wait(flags):
                raise
        until = self._until(True)
        with memoryview(data) as view, view.cast("B") as octets:
            total = len(octets)
            while sent < total:
                try:
                    sent += _send(self, octets[sent:], flags)
                except BlockingIOError:
                    if self._must_not_wait(flags):
                        raise
                    self._wait(True, until if self._timeout is not None else self._until(True))

    def sendto(self, data: Any, *args: Any) -> int:
        """sendto(data[, flags], address): send a datagram."""
        if not args or len(args) > 2:
            return _base.sendto(self, data, *args)  # which says what is wrong
        *flags, address = args
        return self._use(True, _base.sendto, flags[0] if flags else 0, data, *flags, _numeric(self, address))

    def sendmsg(self, buffers: Any, ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """Send several buffers, and ancillary data."""
        buffers, ancdata = list(buffers), list(ancdata)
        if address is None:
            return self._use(True, _base.sendmsg, flags, buffers, ancdata, flags)
        return self._use(True, _base.sendmsg, flags, buffers, ancdata, flags, _numeric(self, address))

    def _sendfile_use_sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        # What the standard method calls for a regular file.
        self._check_sendfile_params(file, offset, count)
        try:
            fd = file.fileno()
            size = _os.fstat(fd).st_size
        except (AttributeError, OSError) as exc:  # io.UnsupportedOperation is an OSError
            raise _std._GiveupOnSendfile(exc) from exc
        if not size:
            return 0
        if self._timeout == 0.0:
            raise ValueError("non-blocking sockets are not supported")
        block = min(count or size, 2**30)
        total = 0
        try:
            while count is None or total < count:
                if overdue:
                    _give_way()
                if count is not None:
                    block = min(block, count - total)
                try:
                    sent = _os.sendfile(self.fileno(), fd, offset, block)
                except BlockingIOError:
                    self._wait(True, self._until(True))
                    continue
                except OSError as exc:
                    if not total:  # not that kind of file after all
                        raise _std._GiveupOnSendfile(exc) from exc
                    raise
                if not sent:
                    break
                offset += sent
                total += sent
            return total
        finally:
            if total and hasattr(file, "seek"):
                file.seek(offset)

    # -- connecting ---------------------------------------------------------------------------------------------------

    def accept(self) -> tuple[socket, Any]:
        """Wait for a connection: (a socket for it, the address of the other side)."""
        fd, address = self._use(False, _accept, 0)
        new = socket(self.family, self.type, self.proto, fileno=fd)
        if _std.getdefaulttimeout() is None and self._timeout:
            new.setblocking(True)
        new._limits = self._limits and [*self._limits]  # inherited
        return new, address

    def bind(self, address: Any, /) -> None:
        """Give it an address of its own."""
        super().bind(_numeric(self, address))

    def connect(self, address: Any, /) -> None:
        """Connect it to an address."""
        self._connect(_numeric(self, address))

    def connect_ex(self, address: Any, /) -> int:
        """`connect` that returns the error's number, 0: none."""
        address = _numeric(self, address)  # an error of the look-up is raised here too
        try:
            self._connect(address)
        except TimeoutError as exc:
            if exc.errno is None and not _is_late(exc):
                raise
            return exc.errno or _errno.EAGAIN
        except _std.gaierror:
            raise
        except OSError as exc:
            if exc.errno is None:
                raise
            return exc.errno
        return 0

    def _connect(self, address: Any) -> None:
        if self._timeout == 0.0:
            super().connect(address)
            return
        until = self._until(True)
        pause = 1e-3
        while True:
            try:
                super().connect(address)
                return
            except (BlockingIOError, InterruptedError) as exc:
                code = exc.errno or _errno.EINPROGRESS
            if code != _errno.EAGAIN:
                break
            # A Unix socket whose listener's queue is full.  The system reports no event when there is room again.
            if until is not None and _monotonic() >= until:
                raise self._over()
            _sleep(pause)
            pause = min(pause * 2, 0.05)
        while code in _UNDER_WAY:
            try:
                self._wait(True, until)
            except BlockingIOError:
                raise BlockingIOError(_errno.EINPROGRESS, _os.strerror(_errno.EINPROGRESS)) from None
            code = self._outcome(address)
        if code and code != _errno.EISCONN:
            raise OSError(code, _os.strerror(code))

    def _outcome(self, address: Any) -> int:
        """What has become of a connect that was under way."""
        if _sys.platform == "linux":
            # To ask by a second connect has the system forget an error, so that the socket may try once more.
            return _base.connect_ex(self, address)
        code = self.getsockopt(_std.SOL_SOCKET, _std.SO_ERROR)
        if not code:
            try:
                self.getpeername()
            except OSError as exc:
                if exc.errno != _errno.ENOTCONN:
                    raise
                code = _errno.EINPROGRESS  # an older event woke us
        return code

    # -- the end ------------------------------------------------------------------------------------------------------

    def _real_close(self, _ss: Any = _base) -> None:
        # Also when __init__ has failed half-way.
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            descriptor.close()
        super()._real_close(_ss)

    def dup(self) -> socket:
        """Another socket object, and number, for the same system's socket."""
        twin = super().dup()
        self._share(twin)
        return twin

    def _share(self, twin: socket) -> None:
        twin._limits = self._limits
        if self._twins is None:
            self._twins = _WeakSet([self])
        twin._twins = self._twins
        twin._twins.add(twin)

    def detach(self) -> int:
        """Give the descriptor away, in the mode that the user has set (unless a twin needs it non-blocking).

        The object is closed then.
        """
        self._descriptor.close()
        fd = super().detach()
        if fd >= 0 and self._timeout is None and all(twin.fileno() < 0 for twin in self._twins or ()):
            _os.set_blocking(fd, True)
        return fd

    makefile = _borrow.function(
        _std.socket.makefile,
        {
            **vars(_std),
            "__name__": __name__,
            "io": _SimpleNamespace(
                **{
                    **{name: getattr(_io, name) for name in ("DEFAULT_BUFFER_SIZE", "text_encoding")},
                    **{
                        name: getattr(_buffered, name)
                        for name in ("BufferedRWPair", "BufferedReader", "BufferedWriter", "TextIOWrapper")
                    },
                }
            ),
        },
    )


# -- making sockets ---------------------------------------------------------------------------------------------------

# The sockets that the current goroutine's create_connection has made.  (A goroutine has a context of its own.)
_made: _ContextVar[list[socket]] = _ContextVar("_made")


def _make(*args: Any) -> socket:
    sock = socket(*args)
    _made.get().append(sock)
    return sock


def create_connection(
    address: Any, timeout: Any = _std._GLOBAL_DEFAULT_TIMEOUT, source_address: Any = None, *, all_errors: bool = False
) -> socket:
    """As `socket.create_connection`; cancelled while it connects, it leaves no socket open."""
    made: list[socket] = []
    token = _made.set(made)
    try:
        return _create_connection(address, timeout, source_address, all_errors=all_errors)
    except BaseException:
        for sock in made:
            sock.close()
        raise
    finally:
        _made.reset(token)


_borrow.rest(_std, globals())
_create_connection = _borrow.function(_std.create_connection, {**globals(), "socket": _make})
_borrow.functions(
    _std,
    globals(),
    "_fallback_socketpair create_server fromfd fromshare getfqdn has_dualstack_ipv6 recv_fds send_fds socketpair",
)
_fromfd = globals()["fromfd"]


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:
    """As `socket.fromfd`: a socket for a duplicate of the number."""
    twin: socket = _fromfd(fd, family, type, proto)
    known = _green_socket(fd)
    if known is not None:
        known._share(twin)
    return twin
