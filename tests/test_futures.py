"""gort.futures: an Executor whose work runs in goroutines, and waiting for any concurrent.futures.Future.

Most tests run on one P, where a wait that stops the thread, instead of parking the goroutine, hangs: the one who would
end the wait needs that thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import gort
from gort import Chan, futures, go, gosched, run
from gort.futures import ALL, ANY, FIRST_EXCEPTION, Executor, wait
from gort.runtime import instance

StdFuture = concurrent.futures.Future

ROUNDS = 20_000 if os.environ.get("GORT_STRESS") else 400

var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")


def until_it_waits(g: gort.Goroutine[Any]) -> None:
    while g.state != "waiting":
        gosched()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


# -- wait: one future -----------------------------------------------------------------------------------------------


def test_wait_parks_the_goroutine_and_not_its_thread(pool: ThreadPoolExecutor) -> None:
    """Broken: a goroutine that waits for a pool's work holds its thread, so the goroutine that the work needs hangs."""

    def main() -> str:
        event = threading.Event()

        def work() -> str:
            event.wait()
            return "done"

        go(event.set)
        return wait(pool.submit(work))

    assert run(main, procs=1) == "done"


def test_wait_for_work_of_another_process() -> None:
    """Broken: a process pool's results and errors do not reach the goroutine that waits for them."""

    def main() -> None:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
            assert wait(processes.submit(pow, 2, 10)) == 1024
            with pytest.raises(ZeroDivisionError):
                wait(processes.submit(divmod, 1, 0))

    run(main, procs=1)


def test_wait_from_a_plain_thread(pool: ThreadPoolExecutor) -> None:
    """Broken: code that may run on any thread has to know where it is before it can wait."""
    assert wait(pool.submit(int, "7")) == 7
    with pytest.raises(TimeoutError, match="timed out after 0.01 s"):
        wait(StdFuture(), 0.01)


def test_wait_raises_what_the_future_raised(pool: ThreadPoolExecutor) -> None:
    """Broken: an error in a pool's work is lost, or comes without the place where it was raised."""

    def fails() -> None:
        raise KeyError("lost")

    def main() -> None:
        with pytest.raises(KeyError, match="lost") as info:
            wait(pool.submit(fails))
        assert "fails" in [frame.name for frame in traceback.extract_tb(info.value.__traceback__)]
        cancelled: StdFuture[None] = StdFuture()
        assert cancelled.cancel()
        with pytest.raises(CancelledError):
            wait(cancelled)

    run(main, procs=1)


def test_wait_for_a_future_that_is_done_does_not_wait() -> None:
    """Broken: a result that is there already costs a switch, or a time-out of 0 misses it."""

    def main() -> bool:
        future: StdFuture[int] = StdFuture()
        future.set_result(5)
        ran: list[int] = []
        go(ran.append, 1)
        assert wait(future) == wait(future, 0) == wait(future, timeout=-1) == 5
        assert wait([future]).done == {future}
        return ran == []

    assert any(run(main, procs=1) for _ in range(20))  # not always: who has just run a garbage collection gives way


@pytest.mark.parametrize("seconds", [0, -1, 0.01])
def test_wait_times_out(seconds: float) -> None:
    """Broken: a time-out is not kept, or leaves its callback at a future that somebody looks at again and again."""

    def main() -> None:
        future: StdFuture[int] = StdFuture()
        for _ in range(5):
            with pytest.raises(TimeoutError):
                wait(future, seconds)
        assert future._done_callbacks == []
        assert not future.done()

    run(main, procs=1)


def test_to_cancel_who_waits_does_not_cancel_the_future() -> None:
    """Broken: one goroutine that gives up takes the result away from the others that wait for it."""

    def main() -> None:
        future: StdFuture[int] = StdFuture()
        leaves, stays = go(wait, future), go(wait, future)
        until_it_waits(leaves)
        until_it_waits(stays)
        leaves.cancel()
        leaves.join()
        assert isinstance(leaves.exception(), gort.Cancelled)
        assert not future.cancelled()
        assert len(future._done_callbacks) == 1
        future.set_result(3)
        assert stays.result() == 3

    run(main, procs=1)


def test_a_cancellation_that_came_before_is_raised_by_wait() -> None:
    """Broken: a goroutine that was cancelled while it ran begins a long wait nevertheless."""

    def main() -> None:
        future: StdFuture[int] = StdFuture()

        def cancels_itself() -> None:
            me = gort.current()
            assert me is not None
            me.cancel()
            wait(future)

        g = go(cancels_itself)
        g.join()
        assert isinstance(g.exception(), gort.Cancelled)
        assert future._done_callbacks == []

    run(main, procs=1)


def test_several_goroutines_wait_for_one_future(procs: int, pool: ThreadPoolExecutor) -> None:
    """Broken: only the first who waits is told."""

    def main() -> None:
        event = threading.Event()
        future = pool.submit(event.wait)
        waiters = [go(wait, future) for _ in range(50)]
        for g in waiters:
            until_it_waits(g)
        event.set()
        assert [g.result() for g in waiters] == [True] * 50

    run(main, procs=procs)


@pytest.mark.parametrize("bad", [None, 3, "future", object()])
def test_wait_for_what_is_no_future(bad: Any) -> None:
    """Broken: a mistake shows up far from its place, or hangs."""
    with pytest.raises(TypeError, match="Future"):
        wait(bad if bad != "future" else [bad])


def test_wait_leaves_alone_what_is_no_future() -> None:
    """Broken: a channel is emptied before the mistake is seen, or asyncio's future gives an error that says nothing."""
    ch: Chan[Any] = Chan(3)
    ch.send(1)
    ch.send(StdFuture())
    ch.close()
    with pytest.raises(TypeError, match=r"Future, not Chan: use its recv\(\)"):
        wait(ch)  # type: ignore[call-overload]
    assert len(ch) == 2
    loop = asyncio.new_event_loop()
    try:
        future = loop.create_future()
        for _ in range(2):
            for wrong in (future, [future]):
                with pytest.raises(TypeError, match=r"needs concurrent.futures.Future, not Future: .*gort\.aio\.run"):
                    wait(wrong)  # type: ignore[call-overload]
            if not future.done():
                future.set_result(1)
    finally:
        loop.close()
    rest = iter([1, 2])
    with pytest.raises(TypeError, match="not int"):
        wait(rest)  # type: ignore[call-overload]
    assert list(rest) == [2]


def test_wait_says_what_to_do_with_a_goroutine() -> None:
    """Broken: who mixes up the two kinds of handle is not told how to go on."""

    def main() -> None:
        with pytest.raises(TypeError, match=r"result\(\)"):
            wait(go(int))  # type: ignore[call-overload]

    run(main)


@pytest.mark.parametrize("bad, error", [("1", TypeError), (float("nan"), ValueError)])
def test_wait_with_a_bad_timeout(bad: Any, error: type[Exception]) -> None:
    """Broken: a bad time-out is noticed only when the future is not done."""
    done: StdFuture[int] = StdFuture()
    done.set_result(1)
    for future in (done, StdFuture()):
        with pytest.raises(error, match="timeout"):
            wait(future, bad)


# -- wait: and the deadlock detector --------------------------------------------------------------------------------

needs_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")


@needs_signals
def test_a_goroutine_that_waits_for_a_future_is_no_deadlock() -> None:
    """Broken: a future that something outside Python's threads completes is taken for a deadlock."""

    class Completes:
        gort_own = True  # the detector must not be stopped by this handler, only by the wait

        def __call__(self, *_: Any) -> None:
            future.set_result("in time")

    future: StdFuture[str] = StdFuture()
    before = signal.signal(signal.SIGALRM, Completes())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        assert run(wait, future, procs=1) == "in time"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@needs_signals
@pytest.mark.parametrize("where", ["thread", "goroutine"])
@pytest.mark.parametrize("what", ["lock", "lock with timeout", "wait_for", "wait", "aio"])
def test_a_time_out_that_a_signal_handler_raises_is_not_ours(what: str, where: str) -> None:
    """Broken: the TimeoutError of a handler (signal.alarm's classic use) is taken for the end of gort's own timeout."""

    class Alarm(TimeoutError):
        pass

    def handler(*_: Any) -> None:
        raise Alarm

    mutex = gort.Mutex()
    mutex.lock()
    cond = gort.Cond()

    def wait_for() -> None:
        with cond:
            cond.wait_for(lambda: False, 5)

    waits: dict[str, Callable[[], Any]] = {
        "lock": mutex.lock,
        "lock with timeout": lambda: mutex.lock(5),
        "wait_for": wait_for,
        "wait": lambda: wait([StdFuture()], 5),
        "aio": lambda: gort.aio.run(asyncio.sleep(5)),
    }

    def main() -> None:
        # So that the handler runs where the goroutine, or its machine, waits.
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        waits[what]()

    before = signal.signal(signal.SIGALRM, handler)
    gc.disable()  # the interpreter ignores what a handler raises while a collection's callback runs
    try:
        with pytest.raises(Alarm):
            run(main, procs=1) if where == "goroutine" else main()
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ends_well(future: StdFuture[Any]) -> None:
    go(future.set_result, 1)
    assert wait(future) == 1


def ends_with_an_error(future: StdFuture[Any]) -> None:
    go(future.set_exception, KeyError())
    with pytest.raises(KeyError):
        wait(future)


def times_out(future: StdFuture[Any]) -> None:
    with pytest.raises(TimeoutError):
        wait(future, 0.01)


def is_cancelled(future: StdFuture[Any]) -> None:
    g = go(wait, future)
    until_it_waits(g)
    g.cancel()
    g.join()


def finds_a_bad_future(future: StdFuture[Any]) -> None:
    class Bad(StdFuture[Any]):
        def add_done_callback(self, fn: Any) -> None:
            raise RuntimeError("bad")

    with pytest.raises(RuntimeError, match="bad"):
        wait(Bad())


def alone(call: str) -> str:
    """Evaluate a call of something in this file in a process of its own: what other tests have left running (a
    background runtime, an event loop) could wake a goroutine, so beside it nothing is a deadlock."""
    here = Path(__file__)
    path = os.pathsep.join([str(here.parent), str(here.parent.parent), os.environ.get("PYTHONPATH", "")])
    program = f"import {here.stem} as t; print(t.{call})"
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def deadlock_after(ends: Callable[[StdFuture[Any]], None]) -> str:
    def main() -> None:
        ends(StdFuture())
        Chan().recv()

    with pytest.raises(gort.Deadlock) as info:
        run(main, procs=1)
    return str(info.value)


def deadlock_of_ours() -> str:
    def main() -> None:
        Executor().submit(lambda: Chan().recv()).result()

    with pytest.raises(gort.Deadlock) as info:
        run(main, procs=1)
    return str(info.value)


@pytest.mark.parametrize("ends", [ends_well, ends_with_an_error, times_out, is_cancelled, finds_a_bad_future])
def test_a_deadlock_after_the_wait_is_noticed(ends: Callable[[StdFuture[Any]], None]) -> None:
    """Broken: a wait, however it ended, still counts as one that something outside may end; a deadlock then hangs."""
    assert "deadlock" in alone(f"deadlock_after(t.{ends.__name__})")


def test_our_own_futures_hide_no_deadlock() -> None:
    """Broken: main waits for work that can never end, and hangs instead of being told."""
    assert "waiting: future" in alone("deadlock_of_ours()")


# -- wait: several futures ------------------------------------------------------------------------------------------


def test_wait_for_all() -> None:
    """Broken: `wait` comes back although a future is not done, or never."""

    def main() -> None:
        many: list[StdFuture[int]] = [StdFuture() for _ in range(5)]
        g = go(wait, many)
        for n, future in enumerate(many):
            until_it_waits(g)
            future.set_result(n)
        assert g.result() == (set(many), set())

    run(main, procs=1)


def test_wait_for_any() -> None:
    """Broken: `wait` for the first of several waits for another one."""

    def main() -> None:
        many: list[StdFuture[int]] = [StdFuture() for _ in range(5)]
        g = go(wait, many, when=ANY)
        until_it_waits(g)
        many[3].set_exception(KeyError())
        done, not_done = g.result()
        assert done == {many[3]} and not_done == {*many} - {many[3]}
        assert [len(future._done_callbacks) for future in not_done] == [0] * 4
        assert wait(iter(many), when=ANY) == (done, not_done)

    run(main, procs=1)


def test_wait_for_the_first_exception() -> None:
    """Broken: a failure among several is noticed only when all the others are done."""

    def main() -> None:
        many: list[StdFuture[int]] = [StdFuture() for _ in range(5)]
        g = go(wait, many, when=FIRST_EXCEPTION)
        until_it_waits(g)
        many[0].set_result(1)
        many[1].cancel()  # not an exception, as in the standard library
        gosched()
        until_it_waits(g)
        many[2].set_exception(KeyError())
        assert g.result() == ({*many[:3]}, {*many[3:]})
        assert wait(many, when=FIRST_EXCEPTION).done == {*many[:3]}

    run(main, procs=1)


def test_wait_for_several_comes_back_when_the_time_is_over() -> None:
    """Broken: a time-out raises, and takes away what is done already."""

    def main() -> None:
        many: list[StdFuture[int]] = [StdFuture() for _ in range(3)]
        many[1].set_result(1)
        for seconds in (0, 0.01):
            assert wait(many, seconds) == ({many[1]}, {many[0], many[2]})
        assert wait([], when=ALL) == (set(), set())

    run(main, procs=1)


def test_wait_with_a_bad_when() -> None:
    """Broken: a misspelt `when` is taken for another one."""
    with pytest.raises(ValueError, match="ALL, ANY or FIRST_EXCEPTION"):
        wait([StdFuture()], when="some")


# -- wait: races ----------------------------------------------------------------------------------------------------


def test_completions_race_with_time_outs_and_cancels(procs: int, jitter: None) -> None:
    """Broken: a wait that is completed and given up at the same moment is woken twice, never, or with nothing."""
    rng = random.Random(f"futures {procs}")
    todo: list[StdFuture[int]] = []
    over = threading.Event()

    def complete() -> None:
        while not over.is_set() or todo:
            try:
                future = todo.pop()
            except IndexError:
                time.sleep(0)
                continue
            future.set_result(7)

    def once(future: StdFuture[int], seconds: float | None) -> int:
        try:
            return wait(future, seconds)
        except TimeoutError:
            return wait(future)

    def main() -> None:
        for _ in range(ROUNDS // 20):
            many: list[StdFuture[int]] = [StdFuture() for _ in range(20)]
            waiters = [go(once, future, rng.choice([None, 0.0, 1e-5, 1e-3])) for future in many]
            victims = [go(wait, future) for future in many]
            todo.extend(many)
            for g in victims:
                g.cancel()
                gosched()
            assert [g.result() for g in waiters] == [7] * 20
            for g in victims:
                assert g.exception() is None or isinstance(g.exception(), gort.Cancelled)

    threads = [threading.Thread(target=complete) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        run(main, procs=procs)
    finally:
        over.set()
        for thread in threads:
            thread.join()


# -- Executor: work -------------------------------------------------------------------------------------------------


def test_submit_runs_work_in_a_goroutine_of_its_own(procs: int) -> None:
    """Broken: the work does not run where `gort.go` would run it, or does not say who it is."""

    def work(n: int, *, plus: int) -> tuple[int, str, str]:
        me = gort.current()
        assert me is not None
        gort.sleep(0.001)
        return n + plus, me.name, me.started_at

    def main() -> None:
        with Executor() as executor:
            many = [executor.submit(work, n, plus=1) for n in range(50)]
            for n, future in enumerate(many):
                value, name, place = future.result()
                assert value == n + 1
                assert name.endswith("work")
                assert __file__ in place

    run(main, procs=procs)


def test_submit_from_a_plain_thread() -> None:
    """Broken: code that knows nothing of goroutines cannot hand work to them."""
    with Executor() as executor:
        assert executor.submit(gort.current).result() is not None
        assert sorted(executor.map(abs, [-2, 3])) == [2, 3]


def test_submit_to_a_given_runtime() -> None:
    """Broken: the work runs in the caller's runtime instead of the one asked for."""

    def main() -> None:
        with gort.Runtime(1) as runtime, Executor(runtime=runtime) as executor:
            assert executor.submit(instance._current).result() is runtime._sched is not instance._current()

    run(main, procs=1)


def test_an_error_of_the_work() -> None:
    """Broken: an exception is lost, reported although somebody asked, or shown with the runtime's frames."""

    def fails() -> None:
        raise LookupError("not there")

    def main() -> None:
        with Executor() as executor:
            future = executor.submit(fails)
            with pytest.raises(LookupError, match="not there") as info:
                future.result()
            assert future.exception() is info.value
            assert traceback.extract_tb(info.value.__traceback__)[-1].name == "fails"
            assert isinstance(executor.submit(sys.exit, 3).exception(), SystemExit)

    run(main, procs=1)


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_result_parks(ask: str) -> None:
    """Broken: a goroutine that asks an Executor's future holds the thread that the work needs."""

    def main() -> None:
        gate: Chan[int] = Chan()
        with Executor() as executor:
            future = executor.submit(gate.recv)
            g = go(getattr(future, ask))
            until_it_waits(g)
            with pytest.raises(TimeoutError):
                getattr(future, ask)(0.01)
            with pytest.raises(TimeoutError):
                getattr(future, ask)(0)
            gate.send(4)
            assert g.result() == (4 if ask == "result" else None)

    run(main, procs=1)


def test_map_gives_results_in_order(procs: int) -> None:
    """Broken: results come in the order in which the work ended, or a slow one holds off the work of the others."""

    def main() -> None:
        with Executor() as executor:
            gates: list[Chan[int]] = [Chan() for _ in range(5)]
            results = executor.map(lambda gate: gate.recv(), gates)
            for n, gate in reversed(list(enumerate(gates))):
                gate.send(n)  # would hang if they did not all run at once
            assert list(results) == [0, 1, 2, 3, 4]
            with pytest.raises(TimeoutError):
                list(executor.map(gort.sleep, [0.5], timeout=0.01))

    run(main, procs=procs)


def test_work_has_the_context_of_its_submitter() -> None:
    """Broken: a request's context variables do not reach its work, or those of another request do."""

    def look() -> str:
        seen = var.get()
        var.set("changed")
        gosched()
        return seen

    def main() -> None:
        with Executor(1) as executor:  # so that all but the first are started by another piece of work
            many = []
            for name in "abc":
                var.set(name)
                many.append(executor.submit(look))
            assert [future.result() for future in many] == ["a", "b", "c"]
            assert var.get() == "c"

    run(main, procs=1)


def test_done_callbacks_are_called(procs: int) -> None:
    """Broken: other code is not told when the work has ended."""

    def main() -> None:
        called: Chan[Any] = Chan(3)
        with Executor() as executor:
            for fn in (int, functools.partial(int, "x")):
                executor.submit(fn).add_done_callback(called.send)
                assert called.recv().done()

    run(main, procs=procs)


def test_a_callback_that_is_cancelled_holds_off_no_other() -> None:
    """Broken: a done-callback that waits and is cancelled takes the result away from those that come after it."""

    def main() -> None:
        gate: Chan[int] = Chan()
        callback_waits: Chan[gort.Goroutine[Any]] = Chan(1)
        called: list[Any] = []

        def waits(_future: StdFuture[int]) -> None:
            me = gort.current()
            assert me is not None
            callback_waits.send(me)
            Chan().recv()

        with Executor() as executor:
            future = executor.submit(gate.recv)
            future.add_done_callback(waits)
            future.add_done_callback(called.append)
            late = go(future.result)
            until_it_waits(late)
            gate.send(1)
            callback_waits.recv().cancel()
            assert late.result() == 1
            assert called == [future]

    run(main, procs=1)


def test_what_has_no_place_yet_does_not_begin_when_the_runtime_ends() -> None:
    """Broken: a runtime that closes first runs all the work that an executor has in its queue."""
    ran: list[int] = []
    kept: list[Any] = []

    def main() -> None:
        executor = Executor(1)
        begun: Chan[int] = Chan()

        def work() -> None:
            begun.send(1)
            gort.sleep(1000)

        executor.submit(work)
        begun.recv()
        kept.extend(executor.submit(ran.append, n) for n in range(100))

    run(main, procs=1)
    assert ran == []
    assert all(future.cancelled() for future in kept)


def test_the_standard_library_can_wait_for_our_futures() -> None:
    """Broken: plain threads that use concurrent.futures.wait or as_completed hang on futures of goroutines."""
    gate: Chan[int] = Chan()
    with Executor(1) as executor:
        first, second, third = (executor.submit(gate.recv) for _ in range(3))
        assert second.cancel()
        gate.send(1)
        gate.send(2)
        assert set(concurrent.futures.as_completed([first, second, third])) == {first, second, third}
        assert concurrent.futures.wait([first, second, third]).not_done == set()


def test_asyncio_can_use_it() -> None:
    """Broken: `loop.run_in_executor` cannot hand work to goroutines."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        with Executor() as executor:
            return await asyncio.gather(*(loop.run_in_executor(executor, abs, -n) for n in range(20)))

    assert asyncio.run(main()) == list(range(20))


# -- Executor: its bound --------------------------------------------------------------------------------------------


def test_max_workers_bounds_the_goroutines(procs: int) -> None:
    """Broken: more work runs at once than allowed, or a place that became free is not used."""

    def main() -> None:
        started: Chan[int] = Chan(10)
        gates: list[Chan[int]] = [Chan() for _ in range(10)]

        def work(n: int) -> int:
            started.send(n)
            return gates[n].recv()

        with Executor(3) as executor:
            many = [executor.submit(work, n) for n in range(10)]
            at_work = {started.recv() for _ in range(3)}
            for ended in range(10):
                assert len(at_work) == min(3, 10 - ended)
                with pytest.raises(TimeoutError):
                    started.recv(timeout=0.005)  # a fourth
                assert [future.running() for future in many].count(True) == len(at_work)
                n = at_work.pop()
                gates[n].send(n)
                if ended < 7:
                    at_work.add(started.recv())
            assert [future.result() for future in many] == list(range(10))

    run(main, procs=procs)


def test_a_pending_future_can_be_cancelled() -> None:
    """Broken: cancelled work runs nevertheless, or keeps the place of work that is to run."""

    def main() -> None:
        gate: Chan[int] = Chan()
        ran = []
        with Executor(1) as executor:
            first = executor.submit(gate.recv)
            victims = [executor.submit(ran.append, n) for n in range(5)]
            last = executor.submit(str, "last")
            while not first.running():
                gosched()
            assert not first.cancel()
            assert all(future.cancel() for future in victims)
            gate.send(1)
            assert last.result() == "last"
            for future in victims:
                with pytest.raises(CancelledError):
                    future.result()
        fresh = executor_without_bound = Executor()
        tries = 0
        while not fresh.submit(ran.append, 6).cancel():  # a goroutine already, but on one P it has not run
            tries += 1  # unless we gave way in between: we had just run a garbage collection
            assert tries < 20
        executor_without_bound.shutdown()
        assert ran == [6] * tries

    run(main, procs=1)


def test_a_cancelled_goroutine_gives_its_place_back(procs: int) -> None:
    """Broken: work that was cancelled from outside holds its place for ever, and its future never ends."""

    def main() -> None:
        begun: Chan[gort.Goroutine[Any]] = Chan()

        def work() -> None:
            me = gort.current()
            assert me is not None
            begun.send(me)
            gort.sleep(1000)

        with Executor(1) as executor:
            future, following = executor.submit(work), executor.submit(int)
            begun.recv().cancel()
            with pytest.raises(gort.GoroutineCancelled, match="work"):
                future.result()
            assert following.result() == 0

    run(main, procs=procs)


@pytest.mark.parametrize("bound", [None, 1])
def test_futures_end_with_the_runtime(procs: int, bound: int | None) -> None:
    """Broken: work that its runtime never got to run leaves its future, and whoever waits for it, waiting for ever."""
    kept: list[Any] = []

    def main() -> None:
        executor = Executor(bound)
        begun: Chan[int] = Chan()

        def work() -> None:
            begun.send(1)
            gort.sleep(1000)

        kept.append(executor)
        kept.append(executor.submit(work))
        begun.recv()
        kept.extend(executor.submit(gort.sleep, 1000) for _ in range(20))

    run(main, procs=procs)
    executor, first, *others = kept
    assert isinstance(first.exception(), gort.GoroutineCancelled)
    for future in others:
        with pytest.raises((CancelledError, gort.GoroutineCancelled, gort.RuntimeClosed)):
            future.result()
    executor.shutdown()


def test_submit_to_a_closed_runtime() -> None:
    """Broken: after a failed `submit` the executor waits for work that does not exist."""
    with gort.Runtime(1) as runtime:
        executor = Executor(1, runtime=runtime)
        assert executor.submit(int).result() == 0
    with pytest.raises(gort.RuntimeClosed):
        executor.submit(int)
    with pytest.raises(gort.RuntimeClosed):
        executor.submit(int)
    executor.shutdown()


# -- Executor: its end ----------------------------------------------------------------------------------------------


def test_shutdown_waits_for_the_work(procs: int) -> None:
    """Broken: after the with block work is still going on."""

    def main() -> None:
        ended: list[int] = []

        def work(n: int) -> None:
            gort.sleep(0.001 * n)
            ended.append(n)

        with Executor(3) as executor:
            for n in range(10):
                executor.submit(work, n)
        assert sorted(ended) == list(range(10))
        executor.shutdown()
        with pytest.raises(RuntimeError, match="after shutdown"):
            executor.submit(int)

    run(main, procs=procs)


def test_shutdown_without_waiting() -> None:
    """Broken: `shutdown(wait=False)` waits, or drops work that was promised."""

    def main() -> None:
        gate: Chan[int] = Chan()
        executor = Executor(1)
        many = [executor.submit(gate.recv) for _ in range(3)]
        executor.shutdown(wait=False)
        for n in range(3):
            gate.send(n)
        assert sorted(future.result() for future in many) == [0, 1, 2]

    run(main, procs=1)


@pytest.mark.parametrize("bound", [None, 1])
def test_shutdown_can_cancel_what_has_not_begun(bound: int | None) -> None:
    """Broken: an executor that is to stop runs everything first, or cancels what has begun, or hangs."""

    def main() -> None:
        gate: Chan[int] = Chan()
        ran: list[int] = []
        executor = Executor(bound)
        first = executor.submit(gate.recv)
        while not first.running():
            gosched()
        others = [executor.submit(ran.append, n) for n in range(5)]
        executor.shutdown(wait=False, cancel_futures=True)
        assert all(future.cancelled() for future in others)
        closer = go(executor.shutdown)
        until_it_waits(closer)
        gate.send(1)
        closer.join()
        assert (first.result(), ran) == (1, [])

    run(main, procs=1)


def test_work_cannot_wait_for_itself() -> None:
    """Broken: an executor that is shut down by its own work hangs without a word."""

    def main() -> None:
        executor = Executor()
        with pytest.raises(gort.GortError, match="own work"):
            executor.submit(executor.shutdown).result()
        executor.submit(executor.shutdown, wait=False).result()
        executor.shutdown()

    run(main, procs=1)


@pytest.mark.parametrize(
    "bad, error", [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError), (True, TypeError)]
)
def test_executor_with_a_bad_bound(bad: Any, error: type[Exception]) -> None:
    """Broken: a bad bound is noticed at the first submit, or never."""
    with pytest.raises(error, match="max_workers"):
        Executor(bad)


def test_executor_with_other_bad_input() -> None:
    """Broken: what cannot be called, or is no runtime, is noticed in a goroutine, far from the mistake."""
    with pytest.raises(TypeError, match="Runtime"):
        Executor(runtime=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function"):
        Executor().submit(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("bound", [None, 3])
def test_executor_under_stress(procs: int, bound: int | None, jitter: None) -> None:
    """Broken: with submitters on all sides, cancels and errors, a piece of work is lost, doubled, or over the bound."""
    rng = random.Random(f"executor {procs} {bound}")
    lock = threading.Lock()
    at_work = most = done = 0

    def work(n: int) -> int:
        nonlocal at_work, most, done
        with lock:
            at_work += 1
            most = max(most, at_work)
        if n % 3:
            gosched()
        with lock:
            at_work -= 1
            done += 1
        if n % 7 == 0:
            raise KeyError(n)
        return n

    def submitter(executor: Executor, count: int, seed: float) -> tuple[int, int]:
        mine = random.Random(seed)
        results = cancelled = 0
        many = [executor.submit(work, n) for n in range(count)]
        for n, future in enumerate(many):
            if mine.random() < 0.1 and future.cancel():
                cancelled += 1
                continue
            try:
                assert future.result() == n
            except KeyError:
                assert n % 7 == 0
            results += 1
        return results, cancelled

    def main() -> None:
        each = ROUNDS // 8
        outcomes = []
        with Executor(bound) as executor, ThreadPoolExecutor(2) as threads:
            gs = [go(submitter, executor, each, rng.random()) for _ in range(4)]
            plain = [threads.submit(submitter, executor, each, rng.random()) for _ in range(4)]
            outcomes = [g.result() for g in gs] + [wait(future) for future in plain]
        assert sum(results for results, _ in outcomes) == done
        assert sum(results + cancelled for results, cancelled in outcomes) == 8 * each
        assert at_work == 0
        if bound is not None:
            assert 0 < most <= bound

    run(main, procs=procs)


@pytest.mark.parametrize("bound", [1, 2, None])
def test_a_clean_up_at_the_end_of_run_may_use_one(procs: int, bound: int | None) -> None:
    """Broken: `finally` blocks run, but what they hand to an Executor with a bound is cancelled; or its old work is not."""
    found: list[Any] = []

    def main() -> None:
        old = Executor(1)
        old.submit(Chan().recv)
        found.append(old.submit(int))

        def cleans_up() -> None:
            try:
                Chan().recv()
            finally:
                with Executor(bound) as own:
                    found.append(list(own.map(str, range(4))))

        g = go(cleans_up)
        while g.state != "waiting":
            gosched()

    run(main, procs=procs)
    queued, mapped = found
    assert queued.cancelled() and mapped == ["0", "1", "2", "3"]


def test_the_names_are_exported() -> None:
    """Broken: `from gort.futures import *` gives something else than the documentation says."""
    assert set(futures.__all__) == {"ALL", "ANY", "FIRST_EXCEPTION", "Executor", "Future", "Waited", "wait"}
