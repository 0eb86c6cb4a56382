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


_LAST: Any = object()  # who is inside a gate when there are no greenlets any more


class Gate(Mutex):
    """A mutex that the goroutine (or thread) that has it may enter again: some of the buffers' methods call others."""

    __slots__ = ("_again", "_owner")

    def __init__(self) -> None:
        super().__init__()
        self._owner: Any = None
        self._again = 0

    def enter(self) -> None:
        """Wait until nobody else is inside."""
        try:
            me = getcurrent()
        except RuntimeError:  # the interpreter is ending, and its one thread closes what was left open
            me = _LAST
        if self._owner is me:  # nobody else can make this true or untrue
            self._again += 1
            return
        if not self._take():
            self.lock()
        self._owner = me

    def leave(self) -> None:
        """Let the next in."""
        if self._again:
            self._again -= 1
        else:
            self._owner = None
            self.unlock()


def _leaf(method: Callable[..., Any]) -> Any:
    """The same method behind the gate; one that calls no other method of its object.

    This is what every line of a file passes, so it takes the free mutex itself (Mutex.lock and unlock without the
    calls), and leaves out the owner, whom nobody inside asks for: that halves the price of a line.
    """

    def call(self: Any, /, *args: Any) -> Any:
        gate = self._gate
        try:
            gate._permit.pop()
        except IndexError:
            pass
        else:
            try:
                return method(self, *args)
            finally:
                gate._permit.append(None)
                if gate._queue:
                    gate._pass_on()
        return _through(gate, method, self, args, {})

    return _named(call, method)


def _outer(method: Callable[..., Any]) -> Any:
    """The same method behind the gate; one that may call others of its object."""

    def call(self: Any, /, *args: Any, **kw: Any) -> Any:
        return _through(self._gate, method, self, args, kw)

    return _named(call, method)


def _through(gate: Gate, method: Callable[..., Any], file: Any, args: Any, kw: Any) -> Any:
    gate.enter()
    try:
        return method(file, *args, **kw)
    finally:
        gate.leave()


def _named(call: Any, method: Callable[..., Any]) -> Any:
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
            _through(self._gate, method, self, (), {})

    return close


def _behind_gate(cls: type) -> Callable[[type], type]:
    """A class decorator: all the methods of cls that use its buffer, behind the gate."""

    def fill(new: type) -> type:
        for make, names in ((_leaf, _LEAVES), (_outer, _OUTER)):
            for name in names.split():
                method = getattr(cls, name, None)
                # Not what only says that it is not supported, or does so by a method that is behind the gate itself.
                if method not in (None, *(getattr(base, name, None) for base in _BASES)):
                    setattr(new, name, make(method))
        new.close = _closing(cls.close)  # type: ignore[attr-defined]
        new.__module__ = "gort"
        return new

    return fill


_BASES = (io.IOBase, io.BufferedIOBase, io.TextIOBase)
_LEAVES = "read read1 readinto readinto1 readline peek write flush"
_OUTER = "seek tell truncate detach reconfigure"


@_behind_gate(io.BufferedReader)
class BufferedReader(io.BufferedReader):
    """As `io.BufferedReader`."""

    def __init__(self, raw: Any, buffer_size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        super().__init__(raw, buffer_size)
        self._gate = Gate()


@_behind_gate(io.BufferedWriter)
class BufferedWriter(io.BufferedWriter):
    """As `io.BufferedWriter`."""

    def __init__(self, raw: Any, buffer_size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        super().__init__(raw, buffer_size)
        self._gate = Gate()


@_behind_gate(io.BufferedRandom)
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
            _through(self._writer_gate, _through, self._reader_gate, (io.BufferedRWPair.close, self, (), {}), {})


def _pair_method(name: str, gate: str) -> Any:
    method = getattr(io.BufferedRWPair, name)

    def call(self: Any, /, *args: Any) -> Any:
        return _through(getattr(self, gate), method, self, args, {})

    return _named(call, method)


for _name in "read read1 readinto readinto1 peek readline".split():
    setattr(BufferedRWPair, _name, _pair_method(_name, "_reader_gate"))
for _name in "write flush".split():
    setattr(BufferedRWPair, _name, _pair_method(_name, "_writer_gate"))


@_behind_gate(io.TextIOWrapper)
class TextIOWrapper(io.TextIOWrapper):
    """As `io.TextIOWrapper`."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self._gate = Gate()
