"""open: files that are read and written without stopping the other goroutines.

The idea.  ``gort.open`` is the built-in `open` over another raw file.  No system lets one *wait* for a file on a disk,
so the raw file's reads and writes run on spare threads (runtime/blocking.py) while the goroutine parks.  That costs
tens of microseconds, and so it is done as rarely as can be: the buffers above (buffered.py) work in the goroutine, and
on Linux a read is first tried with RWF_NOWAIT, which takes what the page cache has and never waits for the disk.

What is no file but can be waited for (a pipe, a terminal, a socket's descriptor) parks in the poller instead, so that
a read from it can be cancelled.  See soon.py for how, and for why its mode is left alone.

Which class for which mode, the checks of the arguments, the size of the buffer: all of that is the standard library's
own code (`_pyio.open`, the specification of `open`), borrowed.

Cancelling.  A read or write that is under way on a spare thread is waited for, and its result counts; the cancellation
comes at the next operation that waits.  So a file that was being opened is opened, and closed by its ``with``.  But the
opening of a FIFO waits for the other side, perhaps for ever.  Whoever is cancelled there goes away at once; should the
other side come later, the thread that still waits opens the FIFO and closes it.
"""

from __future__ import annotations

import _pyio  # type: ignore[import-not-found]
import atexit
import builtins
import io
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from . import borrow
from .buffered import BufferedRandom, BufferedReader, BufferedWriter, TextIOWrapper
from .descriptors import Users, may_park
from .runtime.blocking import blocking, inquire
from .runtime.wait import on_goroutine
from .soon import FILE, PIPE, kind, read_soon, write_soon

MOST = 1 << 16  # what is read from a pipe at a time: as much as a pipe holds


class RawFile(io.FileIO):
    """As `io.FileIO`: an unbuffered file, whose operations park the goroutine."""

    def __init__(self, file: Any, mode: str = "r", closefd: bool = True, opener: Any = None) -> None:
        if isinstance(file, int) or not on_goroutine():
            super().__init__(file, mode, closefd, opener)
        elif opener is None and is_fifo(file):
            meet(super().__init__, lambda _: io.FileIO.close(self), file, mode, closefd)
        else:
            blocking(super().__init__, file, mode, closefd, opener)
        self._kind = kind(self.fileno())
        self._users = None if self._kind is FILE else Users()

    def _spare(self, method: Any, *args: Any) -> Any:
        """The call on a spare thread."""
        if may_park():
            return blocking(method, self, *args)
        return method(self, *args)

    def readinto(self, buffer: Any, /) -> Any:
        """Read into the buffer; how many bytes?  0: the end.  None: it is non-blocking and there is nothing."""
        fd = self.fileno()
        if on_goroutine() and self.readable() and not memoryview(buffer).readonly:  # (which that one says)
            try:
                n = read_soon(fd, [buffer], self._kind, self._users)
            except BlockingIOError:
                return None
            if n is not None:
                return n
        return self._spare(io.FileIO.readinto, buffer)

    def read(self, size: Any = -1, /) -> Any:
        """Read up to so many bytes with one system call; all, if it is negative."""
        if self._kind is FILE or not self.readable() or not on_goroutine():
            return self._spare(io.FileIO.read, size)
        if size is None or size < 0:
            return self.readall()
        buffer = bytearray(min(size, MOST))
        n = self.readinto(buffer) if size else 0
        return None if n is None else bytes(memoryview(buffer)[:n])

    def readall(self) -> Any:
        """Read until the end."""
        if self._kind is FILE or not self.readable() or not on_goroutine():
            return self._spare(io.FileIO.readall)
        parts: list[bytes] = []
        while True:
            part = self.read(MOST)
            if not part:
                return b"".join(parts) if part is not None or parts else None
            parts.append(part)

    def write(self, data: Any, /) -> Any:
        """Write with one system call; how many bytes?"""
        fd = self.fileno()
        if self._kind is PIPE and self.writable() and on_goroutine():
            with memoryview(data) as view, view.cast("B") as octets:
                try:
                    return write_soon(fd, octets, self._users)
                except BlockingIOError:
                    return None
        return self._spare(io.FileIO.write, data)

    def truncate(self, size: int | None = None, /) -> int:
        """Change the file's size, to the current position if none is given."""
        return self._spare(io.FileIO.truncate, size)

    def close(self) -> None:
        """Close the file; who waits in it for a pipe, a terminal or a socket gets DescriptorClosed (EBADF)."""
        users = self.__dict__.get("_users")  # there is none if __init__ has failed
        if users is not None:
            users.close()
        if self.closed or not on_goroutine() or self._finalizing or self.__dict__.get("_kind") is not FILE:  # type: ignore[attr-defined]
            super().close()
        else:
            # Reads need no more of the file.  Writes may go to the disk, or over a net, only now.
            self._spare(io.FileIO.close) if self.writable() else super().close()


def meet(call: Callable[..., Any], close: Callable[[Any], object], *args: Any, **kw: Any) -> Any:
    """Open a FIFO by this call, on a spare thread, and return what it does; a cancellation does not wait for its partner.

    Of this goroutine and the spare thread, the one that finds that the other is through closes what the call has returned.
    """
    first = [None]  # whoever takes the item out is first; `pop` is atomic
    opened = []

    def through() -> None:
        try:
            first.pop()
        except IndexError:
            for it in opened:
                close(it)

    def both() -> Any:
        if not first:
            return None  # nobody wants it any more, and it might wait for ever
        opened.append(call(*args, **kw))
        through()
        return opened[0]

    both.__qualname__ = "open of a FIFO"  # what the stacks show
    try:
        return inquire(both)
    except BaseException:
        through()
        raise


def is_fifo(file: Any) -> bool:
    """Is there one of that name?"""
    try:
        return stat.S_ISFIFO(os.stat(file).st_mode)
    except (OSError, TypeError, ValueError):  # the opening says what is wrong
        return False


_unflushed: WeakSet[Any] = WeakSet()  # all that may have to be flushed at exit


def _remembered(cls: type) -> Callable[..., Any]:
    """The class, to make one that is flushed at exit if it is still open, and stands before a file on a disk.

    Its finalizer alone would not do: without a GIL the interpreter collects all that is left at its end in no certain
    order, and a text that is finalized after the raw file below it has nowhere to go.
    """

    def make(below: Any, *args: Any, **kw: Any) -> Any:
        file = cls(below, *args, **kw)
        if getattr(below, "raw", below)._kind is FILE and file.writable():
            _unflushed.add(file)
        return file

    return make


@atexit.register
def _flush_all() -> None:
    for file in list(_unflushed):
        try:
            if not file.closed:
                file.flush()
        except Exception:
            pass  # as a finalizer would


if TYPE_CHECKING:
    from builtins import open  # noqa: UP029
else:
    open = borrow.function(
        _pyio.open,
        {
            **vars(_pyio),
            "__name__": "gort",
            "FileIO": RawFile,
            "BufferedReader": BufferedReader,
            "BufferedWriter": _remembered(BufferedWriter),
            "BufferedRandom": _remembered(BufferedRandom),
            "TextIOWrapper": _remembered(TextIOWrapper),
            "text_encoding": io.text_encoding,
            "DEFAULT_BUFFER_SIZE": io.DEFAULT_BUFFER_SIZE,
        },
    )
    open.__doc__ = f"""Open a file that is read and written without stopping other goroutines; as the built-in `open`.

    {builtins.open.__doc__}"""
