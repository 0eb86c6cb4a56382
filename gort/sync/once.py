"""Once and once: run something a single time, however many goroutines ask for it.

The idea.  The first who asks runs the function; those who ask meanwhile wait for its end; those who ask later do not
wait.  The function counts as run when it has ended, also by an exception: "once" means at most once, and who wants
another try after a failure writes a loop.  That is Go's rule, in both forms:

- `Once.do`: the exception goes to the one who ran the function; to the others it is done.  Go: sync.Once.
- `once(fn)`: everybody gets what fn returned or raised, later callers too.  Go: sync.OnceFunc, sync.OnceValue.

What Go does not have is that the one who runs the function is cancelled in the middle.  It counts as run all the same,
because its first half has been.  But the cancellation was meant for that goroutine: callers of a `once` function get
a SyncError that says what happened.

`_ended` is set before the waiters are woken and is never unset, so reading it without the latch decides the hot path.
Where a build without a GIL is concerned: it is stored after everything the function did, and whoever reads it true
sees all of that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from greenlet import getcurrent

from ..runtime import overdue as _overdue
from ..runtime.timers import check_seconds
from ..runtime.wait import Ticket, give_way, late, park, ready, waiter
from .errors import SyncError
from .place import Place, check_function

T = TypeVar("T")

overdue = False
_overdue.register(globals())


class Once(Place):
    """Runs a function once: the first `do` runs it, the others wait for its end.  Go: sync.Once."""

    __slots__ = ("_ended", "_runner")

    def __init__(self) -> None:
        super().__init__()
        self._ended = False
        self._runner: Any = None  # the greenlet that runs the function at the moment

    def do(self, fn: Callable[[], Any], timeout: float | None = None) -> None:
        """Call fn() if this is the first call of `do`, else wait until the first has ended.

        timeout, in seconds, limits that wait; 0: do not wait.  Raises what fn raises, to the first caller only;
        TimeoutError; SyncError if fn calls `do` itself, and so waits for itself.  Go: Once.Do.
        """
        check_function(fn, "Once.do")
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if overdue:
            give_way()
        if self._ended:
            return
        me = getcurrent()
        latch = self._hold()
        first = self._runner is None and not self._ended
        if first:
            self._runner = me
        latch.append(None)
        if not first:
            self._wait(timeout)
            return
        try:
            fn()
        finally:
            woken: list[Any] = []
            latch = self._hold()
            self._ended = True
            self._runner = None
            if self._queue:
                woken = self._queue.claim_all()
            latch.append(None)
            for w in woken:
                ready(w)

    def done(self) -> bool:
        """Has the function been run, to its end?"""
        return self._ended

    def _wait(self, timeout: float | None) -> None:
        if self._runner is getcurrent():
            raise SyncError(f"the function that {self!r} runs calls do() of the same Once, which would wait for ever")
        if timeout is not None and timeout <= 0 and not self._ended:
            raise late(f"{self!r} has not ended yet")
        w = waiter()
        ticket: Ticket = [w, None, self, None]
        latch = self._hold()
        ended = self._ended
        if not ended:
            self._enqueue(ticket)
        latch.append(None)
        if not ended:
            park(w, ticket, timeout, "wait for a Once")

    def __repr__(self) -> str:
        state = "done" if self._ended else "not started" if self._runner is None else "running"
        return f"<Once {state}, {self._waiting()} waiting, {self._made()}>"


def once(fn: Callable[[], T]) -> Callable[[], T]:
    """A decorator: the function runs once, and every call gets what that run returned or raised.

    fn takes no arguments (for one result for each set of arguments there is functools.cache).  The same exception
    object is raised to every caller.  If the run was cancelled, later calls raise SyncError.  Raises TypeError if fn
    cannot be called.  Go: sync.OnceFunc, sync.OnceValue.
    """
    check_function(fn, "once")
    only = Once()
    value: Any = None
    error: BaseException | None = None
    tb: Any = None

    def run() -> None:
        nonlocal value, error, tb
        try:
            value = fn()
        except BaseException as exc:
            error, tb = exc, exc.__traceback__
            if not isinstance(exc, Exception):
                raise  # a cancellation, Ctrl-C: for this caller, in the form in which it came

    @functools.wraps(fn)
    def wrapper() -> T:
        only.do(run)
        if error is None:
            return value
        if isinstance(error, Exception):
            raise error.with_traceback(tb)
        name = getattr(fn, "__qualname__", repr(fn))
        raise SyncError(f"the only run of once({name}) was ended by {type(error).__name__}: no result") from error

    return wrapper
