"""gort.aio: coroutines run by goroutines, goroutines awaited by coroutines, and what crosses over between them.

Most tests run on one P: a goroutine that held its thread instead of parking would hang them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import os
import random
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import gort
from gort import Chan, aio, go, gosched, run

ROUNDS = 5_000 if os.environ.get("GORT_STRESS") else 200

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop of the program's own, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def until_it_waits(g: gort.Goroutine[Any]) -> None:
    while g.state != "waiting":
        gosched()


# -- a goroutine runs a coroutine -----------------------------------------------------------------------------------


def test_run_gives_the_result(procs: int) -> None:
    """Broken: a coroutine's result does not reach the goroutine that ran it."""

    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    def main() -> list[int]:
        return [g.result() for g in [go(lambda n=n: aio.run(double(n))) for n in range(100)]]

    assert run(main, procs=procs) == [2 * n for n in range(100)]


def test_run_raises_what_the_coroutine_raised() -> None:
    """Broken: a coroutine's error is lost, or comes without the place where it was raised."""

    async def fails() -> None:
        await asyncio.sleep(0)
        raise LookupError("not there")

    def main() -> None:
        with pytest.raises(LookupError, match="not there") as info:
            aio.run(fails())
        assert traceback.extract_tb(info.value.__traceback__)[-1].name == "fails"

    run(main, procs=1)


def test_run_parks_the_goroutine() -> None:
    """Broken: a goroutine that waits for a coroutine holds the thread of the goroutine that the coroutine waits for."""

    def main() -> str:
        gate: Chan[str] = Chan()
        there = go(gate.recv)

        async def asks() -> str:
            return await aio.wait(there)

        g = go(lambda: aio.run(asks()))
        until_it_waits(g)
        gate.send("both ways")
        return g.result()

    assert run(main, procs=1) == "both ways"


def test_run_from_a_plain_thread() -> None:
    """Broken: code that may run on any thread has to know where it is."""

    async def where() -> str:
        return threading.current_thread().name

    assert aio.run(where()) == aio.run(where()) == "gort-aio"


def test_run_in_a_given_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Broken: a coroutine that needs what lives in the program's loop runs in another one."""

    async def which() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def main() -> None:
        assert aio.run(which(), loop=loop) is loop
        assert aio.run(which()) is not loop
        # A task of that loop is awaitable, though no coroutine.
        task = aio.run(make_task(), loop=loop)
        assert aio.run(task, loop=loop) == "task"

    async def make_task() -> asyncio.Task[str]:
        return asyncio.create_task(asyncio.sleep(0.01, "task"))

    run(main, procs=1)


def test_many_coroutines_at_once(procs: int, loop: asyncio.AbstractEventLoop) -> None:
    """Broken: coroutines of several goroutines get each other's results, or wait for each other."""

    def main() -> None:
        here: list[int] = []

        async def meet(n: int) -> int:
            here.append(n)
            while len(here) < 200:  # each can end only when all have begun
                await asyncio.sleep(0.001)
            return n

        gs = [go(lambda n=n: aio.run(meet(n), loop=loop)) for n in range(200)]
        assert [g.result() for g in gs] == list(range(200))

    run(main, procs=procs)


def test_the_coroutine_has_the_goroutines_context() -> None:
    """Broken: context variables are lost on the way, or what the coroutine sets leaks into the goroutine."""

    async def look() -> str:
        await asyncio.sleep(0)
        seen = var.get()
        var.set("the coroutine's")
        return seen

    def main() -> None:
        var.set("the goroutine's")
        assert aio.run(look()) == "the goroutine's"
        assert var.get() == "the goroutine's"

    run(main, procs=1)


@pytest.mark.parametrize("own_loop", [True, False])
def test_to_cancel_the_goroutine_cancels_the_coroutine(
    procs: int, own_loop: bool, loop: asyncio.AbstractEventLoop
) -> None:
    """Broken: a cancelled goroutine leaves its coroutine running, or goes on before that has cleaned up."""

    def main() -> None:
        events: list[str] = []
        begun: Chan[int] = Chan(1)

        async def work() -> None:
            try:
                begun.send(1)
                await forever()
            except asyncio.CancelledError:
                await asyncio.sleep(0.02)
                events.append("coroutine")
                raise

        def runs() -> None:
            try:
                aio.run(work(), loop=None if own_loop else loop)
            finally:
                events.append("goroutine")

        g = go(runs)
        begun.recv()
        g.cancel()
        g.join()
        assert isinstance(g.exception(), gort.Cancelled)
        assert events == ["coroutine", "goroutine"]

    run(main, procs=procs)


def test_a_cancelled_goroutine_stays_cancelled() -> None:
    """Broken: a coroutine that swallows its cancellation keeps its goroutine alive."""

    def main() -> None:
        begun: Chan[int] = Chan(1)

        async def swallows() -> str:
            try:
                begun.send(1)
                await forever()
            except asyncio.CancelledError:
                pass
            return "not impressed"

        g = go(lambda: aio.run(swallows()))
        begun.recv()
        g.cancel()
        assert isinstance(g.exception(), gort.Cancelled)

    run(main, procs=1)


def test_run_times_out() -> None:
    """Broken: a time-out leaves the coroutine running, or comes before it has cleaned up."""

    def main() -> None:
        events: list[str] = []

        async def work() -> None:
            try:
                await forever()
            finally:
                await asyncio.sleep(0.01)
                events.append("cleaned up")

        with pytest.raises(TimeoutError, match="work.*0.01 s"):
            aio.run(work(), timeout=0.01)
        assert events == ["cleaned up"]

    run(main, procs=1)


def test_a_result_that_comes_in_spite_of_the_time_out_is_not_lost() -> None:
    """Broken: a value that the coroutine returns though its time was over (an open connection, say) vanishes."""

    async def returns() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            pass
        return "a value"

    async def fails() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            raise LookupError from None

    def main() -> None:
        assert aio.run(returns(), timeout=0.01) == "a value"
        with pytest.raises(LookupError):
            aio.run(fails(), timeout=0.01)

    run(main, procs=1)


@pytest.mark.parametrize("how", ["cancel", "block", "timeout", "task"])
def test_an_error_in_the_clean_up_comes_out(how: str) -> None:
    """Broken: what went wrong after a cancellation, on the other side, is lost without a trace."""

    began = threading.Event()

    async def fails() -> None:
        try:
            began.set()
            await forever()
        finally:
            raise ValueError("clean-up")

    def fails_too() -> None:
        try:
            began.set()
            Chan().recv()
        finally:
            raise ValueError("clean-up")

    async def task(limit: float) -> None:
        await asyncio.wait_for(aio.wait(go(fails_too)), limit)

    def attempt(limit: float) -> None:
        if how == "block":
            with gort.timeout(limit):
                aio.run(fails())
        elif how == "timeout":
            aio.run(fails(), timeout=limit)
        else:
            aio.run(task(limit))

    def main() -> BaseException | None:
        if how == "cancel":
            g = go(aio.run, fails())
            while not began.is_set():
                gosched()
            g.cancel()
            return g.exception()
        limit = 0.01
        while True:
            try:
                attempt(limit)
            except ValueError as exc:
                return exc
            except TimeoutError:
                if began.is_set():  # it had a clean-up, whose error has not come out
                    raise
            limit *= 2  # on a busy computer it was over before the other side began

    error = run(main, procs=1)
    assert isinstance(error, ValueError)
    found, inner = [], error.__context__
    while inner is not None:
        found.append(type(inner))
        inner = inner.__context__
    if how in ("cancel", "block"):
        assert found == [asyncio.CancelledError, gort.Cancelled]


def test_a_coroutine_that_was_cancelled_from_within() -> None:
    """Broken: the goroutine looks cancelled, though nobody cancelled it; or it is told nothing."""

    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    def main() -> None:
        with pytest.raises(concurrent.futures.CancelledError):
            aio.run(cancels_itself())

    run(main, procs=1)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_exit_in_a_coroutine_reaches_the_goroutine(kind: type[BaseException]) -> None:
    """Broken: one coroutine's exit ends the loop's thread, and with it every other coroutine."""

    async def exits() -> None:
        raise kind(3)

    def main() -> None:
        other = go(lambda: aio.run(asyncio.sleep(0.05, "goes on")))
        until_it_waits(other)
        with pytest.raises(kind):
            aio.run(exits())
        assert other.result() == "goes on"
        assert aio.run(asyncio.sleep(0, "still there")) == "still there"

    run(main, procs=1)


def test_run_on_the_loops_own_thread() -> None:
    """Broken: a coroutine that calls it hangs its loop for ever."""

    async def calls() -> None:
        coro = asyncio.sleep(0)
        with pytest.raises(gort.GortError, match="await"):
            aio.run(coro, loop=asyncio.get_running_loop())
        assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED  # and nothing is said to be never awaited

    asyncio.run(calls())

    async def calls_in_own_loop() -> None:
        with pytest.raises(gort.GortError, match="await"):
            aio.run(asyncio.sleep(0))

    aio.run(calls_in_own_loop())


def test_run_in_a_closed_loop() -> None:
    """Broken: a loop that runs no more makes the goroutine hang."""
    closed = asyncio.new_event_loop()
    closed.close()
    coro = asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="closed"):
        aio.run(coro, loop=closed)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


def test_cancel_while_the_loop_stands_still() -> None:
    """Broken: a goroutine cannot be cancelled because the loop that it was given was stopped."""
    stopped = asyncio.new_event_loop()

    def main() -> None:
        g = go(lambda: aio.run(asyncio.sleep(0), loop=stopped))
        until_it_waits(g)
        g.cancel()
        assert isinstance(g.exception(), gort.Cancelled)

    run(main, procs=1)
    stopped.run_until_complete(asyncio.sleep(0))  # it gets to know, and nothing is left that was never awaited
    stopped.close()


def test_the_loop_is_closed_while_a_goroutine_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a goroutine waits for ever for a coroutine whose loop was closed under it."""
    monkeypatch.setattr(aio, "LOOK", 0.01)
    stopped = asyncio.new_event_loop()

    async def never(begun: Chan[int]) -> None:
        begun.send(1)
        await forever()

    def main() -> None:
        begun: Chan[int] = Chan(1)
        g = go(lambda: aio.run(never(begun), loop=stopped))
        until_it_waits(g)
        stopped.run_until_complete(asyncio.sleep(0))  # this thread's turn to run it, for a moment
        begun.recv()
        for task in asyncio.all_tasks(stopped):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        stopped.close()
        assert isinstance(g.exception(), gort.GortError)
        assert "closed" in str(g.exception())
        with pytest.raises(TimeoutError, match="0.03 s"):
            aio.run(forever(), timeout=0.03)

    run(main, procs=1)


def test_run_with_bad_input() -> None:
    """Broken: a mistake shows up in another thread, or leaves a coroutine that was never awaited."""
    with pytest.raises(TypeError, match=r"run\(fn\(\.\.\.\)\)"):
        aio.run(forever)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="coroutine, not int"):
        aio.run(3)  # type: ignore[arg-type]
    coro = forever()
    with pytest.raises(TypeError, match="timeout"):
        aio.run(coro, timeout="1")  # type: ignore[arg-type]
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


def test_a_goroutine_that_waits_for_a_coroutine_is_no_deadlock() -> None:
    """Broken: main waits for the loop's thread, and is told that nothing can wake it."""

    def main() -> str:
        return aio.run(asyncio.sleep(0.05, "no deadlock"))

    assert run(main, procs=1) == "no deadlock"


# -- a coroutine waits for a goroutine ------------------------------------------------------------------------------


def test_wait_gives_the_result() -> None:
    """Broken: a goroutine's result does not reach the task that awaits it."""

    async def main() -> list[int]:
        return await asyncio.gather(*(aio.wait(go(lambda n=n: gort.sleep(0.001) or n)) for n in range(100)))

    assert asyncio.run(main()) == list(range(100))


def test_wait_for_a_goroutine_that_has_ended() -> None:
    """Broken: who awaits too late waits for ever."""

    async def main() -> int:
        g = go(int)
        g.join()
        return await aio.wait(g)

    assert asyncio.run(main()) == 0


def test_wait_raises_what_the_goroutine_raised() -> None:
    """Broken: a goroutine's error is lost, or reported although somebody asked."""

    def fails() -> None:
        raise LookupError("not there")

    async def main() -> None:
        with pytest.raises(LookupError, match="not there"):
            await aio.wait(go(fails))

    asyncio.run(main())


def test_wait_leaves_the_loop_to_others() -> None:
    """Broken: a task that awaits a goroutine stops its event loop."""

    async def main() -> str:
        gate: Chan[str] = Chan()
        task = asyncio.create_task(aio.wait(go(gate.recv)))
        await asyncio.sleep(0)
        while not gate.try_send("from another task"):
            await asyncio.sleep(0.001)
        return await task

    assert asyncio.run(main()) == "from another task"


def test_a_goroutine_has_the_tasks_context() -> None:
    """Broken: context variables are lost on the way from a task to its goroutine."""

    async def main() -> None:
        var.set("the task's")
        assert await aio.wait(go(var.get)) == "the task's"

    asyncio.run(main())


def test_to_cancel_the_task_cancels_the_goroutine(procs: int) -> None:
    """Broken: a cancelled task leaves its goroutine running, or goes on before that has cleaned up."""
    events: list[str] = []
    begun: Chan[int] = Chan(1)

    def work() -> None:
        try:
            begun.send(1)
            Chan[int]().recv()
        finally:
            gort.sleep(0.02)
            events.append("goroutine")

    async def waits(g: gort.Goroutine[Any]) -> None:
        try:
            await aio.wait(g)
        finally:
            events.append("task")

    async def main(runtime: gort.Runtime) -> None:
        task = asyncio.create_task(waits(runtime.go(work)))
        await asyncio.sleep(0)  # it waits
        await asyncio.to_thread(begun.recv)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with gort.Runtime(procs) as runtime:
        asyncio.run(main(runtime))
    assert events == ["goroutine", "task"]


def test_a_time_out_of_asyncio_cancels_the_goroutine() -> None:
    """Broken: asyncio.timeout does not end a goroutine, or is not told from a cancellation."""

    async def main() -> None:
        g = go(gort.sleep, 1000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await aio.wait(g)
        assert g.done()

    asyncio.run(main())


def test_a_shielded_goroutine_goes_on() -> None:
    """Broken: there is no way to stop waiting without ending the goroutine."""

    async def main() -> None:
        gate: Chan[str] = Chan()
        g = go(gate.recv)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(aio.wait(g)), 0.01)
        assert not g.done()
        await aio.wait(go(gate.send, "goes on"))
        assert await aio.wait(g) == "goes on"

    asyncio.run(main())


def test_a_second_cancellation_ends_the_waiting() -> None:
    """Broken: a goroutine with an endless clean-up makes its task unstoppable."""

    async def main() -> None:
        gate: Chan[int] = Chan()
        cleaning = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stubborn() -> None:
            try:
                Chan[int]().recv()
            finally:
                loop.call_soon_threadsafe(cleaning.set)
                gate.recv()

        g = go(stubborn)
        while g.state != "waiting":
            await asyncio.sleep(0.001)
        task = asyncio.create_task(aio.wait(g))
        await asyncio.sleep(0)  # it waits
        task.cancel()
        await cleaning.wait()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not g.done()
        await aio.wait(go(gate.send, 1))
        with pytest.raises(gort.GoroutineCancelled):
            await aio.wait(g)

    asyncio.run(main())


def test_a_goroutine_that_others_cancelled() -> None:
    """Broken: the task looks cancelled, though nobody cancelled it; or it waits for ever."""

    async def main() -> None:
        g = go(gort.sleep, 1000)
        task = asyncio.create_task(aio.wait(g))
        await asyncio.sleep(0)
        g.cancel()
        with pytest.raises(gort.GoroutineCancelled):
            await task

    asyncio.run(main())


def test_a_goroutine_that_its_runtime_never_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a task waits for ever for a goroutine that was dropped before it began."""
    monkeypatch.setenv("GORT_MAXTHREADS", "1")  # else another thread may run it, when the first has blocked for long

    async def main() -> None:
        begun, gate = threading.Event(), threading.Event()

        def holds() -> None:
            begun.set()
            gate.wait()

        with gort.Runtime(1) as runtime:
            try:
                runtime.go(holds)
                await asyncio.to_thread(begun.wait)
                task = asyncio.create_task(aio.wait(runtime.go(int)))
                await asyncio.sleep(0)
                closing = asyncio.create_task(asyncio.to_thread(runtime.close))
                with pytest.raises(gort.GoroutineCancelled):
                    await task
            finally:
                gate.set()
            await closing

    asyncio.run(main())


def test_the_loop_is_closed_before_the_goroutine_ends() -> None:
    """Broken: a loop that is gone breaks the scheduler of the goroutine that somebody once awaited there."""
    gate: Chan[str] = Chan()

    def holds_on() -> str:
        while True:
            try:
                return gate.recv()
            except gort.Cancelled:
                pass

    async def main() -> gort.Goroutine[str]:
        g = go(holds_on)
        while g.state != "waiting":
            await asyncio.sleep(0.001)
        task = asyncio.create_task(aio.wait(g))
        for _ in range(2):
            await asyncio.sleep(0.001)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return g

    g = asyncio.run(main())
    gate.send("after the loop")
    assert g.result() == "after the loop"
    assert go(int).result() == 0


def test_wait_with_bad_input() -> None:
    """Broken: a mistake hangs, or shows up somewhere else."""

    async def main() -> None:
        with pytest.raises(TypeError, match=r"wait\(gort.go\(fn\)\)"):
            await aio.wait(int)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Goroutine, not NoneType"):
            await aio.wait(None)  # type: ignore[arg-type]

    asyncio.run(main())


# -- both ways at random --------------------------------------------------------------------------------------------


def test_both_ways_under_cancellation(procs: int, jitter: None) -> None:
    """Broken: when cancellations and ends race across the two worlds, somebody waits for ever or is left running."""
    rng = random.Random(f"aio {procs}")
    at_work = [0]
    lock = threading.Lock()

    def count(n: int) -> None:
        with lock:
            at_work[0] += n

    def leaf(seconds: float) -> str:
        count(1)
        try:
            gort.sleep(seconds)
            return "leaf"
        finally:
            count(-1)

    async def middle(seconds: float) -> str:
        count(1)
        try:
            return await aio.wait(go(leaf, seconds))
        finally:
            count(-1)

    def top(seconds: float) -> str:
        count(1)
        try:
            return aio.run(middle(seconds))
        finally:
            count(-1)

    def main() -> None:
        for _ in range(ROUNDS // 20):
            gs = [go(top, rng.choice([0, 1e-4, 1e-3])) for _ in range(20)]
            for g in gs:
                if rng.random() < 0.5:
                    gort.sleep(rng.choice([0, 1e-4, 1e-3]))
                    g.cancel()
            for g in gs:
                exc = g.exception()
                assert isinstance(exc, gort.Cancelled) if exc is not None else g.result() == "leaf"
            assert at_work == [0]

    run(main, procs=procs)


def test_the_names_are_exported() -> None:
    """Broken: the module shows other names than the documentation."""
    assert set(aio.__all__) == {"run", "wait"}


@pytest.mark.parametrize("where", ["plain thread", "goroutine"])
@pytest.mark.parametrize("limit", [0, -0.5, -1, 1.00002])
@pytest.mark.parametrize("own", [True, False], ids=["own loop", "given loop"])
def test_time_outs_of_any_length(where: str, limit: float, own: bool) -> None:
    """Broken: on a plain thread a time-out that is over already, or becomes so between two looks, is none, or an error."""
    loop = None if own else asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever) if loop is not None else None
    if thread is not None:
        thread.start()
    try:
        with pytest.raises(TimeoutError):
            if where == "goroutine":
                run(lambda: aio.run(asyncio.sleep(1000), timeout=limit, loop=loop))
            else:
                aio.run(asyncio.sleep(1000), timeout=limit, loop=loop)
    finally:
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


def test_who_is_cancelled_already_starts_no_coroutine() -> None:
    """Broken: a coroutine runs to its end, and what it returns is thrown away."""
    began = []

    async def pays() -> None:
        began.append(True)

    def main() -> None:
        for _ in range(100):
            with pytest.raises(TimeoutError), gort.timeout(0):
                aio.run(pays())

    run(main)
    assert not began
