"""timeout and shield, and the promise that all of cancellation rests on: what was cancelled has happened or it has not.

The first half is about single orders of events, made to happen on purpose: on one P a goroutine that runs is not
interrupted, so a send followed by a cancel is seen by its receiver in that order.  The second half counts values while
everything is cancelled at random, by every mechanism there is.
"""

from __future__ import annotations

import concurrent.futures
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

import gort
from gort import Cancelled, Chan, context, go, gosched, run, select
from gort.cancel import shield, timeout
from gort.group import Group
from gort.runtime.netpoll import Descriptor
from gort.runtime.scope import Scope
from settling import LONG, settle, start

SEED = int(os.environ.get("GORT_SEED") or random.randrange(2**32))
STRESS = float(os.environ.get("GORT_STRESS") or 0)  # seconds, for each number of Ps

WAITS: dict[str, Callable[[], Any]] = {
    "recv": lambda: Chan().recv(),
    "send": lambda: Chan().send(1),
    "recv-timeout": lambda: Chan().recv(timeout=LONG),
    "select": lambda: select(gort.recv(Chan()), gort.send(Chan(), 1)),
    "select-none": lambda: select(),
    "sleep": lambda: gort.sleep(LONG),
    "join": lambda: go(Chan().recv).join(),
    "gosched": lambda: [gosched() for _ in iter(int, 1)],
    "group": lambda: wait_for_a_group(),
    "place": lambda: wait_for_a_place(),
    "done": lambda: context.background().done().recv(),
    "iteration": lambda: list(Chan()),
    "ticker": lambda: list(gort.Ticker(LONG)),
    "mutex": lambda: [m.lock() for m in [gort.Mutex()] * 2],
    "with mutex": lambda: locked(gort.Mutex()).__enter__(),
    "rlock": lambda: locked(gort.RWMutex()).rlock(),
    "lock": lambda: locked(gort.RWMutex()).lock(),
    "acquire": lambda: [s.acquire(2) for s in [gort.Semaphore(3)] * 2],
    "waitgroup": lambda: [(wg.add(), wg.wait()) for wg in [gort.WaitGroup()]],
    "cond": lambda: locked(gort.Cond()).wait(),
    "wait_for": lambda: locked(gort.Cond()).wait_for(lambda: False),
    "event": lambda: gort.Event().wait(),
    "barrier": lambda: gort.Barrier(2).wait(),
    "once": lambda: [(start(o.do, Chan().recv), o.do(int)) for o in [gort.Once()]],
    "flight": lambda: [(start(f.do, 1, Chan().recv), f.do(1, int)) for f in [gort.SingleFlight()]],
    "future": lambda: gort.wait(concurrent.futures.Future()),
    "futures": lambda: gort.wait([concurrent.futures.Future(), concurrent.futures.Future()]),
    "pipe": lambda: wait_for_a_pipe(),
}


def locked(lock: Any) -> Any:
    lock.lock()
    return lock


def wait_for_a_pipe() -> None:
    r, w = os.pipe()
    d = Descriptor(r)
    try:
        d.wait_read()
    finally:
        d.close()
        os.close(r)
        os.close(w)


def wait_for_a_group() -> None:
    with Group() as group:
        group.go(Chan().recv)


def wait_for_a_place() -> None:
    with Group(limit=1) as group:
        group.go(Chan().recv)
        group.go(Chan().recv)


# -- timeout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", WAITS)
def test_a_time_limit_ends_every_kind_of_wait(procs: int, wait: str) -> None:
    """Breaks: an operation that a time limit cannot end, or ends too early, or without a word about where."""

    def main() -> None:
        began = monotonic()
        with pytest.raises(TimeoutError, match="limit of 0.01 s") as info:
            with timeout(0.01) as limit:
                WAITS[wait]()
        assert monotonic() - began >= 0.01 and limit.expired
        assert isinstance(info.value.__cause__, Cancelled) and info.value.__cause__.__traceback__ is not None
        gort.sleep(0)  # nothing is left over

    run(main, procs=procs)


@pytest.mark.parametrize("wait", WAITS)
def test_a_context_ends_every_kind_of_wait(wait: str) -> None:
    """Breaks: an operation that goes on although the context that it runs under has ended."""

    def main() -> None:
        ctx = context.with_cancel(context.background())
        gort.after_func(0.001, ctx.cancel, KeyError("why"))
        with pytest.raises(context.ContextCancelled, match="KeyError: 'why'") as info, ctx:
            WAITS[wait]()
        assert isinstance(info.value.cause, KeyError)
        with pytest.raises(context.ContextCancelled), ctx:  # and what begins when it has ended does not begin to wait
            WAITS[wait]()
        gort.sleep(0)

    run(main, procs=2)


PLAIN = [name for name in WAITS if name != "gosched"]  # which does not wait there


@pytest.mark.parametrize("wait", PLAIN)
def test_a_time_limit_and_a_context_on_a_plain_thread(wait: str) -> None:
    """Breaks: an operation of a plain thread that goes on although the limit around it, or its context, is over."""
    with pytest.raises(TimeoutError, match="limit of 0.01 s"), timeout(0.01):
        WAITS[wait]()
    ctx = context.with_cancel(context.background())
    canceller = threading.Timer(0.005, ctx.cancel)
    canceller.start()
    with pytest.raises(context.ContextCancelled), ctx:
        WAITS[wait]()
    canceller.join()
    with pytest.raises(context.ContextCancelled), ctx:
        WAITS[wait]()
    gort.sleep(0.001)  # nothing is left over


def test_blocks_of_plain_threads_nest_and_are_shielded() -> None:
    """Breaks: on a plain thread a limit ends another block than its own, or a critical section; or is lost."""
    events = []
    try:
        with timeout(LONG) as outer:
            try:
                with timeout(LONG) as inner:
                    with shield():
                        with shield():
                            inner._scope.cancel("inner")
                            outer._scope.cancel("outer")
                            gort.sleep(0.001)
                        try:
                            with timeout(0.001):
                                gort.sleep(LONG)
                        except TimeoutError:
                            events.append("whole")
                    Chan().recv()
            except TimeoutError:
                events.append("inner")
            gort.sleep(LONG)
    except TimeoutError:
        events.append("outer")
    assert events == ["whole", "inner", "outer"]
    with timeout(LONG) as limit:  # over, but it has not waited
        limit._scope.cancel("over")
    gort.sleep(0.001)


def test_no_limit_and_no_time() -> None:
    """Breaks: a limit of None or infinity that ends, one of zero that waits, or a number that is none."""

    def main() -> None:
        ch: Chan[int] = Chan(1)
        for seconds in (None, LONG, float("inf"), 10**400):
            with timeout(seconds) as limit:
                ch.send(1)
                gosched()
                assert ch.recv() == 1
            assert not limit.expired
        for seconds in (0, -1, -float("inf")):
            with timeout(seconds) as limit:
                ch.send(1)  # needs no waiting
                assert ch.recv() == 1
            assert limit.expired
            with pytest.raises(TimeoutError):
                with timeout(seconds):
                    ch.recv()
        assert sum(p["timers"] for p in gort.stats()["ps"]) == 0

    run(main)
    with pytest.raises(TypeError, match="seconds"):
        timeout("1")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        timeout(float("nan"))


@pytest.mark.parametrize("block", ["timeout", "context"])
def test_nothing_begins_in_a_block_that_is_over(block: str) -> None:
    """Broken: where gort calls the program's function, a block that is over from the start lets a blocking call begin."""
    begun: list[int] = []

    def body() -> None:
        if block == "timeout":
            with timeout(0):
                gort.blocking(begun.append, 1)
        else:
            ctx = context.with_cancel(context.background())
            ctx.cancel()
            with ctx:
                gort.blocking(begun.append, 1)

    def main() -> None:
        for call in (body, lambda: gort.Once().do(body)):
            with pytest.raises((TimeoutError, context.ContextCancelled)):
                call()
        assert not begun

    run(main)


class Kept(BaseExceptionGroup[BaseException]):
    def derive(self, excs: Any) -> Kept:
        return Kept(self.message, excs)


@pytest.mark.parametrize("block", ["timeout", "context"])
def test_a_group_of_errors_stays_itself(block: str) -> None:
    """Broken: an exception group that a time limit's end is put into loses its class, notes, cause or traceback."""

    def fails() -> None:
        try:
            gort.sleep(LONG)
        finally:
            raise KeyError("k")

    def body() -> None:
        try:
            with Group() as group:
                group.go(fails)
        except BaseExceptionGroup as exc:
            try:
                raise OSError("context")
            except OSError:
                error = Kept("mine", exc.exceptions)
                error.add_note("which shop")
                raise error from ValueError("cause")

    def main() -> None:
        with pytest.raises(Kept) as caught:
            if block == "timeout":
                with timeout(0.01):
                    body()
            else:
                with context.with_timeout(context.background(), 0.01):
                    body()
        error = caught.value
        assert [type(one) for one in error.exceptions][1:] == [KeyError] and error.message == "mine"
        assert isinstance(error.exceptions[0], TimeoutError)
        assert error.__notes__ == ["which shop"]
        assert repr(error.__cause__) == "ValueError('cause')" and repr(error.__context__) == "OSError('context')"
        assert error.__suppress_context__
        assert "body" in [entry.name for entry in caught.traceback]

    run(main)


def test_used_wrongly() -> None:
    """Breaks: a limit that silently does nothing: around a run, or the second time."""
    with pytest.raises(gort.GortError, match="inside of run's function"):
        with timeout(1):
            run(int)
    run(int)

    def main() -> None:
        limit = timeout(1)
        with limit:
            pass
        with pytest.raises(gort.GortError, match="second time"):
            with limit:
                pass

    run(main)


@pytest.mark.parametrize("inner, outer", [(0.01, LONG), (LONG, 0.01)])
def test_nested_limits_each_end_their_own_block(procs: int, inner: float, outer: float) -> None:
    """Breaks: a limit whose error comes out of somebody else's block."""

    def main() -> None:
        caught = []
        try:
            with timeout(outer):
                try:
                    with timeout(inner):
                        Chan().recv()
                except TimeoutError:
                    caught.append("inner")
                gort.sleep(0.001)
        except TimeoutError:
            caught.append("outer")
        assert caught == ["inner" if inner < outer else "outer"]

    run(main, procs=procs)


@pytest.mark.parametrize("first", ["inner", "outer"])
def test_two_limits_over_at_once(first: str) -> None:
    """Breaks: the second of two cancellations that come together is lost, and its block waits for ever."""

    def main() -> None:
        caught = []
        try:
            with timeout(LONG) as outer:
                try:
                    with timeout(LONG) as inner:
                        both = [inner, outer] if first == "inner" else [outer, inner]
                        for limit in both:
                            limit._scope.cancel("over")
                        Chan().recv()
                except TimeoutError:
                    caught.append("inner")
                Chan().recv()
        except TimeoutError:
            caught.append("outer")
        assert caught == (["inner", "outer"] if first == "inner" else ["outer"])
        gort.sleep(0.001)

    run(main)


def test_a_swallowed_cancellation_does_not_swallow_the_next() -> None:
    """Breaks: whether the limit around a clean-up bounds it depends on whether it was over a moment before."""

    def main() -> None:
        events = []
        with pytest.raises(TimeoutError):
            with timeout(LONG) as outer:
                with timeout(LONG) as inner:
                    inner._scope.cancel("first")
                    outer._scope.cancel("second")
                    try:
                        Chan().recv()
                    finally:
                        try:
                            Chan().recv()
                        except Cancelled as exc:
                            events.append(str(exc))
                            raise
        assert events == ["second"]

        g = go(both)
        g.join()
        assert g.result() == ["goroutine", "limit"]

    def both() -> list[str]:
        events = []
        try:
            with timeout(LONG) as limit:
                gort.current().cancel()
                limit._scope.cancel("limit")
                try:
                    Chan().recv()
                except Cancelled as exc:
                    events.append("goroutine" if exc.scope is None else "limit")
                Chan().recv()
        except TimeoutError:
            events.append("limit")
        return events

    run(main)


def test_a_goroutines_end_is_stronger_than_its_limits(procs: int) -> None:
    """Breaks: a cancelled goroutine that goes on because a time limit of its own was over at the same moment."""

    def body(ch: Chan[str]) -> None:
        try:
            with timeout(LONG) as limit:
                limit._scope.cancel("over")
                gort.current().cancel()
                Chan().recv()
        except TimeoutError:
            ch.send("limit")
        Chan().recv()

    def main() -> None:
        ch: Chan[str] = Chan(1)
        g = go(body, ch)
        g.join()
        assert isinstance(g.exception(), Cancelled) and len(ch) == 1

    run(main, procs=procs)


def test_errors_of_the_block_pass() -> None:
    """Breaks: an error of the program's own that a limit replaces by its TimeoutError."""

    def main() -> None:
        with pytest.raises(KeyError):
            with timeout(LONG) as limit:
                limit._scope.cancel("over")
                try:
                    Chan().recv()
                finally:
                    raise KeyError
        with pytest.raises(TimeoutError, match="receive timed out"):
            with timeout(LONG):
                Chan().recv(timeout=0.001)

    run(main)


def test_a_limit_in_an_exception_group_loses_none_of_the_errors() -> None:
    """Breaks: the errors of a Group's goroutines are lost because a time limit was over, or the limit is."""

    def bad() -> None:
        try:
            Chan().recv()
        finally:
            raise KeyError("in the clean-up")

    def main() -> None:
        with pytest.raises(ExceptionGroup) as info:
            with timeout(LONG):
                with timeout(LONG) as limit:
                    with Group() as g:
                        settle(g.go(bad))
                        limit._scope.cancel("over")
                        Chan().recv()
        kinds = [type(exc) for exc in info.value.exceptions]
        assert kinds == [TimeoutError, KeyError]

        with pytest.raises(TimeoutError):  # and with no errors, it is the plain one
            with timeout(LONG) as limit:
                raise BaseExceptionGroup("", [cancelled(limit)])

    def cancelled(limit: Any) -> Cancelled:
        limit._scope.cancel("over")
        try:
            Chan().recv()
        except Cancelled as exc:
            return exc
        raise AssertionError("not cancelled")

    run(main)


# -- the orders of a cancel and a wake-up --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["goroutine", "limit", "context", "group"])
@pytest.mark.parametrize("kind", ["recv", "select", "send"])
@pytest.mark.parametrize("order", ["operation first", "cancel first"])
def test_the_operation_has_happened_or_not(how: str, kind: str, order: str) -> None:
    """Breaks: a value that vanishes, or comes twice, when its receiver (or sender) is cancelled at that very moment.

    On one P, so the two events come in this order, and before the waiting goroutine has run.
    """

    def main() -> None:
        ch: Chan[int] = Chan()
        log: list[Any] = []
        cancel: list[Callable[[], Any]] = []
        def operation() -> None:
            if kind == "recv":
                log.append(ch.recv())
            elif kind == "select":
                log.append(select(gort.recv(Chan()), gort.recv(ch))[1])
            else:
                ch.send(7)
                log.append(7)

        def body() -> None:
            try:
                if how == "limit":
                    with timeout(LONG) as limit:
                        cancel.append(lambda: limit._scope.cancel("over"))
                        operation()
                elif how == "context":
                    with context.with_cancel(context.background()) as ctx:
                        cancel.append(ctx.cancel)
                        operation()
                elif how == "group":
                    with Group() as group:
                        cancel.append(group.cancel)
                        operation()
                else:
                    cancel.append(gort.current().cancel)
                    operation()
            except (TimeoutError, context.ContextCancelled) as exc:
                log.append(type(exc))

        g = start(body)

        def complete() -> bool:
            return ch.try_recv() == (7, True) if kind == "send" else ch.try_send(7)

        if order == "operation first":
            assert complete()
            cancel[0]()
        else:
            cancel[0]()
            assert not complete(), "what was cancelled takes no part any more"
        settle(g)
        if order == "operation first":
            assert log == [7] and g.result() is None
        else:
            assert 7 not in log
        assert len(ch) == 0

    run(main, procs=1)


def test_over_exactly_when_the_operation_succeeds(procs: int, jitter: None) -> None:
    """Breaks: a value that is received and lost because the limit of its block was over at the same moment.

    The limits are about as long as a value takes to come, so every order occurs.
    """

    def main() -> None:
        rng = random.Random(SEED)
        ch: Chan[int] = Chan()
        got: list[int] = []
        sent: list[int] = []

        def sender() -> None:
            for n in range(300):
                ch.send(n)
                sent.append(n)
                gort.sleep(rng.random() * 1e-4)

        g = go(sender)
        while not g.done():
            try:
                with timeout(rng.random() * 1e-4):
                    while True:
                        got.append(ch.recv())
            except TimeoutError:
                pass
        g.result()
        assert got == sent == list(range(300))

    run(main, procs=procs)


# -- clean-up -------------------------------------------------------------------------------------------------------


def test_clean_up_may_wait(procs: int) -> None:
    """Breaks: a ``finally`` block that is cancelled for the same reason a second time, and so does not clean up."""

    def main() -> None:
        log: Chan[str] = Chan(10)

        def body(name: str) -> None:
            try:
                Chan().recv()
            finally:
                gort.sleep(0.001)
                Chan(1).send(1)
                log.send(name)

        def limited() -> None:
            with timeout(0.001):
                body("limit")

        def grouped() -> None:
            with Group() as group:
                g = group.go(body, "child")
                settle(g)
                group.cancel()
                group.cancel()
                g.cancel()

        def under() -> None:
            with context.with_timeout(context.background(), 0.001):
                body("context")

        goroutines = [go(limited), go(grouped), go(under)]
        one = start(body, "goroutine")
        one.cancel()
        one.cancel()
        for g in [*goroutines, one]:
            g.join()
            g.exception()
        assert sorted(log.recv() for _ in range(4)) == ["child", "context", "goroutine", "limit"]

    run(main, procs=procs)


def test_a_cancellation_arrives_in_a_finally_block() -> None:
    """Breaks: a clean-up that hangs cannot be ended from outside, because the block was being cancelled already."""

    def main() -> None:
        began: Chan[None] = Chan(1)
        ends = []

        def body() -> None:
            with timeout(LONG) as outer:
                try:
                    with timeout(LONG) as inner:
                        inner._scope.cancel("inner")
                        try:
                            Chan().recv()
                        finally:
                            began.send(None)
                            gort.after_func(0.001, outer._scope.cancel, "outer")
                            Chan().recv()
                except TimeoutError:
                    ends.append("inner")

        g = go(body)
        began.recv()
        with pytest.raises(TimeoutError):
            g.result()
        assert ends == []

        def stubborn() -> None:
            try:
                Chan().recv()
            finally:
                with timeout(0.001):
                    Chan().recv()

        g = start(stubborn)
        g.cancel()
        with pytest.raises(TimeoutError):
            g.result()

    run(main)


# -- shield -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["goroutine", "limit", "context", "group"])
@pytest.mark.parametrize("when", ["before", "inside, waiting", "inside, running"])
def test_a_shield_holds_back_and_then_lets_through(procs: int, how: str, when: str) -> None:
    """Breaks: a critical section that is left half done, or a cancellation that the shield loses."""

    def main() -> None:
        log: list[str] = []
        inside: Chan[Any] = Chan()
        proceed: Chan[None] = Chan()

        def section(cancel: Callable[[], Any]) -> None:
            if when == "before":
                cancel()
            with shield():
                if when == "inside, running":
                    cancel()
                inside.send(cancel)
                proceed.recv()
                log.append("whole")
            gort.sleep(LONG)
            log.append("lost")

        def body() -> None:
            if how == "limit":
                with timeout(LONG) as limit:
                    section(lambda: limit._scope.cancel("over"))
            elif how == "context":
                with context.with_cancel(context.background()) as ctx:
                    section(ctx.cancel)
            elif how == "group":
                with Group() as group:
                    section(group.cancel)
            else:
                section(gort.current().cancel)

        g = go(body)
        cancel = inside.recv()
        settle(g)
        if when == "inside, waiting":
            cancel()
        proceed.send(None)
        error = g.exception()
        ended = context.ContextCancelled
        kinds = {"goroutine": Cancelled, "limit": TimeoutError, "context": ended, "group": type(None)}
        assert log == ["whole"] and isinstance(error, kinds[how])

    run(main, procs=procs)


def test_what_stands_inside_a_shield_works() -> None:
    """Breaks: the time limit of a clean-up, which one writes inside the shield, never ends it."""

    def main() -> None:
        def body(log: Chan[str]) -> None:
            try:
                Chan().recv()
            finally:
                with shield():
                    try:
                        with timeout(0.001):
                            Chan().recv()
                    except TimeoutError:
                        log.send("limit")
                    ctx = context.with_timeout(context.background(), 0.001)
                    try:
                        with shield(), ctx, shield():
                            pass
                        with ctx:
                            Chan().recv()
                    except TimeoutError:
                        log.send("context")
                    try:
                        with Group() as group:
                            group.go(lambda: 1 / 0)
                            Chan().recv()
                    except* ZeroDivisionError:
                        log.send("group")

        log: Chan[str] = Chan(10)
        g = start(body, log)
        g.cancel()
        g.join()
        assert isinstance(g.exception(), Cancelled)
        assert [log.try_recv()[0] for _ in range(4)] == ["limit", "context", "group", None]

    run(main)


def test_shields_nest_and_hold_several() -> None:
    """Breaks: the inner shield's end lets through what the outer one should hold, or one of several is forgotten."""

    def main() -> None:
        events = []
        try:
            with timeout(LONG) as outer:
                try:
                    with timeout(LONG) as inner:
                        with shield():
                            with shield():
                                inner._scope.cancel("inner")
                                outer._scope.cancel("outer")
                                gort.sleep(0.001)
                            gort.sleep(0.001)
                            events.append("whole")
                        gosched()
                        Chan().recv()
                except TimeoutError:
                    events.append("inner")
                gort.sleep(LONG)
        except TimeoutError:
            events.append("outer")
        assert events == ["whole", "inner", "outer"]
        with shield():
            gort.sleep(0.001)

    run(main)
    with shield():  # on a plain thread there is nothing to hold back
        pass


def test_a_held_cancellation_of_a_block_that_is_over_is_dropped() -> None:
    """Breaks: a cancellation that outlives its block in the shield's keeping, and hits what comes after."""

    def main() -> None:
        with shield():
            scope = Scope()
            scope.enter("a test")
            with shield():
                scope.cancel("held")
            scope.exit(None)
        gort.sleep(0.001)
        Chan(1).send(1)

    run(main)


# -- counting ---------------------------------------------------------------------------------------------------------


class Flood:
    """Producers and consumers whose every operation may be cancelled, by every mechanism, at any moment.

    A producer sends each of its values until a send returns; a consumer keeps what a receive returns.  So if an
    operation that raised has happened nonetheless, or one that returned has not, a value comes twice or never.
    A worker that is cancelled as a goroutine is started again with the same state.
    """

    def __init__(self, seed: int, values: int, workers: int) -> None:
        self.seed = seed
        self.channels: list[Chan[int]] = [Chan(), Chan(3)]
        self.sent: list[list[int]] = [[] for _ in range(workers)]
        self.todo = [list(range(w * values, (w + 1) * values)) for w in range(workers)]
        self.got: list[list[int]] = [[] for _ in range(workers)]
        self.live: dict[int, Any] = {}  # what can be cancelled now, by worker
        self.interrupted: Counter[str] = Counter()
        self.over = False

    # one operation, in some form

    def put(self, rng: random.Random, value: int, done: list[int]) -> None:
        a, b = self.channels
        form = rng.randrange(4)
        if form == 0:
            rng.choice(self.channels).send(value)
        elif form == 1:
            rng.choice(self.channels).send(value, timeout=rng.random() * 1e-3)
        elif form == 2:
            select(gort.send(a, value), gort.send(b, value))
        else:
            select(gort.send(a, value), gort.recv(Chan()), timeout=rng.random() * 1e-3)
        done.append(value)

    def take(self, rng: random.Random, done: list[int]) -> None:
        a, b = self.channels
        form = rng.randrange(5)
        if form == 0:
            done.append(rng.choice(self.channels).recv())
        elif form == 1:
            done.append(rng.choice(self.channels).recv(timeout=rng.random() * 1e-3))
        elif form == 2:
            done.append(select(gort.recv(a), gort.recv(b))[1])
        elif form == 3:
            done.append(select(gort.recv(a), gort.recv(b), timeout=rng.random() * 1e-3)[1])
        else:
            value, ok = b.try_recv()
            if ok:
                done.append(value)  # type: ignore[arg-type]
            gosched()

    # the mechanisms

    def guarded(self, rng: random.Random, who: int, operation: Callable[[], None]) -> None:
        """Do the operation under some mechanism that may end it."""
        how = rng.randrange(8)
        try:
            if how == 0:
                with timeout(rng.random() * 1e-3):
                    operation()
            elif how == 1:
                ctx = context.with_cancel(context.background())
                self.live[who] = ctx.cancel
                with ctx:
                    operation()
            elif how == 2:
                with context.with_timeout(context.background(), rng.random() * 1e-3):
                    operation()
            elif how == 3:
                with Group() as group:
                    self.live[who] = group.cancel
                    operation()
            elif how == 4:
                with Group() as group:
                    self.live[who] = group.cancel
                    group.go(operation)
            elif how == 5:
                with Group() as group:
                    group.go(operation)
                    if rng.random() < 0.5:
                        group.go(lambda: 1 / 0)
            elif how == 6:
                with timeout(rng.random() * 1e-3), Group(limit=1) as group, timeout(rng.random() * 1e-3):
                    group.go(operation)
            else:
                with shield():
                    try:
                        with timeout(rng.random() * 1e-3):
                            operation()
                    except TimeoutError:
                        self.interrupted["in a shield"] += 1
        except TimeoutError:
            self.interrupted["limit"] += 1
        except context.ContextCancelled:
            self.interrupted["context"] += 1
        except BaseExceptionGroup as exc:
            if exc.split((ZeroDivisionError, TimeoutError))[1]:
                raise  # the worker itself has been cancelled as well
            self.interrupted["group"] += 1

    def worker(self, who: int, life: int) -> None:
        rng = random.Random(f"{self.seed} {who} {life}")
        self.live[who] = gort.current().cancel  # type: ignore[union-attr]
        n = who // 2
        if who % 2:
            while not (self.over and all(not len(ch) for ch in self.channels)):
                self.guarded(rng, who, lambda: self.take(rng, self.got[n]))
                self.live[who] = gort.current().cancel  # type: ignore[union-attr]
        else:
            todo, sent = self.todo[n], self.sent[n]
            while todo:
                value = todo[0]
                self.guarded(rng, who, lambda: self.put(rng, value, sent))
                self.live[who] = gort.current().cancel  # type: ignore[union-attr]
                if sent and sent[-1] == value:
                    todo.pop(0)

    def keeper(self, who: int) -> None:
        """A worker's lives, one after the other."""
        life = 0
        while True:
            g = go(self.worker, who, life)
            g.join()
            error = g.exception()
            if error is None:
                return
            n = who // 2
            if not who % 2 and self.sent[n] and self.todo[n] and self.sent[n][-1] == self.todo[n][0]:
                self.todo[n].pop(0)  # cancelled right after the send: it has happened
            cancelled = isinstance(error, Cancelled)
            if isinstance(error, BaseExceptionGroup):
                cancelled = not error.split((Cancelled, ZeroDivisionError, TimeoutError))[1]
            assert cancelled, error
            self.interrupted["goroutine"] += 1
            life += 1

    def canceller(self, seed: Any, stop: threading.Event, pause: Callable[[], None]) -> None:
        rng = random.Random(seed)
        while not stop.is_set():
            cancel = self.live.get(rng.randrange(2 * len(self.todo)))
            if cancel is not None:
                cancel()
            pause()

    def disturber(self, stop: threading.Event, procs: int) -> None:
        """Have machines lose their Ps, and change how many there are."""
        rng = random.Random(f"{self.seed} disturber")

        def block() -> None:
            time.sleep(rng.random() * 3e-3)

        while not stop.is_set():
            go(block if rng.random() < 0.5 else lambda: block())  # the second kind is never known to block
            gort.gomaxprocs(rng.randrange(1, procs + 1))
            gort.sleep(rng.random() * 3e-3)
            gort.blocking(time.sleep, 1e-4)

    def main(self) -> None:
        rng = random.Random(self.seed)
        workers = range(2 * len(self.todo))
        stop = threading.Event()
        inside = go(self.canceller, "goroutine", stop, lambda: gort.sleep(rng.random() * 1e-3))
        outside = threading.Thread(target=self.canceller, args=("thread", stop, lambda: stop.wait(rng.random() * 1e-3)))
        outside.start()
        if self.seed % 2:
            go(self.disturber, stop, gort.gomaxprocs())
        try:
            keepers = [go(self.keeper, who) for who in workers]
            for g in keepers[::2]:
                g.join()
                g.result()
            stop.set()  # what is left now is received without disturbance
            self.over = True
            ends = [self.live.get(who) for who in workers[1::2]]
            for cancel in ends:  # a consumer may wait with no limit for what never comes
                if cancel is not None:
                    cancel()
            while not all(g.done() for g in keepers[1::2]):
                for who in workers[1::2]:
                    self.live[who]()
                gort.sleep(1e-3)
            for g in keepers[1::2]:
                g.result()
        finally:
            stop.set()
            outside.join()
        inside.result()
        for ch in self.channels:  # what the last consumer left
            while (got := ch.try_recv())[1]:
                self.got[0].append(got[0])  # type: ignore[arg-type]


@pytest.mark.limit(120 + 3 * STRESS)
def test_no_value_vanishes_or_doubles_however_one_cancels(procs: int, jitter: None) -> None:
    """Breaks: the promise: an operation that is cancelled has either happened or not.

    Values in must be values out, each once, while sends, receives and selects are cancelled at random by time-outs,
    time limits, contexts, groups, failing siblings and `Goroutine.cancel`, from goroutines and from a plain thread.
    """
    print(f"GORT_SEED={SEED}")
    until = monotonic() + STRESS
    seed = SEED
    rounds = 0
    total: Counter[str] = Counter()
    everything_took_part = {"limit", "context", "group", "goroutine", "in a shield"}
    while rounds < 2 or monotonic() < until or set(total) != everything_took_part:
        flood = Flood(seed, values=150, workers=3)
        run(flood.main, procs=procs)
        everything = [value for todo in flood.got for value in todo]
        assert all(not todo for todo in flood.todo)
        assert sorted(everything) == list(range(450)), f"seed {seed}"
        assert sorted(value for sent in flood.sent for value in sent) == list(range(450)), f"seed {seed}"
        total += flood.interrupted
        rounds += 1
        seed += 1
    print(rounds, "rounds,", 450 * rounds, "values, interrupted by", dict(total))


@pytest.mark.limit(120 + 3 * STRESS)
def test_no_value_vanishes_on_plain_threads(jitter: None) -> None:
    """Breaks: the same promise for plain threads in blocks that are cancelled by time limits, contexts and others."""
    a: Chan[int] = Chan()
    b: Chan[int] = Chan(2)
    got: list[list[int]] = [[], []]
    sent: list[int] = [0, 0]
    over = threading.Event()
    blocks: list[Any] = [None] * 4
    errors: list[BaseException] = []
    until = monotonic() + max(STRESS, 0.3)

    def guarded(rng: random.Random, who: int, operation: Callable[[], None]) -> None:
        ctx = context.with_timeout(context.background(), rng.random() * 1e-3)
        blocks[who] = block = ctx if rng.random() < 0.5 else timeout(rng.random() * 1e-3)
        try:
            with block:
                operation()
        except (TimeoutError, context.ContextCancelled):
            pass

    def put(rng: random.Random, value: int, done: list[bool]) -> None:
        if rng.random() < 0.5:
            select(gort.send(a, value), gort.send(b, value))
        else:
            rng.choice((a, b)).send(value)
        done.append(True)

    def take(rng: random.Random, mine: list[int]) -> None:
        if rng.random() < 0.5:
            mine.append(select(gort.recv(a), gort.recv(b))[1])
        else:
            mine.append(rng.choice((a, b)).recv())

    def producer(who: int) -> None:
        rng = random.Random(f"{SEED} plain {who}")
        while monotonic() < until:
            done: list[bool] = []
            while not done:
                guarded(rng, who, lambda: put(rng, 2 * sent[who] + who, done))
            sent[who] += 1

    def consumer(who: int) -> None:
        rng = random.Random(f"{SEED} plain {who}")
        while not over.is_set() or len(b):
            guarded(rng, who, lambda: take(rng, got[who - 2]))

    def work(fn: Callable[[int], None], who: int) -> None:
        try:
            fn(who)
        except BaseException as exc:
            errors.append(exc)
            raise

    def canceller() -> None:
        rng = random.Random(f"{SEED} plain")
        while not over.is_set():
            block = rng.choice(blocks)
            if isinstance(block, context.CancelContext):
                block.cancel()
            elif block is not None:
                block._scope.cancel("by the canceller")
            over.wait(rng.random() * 1e-3)

    threads = [threading.Thread(target=work, args=(producer if who < 2 else consumer, who)) for who in range(4)]
    meddler = threading.Thread(target=canceller)
    for t in [*threads, meddler]:
        t.start()
    for t in threads[:2]:
        t.join()
    over.set()
    for t in [*threads[2:], meddler]:
        t.join()
    assert not errors
    assert sorted(got[0] + got[1]) == sorted(2 * n + who for who in (0, 1) for n in range(sent[who]))
    print(len(got[0]) + len(got[1]), "values")


# -- blocks that a generator hands on ---------------------------------------------------------------------------------


def blocks() -> dict[str, Any]:
    ctx = context.with_timeout(context.background(), LONG)
    return {"timeout": gort.timeout(LONG), "shield": gort.shield(), "Group": gort.Group(), "context": ctx}


@pytest.mark.parametrize("kind", ["timeout", "shield", "Group", "context"])
def test_a_block_that_another_goroutine_leaves_is_an_error(kind: str, procs: int) -> None:
    """Broken: who finishes another goroutine's generator leaves a block that is not his, and nobody notices."""

    def main() -> None:
        gate: Chan[None] = Chan()
        given: Chan[Any] = Chan()

        def numbers() -> Any:
            with blocks()[kind]:
                yield 1

        def begins() -> str:
            it = numbers()
            next(it)
            given.send(it)
            gate.recv()
            return "unharmed"

        g = go(begins)
        it = given.recv()

        def finishes() -> None:
            list(it)

        with pytest.raises((gort.GortError, ExceptionGroup)) as info:
            go(finishes).result()
        error = info.value.exceptions[0] if isinstance(info.value, ExceptionGroup) else info.value
        assert type(error) is gort.GortError and "another goroutine" in str(error)
        settle(g)
        gate.send(None)
        assert g.result() == "unharmed"

    run(main, procs=procs)


def test_a_limit_that_another_goroutine_has_left_is_raised_nowhere(procs: int) -> None:
    """Broken: the limit of a block that is over interrupts the goroutine that once entered it."""

    def main() -> None:
        gate: Chan[int] = Chan()
        given: Chan[Any] = Chan()
        left = threading.Event()

        def numbers() -> Any:
            with gort.timeout(0):
                yield 1

        def begins() -> list[int]:
            it = numbers()
            next(it)  # its time is over: the next wait would raise
            threading.Thread(target=finishes, args=(it,)).start()
            left.wait()  # without gort
            return [gate.recv(), gate.recv(timeout=LONG)]

        def finishes(it: Any) -> None:
            with pytest.raises(gort.GortError, match="another goroutine"):
                list(it)
            left.set()

        g = go(begins)
        gate.send(1)
        gate.send(2)
        assert g.result() == [1, 2]

    run(main, procs=procs)


def test_a_generator_may_be_closed_anywhere() -> None:
    """Broken: a generator that is dropped inside its block, by whoever has it last, makes an error of its clean-up."""

    def main() -> None:
        given: Chan[Any] = Chan()

        def numbers(block: Any) -> Any:
            with block:
                yield 1

        def begins(block: Any) -> None:
            it = numbers(block)
            next(it)
            given.send(it)
            gosched()

        for kind in ("timeout", "shield"):
            g = go(begins, blocks()[kind])
            it = given.recv()
            it.close()
            g.join()
            go(begins, blocks()[kind])
            it = given.recv()
            gosched()
            assert list(it) == []  # he who entered has ended: whom should it concern?

    run(main, procs=1)
