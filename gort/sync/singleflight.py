"""SingleFlight: one call for all who ask for the same thing at the same time.

The idea.  A dict from key to the call that is under way.  Who finds none there puts one in and makes the call (the
*leader*); who finds one waits for its end and shares the outcome.  When a call has ended it is forgotten: this is no
cache.  In the child of a fork calls whose leader has stayed behind are no more.

If the leader is cancelled in the middle, that is no outcome: it was meant for the leader alone.  Those who wait then
ask again, and one of them becomes the leader.  (An exception of the function is an outcome, and is raised to all.)

The dict is under an RLock of `threading` and not under a latch, because looking up a key may run the program's own
``__hash__`` and ``__eq__``, which a latch must never be held for.  It is held for look-ups only.  A key whose
``__eq__`` waits for another goroutine is beyond help.

Go has it in golang.org/x/sync/singleflight, with the same rules.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakSet

from greenlet import getcurrent

from ..runtime import overdue as _overdue
from ..runtime.fork import free, in_child
from ..runtime.timers import check_seconds, deadline
from ..runtime.wait import give_way
from .errors import SyncError
from .event import Event
from .place import check_function

T = TypeVar("T")

overdue = False
_overdue.register(globals())


class _Call:
    """A call that is under way."""

    __slots__ = ("ended", "error", "forgotten", "key", "leader", "sharers", "tb", "value")

    def __init__(self, key: Hashable, leader: Any) -> None:
        self.ended = Event()
        self.error: BaseException | None = None
        self.key = key
        self.leader = leader
        self.sharers = 0  # who asked while it was under way
        self.tb: Any = None
        self.value: Any = None


class SingleFlight:
    """Suppresses double calls: of those who ask for the same key at the same time, one makes the call for all.

    Go: singleflight.Group.
    """

    __slots__ = ("__weakref__", "_calls", "_lock")

    def __init__(self) -> None:
        self._calls: dict[Hashable, _Call] = {}
        self._lock = threading.RLock()
        _all.add(self)

    def do(self, key: Hashable, fn: Callable[[], T], timeout: float | None = None) -> tuple[T, bool]:
        """Call fn(), or wait for the call for this key that is under way; return (its value, was it shared?).

        timeout, in seconds, limits the wait for another's call; 0: do not wait.  Raises what fn raised, to all who
        share it; TimeoutError; SyncError if fn asks for its own key, and so waits for itself.  Go: Group.Do.
        """
        if overdue:
            give_way()
        check_function(fn, "SingleFlight.do")
        until = None
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
            until = deadline(timeout)
        me = getcurrent()
        while True:
            with self._lock:
                call = self._calls.get(key)
                if call is not None and call.leader is None:
                    call = None  # its leader has stayed behind: see below
                leads = call is None
                if call is None:
                    call = self._calls[key] = _Call(key, me)
                else:
                    call.sharers += 1
            if leads:
                return self._lead(call, fn)
            if call.leader is me:
                raise SyncError(f"the call for {key!r} asks for the same key again, which would wait for ever")
            call.ended.wait(timeout)
            error = call.error
            if error is None:
                return call.value, True
            if isinstance(error, Exception):
                raise error.with_traceback(call.tb)
            # Its leader was cancelled: ask again.
            if until is not None:
                timeout = max(0.0, until - monotonic())

    def _lead(self, call: _Call, fn: Callable[[], T]) -> tuple[T, bool]:
        try:
            value = call.value = fn()
        except BaseException as exc:
            call.error, call.tb = exc, exc.__traceback__
            raise
        finally:
            # Nobody can find it any more, then those who have found it are told.
            self._drop(call.key, call)
            call.leader = None
            call.ended.set()
        return value, call.sharers > 0

    def _drop(self, key: Hashable, call: _Call | None) -> None:
        with self._lock:
            if call is None or self._calls.get(key) is call:
                self._calls.pop(key, None)

    def forget(self, key: Hashable) -> None:
        """Let the next `do` for this key make a call of its own, even if one is under way.  Go: Group.Forget."""
        self._drop(key, None)

    def __len__(self) -> int:
        """How many calls are under way (forgotten ones not counted)."""
        return len(self._calls)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<SingleFlight {len(self._calls)} calls under way>"


_all: WeakSet[SingleFlight] = WeakSet()


def _in_child() -> None:
    """After a fork: only calls that were made on the thread that forked will come to an end here."""
    here = []
    w: Any = getcurrent()
    while w is not None:
        here.append(w)
        w = w.parent
    for flight in list(_all):
        free(flight._lock)
        for call in list(flight._calls.values()):
            if call.leader not in here:
                call.leader = None


in_child(_in_child)
