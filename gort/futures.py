"""Futures: hand work to a pool and park until it is done; let other code hand work to goroutines.

The idea.  `wait` (awaiting.py) parks a goroutine on the future of any pool.  `Executor` is the other direction: a
`concurrent.futures.Executor` that any code can submit to, and whose work runs in goroutines.

Limits of an Executor.  A piece of work is one goroutine, made when there is room under `max_workers`.  The room is
given back at the goroutine's end, also when it never ran (it was cancelled, or its runtime closed): that is what
`on_end` is for, since then no ``finally`` runs.  In the child of a fork an Executor is empty: the futures of what stayed
in the parent have failed with an error that says so, and its places are free.

Refused: `max_workers` long-lived goroutines with a queue (a goroutine costs less than the queue's hand-over, and each
piece of work keeps its own name, place and context).
"""

from __future__ import annotations

import concurrent.futures as std
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from sys import _getframe
from types import FrameType
from typing import Any, TypeVar
from weakref import WeakSet

from .awaiting import ALL, ANY, FIRST_EXCEPTION, Future, Waited, wait
from .chan import Chan
from .errors import GoroutineCancelled, GortError
from .runtime import instance
from .runtime.carrier import current
from .runtime.fork import free, in_child
from .runtime.goroutine import Goroutine, errors_of
from .runtime.limits import check_procs
from .runtime.report import report
from .sync.ending import on_end

__all__ = ["ALL", "ANY", "Executor", "FIRST_EXCEPTION", "Future", "Waited", "wait"]

T = TypeVar("T")


class _Work:
    """One piece of work: a function and its future, and the goroutine that it becomes."""

    __slots__ = ("args", "code", "ctx", "executor", "fn", "future", "g", "kw", "lasti", "late", "sched", "started")

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
        self.late = sched.closing  # submitted by a clean-up at the end, which waits for it

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
            errors = errors_of(exc)
            if errors is None:
                # Who waits for the result is not the one that was cancelled.
                assert self.g is not None
                future.set_exception(GoroutineCancelled(f"{self.g.describe()} was cancelled and has no result"))
                raise
            # Without our own frame, which holds the future, which will hold the exception: they would be a cycle.
            future.set_exception(errors.with_traceback(tb.tb_next if tb is not None else None))
            tb = errors = None
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
            elif following.sched.closing and not following.late:
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


in_child(_in_child)
