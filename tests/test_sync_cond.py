"""Cond, Event and Once: behaviour 36, time-outs, cancellation while waiting, plain threads.

Nothing here sleeps to let something happen: `settle` waits until a goroutine or thread waits (or has ended).
"""

from __future__ import annotations

import threading
from typing import Any

import pytest

import gort
from gort import Cancelled, GortError, go, gosched, run
from gort.runtime.scope import Scope
from gort.sync import Cond, Event, Mutex, Once, RWMutex, SyncError, once
from settling import LONG, settle, start, thread

# -- Cond ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notify", ["notify", "signal", "notify(2)", "notify_all", "broadcast"])
def test_36_first_come_first_served(procs: int, notify: str) -> None:
    """Broken: waiters are notified in another order than they came, or too many or too few of them."""

    def main() -> None:
        cond = Cond()
        order: list[int] = []

        def wait(i: int) -> None:
            with cond:
                cond.wait()
                order.append(i)

        # A thread between the goroutines is a waiter like them.
        tasks: list[Any] = [start(wait, 0), start(wait, 1), settle(thread(wait, 2)), start(wait, 3)]
        number = {"notify": 1, "signal": 1, "notify(2)": 2}.get(notify, 4)
        for first in range(0, 4, number):
            if notify == "notify(2)":
                cond.notify(2)
            else:
                getattr(cond, notify)()
            for i in range(first, first + number):
                while i not in order:
                    gosched()
            assert sorted(order) == list(range(first + number))
            assert cond._waiting() == 4 - first - number
        if number == 1:
            assert order == [0, 1, 2, 3]
        for task in tasks:
            task.join()
        cond.notify()
        cond.notify_all()

    run(main, procs=procs)


def test_cond_notification_is_not_kept(procs: int) -> None:
    """Broken: a notification that nobody waited for wakes a later waiter."""

    def main() -> None:
        cond = Cond()
        cond.notify(3)
        cond.notify_all()
        with cond:
            with pytest.raises(TimeoutError):
                cond.wait(0.001)

    run(main, procs=procs)


def test_cond_holds_its_lock_after_a_timeout(procs: int) -> None:
    """Broken: `wait` ends by TimeoutError before it has the lock again."""

    def main() -> None:
        cond = Cond()
        order: list[str] = []

        def wait() -> None:
            with cond:
                with pytest.raises(TimeoutError):
                    cond.wait(0.001)
                assert cond.L.locked()
                order.append("timed out")

        g = start(wait)
        with cond:
            while cond._waiting():  # its time has come to its end, and it wants the lock
                gosched()
            settle(g)
            order.append("main")
        g.result()
        assert order == ["main", "timed out"]

        with cond:
            for timeout in (0, -1):
                with pytest.raises(TimeoutError):
                    cond.wait(timeout)
            with pytest.raises(TypeError):
                cond.wait("soon")  # type: ignore[arg-type]
            assert cond.L.locked()

    run(main, procs=procs)


def test_cond_holds_its_lock_after_a_cancellation(procs: int) -> None:
    """Broken: a waiter that is cancelled, even twice and while it wants the lock back, ends without the lock."""

    def main() -> None:
        cond = Cond()
        seen: list[Any] = []
        scope = Scope()

        def wait() -> None:
            scope.enter("a test")
            try:
                with cond:
                    try:
                        cond.wait()
                    finally:
                        seen.append(cond.L.locked() and inside == [])
            except Cancelled as exc:
                seen.append(exc)
                scope.exit(exc)
                raise

        inside: list[int] = []
        g = start(wait)
        with cond:
            inside.append(1)
            scope.cancel("first")
            while cond._waiting():
                gosched()
            settle(g)
            assert g.state == "waiting"  # for the lock
            g.cancel()
            for _ in range(20):
                gosched()
            assert g.state == "waiting"
            inside.clear()
        g.join()
        assert seen[0] is True
        assert isinstance(seen[1], Cancelled)
        assert not cond.L.locked()

    run(main, procs=procs)


def test_cond_cancelled_waiter_leaves_the_notification(procs: int) -> None:
    """Broken: the one notification goes to a waiter that has been cancelled, and the next sleeps for ever."""

    def main() -> None:
        cond = Cond()
        woken: list[int] = []

        def wait(i: int) -> None:
            with cond:
                cond.wait()
                woken.append(i)

        tasks = [start(wait, i) for i in range(3)]
        tasks[0].cancel()
        tasks[0].join()
        cond.notify()
        tasks[1].result()
        cond.notify()
        tasks[2].cancel()  # too late: it has been notified
        tasks[2].join()
        assert woken == [1, 2]

    run(main, procs=procs)


def test_cond_without_its_lock() -> None:
    """Broken: `wait` without the lock goes unnoticed, or leaves a ticket that swallows the next notification."""
    cond = Cond()
    with pytest.raises(SyncError):
        cond.wait()
    assert cond._waiting() == 0

    def main() -> None:
        with pytest.raises(SyncError):
            cond.wait(LONG)
        g = start(lambda: cond.__enter__() or cond.wait())
        cond.notify()
        g.result()

    run(main)


def test_cond_notified_while_its_lock_refuses() -> None:
    """Broken: a lock whose unlock fails after a notification has come leaves a wake-up behind, or swallows it."""

    class Lock:
        def lock(self) -> None:
            pass

        def unlock(self) -> None:
            cond.notify()  # to the caller itself, whose ticket is there by now
            raise OSError("this lock does not unlock")

    cond = Cond(Lock())

    def main() -> None:
        ended = go(lambda: pytest.raises(OSError, cond.wait))
        ended.result()
        assert cond._waiting() == 0
        gosched()

    run(main)
    with pytest.raises(OSError):
        cond.wait()


@pytest.mark.parametrize("side", ["lock", "read", "write"])
def test_cond_with_an_rwmutex(procs: int, side: str) -> None:
    """Broken: an RWMutex, or one of its sides, is no lock for a Cond.  Go: NewCond(rw.RLocker())."""

    def main() -> None:
        rw = RWMutex()
        cond = Cond({"lock": rw, "read": rw.read(), "write": rw.write()}[side])
        ready = False

        def wait() -> None:
            with cond:
                cond.wait_for(lambda: ready)
                assert rw.locked()

        tasks = [start(wait) for _ in range(3)]
        with rw.write():
            ready = True
        cond.broadcast()
        for task in tasks:
            task.result()
        assert not rw.locked()

    run(main, procs=procs)


def test_cond_wait_for(procs: int) -> None:
    """Broken: `wait_for` ends before its condition is true, misses it, or has no end."""

    def main() -> None:
        cond = Cond()
        items: list[str] = []

        def wait() -> str:
            with cond:
                return cond.wait_for(lambda: items and items[-1], LONG)

        g = start(wait)
        with cond:
            cond.notify()
        settle(g)
        assert g.state == "waiting"
        with cond:
            items.append("here")
            cond.notify()
        assert g.result() == "here"
        with cond:
            for timeout in (0, 0.001):
                with pytest.raises(TimeoutError, match="still false"):
                    cond.wait_for(lambda: False, timeout)
                assert cond.wait_for(lambda: 5, timeout) == 5
            assert cond.L.locked()

    run(main, procs=procs)


def test_cond_bad_arguments() -> None:
    """Broken: what is no lock, and what is no number, is only noticed later."""
    with pytest.raises(TypeError, match="lock"):
        Cond(threading.Event())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Cond().notify("all")  # type: ignore[arg-type]
    m = Mutex()
    cond = Cond(m)
    assert cond.L is m
    cond.lock()
    assert m.locked()
    cond.unlock()
    assert "test_sync_cond.py" in repr(Cond().L)


# -- Event --------------------------------------------------------------------------------------------------------


def test_event(procs: int) -> None:
    """Broken: `set` does not wake all waiters, goroutines and threads; `clear` takes back a wake-up."""

    def main() -> None:
        event = Event()
        through: list[int] = []

        def wait(i: int) -> None:
            assert event.wait() is True
            through.append(i)

        tasks: list[Any] = [start(wait, i) for i in range(5)]
        tasks += [settle(thread(wait, i)) for i in range(5, 8)]
        assert not event.is_set() and not through
        event.set()
        event.clear()
        for task in tasks:
            task.join()
        assert sorted(through) == list(range(8))
        assert not event.is_set()
        with pytest.raises(TimeoutError):
            event.wait(0)
        with pytest.raises(TimeoutError):
            event.wait(0.001)
        event.set()
        event.set()
        assert event.is_set() and event.wait() and event.wait(0) and event.wait(LONG)

    run(main, procs=procs)


def test_event_cancelled_waiter(procs: int) -> None:
    """Broken: a cancelled waiter goes on as if the event were set, or keeps others from being woken."""

    def main() -> None:
        event = Event()
        tasks = [start(event.wait) for _ in range(3)]
        tasks[1].cancel()
        tasks[1].join()
        with pytest.raises(gort.GoroutineCancelled):
            tasks[1].result()
        event.set()
        assert tasks[0].result() and tasks[2].result()

    run(main, procs=procs)


# -- Once ---------------------------------------------------------------------------------------------------------


def test_once_runs_once_and_all_wait(procs: int, jitter: None) -> None:
    """Broken: the function runs twice, or somebody goes on before it has ended."""
    only = Once()
    runs: list[int] = []
    after: list[int] = []

    def init() -> None:
        runs.append(1)
        for _ in range(20):
            gosched()
        runs.append(2)

    def use() -> None:
        only.do(init)
        after.append(len(runs))

    def main() -> None:
        tasks: list[Any] = [go(use) for _ in range(10)]
        tasks += [thread(use) for _ in range(3)]
        for task in tasks:
            if isinstance(task, threading.Thread):
                while task.is_alive():
                    gosched()
            else:
                task.result()

    run(main, procs=procs)
    assert runs == [1, 2]
    assert after == [2] * 13
    assert only.done()


def test_36_once_counts_as_done_if_it_raises(procs: int) -> None:
    """Broken: after a failure the function runs again, or those who waited get the error or wait for ever."""

    def main() -> None:
        only = Once()
        go_on = Event()
        runs: list[int] = []

        def fail() -> None:
            runs.append(1)
            go_on.wait()
            raise OSError("the first and only time")

        first = start(only.do, fail)
        second = start(only.do, fail)
        with pytest.raises(TimeoutError):
            only.do(fail, 0)
        with pytest.raises(TimeoutError):
            only.do(fail, timeout=0.001)
        assert not only.done()
        go_on.set()
        with pytest.raises(OSError):
            first.result()
        second.result()
        only.do(fail)
        only.do(fail, 0)
        assert runs == [1] and only.done()

    run(main, procs=procs)


def test_once_cancelled_runner(procs: int) -> None:
    """Broken: the cancellation of the one that runs the function leaves the others asleep, or lets it run again."""

    def main() -> None:
        only = Once()
        runs: list[int] = []

        def init() -> None:
            runs.append(1)
            Event().wait()

        first = start(only.do, init)
        others = [start(only.do, init) for _ in range(3)]
        others[0].cancel()
        others[0].join()
        first.cancel()
        for other in others[1:]:
            other.result()
        only.do(init)
        assert runs == [1]

    run(main, procs=procs)


def test_once_that_waits_for_itself() -> None:
    """Broken: a function that uses its own Once hangs without a word."""
    only = Once()
    with pytest.raises(SyncError, match="wait for ever"):
        only.do(lambda: only.do(lambda: None))

    def main() -> None:
        other = Once()
        with pytest.raises(SyncError, match="wait for ever"):
            other.do(lambda: other.do(lambda: None))

    run(main)
    with pytest.raises(TypeError):
        Once().do(None)  # type: ignore[arg-type]


def test_once_decorator(procs: int) -> None:
    """Broken: a once function runs twice, or a caller gets something other than the outcome of its only run."""

    def main() -> None:
        runs: list[str] = []

        @once
        def good() -> object:
            """Makes it."""
            runs.append("good")
            gosched()
            return made

        @once
        def bad() -> None:
            runs.append("bad")
            gosched()
            raise OSError("no")

        made = object()
        assert good.__name__ == "good" and good.__doc__ == "Makes it."
        tasks = [go(good) for _ in range(5)]
        assert all(task.result() is made for task in tasks) and good() is made
        failures = [go(bad) for _ in range(5)]
        errors = {id(task.exception()) for task in failures}
        assert len(errors) == 1
        for _ in range(2):
            with pytest.raises(OSError, match="no") as caught:
                bad()
            assert id(caught.value) in errors
        assert runs == ["good", "bad"]

        @once
        def cancelled() -> None:
            Event().wait()

        g = start(cancelled)
        other = start(cancelled)
        g.cancel()
        with pytest.raises(gort.GoroutineCancelled):
            g.result()
        for call in (other.result, cancelled):
            with pytest.raises(SyncError, match="ended by Cancelled"):
                call()
        with pytest.raises(GortError):
            cancelled()
        with pytest.raises(TypeError):
            once(3)  # type: ignore[arg-type]

    run(main, procs=procs)


def test_a_lock_that_cannot_be_locked_again() -> None:
    """Broken: a wait whose lock raises for ever when it is to be locked again never comes back, and holds its machine."""

    class Broken:
        unlocked = False

        def lock(self) -> None:
            if self.unlocked:
                raise ValueError("no more")

        def unlock(self) -> None:
            self.unlocked = True

    def main() -> None:
        cond = Cond(Broken())
        with pytest.raises(ValueError, match="no more"):
            cond.wait(timeout=1e-3)

    run(main)
