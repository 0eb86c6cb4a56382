"""Numbers that a program gives: a time, a count.  What is none is an error at once, whatever state the thing is in.

Most of these operations need not look at their time-out where they do not wait.  They look all the same, for a mistake
that shows only under load is one that shows in production.
"""

from __future__ import annotations

import concurrent.futures
import math
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import gort
from gort import Chan, Event, Mutex, Once, RWMutex, Semaphore, SingleFlight, WaitGroup, context, go, run
from gort.futures import Executor

NO_TIMES: list[Any] = ["1", b"1", True, False, [], object(), 1j, math.nan, Decimal("nan"), Decimal("sNaN")]
LONG_TIMES: list[Any] = [math.inf, 10**400, 10**5000, 1e300, 10**15, Decimal("inf"), Decimal("1e999"), Fraction(10**400), 50]
PAST_TIMES: list[Any] = [-math.inf, -(10**400), -(10**5000), -1e300, -1, Decimal("-1e999"), Fraction(-(10**400)), -0.0, 0]


def _full() -> Chan[int]:
    ch: Chan[int] = Chan(1)
    ch.send(1)
    return ch


def _held(lock: Any) -> Any:
    lock.lock()
    return lock


def _open(ch: Chan[Any]) -> Chan[Any]:
    return ch


def _done_once() -> Once:
    once = Once()
    once.do(int)
    return once


def _ended() -> gort.Goroutine[int]:
    g = go(int)
    g.join()
    return g


def _done_future() -> concurrent.futures.Future[int]:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    future.set_result(0)
    return future


def _set() -> Event:
    event = Event()
    event.set()
    return event


async def _nothing() -> None:
    pass


# What need not wait: a function that makes it, and gives what takes a time-out.
READY: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "Mutex.lock": lambda: Mutex().lock,
    "RWMutex.lock": lambda: RWMutex().lock,
    "RWMutex.rlock": lambda: RWMutex().rlock,
    "RWMutex.read": lambda: RWMutex().read,
    "RWMutex.write": lambda: RWMutex().write,
    "ReadSide.lock": lambda: RWMutex().read().lock,
    "WriteSide.lock": lambda: RWMutex().write().lock,
    "Semaphore.acquire": lambda: lambda timeout: Semaphore(1).acquire(1, timeout),
    "Event.wait": lambda: _set().wait,
    "WaitGroup.wait": lambda: WaitGroup().wait,
    "Once.do": lambda: lambda timeout: _done_once().do(int, timeout),
    "SingleFlight.do": lambda: lambda timeout: SingleFlight().do("key", int, timeout),
    "Barrier.wait": lambda: gort.Barrier(1).wait,
    "Cond.wait_for": lambda: lambda timeout: gort.Cond(_held(Mutex())).wait_for(lambda: True, timeout),
    "Chan.send": lambda: lambda timeout: Chan(1).send(1, timeout),
    "Chan.recv": lambda: _full().recv,
    "Chan.recv_ok": lambda: _full().recv_ok,
    "select": lambda: lambda timeout: gort.select(gort.recv(_full()), timeout=timeout),
    "join": lambda: _ended().join,
    "result": lambda: _ended().result,
    "exception": lambda: _ended().exception,
    "wait": lambda: lambda timeout: gort.wait(_done_future(), timeout),
    "wait for many": lambda: lambda timeout: gort.wait([_done_future()], timeout),
    "aio.run": lambda: lambda timeout: gort.aio.run(_nothing(), timeout=timeout),
}

# What has to wait.
WAITING: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "Mutex.lock": lambda: _held(Mutex()).lock,
    "RWMutex.lock": lambda: _held(RWMutex()).lock,
    "RWMutex.rlock": lambda: _held(RWMutex()).rlock,
    "Semaphore.acquire": lambda: lambda timeout: Semaphore(0, bounded=False).acquire(1, timeout),
    "Event.wait": lambda: Event().wait,
    "Barrier.wait": lambda: gort.Barrier(2).wait,
    "Cond.wait": lambda: gort.Cond(_held(Mutex())).wait,
    "Cond.wait_for": lambda: lambda timeout: gort.Cond(_held(Mutex())).wait_for(lambda: False, timeout),
    "Chan.send": lambda: lambda timeout: Chan().send(1, timeout),
    "Chan.recv": lambda: Chan().recv,
    "Chan.recv_ok": lambda: Chan().recv_ok,
    "select": lambda: lambda timeout: gort.select(gort.recv(Chan()), timeout=timeout),
    "wait": lambda: lambda timeout: gort.wait(concurrent.futures.Future(), timeout),
}

# What takes a time that is no time-out.
TIMES: dict[str, Callable[[Any], Any]] = {
    "sleep": gort.sleep,
    "timeout": gort.timeout,
    "after": gort.after,
    "after_func": lambda seconds: gort.after_func(seconds, int),
    "Timer": gort.Timer,
    "Timer.reset": lambda seconds: gort.Timer(50).reset(seconds),
    "Ticker": gort.Ticker,
    "Ticker.reset": lambda seconds: gort.Ticker(50).reset(seconds),
    "with_timeout": lambda seconds: context.with_timeout(context.background(), seconds),
    "with_deadline": lambda when: context.with_deadline(context.background(), when),
    "no_leaks": lambda grace: gort.testing.no_leaks(grace=grace),
}


@pytest.mark.parametrize("thread", [False, True], ids=["goroutine", "thread"])
def test_what_is_no_time_is_an_error_also_where_nothing_waits(thread: bool) -> None:
    """Broken: a wrong time-out passes as long as nothing has to wait, or an operation fails after it has happened."""

    def main() -> None:
        for table, name in ((READY, "timeout"), (WAITING, "timeout"), (TIMES, "seconds|when|grace")):
            for what, make in table.items():
                for bad in NO_TIMES:
                    call = make if table is TIMES else make()  # type: ignore[call-arg]
                    with pytest.raises((TypeError, ValueError), match=f"^({name}) must be a number of seconds, not") as info:
                        call(bad)
                    assert info.type is (ValueError if isinstance(bad, float | Decimal) else TypeError), what

    main() if thread else run(main)


def test_a_wrong_time_out_changes_nothing() -> None:
    """Broken: an operation that was refused has happened all the same: a lock is locked, a value is gone."""

    def main() -> None:
        mutex, rw, permits, empty, full = Mutex(), RWMutex(), Semaphore(1), Chan(1), _full()
        for call in (mutex.lock, rw.lock, rw.rlock, full.recv, full.recv_ok):
            with pytest.raises(TypeError):
                call("1")  # type: ignore[arg-type]
        for call in (lambda: permits.acquire(1, "1"), lambda: empty.send(1, "1")):  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                call()
        assert mutex.try_lock() and rw.try_lock() and permits.try_acquire()
        assert len(empty) == 0 and len(full) == 1
        once = Once()
        ran: list[int] = []
        with pytest.raises(TypeError):
            once.do(lambda: ran.append(1), "1")  # type: ignore[arg-type]
        assert not ran and not once.done()

    run(main)


def test_times_beyond_all_floats() -> None:
    """Broken: a huge or infinite time is an OverflowError instead of for ever, or one below zero instead of at once."""

    def main() -> None:
        for what, make in WAITING.items():
            for past in PAST_TIMES:
                with pytest.raises(TimeoutError):
                    make()(past)
        for long in LONG_TIMES:
            for make in READY.values():
                make()(long)
            for what, call in TIMES.items():
                if what != "sleep":
                    call(long)
            with gort.timeout(long) as limit:
                assert not limit.expired
            g = go(gort.sleep, long)
            ch: Chan[int] = Chan()
            h = go(ch.recv, long)
            while g.state != "waiting" or h.state != "waiting":
                gort.gosched()
            ch.send(3)
            assert h.result() == 3
            g.cancel()
        for past in PAST_TIMES:
            gort.sleep(past)
            assert gort.after(past).recv() <= time.monotonic()
            with pytest.raises(TimeoutError), gort.timeout(past):
                Chan().recv()
            with pytest.raises(context.DeadlineExceeded), context.with_timeout(context.background(), past):
                Chan().recv()
            with pytest.raises(ValueError, match="more than 0"):
                gort.Ticker(past)
        assert context.with_timeout(context.background(), 10**400).deadline() is None

    run(main)


def test_fractions_and_decimals_are_times() -> None:
    """Broken: a number that is neither int nor float is refused, or waits for another time than it says."""

    def main() -> None:
        for short in (Fraction(1, 1000), Decimal("0.001")):
            begin = time.monotonic()
            gort.sleep(short)  # type: ignore[arg-type]
            assert time.monotonic() - begin >= 0.001
            with pytest.raises(TimeoutError, match="0.001 s"):
                Chan().recv(timeout=short)  # type: ignore[arg-type]

    run(main)


NO_COUNTS: list[Any] = [True, False, 1.0, "1", None]


@pytest.mark.parametrize("bad", NO_COUNTS, ids=repr)
def test_what_is_no_count_is_an_error(bad: Any) -> None:
    """Broken: a bool or a float passes as a number of places, permits, parties, or processors."""
    calls: list[Callable[[], Any]] = [
        lambda: Chan(bad),
        lambda: Semaphore(bad),
        lambda: Semaphore(bad, bounded=False),
        lambda: Semaphore(3).acquire(bad),
        lambda: Semaphore(3).try_acquire(bad),
        lambda: Semaphore(3).release(bad),
        lambda: gort.Barrier(bad),
        lambda: gort.Pool(limit=bad),
        lambda: WaitGroup().add(bad),
        lambda: gort.Cond().notify(bad),
    ]
    if bad is not None:
        calls += [
            lambda: gort.Group(bad),
            lambda: run(int, procs=bad),
            lambda: gort.Runtime(bad),
            lambda: gort.gomaxprocs(bad),
            lambda: Executor(bad),
        ]
    for call in calls:
        with pytest.raises(TypeError, match=r"must be a whole number"):
            call()
