"""Semaphore, WaitGroup and Barrier: behaviours 34 and 37, time-outs, cancellation while waiting, plain threads.

Nothing here sleeps to let something happen: `settle` waits until a goroutine or thread waits (or has ended).
"""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest

import gort
from gort import Cancelled, Chan, GortError, go, gosched, run, sleep
from gort.sync import Barrier, BrokenBarrier, Event, Semaphore, SyncError, WaitGroup
from settling import LONG, settle, start, thread

# -- Semaphore ----------------------------------------------------------------------------------------------------


def test_semaphore_limits(procs: int, jitter: None) -> None:
    """Broken: more are inside than there are permits, or permits get lost."""
    s = Semaphore(3)
    counting = threading.Lock()
    inside = most = 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(50):
            with s:
                with counting:
                    inside += 1
                    most = max(most, inside)
                gosched()
                with counting:
                    inside -= 1

    def main() -> None:
        tasks: list[Any] = [go(work) for _ in range(8)]
        threads = [thread(work) for _ in range(2)]
        for task in tasks:
            task.result()
        for t in threads:
            t.join()

    run(main, procs=procs)
    assert most <= 3 and inside == 0
    assert s.available == 3 and s._waiting() == 0


def test_37_a_big_waiter_holds_off_small_ones(procs: int) -> None:
    """Broken: small waiters overtake a big one, which a steady stream of them would starve."""

    def main() -> None:
        s = Semaphore(3)
        order: list[str] = []

        def take(name: str, n: int) -> None:
            s.acquire(n)
            order.append(name)

        s.acquire(2)
        big = start(take, "big", 3)
        small = settle(thread(take, "small", 1))
        assert not s.try_acquire(1)  # there is one, but it is not this one's turn
        with pytest.raises(TimeoutError):
            s.acquire(1, timeout=0.001)
        assert s.available == 1 and not order
        s.release(2)
        big.result()
        assert order == ["big"] and s.available == 0
        s.release(3)
        small.join()
        assert order == ["big", "small"] and s.available == 2

    run(main, procs=procs)


def test_semaphore_serves_in_order(procs: int) -> None:
    """Broken: waiters are not served first come, first served."""

    def main() -> None:
        s = Semaphore(4)
        s.acquire(4)
        order: list[int] = []

        def take(i: int) -> None:
            with s:
                order.append(i)

        tasks: list[Any] = []
        for i in range(8):
            tasks.append(settle(thread(take, i)) if i % 4 == 3 else start(take, i))
        s.release()  # one permit goes from each to the next
        for task in tasks:
            task.join()
        assert order == list(range(8))
        s.release(3)
        assert s.available == 4

    run(main, procs=procs)


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_semaphore_gone_big_waiter_lets_the_others_go(procs: int, how: str) -> None:
    """Broken: those behind a big waiter sleep on after it has gone, although there are permits for them."""

    def main() -> None:
        s = Semaphore(5)
        s.acquire(2)
        big = start(s.acquire, 5, 0.02 if how == "timeout" else None)
        small = [start(s.acquire, n) for n in (1, 2)]
        next_big = start(s.acquire, 5)
        last = start(s.acquire, 1)
        if how == "cancel":
            big.cancel()
        big.join()
        for g in small:
            g.result()
        assert s.available == 0
        assert next_big.state == last.state == "waiting"
        next_big.cancel()
        next_big.join()
        assert last.state == "waiting"
        s.release(1)
        last.result()
        s.release(5)
        assert s.available == 5

    run(main, procs=procs)


def test_semaphore_cancelled_after_it_was_served(procs: int) -> None:
    """Broken: the permits of a waiter that was served and then cancelled, before it ran, are lost."""

    def main() -> None:
        s = Semaphore(2)
        s.acquire(2)

        def hold() -> None:
            with s:
                gosched()
                sleep(LONG)

        tasks = [start(hold) for _ in range(2)]
        s.release(2)
        for g in tasks:
            g.cancel()
        for g in tasks:
            g.join()
        assert s.available == 2

    run(main, procs=procs)


def test_semaphore_errors() -> None:
    """Broken: permits appear from nowhere, an acquire waits for what can never be, or nonsense passes for a number."""
    s = Semaphore(2)
    with pytest.raises(SyncError, match="more than were acquired"):
        s.release()
    assert s.available == 2
    s.acquire()
    with pytest.raises(SyncError):
        s.release(2)
    assert s.available == 1
    with pytest.raises(ValueError, match="for ever"):
        s.acquire(3)
    with pytest.raises(ValueError, match="for ever"):
        s.try_acquire(3)
    for wrong in (0, -1):
        for call in (s.acquire, s.try_acquire, s.release):
            with pytest.raises(ValueError):
                call(wrong)
    for kind in ("1", 1.0, None, True):
        if kind is not True:
            for call in (s.acquire, s.try_acquire, s.release):
                with pytest.raises(TypeError):
                    call(kind)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            Semaphore(kind)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Semaphore(0)
    for timeout in (0, -1, 0.001):
        with pytest.raises(TimeoutError):
            s.acquire(2, timeout)
    assert s.available == 1


def test_semaphore_unbounded(procs: int) -> None:
    """Broken: with bounded=False, a semaphore cannot start empty and be filled by releases, as threading's can."""

    def main() -> None:
        s = Semaphore(0, bounded=False)
        waiting = start(s.acquire, 2)
        s.release()
        assert waiting.state == "waiting"
        s.release(3)
        waiting.result()
        assert s.available == 2 and s.try_acquire(2) and not s.try_acquire()

    run(main, procs=procs)


# -- WaitGroup ----------------------------------------------------------------------------------------------------


def test_34_negative_waitgroup() -> None:
    """Broken: a count below zero goes unnoticed, or spoils the WaitGroup."""
    wg = WaitGroup()
    for call in (wg.done, lambda: wg.add(-1)):
        with pytest.raises(SyncError, match="below zero .*call done"):
            call()
        with pytest.raises(GortError):
            call()
        with pytest.raises(RuntimeError):
            call()
    wg.add(2)
    with pytest.raises(SyncError):
        wg.add(-3)
    wg.done()
    with pytest.raises(TimeoutError):
        wg.wait(0)
    wg.done()
    wg.wait(0)
    with pytest.raises(TypeError):
        wg.add("1")  # type: ignore[arg-type]


def test_waitgroup_wakes_all_and_may_be_used_again(procs: int) -> None:
    """Broken: zero does not wake every waiter, goroutine or thread; or a second use keeps those of the first."""

    def main() -> None:
        wg = WaitGroup()
        wg.wait()
        for _ in range(20):
            wg.add(2)
            tasks: list[Any] = [start(wg.wait), settle(thread(wg.wait)), start(wg.wait, LONG)]
            wg.done()
            with pytest.raises(TimeoutError):
                wg.wait(0.0001)
            assert all(task.is_alive() if isinstance(task, threading.Thread) else not task.done() for task in tasks)
            wg.done()
            wg.add()  # the next use
            for task in tasks:
                task.join()
            wg.done()

    run(main, procs=procs)


def test_waitgroup_go(procs: int) -> None:
    """Broken: `go` does not count a goroutine until its end, or hides its result, error, name or origin."""

    def main() -> None:
        wg = WaitGroup()
        over = Event()

        def work(i: int, *, more: int = 0) -> int:
            over.wait()
            if i < 0:
                raise OSError("lost?")
            return i + more

        tasks = [wg.go(work, i, more=10) for i in range(5)]
        failing = wg.go(work, -1)
        assert tasks[0].name.endswith("work")
        assert "test_sync_count.py" in tasks[0].started_at and "main" in tasks[0].started_at
        with pytest.raises(TimeoutError):
            wg.wait(0.001)
        over.set()
        wg.wait()
        assert all(task.done() for task in tasks)
        assert [task.result() for task in tasks] == [10, 11, 12, 13, 14]
        assert isinstance(failing.exception(), OSError)
        with pytest.raises(TypeError):
            wg.go(None)  # type: ignore[arg-type]
        wg.wait(0)

    run(main, procs=procs)


def test_waitgroup_go_counts_every_end(procs: int) -> None:
    """Broken: a goroutine that is cancelled, started or not, is waited for for ever."""

    def main() -> None:
        wg = WaitGroup()
        running = start_waiting(wg)
        fresh = [wg.go(Event().wait) for _ in range(20)]
        for g in fresh:
            g.cancel()  # on one P, before they start
        wg_waiter = start(wg.wait)
        running.cancel()
        wg.wait()
        wg_waiter.result()

    def start_waiting(wg: WaitGroup) -> gort.Goroutine[Any]:
        return settle(wg.go(Event().wait))

    run(main, procs=procs)


def test_waitgroup_of_a_closed_runtime() -> None:
    """Broken: a thread that waits for goroutines of a runtime that is closed before they start waits for ever."""
    wg = WaitGroup()

    def main() -> None:
        for _ in range(100):
            wg.go(Event().wait)

    run(main, procs=1)
    wg.wait(LONG)


def test_waitgroup_done_too_often_for_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a done() too many for a goroutine that counts itself breaks the scheduler, or nobody hears of it."""
    heard: list[Any] = []
    monkeypatch.setattr(gort, "excepthook", heard.append)

    def main() -> None:
        wg = WaitGroup()
        g = wg.go(wg.done)
        g.result()
        wg.wait()
        while not heard:
            gosched()

    run(main, procs=1)
    assert isinstance(heard[0].exc_value, SyncError) and "counts itself" in str(heard[0].exc_value)


def test_waitgroup_cancelled_waiter(procs: int) -> None:
    """Broken: a cancelled waiter goes on, or keeps the others from being woken."""

    def main() -> None:
        wg = WaitGroup()
        wg.add()
        tasks = [start(wg.wait) for _ in range(3)]
        tasks[0].cancel()
        tasks[0].join()
        wg.done()
        for g in tasks[1:]:
            g.result()
        with pytest.raises(gort.GoroutineCancelled):
            tasks[0].result()

    run(main, procs=procs)


# -- Barrier ------------------------------------------------------------------------------------------------------


def test_barrier_rounds(procs: int, jitter: None) -> None:
    """Broken: somebody passes before all have arrived, two get the same number, or rounds mix."""
    parties, rounds = 4, 30
    barrier = Barrier(parties)
    counting = threading.Lock()
    arrived = 0
    numbers: list[list[int]] = [[] for _ in range(rounds)]

    def party() -> None:
        nonlocal arrived
        for i in range(rounds):
            with counting:
                arrived += 1
            number = barrier.wait()
            assert arrived >= parties * (i + 1)
            with counting:
                numbers[i].append(number)

    def main() -> None:
        failed: list[BaseException] = []

        def on_thread() -> None:
            try:
                party()
            except BaseException as exc:
                failed.append(exc)

        tasks = [go(party) for _ in range(parties - 1)]
        t = thread(on_thread)
        for task in tasks:
            task.result()
        t.join()
        assert not failed

    run(main, procs=procs)
    assert all(sorted(found) == list(range(parties)) for found in numbers)
    assert barrier.n_waiting == 0 and not barrier.broken and barrier.parties == parties


@pytest.mark.parametrize("how", ["timeout", "no time", "cancel", "cancelled before", "abort"])
def test_barrier_breaks(procs: int, how: str) -> None:
    """Broken: when one party gives up the others wait for ever; or a broken barrier lets somebody through."""

    def main() -> None:
        barrier = Barrier(4)
        others: list[Any] = [start(barrier.wait), start(barrier.wait, LONG)]
        if how == "timeout":
            with pytest.raises(TimeoutError):
                barrier.wait(0.001)
        elif how == "no time":
            with pytest.raises(TimeoutError):
                barrier.wait(0)
        elif how == "cancel":
            g = start(barrier.wait)
            g.cancel()
            g.join()
        elif how == "cancelled before":

            def party() -> None:
                gort.current().cancel()  # type: ignore[union-attr]
                barrier.wait()

            go(party).join()
        else:
            barrier.abort()
        for other in others:
            assert isinstance(other.exception(), BrokenBarrier)
        assert barrier.broken and barrier.n_waiting == 0
        for kind in (BrokenBarrier, GortError, threading.BrokenBarrierError):
            with pytest.raises(kind):
                barrier.wait()
        barrier.reset()
        assert not barrier.broken
        others = [start(barrier.wait) for _ in range(3)]
        assert barrier.wait(0) == 3  # the last one need not wait
        assert [other.result() for other in others] == [0, 1, 2]

    run(main, procs=procs)


def test_barrier_breaks_when_a_late_party_is_cancelled() -> None:
    """Broken: a party whose cancellation arrives while it gives way, before it has arrived, leaves the others waiting."""

    def main() -> None:
        barrier = Barrier(3)
        other = start(barrier.wait)
        with pytest.raises(TimeoutError), gort.timeout(0.001):
            m = gort.current().carrier.m  # type: ignore[union-attr]
            over = time.monotonic() + 0.003
            while time.monotonic() < over or not (m.late and m.ready):
                pass  # until it is to give way, to the hub, which has the limit's end to see to
            barrier.wait()
        assert isinstance(other.exception(), BrokenBarrier)

    run(main, procs=1)


def test_barrier_breaks_when_a_late_party_is_interrupted() -> None:
    """Broken: a party with a Ctrl-C on its way, which `wait` raises before it has arrived, leaves the others waiting."""

    def main() -> None:
        barrier = Barrier(3)
        other = start(barrier.wait)
        ch: Chan[None] = Chan()

        def interrupts() -> None:
            ch.send(None)
            signal.raise_signal(signal.SIGINT)  # main has been woken, and does not run yet

        go(interrupts)
        ch.recv()
        with pytest.raises(KeyboardInterrupt):
            barrier.wait()
        assert isinstance(other.exception(), BrokenBarrier)

    run(main, procs=1)


def test_barrier_reset_sends_them_away(procs: int) -> None:
    """Broken: `reset` leaves waiters of the old round behind, who would be counted in the new one."""

    def main() -> None:
        barrier = Barrier(3)
        old = start(barrier.wait)
        old_thread: list[BaseException] = []

        def on_thread() -> None:
            try:
                barrier.wait()
            except BaseException as exc:
                old_thread.append(exc)

        t = settle(thread(on_thread))
        barrier.reset()
        assert isinstance(old.exception(), BrokenBarrier)
        t.join()
        assert isinstance(old_thread[0], BrokenBarrier)
        assert not barrier.broken and barrier.n_waiting == 0

    run(main, procs=procs)


def test_barrier_last_one_is_not_cancelled(procs: int) -> None:
    """Broken: the last party, cancelled but with nothing to wait for, breaks a round that is complete."""

    def main() -> None:
        barrier = Barrier(2)
        other = start(barrier.wait)

        def last() -> int:
            gort.current().cancel()  # type: ignore[union-attr]
            number = barrier.wait()
            with pytest.raises(Cancelled):
                sleep(LONG)
            return number

        assert go(last).result() == 1
        assert other.result() == 0

    run(main, procs=procs)


def test_barrier_bad_arguments() -> None:
    """Broken: a barrier for nobody, or for half a party, is made."""
    for wrong in (0, -1):
        with pytest.raises(ValueError):
            Barrier(wrong)
    for kind in (1.5, "2", True, None):
        with pytest.raises(TypeError):
            Barrier(kind)  # type: ignore[arg-type]
    assert Barrier(1).wait() == 0
    with pytest.raises(TypeError):
        Barrier(2).wait("soon")  # type: ignore[arg-type]
