"""Wait for a `concurrent.futures.Future`: how a goroutine parks until a pool has done its work.

The idea.  `concurrent.futures.Future` is how Python's pools of threads and processes, and most distributed engines,
promise a result.  `wait` parks a goroutine on one of them, so that only the goroutine waits and not its thread.

Waiting.  The future's done-callback claims the waiter's ticket.  All callbacks are registered *before* the ticket is
laid down, and count down what is still missing; the ticket is laid down only if something is.  So a callback that
comes at once, or an exception half-way, finds no ticket, and a ticket is claimed once.  A waiter that gives up takes
its callback back: a program that looks at a long job with short time-outs must not fill the job's future.

Deadlock.  Who completes a future that is not ours, the runtime can not know: such a wait counts as one that something
outside may end (`_Wait.external`, see runtime/deadlock.py).  Our own futures are completed by goroutines, so they
do not count, and "all goroutines are asleep" is still noticed.

Cancelling.  To cancel who waits does not cancel the future: others may want the result.

Refused: `threading.Event` in `result` as the standard futures have it, which would stop the goroutine's whole thread.
"""

from __future__ import annotations

import concurrent.futures as std
import logging
import threading
from collections.abc import Awaitable, Iterable
from typing import Any, NamedTuple, TypeVar, overload

from .chan import Chan
from .errors import GortError
from .runtime import overdue as _overdue
from .runtime.goroutine import CANCELLATIONS, Goroutine
from .runtime.latch import contend
from .runtime.timers import check_seconds
from .runtime.wait import Ticket, give_way, is_late, park, ready, waiter

T = TypeVar("T")

ALL = std.ALL_COMPLETED
ANY = std.FIRST_COMPLETED
FIRST_EXCEPTION = std.FIRST_EXCEPTION

overdue = False
_overdue.register(globals())

CANCELLATIONS.append(std.CancelledError)


class Waited(NamedTuple):
    """What `wait` says of several futures, like concurrent.futures.wait."""

    done: set[Any]
    not_done: set[Any]


class _Wait:
    """The place where one waiter waits for some futures.

    `missing` counts down, under the latch, as they complete; at zero the ticket, if it has been laid down, is claimed.
    """

    __slots__ = ("external", "futures", "latch", "missing", "ticket", "when")

    def __init__(self, futures: Iterable[std.Future[Any]], missing: int, when: str) -> None:
        self.external = not all(isinstance(future, Future) for future in futures)
        self.futures = futures
        self.missing = missing
        self.when = when
        self.latch: list[None] = [None]
        self.ticket: Ticket | None = None

    def _hold(self) -> list[None]:
        latch = self.latch
        try:
            latch.pop()
        except IndexError:
            contend(latch)
        return latch

    def done(self, future: std.Future[Any]) -> None:
        """The callback, on whatever thread completes a future."""
        last = self.when == FIRST_EXCEPTION and _failed(future)
        w = None
        latch = self._hold()
        self.missing = 0 if last else self.missing - 1
        ticket = self.ticket
        if self.missing <= 0 and ticket is not None:
            w = ticket[0]
            ticket[0] = None
        latch.append(None)
        if w is not None:
            ready(w)

    def lay_down(self, w: Any) -> Ticket | None:
        """The waiter's ticket; None if there is nothing to wait for any more."""
        ticket: Ticket = [w, None, self, None]
        latch = self._hold()
        waits = self.missing > 0
        if waits:
            self.ticket = ticket
        latch.append(None)
        return ticket if waits else None

    def forget(self) -> None:
        """Take the callback back from the futures that are not done."""
        callback = self.done
        for future in self.futures:
            if future.done():
                continue
            # There is no public way.  A new list, because whoever completes the future may walk along the old one.
            with future._condition:  # type: ignore[attr-defined]
                future._done_callbacks = [c for c in future._done_callbacks if c != callback]  # type: ignore[attr-defined]

    # -- for runtime/wait.py ------------------------------------------------------------------------------------

    def withdraw(self, ticket: Ticket) -> bool:
        latch = self._hold()
        alive = ticket[0] is not None
        ticket[0] = None
        latch.append(None)
        return alive

    def reason(self, _ticket: Ticket) -> str:
        futures = list(self.futures)
        return f"future {futures[0]!r}" if len(futures) == 1 else f"{self.missing} of {len(futures)} futures"


def _failed(future: std.Future[Any]) -> bool:
    return not future.cancelled() and future.exception(0) is not None


def settle(futures: Iterable[std.Future[Any]], timeout: float | None = None, *, missing: int = 1, when: str = ALL) -> None:
    """Wait until so many of the futures are done (when=FIRST_EXCEPTION: or one has failed).  Raises TimeoutError."""
    w = waiter()
    place = _Wait(futures, missing, when)
    try:
        for future in futures:
            future.add_done_callback(place.done)
        ticket = place.lay_down(w)
        if ticket is not None:
            park(w, ticket, timeout, "wait for a future")
    finally:
        place.forget()


@overload
def wait(future: std.Future[T], timeout: float | None = None) -> T:
    """One future: its result."""


@overload
def wait(future: Iterable[std.Future[Any]], timeout: float | None = None, *, when: str = ALL) -> Waited:
    """Several: which are done, and which are not."""


def wait(future: Any, timeout: float | None = None, *, when: str = ALL) -> Any:
    """Wait for a concurrent.futures.Future: return its result, or raise its exception.

    timeout is in seconds, None: for ever, 0: do not wait.  Raises TimeoutError, and concurrent.futures.CancelledError
    if the future was cancelled.  To cancel who waits does not cancel the future.

    Several futures at once: like concurrent.futures.wait, returns the sets (done, not_done) and raises nothing when
    the time is over.  when is ALL, ANY (one of them is enough) or FIRST_EXCEPTION.
    """
    if overdue:
        give_way()
    if timeout is not None:
        timeout = check_seconds(timeout, "timeout")
    if not isinstance(future, std.Future):
        return _wait_many(future, timeout, when)
    if not future.done():
        if timeout is not None and timeout <= 0:
            raise TimeoutError(f"{future!r} is not done yet")
        settle((future,), timeout)
    return future.result(0)


def _no_future(what: Any) -> TypeError:
    remedy = ""
    if isinstance(what, Goroutine):
        remedy = ": use its result() or join()"
    elif isinstance(what, Chan):
        remedy = ": use its recv()"
    elif isinstance(what, Awaitable):
        remedy = ": what asyncio awaits is run by gort.aio.run"
    return TypeError(f"wait needs concurrent.futures.Future, not {type(what).__name__}{remedy}")


def _wait_many(futures: Any, timeout: float | None, when: str) -> Waited:
    if when not in (ALL, ANY, FIRST_EXCEPTION):
        raise ValueError(f"when must be gort.futures.ALL, ANY or FIRST_EXCEPTION, not {when!r}")
    if isinstance(futures, (Goroutine, Chan, Awaitable)) or not isinstance(futures, Iterable):
        raise _no_future(futures)  # before it is iterated over: that would receive what is in a Chan
    every = set()
    for future in futures:
        if not isinstance(future, std.Future):
            raise _no_future(future)
        every.add(future)
    done = {future for future in every if future.done()}
    missing = every - done
    enough = bool(done) if when == ANY else when == FIRST_EXCEPTION and any(_failed(future) for future in done)
    if missing and not enough and (timeout is None or timeout > 0):
        try:
            settle(missing, timeout, missing=1 if when == ANY else len(missing), when=when)
        except TimeoutError as exc:
            if not is_late(exc):
                raise
            # Else as in the standard library: the sets say it
        done = {future for future in every if future.done()}
    return Waited(done, every - done)


class Future(std.Future[T]):
    """A future of `Executor`: a concurrent.futures.Future whose `result` and `exception` park a goroutine."""

    def result(self, timeout: float | None = None) -> T:
        """Wait for the end; return the result or raise the exception.  Raises TimeoutError and CancelledError."""
        self._settle(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the end; return the exception, or None.  Raises TimeoutError and CancelledError."""
        self._settle(timeout)
        return super().exception(0)

    def _settle(self, timeout: float | None) -> None:
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if not self.done():
            if timeout is not None and timeout <= 0:
                raise TimeoutError(f"{self!r} is not done yet")
            settle((self,), timeout)

    def _stay_behind(self, here: bool) -> None:
        """In the child of a fork.  here: the work is the goroutine that forked, and may come to its end."""
        self._condition = threading.Condition()  # another thread may have held the old one's lock
        self._waiters: list[Any] = []
        if here or self.done():
            return
        # Not by set_exception: what hangs on the future is for the parent to call.
        self._done_callbacks: list[Any] = []
        self._exception = GortError("this work stayed behind in the parent process: a fork takes along only the goroutine that forks")
        self._state = std._base.FINISHED  # type: ignore[attr-defined]

    def _invoke_callbacks(self) -> None:
        # The standard one stops at the first callback that raises what is no Exception.  A callback that waits runs in
        # the work's goroutine and can be cancelled there; those who wait for the future come after it in the same row.
        first: BaseException | None = None
        for callback in self._done_callbacks:  # type: ignore[attr-defined]
            try:
                callback(self)
            except Exception:
                logging.getLogger("concurrent.futures").exception("exception calling callback for %r", self)
            except BaseException as exc:
                first = first or exc
        if first is not None:
            raise first
