"""Time: behaviours 26 to 28, sleep, after, after_func, Timer, Ticker, and a hundred thousand of them.

A test of time must not depend on how fast the machine is.  So what is checked is order, and never too early: a lower
bound holds however late everything is.  Where an upper bound matters (a ring at all, at once, in time) it is the
test's time limit, or a second where milliseconds are meant.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
from time import monotonic
from typing import Any

import pytest

import gort
from gort import Chan, Runtime, Ticker, Timer, after, after_func, blocking, go, gosched, run, select, sleep
from spreading import go_all, spread

MANY = 1_000_000 if os.environ.get("GORT_STRESS") else 50_000
LONG = 50.0
NEVER = (float("inf"), 1e300, 10**400, threading.TIMEOUT_MAX * 10)


# -- behaviour 26 -----------------------------------------------------------------------------------------------------


def test_26_sleep_lasts_at_least_what_was_asked(procs: int) -> None:
    """Broken: a sleep ends too early, or not at all, or sleepers of one P wake in another order than they should."""
    rng = random.Random(26)

    def nap(seconds: float) -> float:
        t0 = monotonic()
        sleep(seconds)
        took = monotonic() - t0
        assert took >= seconds
        return took

    def naps() -> None:
        for _ in range(10):
            nap(rng.random() * 0.004)

    def main() -> None:
        tasks = spread(procs, *[naps] * 16)
        assert nap(0.02) < 1.0
        assert nap(0) < 1.0 and nap(-5) < 1.0 and nap(True * 1e-3) < 1.0
        for g in tasks:
            g.result()

    run(main, procs=procs)
    assert nap(0.005) < 1.0  # on a plain thread


def test_26_sleep_across_signals(procs: int) -> None:
    """Broken: a signal ends a sleep early, or its handler does not run while everybody sleeps."""
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

        def main() -> None:
            t0 = monotonic()
            sleep(0.1)
            assert monotonic() - t0 >= 0.1
            while len(seen) < 3:
                sleep(0.01)

        run(main, procs=procs)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_26_a_machine_that_changes_its_p_forgets_no_timer(jitter: None) -> None:
    """Broken: a machine sleeps for the timers of one P, is woken to run another, and nobody looks at the first again."""
    procs = 8

    def main() -> None:
        sleepers = []

        def begin() -> None:
            barrier.wait()  # each on a machine of its own
            sleepers.append(go(lambda: [sleep(1e-4) for _ in range(3)]))

        barrier = threading.Barrier(procs)
        for g in go_all(*[(begin,)] * procs):
            g.result()
        for g in sleepers:
            g.result()

    for _ in range(30):
        run(main, procs=procs)


def test_26_thirteen_after_calls_in_order_of_deadline(procs: int) -> None:
    """Broken: of several timers a later one rings before an earlier one, or one rings too early."""

    def main() -> None:
        planned = []
        for slot in (5, 3, 6, 6, 6, 1, 1, 2, 7, 9, 4, 8, 0):
            early = monotonic() + slot * 3e-3
            ch = after(slot * 3e-3)
            planned.append((early, monotonic() + slot * 3e-3, ch))  # its deadline lies between the two
        rung = sorted((ch.recv(), early, late) for early, late, ch in planned)
        for i, (when, early, _late) in enumerate(rung):
            assert when >= early
            assert all(late >= early for _, _, late in rung[i:])

    run(main, procs=procs)


# -- behaviour 27: stop and reset ---------------------------------------------------------------------------------------


def test_27_stop_is_true_once_and_no_stale_value_follows(procs: int) -> None:
    """Broken: stop or reset say the wrong thing, a stopped timer rings, or an old ring is heard after a reset."""

    def main() -> None:
        t = Timer(LONG)
        assert (t.stop(), t.stop()) == (True, False)
        t = Timer(1e-3)
        assert t.c.recv() > 0
        assert t.stop() is False and t.c.try_recv() == (None, False)
        assert t.reset(LONG) is False  # it had rung
        assert t.reset(1e-3) is True  # it had been going to
        t.c.recv()

        for act in (Timer.stop, lambda t: t.reset(LONG)):
            t = Timer(0)
            while not len(t.c):
                gosched()
            act(t)  # rung, but nobody has heard it
            assert t.c.try_recv() == (None, False)
            assert t.stop() is (act is not Timer.stop)
        t = Timer(0)
        while not len(t.c):
            gosched()
        now = monotonic()
        t.reset(0.01)
        assert t.c.recv() >= now + 0.01

    run(main, procs=procs)


def test_27_stop_races_with_the_ring(procs: int, jitter: None) -> None:
    """Broken: stop() says that it prevented the ring, and it rings; or says that it did not, and it never rings."""
    rng = random.Random(f"stop race {procs}")
    n = 200

    def race() -> None:
        stopped = 0
        calls: Chan[int] = Chan(n)
        for i in range(n):
            t = after_func(rng.random() * 5e-5, calls.send, i)
            if rng.random() < 0.5:
                sleep(rng.random() * 5e-5)
            stopped += t.stop()
            value = Timer(rng.random() * 5e-5)
            gosched()
            value.stop()
            for _ in range(3):
                assert value.c.try_recv() == (None, False)
                gosched()
            assert value.stop() is False
        for _ in range(n - stopped):
            calls.recv(timeout=LONG)
        sleep(1e-3)
        assert len(calls) == 0

    run(lambda: [g.result() for g in spread(procs, *[race] * 8)], procs=procs)
    with Runtime(procs) as runtime:  # stopped by a plain thread
        calls: Chan[int] = Chan(n)
        stopped = sum(runtime.run(after_func, rng.random() * 2e-4, calls.send, i).stop() for i in range(n))
        for _ in range(n - stopped):
            calls.recv(timeout=LONG)
    assert len(calls) == 0


def test_27_resets_race_with_stops_and_rings(procs: int, jitter: None) -> None:
    """Broken: of several who plan one timer anew at once, two are heard; or one is neither heard nor told that it was not."""

    def main() -> None:
        rung: Chan[None] = Chan(10_000)
        timer = after_func(LONG, rung.send, None)

        def turn(number: int) -> tuple[int, int]:
            rng = random.Random(f"resets {procs} {number}")
            planned = prevented = 0
            for _ in range(300):
                if rng.random() < 0.7:
                    planned += 1
                    prevented += timer.reset(rng.random() * 5e-5)
                else:
                    prevented += timer.stop()
                if rng.random() < 0.3:
                    sleep(rng.random() * 5e-5)
            return planned, prevented

        threads = [go(blocking, turn, number) for number in range(2)]
        goroutines = spread(procs, *[lambda number=number: turn(number) for number in range(2, 8)])
        turns = [g.result() for g in threads + goroutines]
        rings = 1 + sum(planned for planned, _ in turns) - sum(prevented for _, prevented in turns) - timer.stop()
        for _ in range(rings):
            rung.recv(timeout=LONG)
        assert timer.reset(0) is False
        rung.recv(timeout=LONG)
        assert len(rung) == 0

    run(main, procs=procs)


def test_27_an_after_func_can_be_planned_again() -> None:
    """Broken: after_func does not pass arguments, calls its function in a place where it cannot block, or not again."""

    def main() -> None:
        out: Chan[Any] = Chan()

        def call(*args: Any, **kw: Any) -> None:
            sleep(1e-4)  # a goroutine of its own: it may block
            out.send((args, kw))

        t = after_func(1e-3, call, 1, fn=2)
        assert out.recv() == ((1,), {"fn": 2})
        assert t.stop() is False and t.reset(0) is False
        assert out.recv() == ((1,), {"fn": 2})
        assert t.reset(LONG) is False and t.reset(1e-3) is True
        assert out.recv() == ((1,), {"fn": 2})
        t.reset(LONG)
        assert t.stop() is True
        assert "planned" in repr(t)

    run(main, procs=1)


# -- behaviour 28: never, at once, very many ----------------------------------------------------------------------------


def test_28_negative_at_once_and_longest_never(procs: int) -> None:
    """Broken: a negative time does not ring at once, or the longest possible one rings, overflows or wakes anybody."""

    def main() -> None:
        for seconds in (0, -1, -1e300, -float("inf"), -(10**400)):
            after(seconds).recv(timeout=LONG)
            after_func(seconds, (ch := Chan()).send, 1)
            assert ch.recv(timeout=LONG) == 1
        never = [after(seconds) for seconds in NEVER]
        sleepers = [go(sleep, seconds) for seconds in NEVER]
        waits = [go(Chan().recv, timeout=seconds) for seconds in NEVER]
        sleep(0.01)
        assert [ch.try_recv() for ch in never] == [(None, False)] * len(NEVER)
        assert {g.state for g in sleepers + waits} == {"waiting"}

    run(main, procs=procs)


@pytest.mark.limit(600 if os.environ.get("GORT_STRESS") else 60)
def test_28_very_many_zero_timers(procs: int) -> None:
    """Broken: a row of timers that are due at once keeps the scheduler in the timers for ever, or loses some."""

    def main() -> None:
        for i in range(MANY // 5):
            t = Timer(0)
            if i % 2:
                t.stop()
        called: list[int] = []  # not a number: without a GIL two machines would count at once, and lose some

        timers = [after_func(0, lambda: called.append(1)) for _ in range(MANY // 5)]
        stopped = sum(t.stop() for t in timers[::2])
        while len(called) + stopped < len(timers):
            sleep(1e-3)
        for _ in range(100):
            sleep(0)
        assert len(called) + stopped == len(timers)

    run(main, procs=procs)


def test_a_hundred_thousand_timers(procs: int) -> None:
    """Broken: many timers at once are slow, lost, or ring more than once."""
    rng = random.Random(5)
    n = 100_000 if procs == 1 else 20_000

    def main() -> None:
        timers = [Timer(LONG + rng.random()) for _ in range(n)]
        assert sum(p["timers"] for p in gort.stats()["ps"]) == n
        assert all(t.stop() for t in timers[::2])
        assert sum(p["timers"] for p in gort.stats()["ps"]) == n // 2
        for t in timers[1::2]:
            assert t.reset(rng.random() * 0.05)
        for t in timers[1::2]:
            t.c.recv(timeout=LONG)
        assert sum(len(t.c) for t in timers) == 0
        assert sum(p["timers"] for p in gort.stats()["ps"]) == 0

    run(main, procs=procs)


def test_timers_that_are_not_needed_any_more_leave_no_memory() -> None:
    """Broken: operations with a long time-out that end at once fill the memory with dead timers."""

    def main() -> None:
        ch: Chan[int] = Chan()

        def feed() -> None:
            for i in range(20_000):
                ch.send(i, timeout=LONG)

        g = go(feed)
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(20_000):
            ch.recv(timeout=LONG)
        g.result()
        for _ in range(2000):
            Timer(LONG).stop()
            s = go(sleep, LONG)
            gosched()
            s.cancel()
            s.join()
        gc.collect()
        assert len(gc.get_objects()) - before < 2000

    run(main, procs=1)


def test_timers_outlive_their_p(procs: int) -> None:
    """Broken: timers and sleepers of a P that gomaxprocs takes out of use are lost."""

    def main() -> None:
        timers: list[Timer] = []

        def plan() -> None:
            timers.extend(Timer(0.02 + i * 1e-4) for i in range(50))
            sleep(0.02)
            Chan[int]().recv_ok(timeout=0.02)

        def expect() -> None:
            try:
                plan()
            except TimeoutError:
                pass

        tasks = spread(procs, *[expect] * 8)
        gort.gomaxprocs(1)
        for g in tasks:
            g.result()
        for t in timers:
            t.c.recv()
        gort.gomaxprocs(procs)

    run(main, procs=procs)


# -- tickers --------------------------------------------------------------------------------------------------------------


def test_ticker(procs: int) -> None:
    """Broken: ticks come too early, too many or out of step, go on after stop, or stale ones follow a reset."""

    def main() -> None:
        t0 = monotonic()
        ticker = Ticker(5e-3)
        ticks = [ticker.c.recv() for _ in range(5)]
        assert all(when >= t0 + (i + 1) * 5e-3 for i, when in enumerate(ticks))
        assert ticks == sorted(ticks)
        sleep(0.03)
        assert len(ticker.c) == 1  # what nobody took is dropped
        ticker.stop()
        ticker.stop()
        assert ticker.c.try_recv() == (None, False) and not ticker.c.closed
        assert select(gort.recv(ticker.c), gort.recv(after(0.02)))[0] == 1
        now = monotonic()
        ticker.reset(4e-3)
        for i, when in enumerate(ticker, 1):
            assert when >= now + i * 4e-3
            if i == 3:
                break
        ticker.stop()
        fast = Ticker(1e-9)
        for _ in range(100):
            fast.c.recv()
        fast.stop()
        assert fast.c.try_recv() == (None, False)

    run(main, procs=procs)


def test_ticker_stop_races_with_its_tick(procs: int, jitter: None) -> None:
    """Broken: a tick is heard after stop() has returned."""

    def main() -> None:
        def race() -> None:
            for _ in range(150):
                ticker = Ticker(2e-5)
                ticker.c.recv()
                gosched()
                ticker.stop()
                for _ in range(3):
                    assert ticker.c.try_recv() == (None, False)
                    gosched()

        for g in spread(procs, *[race] * 8):
            g.result()

    run(main, procs=procs)


def test_bad_input() -> None:
    """Broken: what is no number of seconds, or no function, is not refused at once."""

    def main() -> None:
        for fn in (sleep, after, Timer, Ticker, lambda s: after_func(s, int), Timer(LONG).reset, Ticker(LONG).reset):
            for bad in ("1", None, [], 1j):
                with pytest.raises(TypeError, match="seconds"):
                    fn(bad)
            with pytest.raises(ValueError, match="seconds"):
                fn(float("nan"))
        for fn in (Ticker, Ticker(LONG).reset):
            for bad in (0, -1, -0.5):
                with pytest.raises(ValueError, match="more than 0"):
                    fn(bad)
        for bad in (None, 1, "f"):
            with pytest.raises(TypeError, match="function"):
                after_func(1, bad)  # type: ignore[arg-type]

    run(main, procs=1)
    for bad in ("1", None):
        with pytest.raises(TypeError, match="seconds"):
            sleep(bad)  # type: ignore[arg-type]


def test_a_ticker_with_the_shortest_period() -> None:
    """Broken: a period so short that no number counts its ticks ends the machine's thread."""

    def main() -> None:
        ticker = Ticker(5e-324)
        assert ticker.c.recv() <= ticker.c.recv()
        ticker.stop()
        sleep(1e-3)

    run(main, procs=1)


def test_a_ticker_that_is_reset_in_another_run() -> None:
    """Broken: it waits for a tick of the runtime that it was made in, which is gone."""
    ticker = run(Ticker, 1000)
    ticker.reset(0.001)

    def main() -> None:
        ticker.reset(0.001)
        ticker.c.recv(1000)
        ticker.c.recv(1000)

    run(main)
    ticker.stop()
