"""Pool: things that are costly to make, kept for the next one who needs one.

The idea.  A stack of idle things.  `get` takes the one put back last (its memory is still in the cache) or makes a
new one; it never waits, so a pool bounds nothing: for at most so many at a time, use a `Semaphore` or a `Chan`.  As
in Go, a pool may forget what it holds: here, when it holds its limit and another is put, the one that has lain idle
longest.  (Go empties its pools at garbage collections.  Python's collector knows nothing of how much memory there is,
and runs in most programs all the time or never.)

``pop`` and ``append`` of a deque are atomic, with and without a GIL, so there is no lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar

from .place import check_count

T = TypeVar("T")


class Pool(Generic[T]):
    """Idle things to be used again: `get` one, `put` it back; ``with pool.use() as thing:`` does both.

    new() makes one when none is idle; without it, `get` then returns None.  limit is how many idle ones are kept.
    Raises TypeError or ValueError for what is no function or no limit.  Go: sync.Pool.
    """

    __slots__ = ("__weakref__", "_idle", "new")

    def __init__(self, new: Callable[[], T] | None = None, *, limit: int = 64) -> None:
        if new is not None and not callable(new):
            raise TypeError(f"new must be a function that makes one, not {type(new).__name__}")
        check_count(limit, "limit", 0)
        self.new = new
        self._idle: deque[T] = deque(maxlen=limit)

    def get(self) -> T:
        """An idle one, or a new one; None if there is no `new`.  Never waits, unless new() does.  Go: Pool.Get."""
        try:
            return self._idle.pop()
        except IndexError:
            pass
        new = self.new
        return new() if new is not None else None  # type: ignore[return-value]

    def put(self, thing: T) -> None:
        """Give one back, in a state in which the next one can use it.  The caller has no more to do with it.

        Go: Pool.Put.
        """
        self._idle.append(thing)

    def use(self) -> _Use[T]:
        """For ``with pool.use() as thing:``: gets one, and puts it back, unless the block raises.

        After an exception nobody knows what state it is in, so it is dropped.
        """
        return _Use(self)

    def clear(self) -> None:
        """Forget all idle ones."""
        self._idle.clear()

    def __len__(self) -> int:
        """How many are idle."""
        return len(self._idle)

    def __bool__(self) -> bool:
        return True  # a pool is not false because it is empty

    def __repr__(self) -> str:
        return f"<Pool {len(self._idle)} idle>"


class _Use(Generic[T]):
    __slots__ = ("_pool", "_thing")

    def __init__(self, pool: Pool[T]) -> None:
        self._pool = pool
        self._thing: Any = None

    def __enter__(self) -> T:
        self._thing = thing = self._pool.get()
        return thing

    def __exit__(self, kind: type[BaseException] | None, _value: object, _tb: TracebackType | None) -> None:
        thing, self._thing = self._thing, None
        if kind is None:
            self._pool.put(thing)
