"""What can go wrong with a connection beside the system's own errors (OSError) and time-outs (TimeoutError)."""

from __future__ import annotations

import errno
from typing import Any

from ..errors import GortError
from ..runtime.netpoll import DescriptorClosed


class ConnClosed(DescriptorClosed):
    """The connection or listener was closed on this side, before the operation or during it.  Go: net.ErrClosed."""

    def __init__(self, what: str) -> None:
        super(DescriptorClosed, self).__init__(errno.EBADF, f"{what} has been closed on this side")
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} has been closed on this side"

    def __reduce__(self) -> Any:
        return type(self), (self.what,)


class IncompleteRead(GortError, EOFError):
    """The peer ended its side before all that was asked for had come.  `partial` is what had.  Go: io.ErrUnexpectedEOF."""

    def __init__(self, message: str, partial: bytes) -> None:
        super().__init__(message)
        self.partial = partial


class LimitExceeded(GortError):
    """No separator within the limit of `read_until` or `lines`: what has come stays readable.  Go: bufio.ErrTooLong."""
