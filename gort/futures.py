"""Futures: hand work to a pool and park until it is done; let other code hand work to goroutines.

The idea.  `concurrent.futures.Future` is how Python's pools of threads and processes, and most distributed engines,
promise a result.  `wait` parks a goroutine on one of them, so that only the goroutine waits and not its thread.
`Executor` is the other direction: a `concurrent.futures.Executor` that any code can submit to, and whose work runs in
goroutines.

Waiting.  The future's done-callback claims the waiter's ticket.  All callbacks are registered *before* the ticket is
laid down, and count down what is still missing; the ticket is laid down only if something is.  So a callback that
comes at once, or an exception half-way, finds no ticket, and a ticket is claimed once.  A waiter that gives up takes
its callback back: a program that looks at a long job with short time-outs must not fill the job's future.

Deadlock.  Who completes a future that is not ours, the runtime can not know: such a wait counts as one that something
outside may end (`_Wait.external`, see runtime/deadlock.py).  Our own futures are completed by goroutines, so they
do not count, and "all goroutines are asleep" is still noticed.

Cancelling.  To cancel who waits does not cancel the future: others may want the result.

Limits of an Executor.  A piece of work is one goroutine, made when there is room under `max_workers`.  The room is
given back at the goroutine's end, also when it never ran (it was cancelled, or its runtime closed): that is what
`on_end` is for, since then no ``finally`` runs.  In the child of a fork an Executor is empty: the futures of what stayed
in the parent have failed with an error that says so, and its places are free.

Refused: `threading.Event` in `result` as the standard futures have it, which would stop the goroutine's whole thread;
`max_workers` long-lived goroutines with a queue (a goroutine costs less than the queue's hand-over, and each piece of
work keeps its own name, place and context).
"""

from __future__ import annotations

import concurrent.futures as std
import logging
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextvars import copy_context
from sys import _getframe
from types import FrameType
from typing import Any, NamedTuple, TypeVar, overload
from weakref import WeakSet

from greenlet import GreenletExit

from .chan import Chan
from .errors import Cancelled, GoroutineCancelled, GortError
from .runtime import instance
from .runtime import overdue as _overdue
from .runtime.carrier import current
from .runtime.fork import free
from .runtime.goroutine import CANCELLATIONS, Goroutine
from .runtime.latch import contend
from .runtime.limits import check_procs
from .runtime.report import report
from .runtime.timers import check_seconds
from .runtime.wait import Ticket, give_way, is_late, park, ready, waiter
from .sync.ending import on_end

__all__ = ["ALL", "ANY", "Executor", "FIRST_EXCEPTION", "Future", "Waited", "wait"]

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


class _Work:
    """One piece of work: a function and its future, and the goroutine that it becomes."""

    __slots__ = ("args", "code", "ctx", "executor", "fn", "future", "g", "kw", "lasti", "sched", "started")

    def __init__(self, executor: Executor, sched: Any, fn: Any, args: Any, kw: Any, frame: FrameType) -> None:
        self.executor = executor
        self.sched = sched
        self.fn = fn
        self.args = args
        self.kw = kw
        self.code = frame.f_code
        self.lasti = frame.f_lasti
        self.ctx = copy_context()
        self.future: Future[Any] = Future()
        self.g: Goroutine[None] | None = None
        self.started = False

    def launch(self) -> None:
        """Make it a goroutine.  Raises RuntimeClosed and ThreadLimit."""
        self.g = g = Goroutine(self.run, (), {}, self.ctx, self.code, self.lasti)
        g.name = getattr(getattr(self.fn, "func", self.fn), "__qualname__", type(self.fn).__qualname__)
        on_end(g, self.ended)  # first, for from the next line on it may end at any moment
        instance.launch(g, self.sched)

    def run(self) -> None:
        """The goroutine."""
        self.started = True
        future = self.future
        if not future.set_running_or_notify_cancel():
            return
        try:
            value = self.fn(*self.args, **self.kw)
        except BaseException as exc:
            tb = exc.__traceback__
            if isinstance(exc, (Cancelled, GreenletExit)):
                # Who waits for the result is not the one that was cancelled.
                assert self.g is not None
                future.set_exception(GoroutineCancelled(f"{self.g.describe()} was cancelled and has no result"))
                raise
            # Without our own frame, which holds the future, which will hold the exception: they would be a cycle.
            future.set_exception(exc.with_traceback(tb.tb_next if tb is not None else None))
            tb = None
        else:
            future.set_result(value)

    def ended(self) -> None:
        """Its goroutine has ended, perhaps without ever having run.  Must not raise: see `on_end`."""
        label = f"the end of {self.future!r}"
        try:
            try:
                if not self.started:
                    _cancel(self.future)
            finally:
                self.fn = self.args = self.kw = self.ctx = self.g = None
                self.executor._ended(self)
        except BaseException as exc:  # a callback of the program's own; the futures keep only an Exception to themselves
            report(exc, label)


def _cancel(future: std.Future[Any]) -> None:
    """Cancel a future whose work is ours, and nobody else's, to begin."""
    if future.cancel():
        future.set_running_or_notify_cancel()  # tells those who wait through concurrent.futures.wait


class Executor(std.Executor):
    """A concurrent.futures.Executor that runs its work in goroutines.

    max_workers is how many of them there may be at once (None: as many as there is work).  They run in the given
    runtime, or where `gort.go` would put them at the moment of `submit`: the caller's runtime, the `run` that is going
    on, the background runtime.  They end with that runtime like other goroutines.  A context manager: leaving it
    waits for the work.  Raises TypeError and ValueError for a bad max_workers.
    """

    def __init__(self, max_workers: int | None = None, *, runtime: instance.Runtime | None = None) -> None:
        if max_workers is not None:
            check_procs(max_workers, "max_workers")
        if runtime is not None and not isinstance(runtime, instance.Runtime):
            raise TypeError(f"runtime must be a gort.Runtime, not {type(runtime).__name__}")
        self._limit = max_workers
        self._sched = runtime._sched if runtime is not None else None
        # Re-entrant, so that a finalizer that submits in the middle of our few lines does not wait for itself.
        self._lock = threading.RLock()
        _all.add(self)
        self._busy = 0  # goroutines that exist, or are about to
        self._queue: deque[_Work] = deque()  # what has no goroutine yet
        self._works: set[_Work] = set()  # all that has not ended
        self._shut = False
        self._told = False  # `_over` has been closed, or is about to be
        self._over: Chan[None] = Chan()  # closed when it is shut down and all work has ended

    def submit(self, fn: Callable[..., T], /, *args: Any, **kw: Any) -> Future[T]:
        """Have fn(*args, **kw) called in a goroutine, with a copy of the caller's context; return its future.

        Raises RuntimeError after `shutdown`, TypeError if fn cannot be called.
        """
        instance._check_callable(fn, "submit")
        m = instance._machine()
        sched = self._sched or (m.sched if m is not None else instance._default())
        work = _Work(self, sched, fn, args, kw, _getframe(1))
        with self._lock:
            if self._shut:
                raise RuntimeError("cannot schedule new futures after shutdown: create a new Executor")
            self._works.add(work)
            if self._limit is not None and self._busy >= self._limit:
                self._queue.append(work)
                return work.future
            self._busy += 1
        try:
            work.launch()
        except BaseException:
            work.future.cancel()
            self._ended(work)
            raise
        return work.future

    def _ended(self, work: _Work) -> None:
        """A piece of work has ended: its place goes to the next."""
        while True:
            following = None
            with self._lock:
                if work not in self._works:
                    return
                self._works.discard(work)
                if self._queue:
                    following = self._queue.popleft()
                else:
                    self._busy -= 1
                over = self._is_over()
            if over:
                self._over.close()
            if following is None:
                return
            if following.future.cancelled():
                following.future.set_running_or_notify_cancel()
            elif following.sched.closing:
                _cancel(following.future)  # as what has a goroutine and has not begun: see runtime/closing.py
            else:
                try:
                    following.launch()
                    return
                except GortError as exc:  # its runtime has closed, or gets no thread
                    if following.future.set_running_or_notify_cancel():
                        following.future.set_exception(exc)
            work = following

    def _left_behind(self) -> None:
        """In the child of a fork: work whose goroutine is not here, or has not begun, is the parent's."""
        free(self._lock)
        self._queue.clear()
        for work in list(self._works):
            work.future._stay_behind(work.g is not None and not work.g.done())
        self._works = {work for work in self._works if not work.future.done()}
        self._busy = len(self._works)
        self._told = False
        self._over = Chan()
        if self._is_over():
            self._over.close()

    def _is_over(self) -> bool:
        """True once: when it was shut down and all work has ended.  Under the lock."""
        if not self._shut or self._works or self._told:
            return False
        self._told = True
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with cancel_futures, cancel what has not begun; with wait, wait for the rest.

        Twice does no harm.  Raises GortError if a piece of its own work would wait for itself.
        """
        g = current()
        queued: list[_Work] = []
        launched: list[_Work] = []
        with self._lock:
            if wait and g is not None and any(work.g is g for work in self._works):
                raise GortError("an Executor cannot be waited for by its own work: call shutdown(wait=False) there")
            self._shut = True
            if cancel_futures:
                queued = list(self._queue)
                self._queue.clear()
                launched = list(self._works.difference(queued))
        for work in queued:
            _cancel(work.future)
        for work in launched:
            work.future.cancel()  # one that runs does not mind; one that was to begin tells of it then
        with self._lock:
            self._works.difference_update(queued)
            over = self._is_over()
        if over:
            self._over.close()
        if wait:
            self._over.recv_ok()

    def __repr__(self) -> str:
        with self._lock:
            state = " shut down" if self._shut else ""
            return f"<gort.futures.Executor {self._busy} at work, {len(self._queue)} waiting{state}>"


_all: WeakSet[Executor] = WeakSet()


def _in_child() -> None:
    for executor in list(_all):
        executor._left_behind()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
