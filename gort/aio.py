"""asyncio: run a coroutine from a goroutine, await a goroutine from a coroutine.

The idea.  asyncio's loop needs a thread of its own; goroutines must not hold theirs.  So the loop runs in a plain
thread (one for the program, started when first needed, or wherever the program runs its own), and the two worlds meet
at a hand-over: `run` puts a coroutine on the loop with ``call_soon_threadsafe`` and parks on a future; `wait` has the
loop told when a goroutine has ended.

Cancelling crosses over and waits.  When a goroutine that stands in `run` is cancelled, or its time-out is over, the
task is cancelled and the goroutine goes on only when the task has ended, its ``finally`` blocks included; so it is
with a task that stands in `wait`, whose goroutine is cancelled.  This is what ``await task`` does within asyncio, and
what makes "after the call nothing of it still runs" true on both sides.  Who does not want it writes
``asyncio.shield(gort.aio.wait(g))``, or starts a goroutine of its own for the coroutine.

What an outcome becomes on the other side.  Values and exceptions cross as they are.  What was *cancelled from within*
(the task by its own loop, the goroutine by another) has no result; whoever asks for it gets an ordinary exception
(`concurrent.futures.CancelledError`, `GoroutineCancelled`), because he himself is not cancelled.

Contexts: the coroutine runs in a copy of the goroutine's context, and a goroutine started by a task in a copy of the
task's; what is set there stays there.

Order of calls: a loop runs what was handed to it in order, so a cancellation, handed over later than the start, finds
the task made.

Refused: `asyncio.run_coroutine_threadsafe`, whose future is "cancelled" before its task has ended, so that nobody can
wait for that end; an event loop built on goroutines (it would be a third loop to know, and uvloop users have theirs).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
from collections.abc import Awaitable, Coroutine
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, TypeVar

from .awaiting import settle
from .errors import GortError, ThreadLimit
from .runtime import deadlock, instance
from .runtime.fork import in_child
from .runtime.goroutine import CANCELLATIONS, Goroutine
from .runtime.scope import Shield
from .runtime.timers import INFINITY, check_seconds, deadline
from .runtime.wait import is_late, waiter
from .sync.ending import on_end

__all__ = ["run", "wait"]

T = TypeVar("T")

CANCELLATIONS.append(asyncio.CancelledError)

LOOK = 1.0  # seconds between two looks whether a loop that is not ours has been closed


# -- from a goroutine: run a coroutine -------------------------------------------------------------------------------


class _Call:
    """A coroutine on its way through the loop, and the future on which its caller parks."""

    def __init__(self, coro: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, ctx: Context) -> None:
        self.coro = coro
        self.loop = loop
        self.ctx = ctx
        self.future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self.task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        """On the loop: make it a task."""
        try:
            self.task = self.loop.create_task(self.coro, context=self.ctx)
        except BaseException as exc:
            self.coro.close()
            self.future.set_exception(exc)
            return
        self.task.add_done_callback(self.ended)

    def ended(self, task: asyncio.Task[Any]) -> None:
        """On the loop: the task has ended."""
        if task.cancelled():
            self.future.cancel()
            return
        exc = task.exception()
        if exc is not None:
            self.future.set_exception(exc)
        else:
            self.future.set_result(task.result())

    def settle(self, timeout: float | None) -> None:
        """From the waiting side: until the task has ended.  Raises TimeoutError, and GortError if it never will."""
        if _is_own(self.loop):
            settle((self.future,), timeout)
            return
        # A loop of the program's may be stopped and closed with our task in it (asyncio.run misses those that come
        # while it ends), and tells nobody.  So look, now and then.
        end = deadline(INFINITY if timeout is None else timeout)
        while True:
            left = end - monotonic()
            try:
                settle((self.future,), min(left, LOOK))
                return
            except TimeoutError as exc:
                if left <= LOOK or not is_late(exc):
                    raise
            if self.loop.is_closed() and not self.future.done():
                raise GortError(f"the event loop was closed before the coroutine {self.coro.__qualname__} had ended")

    def cancel(self) -> None:
        """From any thread: cancel the task, and wait until it has ended."""
        try:
            self.loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            return  # the loop is closed: nothing runs there any more
        if not self.loop.is_running() and not _is_own(self.loop):
            return  # stopped by its owner: the task may never end
        with Shield():
            try:
                self.settle(None)
            except GortError:
                pass  # closed meanwhile

    def _cancel(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def failure(self, reason: BaseException) -> BaseException | None:
        """The error with which the task has ended, if it was cancelled for this reason but failed: in a ``finally``."""
        future = self.future
        error = None if not future.done() or future.cancelled() else future.exception(0)
        if error is None or error is reason:
            return None
        last = error  # what it has to say of its own origin stays, and before that came the reason
        while last.__context__ is not None and last.__context__ is not reason:
            last = last.__context__
        last.__context__ = reason
        return error


def run(
    coro: Awaitable[T], *, loop: asyncio.AbstractEventLoop | None = None, timeout: float | None = None
) -> T:
    """Run a coroutine in an event loop, wait for it, return its result or raise its exception.

    loop must be one that runs in another thread; None: gort's own.  The goroutine parks; a plain thread blocks.
    timeout is in seconds: when it is over the coroutine is cancelled and, when it has ended, TimeoutError raised.
    If the goroutine is cancelled, so is the coroutine; an error in its clean-up comes out, as that of a goroutine's
    own ``finally`` does.  If the coroutine was cancelled from within, raises
    concurrent.futures.CancelledError.  Raises GortError on the loop's own thread, which would wait for itself, and
    when the given loop is closed before the coroutine has ended.
    """
    if not inspect.iscoroutine(coro):
        if not inspect.isawaitable(coro):
            hint = ": call it, as in run(fn(...))" if inspect.iscoroutinefunction(coro) else ""
            raise TypeError(f"run needs a coroutine, not {type(coro).__name__}{hint}")
        coro = _await(coro)
    try:
        if timeout is not None:
            timeout = check_seconds(timeout, "timeout")
        if loop is None:
            loop = _own_loop()
        if loop is asyncio._get_running_loop():
            raise GortError("gort.aio.run was called in the event loop that it would wait for: use await there")
        call = _Call(coro, loop, copy_context())
        waiter()  # raises what is pending, before anything has begun
        loop.call_soon_threadsafe(call.start)  # RuntimeError if it is closed
    except BaseException:
        coro.close()  # or it is reported as never awaited
        raise
    error: BaseException | None = None
    try:
        call.settle(timeout)
    except BaseException as exc:
        call.cancel()
        if is_late(exc):
            if not call.future.done() or call.future.cancelled():
                raise TimeoutError(f"the coroutine {coro.__qualname__} was cancelled after {timeout:g} s") from None
        elif (error := call.failure(exc)) is None:
            raise
    if error is not None:
        try:
            raise error  # here, where nothing is being handled that would become its context
        finally:
            del error, call
    return call.future.result(0)


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


# -- from a coroutine: wait for a goroutine --------------------------------------------------------------------------


async def wait(g: Goroutine[T]) -> T:
    """Wait for a goroutine: return its result or raise its exception, as `Goroutine.result` does.

    If the waiting task is cancelled, so is the goroutine, and the task goes on when that has ended, with the error of
    its clean-up if there is one (a second cancellation of the task ends the waiting alone).
    """
    if not isinstance(g, Goroutine):
        hint = ": start one, as in wait(gort.go(fn))" if callable(g) else ""
        raise TypeError(f"wait needs a Goroutine, not {type(g).__name__}{hint}")
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not ended.done():
            ended.set_result(None)

    def at_end() -> None:
        try:
            loop.call_soon_threadsafe(tell)
        except RuntimeError:
            pass  # the loop has been closed, so nobody waits any more

    on_end(g, at_end)
    try:
        await asyncio.wait((ended,))  # which, unlike a plain await, leaves the future alone when it is cancelled
    except asyncio.CancelledError:
        g.cancel()
        await asyncio.wait((ended,))
        error = g.exception(0)
        if isinstance(error, Exception):
            g.result(0)  # raises it: an error in its clean-up
        raise
    return g.result(0)


# -- gort's own loop -------------------------------------------------------------------------------------------------


class _LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.over = False
        self.turn = 0  # counts the turns of the loop; odd: it waits, without limit, for there is nothing planned
        self._watch()
        self.thread = threading.Thread(target=self._main, name="gort-aio", daemon=True)
        try:
            self.thread.start()
        except RuntimeError as exc:
            self.loop.close()
            raise ThreadLimit(f"the system does not allow a thread for the event loop: {exc}") from exc

    def _main(self) -> None:
        try:
            # Its end cancels the tasks and waits for them, ends asynchronous generators, closes the loop.
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                runner.get_loop()
                while not self.over:
                    try:
                        self.loop.run_forever()
                    except (SystemExit, KeyboardInterrupt):
                        pass  # a task raised it, and has it: whoever waits for that task gets it
        except RuntimeError:
            if not self.loop.is_closed():
                raise
            # At the interpreter's end no thread can be started to join the threads of asyncio.to_thread; they are
            # gone by then.

    def _watch(self) -> None:
        """Have `turn` count.  What a callback does is not seen in the loop's queues: it has been taken out of them."""
        selector: Any = getattr(self.loop, "_selector", None)
        if selector is None:
            return  # another kind of loop, which `resting` does not understand
        select = selector.select

        def watched(timeout: float | None = None) -> Any:
            if timeout is not None:
                return select(timeout)
            self.turn += 1
            try:
                return select()
            finally:
                self.turn += 1

        selector.select = watched

    def resting(self) -> int | None:
        """The thread's ident if the loop has nothing to do and nothing to wait for (for the deadlock detector).

        The same odd turn before and after the look at the queues: all the time the loop ran nothing, and what came for
        it meanwhile would have been in `_ready`, where it is put before the loop is woken.
        """
        loop: Any = self.loop
        turn = self.turn
        if not turn % 2:
            return None
        try:
            if loop._ready or loop._scheduled or asyncio.all_tasks(loop) or len(loop._selector.get_map()) > 1:
                return None  # (one: the loop's own wake-up)
        except (AttributeError, RuntimeError):
            return None  # another kind of loop; or it is at work this very moment
        return self.thread.ident if self.turn == turn else None

    def close(self) -> None:
        self.over = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


_lock = threading.Lock()
_own: _LoopThread | None = None
_lost: list[_LoopThread] = []  # of the parent process: kept, because a loop's finalizer would complain


def _own_loop() -> asyncio.AbstractEventLoop:
    global _own
    with _lock:
        if _own is None:
            _own = _LoopThread()
            deadlock.resting.append(_own.resting)
            instance._at_end.append(_close)
        return _own.loop


def _is_own(loop: asyncio.AbstractEventLoop) -> bool:
    own = _own
    return own is not None and own.loop is loop


def _close() -> None:
    """At exit, after the goroutines: their clean-up may use the loop."""
    global _own
    with _lock:
        own, _own = _own, None
    if own is not None:
        deadlock.resting.remove(own.resting)
        own.close()


def _forget() -> None:
    """In the child of a fork: the loop's thread has stayed behind."""
    global _lock, _own
    _lock = threading.Lock()
    if _own is not None:
        _lost.append(_own)
        _own = None
        deadlock.resting.clear()
        instance._at_end.clear()


in_child(_forget)
