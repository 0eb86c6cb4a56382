"""buffered: the io module's buffers, for files that park.

The idea.  A buffered file of the standard library holds a lock of its own while it reads or writes the raw file below.
That lock belongs to a *thread*.  If the raw file parks there, then another goroutine of the same thread that comes by
gets RuntimeError ("reentrant call"), and one on another thread blocks that thread, perhaps with the very goroutine on
it that was to send the data.  So here every call passes a gate that belongs to a *goroutine*, before the standard one.
As before, two may use one file at once, and each call is whole.

The classes are the standard ones otherwise, so `isinstance` and everything inside stays as it is.

Cancelling.  A goroutine that is cancelled in the middle of ``read(n)`` may already have taken a part of the n bytes
out of the raw file, and they are gone, as with a time-out on ``socket.makefile`` or a signal handler that raises.
Lines and `read1` are not affected: what has been read stays in the buffer.

Finalizers.  A file dropped without being closed is flushed and closed by the collector.  There nothing parks, see
`Finalizer` in descriptors.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent

from .descriptors import Finalizer
from .sync.mutex import Mutex


class Gate:
    """A mutex that the goroutine (or thread) that has it may enter again: the buffers' methods call each other."""

    __slots__ = ("_again", "_mutex", "_owner")

    def __init__(self) -> None:
        self._mutex = Mutex()
        self._owner: Any = None
        self._again = 0

    def __enter__(self) -> None:
        me = getcurrent()
        if self._owner is me:  # nobody else can make this true or untrue
            self._again += 1
            return
        if not self._mutex._take():
            self._mutex.lock()
        self._owner = me

    def __exit__(self, *_: object) -> None:
        if self._again:
            self._again -= 1
        else:
            self._owner = None
            self._mutex.unlock()


def _gated(method: Callable[..., Any]) -> Any:
    """The same method, behind the gate."""

    def call(self: Any, /, *args: Any, **kw: Any) -> Any:
        with self._gate:
            return method(self, *args, **kw)

    call.__name__ = method.__name__
    call.__qualname__ = method.__qualname__
    call.__doc__ = method.__doc__
    return call


def _closing(method: Callable[..., Any]) -> Any:
    """`close` behind the gate; as a finalizer, without parking."""

    def close(self: Any) -> None:
        """Flush and close."""
        if getattr(self, "_finalizing", False):
            with Finalizer():
                method(self)
        elif "_gate" not in self.__dict__:  # its __init__ has failed
            method(self)
        else:
            with self._gate:
                method(self)

    return close


def _behind_gate(cls: type, names: str) -> Callable[[type], type]:
    """A class decorator: these methods of cls, gated, and `close`."""

    def fill(new: type) -> type:
        for name in names.split():
            method = getattr(cls, name, None)
            if method is not None:
                setattr(new, name, _gated(method))
        new.close = _closing(cls.close)  # type: ignore[attr-defined]
        new.__module__ = "gort"
        return new

    return fill


_READS = "read read1 readinto readinto1 readline readlines peek"
_WRITES = "write writelines flush"
_PLACES = "seek tell truncate detach"


@_behind_gate(io.BufferedReader, f"{_READS} {_PLACES}")
class BufferedReader(io.BufferedReader):
    """As `io.BufferedReader`."""

    def __init__(self, raw: Any, buffer_size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        super().__init__(raw, buffer_size)
        self._gate = Gate()


@_behind_gate(io.BufferedWriter, f"{_WRITES} {_PLACES}")
class BufferedWriter(io.BufferedWriter):
    """As `io.BufferedWriter`."""

    def __init__(self, raw: Any, buffer_size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        super().__init__(raw, buffer_size)
        self._gate = Gate()


@_behind_gate(io.BufferedRandom, f"{_READS} {_WRITES} {_PLACES}")
class BufferedRandom(io.BufferedRandom):
    """As `io.BufferedRandom`."""

    def __init__(self, raw: Any, buffer_size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        super().__init__(raw, buffer_size)
        self._gate = Gate()


class BufferedRWPair(io.BufferedRWPair):
    """As `io.BufferedRWPair`: a reader and a writer, each with a gate of its own, so that both may be busy at once."""

    def __init__(self, reader: Any, writer: Any, buffer_size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        super().__init__(reader, writer, buffer_size)
        self._reader_gate = Gate()
        self._writer_gate = Gate()

    def close(self) -> None:
        """Flush and close both."""
        if getattr(self, "_finalizing", False) or "_writer_gate" not in self.__dict__:
            with Finalizer():
                super().close()
        else:
            with self._writer_gate, self._reader_gate:
                super().close()


def _pair_method(name: str, gate: str) -> Any:
    method = getattr(io.BufferedRWPair, name)

    def call(self: Any, /, *args: Any) -> Any:
        with getattr(self, gate):
            return method(self, *args)

    call.__name__ = name
    call.__doc__ = method.__doc__
    return call


for _name in "read read1 readinto readinto1 peek readline readlines".split():
    setattr(BufferedRWPair, _name, _pair_method(_name, "_reader_gate"))
for _name in "write writelines flush".split():
    setattr(BufferedRWPair, _name, _pair_method(_name, "_writer_gate"))


@_behind_gate(io.TextIOWrapper, f"read readline readlines {_WRITES} {_PLACES} reconfigure")
class TextIOWrapper(io.TextIOWrapper):
    """As `io.TextIOWrapper`."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._gate = Gate()
