"""gort.green.threading and queue: threads that are goroutines, and what they wait for each other with.

Everything runs on one P where it can, so that whatever blocks the thread hangs.
"""

from __future__ import annotations

import queue as std_queue
import threading as std
import time as std_time
from collections.abc import Callable
from typing import Any

import pytest

import gort
from gort import go, run
from gort.green import queue, threading, time
from settling import start


def test_names():
    """Every name of the standard modules is there; exceptions are the standard ones."""
    for twin, module in ((threading, std), (queue, std_queue)):
        missing = [name for name in vars(module) if not name.startswith("__") and not hasattr(twin, name)]
        assert not missing
    assert queue.Empty is std_queue.Empty and queue.Full is std_queue.Full
    assert threading.BrokenBarrierError is std.BrokenBarrierError and threading.TIMEOUT_MAX == std.TIMEOUT_MAX
    for name in ("Thread", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier", "Timer"):
        assert issubclass(getattr(threading, name), getattr(std, name))
    assert issubclass(queue.LifoQueue, queue.Queue) and issubclass(queue.Queue, std_queue.Queue)
    assert std.Condition.wait.__globals__ is vars(std), "the standard module is untouched"


# --- threads ----------------------------------------------------------------------------------------------------------


def test_a_thread_is_a_goroutine(procs: int):
    """start, join, is_alive, names and numbers, daemon, subclasses: as ever, and thousands of them."""
    seen: list[Any] = []

    class Own(threading.Thread):
        def run(self) -> None:
            seen.append(
                (threading.current_thread() is self, threading.get_ident() == self.ident, gort.current() is not None)
            )

    def main() -> None:
        own = Own(name="own")
        assert not own.is_alive() and own.ident is None and "initial" in repr(own)
        own.start()
        own.join()
        assert seen == [(True, True, True)] and not own.is_alive() and "stopped" in repr(own)
        gate = threading.Event()
        threads = [
            threading.Thread(
                target=lambda a, b: gate.wait() and seen.append((a, b)), args=(i,), kwargs={"b": i}, daemon=True
            )
            for i in range(2000)
        ]
        for thread in threads:
            thread.start()
        assert threads[0].is_alive() and threads[0].daemon and "started" in repr(threads[0])
        assert set(threads) <= set(threading.enumerate()) and threading.active_count() >= 2001
        assert len({thread.ident for thread in threads}) == 2000
        threads[0].join(0.001)
        assert threads[0].is_alive()
        gate.set()
        for thread in threads:
            thread.join()
        assert len(seen) == 2001
        assert not set(threads) & set(threading.enumerate())

    run(main, procs=procs)


def test_a_thread_knows_itself_from_the_start(procs: int) -> None:
    """Broken: a thread that runs before `start` has come back is a stand-in for itself, or has no ident."""
    seen: list[Any] = []

    class Own(threading.Thread):
        @property
        def name(self) -> str:
            gort.gosched()  # whatever is ready runs: without a GIL it may at any moment
            return "own"

        def run(self) -> None:
            seen.append((threading.current_thread() is self, self.ident == threading.get_ident(), self.is_alive()))

    def main() -> None:
        for _ in range(100):
            thread = Own()
            thread.start()
            thread.join()

    run(main, procs=procs)
    assert seen == [(True, True, True)] * 100


def test_who_is_running():
    """The main goroutine is its thread, others have a stand-in, and all keep theirs."""

    def other() -> None:
        me = threading.current_thread()
        assert me is threading.current_thread() and me.is_alive() and me in threading.enumerate()
        assert me.ident == threading.get_ident() != std.get_ident()
        with pytest.raises(RuntimeError):
            me.join()
        with pytest.raises(RuntimeError):
            me.start()

    def main() -> None:
        assert threading.current_thread() is threading.main_thread() is std.main_thread()
        assert threading.get_ident() == std.get_ident()
        before = threading.active_count()
        go(other).result()
        assert threading.active_count() == before

    run(main)
    assert threading.current_thread() is std.current_thread() and threading.get_ident() == std.get_ident()


def test_misuse_of_threads():
    """The standard RuntimeErrors."""

    def main() -> None:
        thread = threading.Thread(target=lambda: None)
        with pytest.raises(RuntimeError):
            thread.join()
        thread.start()
        with pytest.raises(RuntimeError):
            thread.start()
        thread.join()
        with pytest.raises(RuntimeError):
            thread.start()

        class Bad(threading.Thread):
            def __init__(self) -> None:
                pass

        with pytest.raises(RuntimeError):
            Bad().start()

    run(main)


def test_errors_go_to_the_excepthook(monkeypatch):
    """threading.excepthook is told of an exception, once, and of SystemExit, as there; a cancelled thread is silent."""
    told: list[Any] = []
    monkeypatch.setattr(std, "excepthook", lambda args: told.append((args.exc_type, args.thread)))

    def main() -> None:
        threads = [threading.Thread(target=fn) for fn in (lambda: 1 / 0, lambda: exit(3), lambda: time.sleep(60))]
        for thread in threads:
            thread.start()
        threads[0].join()
        threads[1].join()

    run(main)
    assert sorted(kind.__name__ for kind, _ in told) == ["SystemExit", "ZeroDivisionError"]


def test_local():
    """Each thread that is a goroutine has its own."""

    def main() -> None:
        data = threading.local()
        data.x = "main"
        seen: list[Any] = []

        def work(i: int) -> None:
            seen.append(hasattr(data, "x"))
            data.x = i
            time.sleep(0.001)
            seen.append(data.x == i)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert seen == [False] * 5 + [True] * 5 and data.x == "main"

    run(main, procs=1)


def test_on_plain_threads_it_is_threading():
    """Without a goroutine a Thread is a real one; locks work between both kinds."""
    lock = threading.Lock()
    condition = threading.Condition()
    items: list[int] = []

    def take() -> None:
        with lock, condition:
            assert condition.wait_for(lambda: items, 30)
            items.pop()

    thread = threading.Thread(target=take)
    thread.start()
    assert thread in std.enumerate()

    def main() -> None:
        with condition:
            items.append(1)
            condition.notify()
        assert lock.acquire(timeout=30)
        lock.release()

    run(main)
    thread.join()
    assert not items


# --- locks and their like ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_locks(kind: str, procs: int, jitter):
    """Mutual exclusion among threads; acquire's arguments and answers; misuse."""

    def main() -> None:
        lock = getattr(threading, kind)()
        total = 0

        def work() -> None:
            nonlocal total
            for _ in range(50):
                with lock:
                    before = total
                    if before % 7 == 0:
                        gort.gosched()
                    total = before + 1

        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert total == 500

        assert lock.acquire() is True
        answers = go(lambda: [lock.acquire(False), lock.acquire(timeout=0), lock.acquire(True, 0.001)]).result()
        assert answers == [False, False, False]
        if kind == "RLock":
            assert lock.acquire(blocking=False)
            assert isinstance(go(lock.release).exception(), RuntimeError)
            lock.release()
        else:
            assert lock.locked()
        lock.release()
        for bad, error in (((False, 1), ValueError), ((True, -2), ValueError), ((True, 1e300), OverflowError)):
            for make in (getattr(threading, kind), getattr(std, kind)):
                with pytest.raises(error):
                    make().acquire(*bad)
        with pytest.raises(RuntimeError):
            lock.release()
        with lock:
            pass
        repr(lock)

    run(main, procs=procs)


def test_the_rest_of_threading(procs: int):
    """Condition, Event, Semaphore, Barrier, Timer: they park, time out, and wake whom they should."""

    def threads(n: int, fn: Callable[[], Any]) -> list[threading.Thread]:
        started = [threading.Thread(target=fn) for _ in range(n)]
        for thread in started:
            thread.start()
        return started

    def main() -> None:
        event = threading.Event()
        waiting = threads(5, event.wait)
        assert not event.wait(0.001) and waiting[0].is_alive()
        event.set()
        for thread in waiting:
            thread.join()

        condition = threading.Condition()
        items: list[int] = []
        got: list[int] = []

        def take() -> None:
            with condition:
                while not items:
                    condition.wait()
                got.append(items.pop())

        waiting = threads(5, take)
        for i in range(5):
            with condition:
                items.append(i)
                condition.notify()
        for thread in waiting:
            thread.join()
        assert sorted(got) == list(range(5))
        with condition:
            assert condition.wait(0.001) is False and condition.wait_for(lambda: False, 0.001) is False
        with pytest.raises(RuntimeError):
            condition.notify()

        semaphore = threading.BoundedSemaphore(2)
        now = most = 0

        def inside() -> None:
            nonlocal now, most
            with semaphore:
                now += 1
                most = max(most, now)
                time.sleep(0.001)
                now -= 1

        for thread in threads(8, inside):
            thread.join()
        assert most == 2
        with pytest.raises(ValueError):
            semaphore.release()

        barrier = threading.Barrier(3, timeout=30)
        numbers: list[int] = []
        for thread in threads(3, lambda: numbers.append(barrier.wait())):
            thread.join()
        assert sorted(numbers) == [0, 1, 2]
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(0.001)

        timers = [threading.Timer(0.001, event.clear), threading.Timer(60, event.set)]
        for timer in timers:
            timer.start()
        timers[1].cancel()
        for timer in timers:
            timer.join()
        assert not event.is_set()

    run(main, procs=procs)


def test_a_cancelled_wait_takes_nothing(procs: int, jitter):
    """Goroutines cancelled while they wait for a lock or a condition leave it as it was."""

    def main() -> None:
        lock = threading.RLock()
        condition = threading.Condition(lock)
        for _ in range(30):
            with condition:

                def acquire() -> None:
                    with lock:  # it may get it before it is cancelled
                        pass

                def wait() -> None:
                    with condition:
                        condition.wait()

                waiting = [go(fn) for fn in (acquire, wait) * 3]
                gort.sleep(0.0002)
                for g in waiting:
                    g.cancel()
            for g in waiting:
                g.join()
            assert lock.acquire(timeout=30)
            lock.release()

    run(main, procs=1 if procs == 2 else procs)


def _wanted(lock: Any, by: int = 1) -> None:
    """Come back when so many wait for this lock."""
    while f" {by} waiting" not in repr(getattr(lock, "_block", lock)):
        gort.gosched()


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_cancelled_wait_ends_with_its_lock(kind: str, procs: int) -> None:
    """Broken: one who is cancelled twice, or after its notification, releases the lock that another has by now."""

    def main() -> None:
        lock = getattr(threading, kind)()
        condition = threading.Condition(lock)
        ctx = gort.context.with_cancel(gort.context.background())
        inside: list[str] = []
        seen: list[list[str]] = []

        def wait() -> None:
            with condition:
                try:
                    condition.wait()
                finally:
                    seen.append(inside.copy())

        def in_block() -> None:
            with ctx:
                wait()

        def cancelled_while_it_locks_again(ended, waiter) -> None:
            inside.append("main")
            ended()
            _wanted(lock)
            waiter.cancel()
            for _ in range(20):
                gort.gosched()
            assert waiter.state == "waiting" and lock.locked()
            inside.clear()

        twice = start(in_block)
        with condition:
            cancelled_while_it_locks_again(ctx.cancel, twice)
        assert twice.exception() is not None

        notified = start(wait)
        with condition:
            cancelled_while_it_locks_again(condition.notify, notified)
        notified.join()
        assert seen == [[], []]
        assert lock.acquire(False)

    run(main, procs=procs)


@pytest.mark.parametrize("kind", ["Lock", "RLock"])
def test_a_cancelled_wait_leaves_the_notification(kind: str, procs: int) -> None:
    """Broken: the one notification goes to a goroutine that has been cancelled, and the next sleeps for ever."""

    def main() -> None:
        lock = getattr(threading, kind)()
        condition = threading.Condition(lock)

        def wait() -> bool:
            with condition:
                return condition.wait(30)

        first, second = start(wait), start(wait)
        with condition:
            first.cancel()
            _wanted(lock)
            condition.notify()
        assert isinstance(first.exception(), gort.Cancelled)
        assert second.result(20) is True

    run(main, procs=procs)


# --- queues -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
def test_queues(kind: str, procs: int):
    """Producers and consumers; every item comes once; bounds, time-outs, task_done and join."""

    def main() -> None:
        q = getattr(queue, kind)() if kind == "SimpleQueue" else getattr(queue, kind)(3)
        got: list[int] = []

        def consume() -> None:
            while (item := q.get()) >= 0:
                got.append(item)
                if kind != "SimpleQueue":
                    q.task_done()

        consumers = [threading.Thread(target=consume) for _ in range(3)]
        producers = [threading.Thread(target=lambda i=i: [q.put(j) for j in range(i, 300, 3)]) for i in range(3)]
        for thread in (*consumers, *producers):
            thread.start()
        for thread in producers:
            thread.join()
        if kind != "SimpleQueue":
            q.join()
        while not q.empty():
            time.sleep(0.001)
        for _ in consumers:
            q.put(-1)
        for thread in consumers:
            thread.join()
        assert sorted(got) == list(range(300))
        for call in (lambda: q.get(False), lambda: q.get(timeout=0.001), lambda: q.get_nowait()):
            with pytest.raises(queue.Empty):
                call()
        if kind != "SimpleQueue":
            for i in (2, 1, 3):
                q.put(i)
            for call in (lambda: q.put(0, False), lambda: q.put(0, timeout=0.001)):
                with pytest.raises(queue.Full):
                    call()
            order = {"Queue": [2, 1, 3], "LifoQueue": [3, 1, 2], "PriorityQueue": [1, 2, 3]}[kind]
            assert [q.get() for _ in range(3)] == order
            if hasattr(q, "shutdown"):
                g = go(q.get)
                gort.sleep(0.001)
                q.shutdown()
                assert isinstance(g.exception(), queue.ShutDown)

    run(main, procs=procs)


def test_a_cancelled_get_loses_no_item(procs: int) -> None:
    """Broken: an item of a queue is taken by a goroutine that is cancelled, or waits there and nobody is told."""

    def main() -> None:
        q = queue.Queue()
        first, second = start(q.get), start(q.get)
        with q.mutex:  # as another's `put`, in the middle of which first is cancelled
            first.cancel()
            _wanted(q.mutex)
            q.queue.append("item")
            q.not_empty.notify()
        assert second.result(20) == "item"

    run(main, procs=procs)


def test_waiting_costs_no_processor_time():
    """A get with a long time-out sleeps (it does not look again and again)."""

    def main() -> None:
        q = queue.Queue()
        before = std_time.process_time()
        with pytest.raises(queue.Empty):
            q.get(timeout=0.2)
        assert std_time.process_time() - before < 0.1

    run(main)


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_the_twin_s_own_excepthook(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a program that imports the twin sets a hook for errors in threads, and it is never called."""
    seen: list[Any] = []

    def fails(kind: type[BaseException]) -> None:
        raise kind

    def main() -> None:
        for kind in (ValueError, GeneratorExit, SystemExit):
            t = threading.Thread(target=fails, args=(kind,))
            t.start()
            t.join()

    monkeypatch.setattr(threading, "excepthook", lambda args: seen.append((args.exc_type, args.thread.name[:6])))
    run(main) if where == "goroutine" else main()
    assert seen == [(kind, "Thread") for kind in (ValueError, GeneratorExit, SystemExit)]
    seen.clear()
    monkeypatch.undo()
    monkeypatch.setattr(std, "excepthook", lambda args: seen.append(args.exc_type))
    run(main) if where == "goroutine" else main()
    assert seen == [ValueError, GeneratorExit, SystemExit]


def test_times_that_are_none() -> None:
    """Broken: what the standard modules refuse waits for ever."""

    def main() -> None:
        for seconds in (float("inf"), 1e100):
            with pytest.raises(OverflowError):
                time.sleep(seconds)
        with pytest.raises(ValueError):
            threading.Lock().acquire(True, float("nan"))
        t = threading.Thread(target=lambda: None)
        t.start()
        with pytest.raises(OverflowError):
            t.join(1e100)
        t.join()

    run(main)
