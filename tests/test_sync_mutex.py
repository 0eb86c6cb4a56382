"""Mutex and RWMutex: behaviours 34 and 35, time-outs, cancellation while waiting, plain threads, interrupted threads.

Nothing here sleeps to let something happen: `settle` waits until a goroutine or thread waits (or has ended).  Where a
waiter has to be old enough to be handed the mutex, the test waits for exactly that, by the age of its ticket.
"""

from __future__ import annotations

import signal
import threading
from time import monotonic
from typing import Any

import pytest

import gort
from gort import GortError, go, gosched, run, sleep
from gort.sync import Cond, Mutex, RWMutex, Semaphore, SyncError
from gort.sync.mutex import STARVING
from settling import LONG, settle, start, thread


def spread(procs: int, *fns: Any) -> list[gort.Goroutine[Any]]:
    """Start these functions as goroutines on as many machines as there are Ps.

    First one goroutine for each machine, which blocks it until all are there, and then starts its share of the others
    where it is.  A plain thread starts those first ones, because a goroutine may give way in `go`, to one that blocks
    its machine until there are more.
    """
    barrier = threading.Barrier(procs)
    tasks: list[gort.Goroutine[Any]] = []

    def begin(i: int) -> None:
        barrier.wait()
        for fn in fns[i::procs]:
            tasks.append(go(fn))

    heads: list[gort.Goroutine[Any]] = []
    starter = thread(lambda: heads.extend([go(begin, i) for i in range(procs)]))
    while starter.is_alive():
        gosched()
    for head in heads:
        head.result()
    return tasks


def grow_old(mutex: Mutex) -> None:
    """Come back when the first waiter has waited so long that it will be handed the mutex."""
    while monotonic() - mutex._queue[0][4] <= STARVING:
        gosched()


# -- Mutex --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["with", "calls", "timeout", "try"])
def test_exclusion(procs: int, jitter: None, way: str) -> None:
    """Broken: two are inside at once, so an increment is lost; or a waiter is forgotten, and the test hangs."""
    count = 0
    rounds = 100
    m = Mutex()

    def step() -> None:
        nonlocal count
        before = count
        gosched()
        count = before + 1

    def work() -> None:
        for _ in range(rounds):
            if way == "with":
                with m:
                    step()
                continue
            if way == "calls":
                m.lock()
            elif way == "timeout":
                m.lock(LONG)
            else:
                while not m.try_lock():
                    gosched()
            step()
            m.unlock()

    def main() -> None:
        tasks = spread(procs, *[work] * 8)
        threads = [thread(work) for _ in range(2)]
        for task in tasks:
            task.result()
        for t in threads:
            t.join()

    run(main, procs=procs)
    assert count == 10 * rounds
    assert not m.locked() and m._waiting() == 0


def test_34_unlock_of_unlocked() -> None:
    """Broken: an unlock too many goes unnoticed, or does harm to those who use the mutex rightly."""
    m = Mutex()
    with pytest.raises(SyncError, match="unlock of unlocked .*unlock once for every lock"):
        m.unlock()
    for kind in (GortError, RuntimeError):
        with pytest.raises(kind):
            m.unlock()
    with pytest.raises(SyncError):
        m.__exit__(None, None, None)
    assert m.try_lock() and not m.try_lock() and m.locked()
    m.unlock()
    assert not m.locked()


def test_34_racing_unlocks(jitter: None) -> None:
    """Broken: of several unlocks at the same moment a wrong one goes unnoticed; or two are let in, or nobody is."""
    m = Mutex()
    parties = 4
    barrier = threading.Barrier(parties)
    wins: list[bool] = []
    wrong: list[bool] = []

    def racer(me: int) -> None:
        for _ in range(100):
            if me == 0:
                m.lock()
            barrier.wait()
            try:
                m.unlock()
            except SyncError:
                wrong.append(True)
            barrier.wait()
            won = m.try_lock()
            barrier.wait()
            if won:
                wins.append(won)
                m.unlock()
            barrier.wait()

    threads = [thread(racer, i) for i in range(parties)]
    for t in threads:
        t.join()
    assert len(wins) == 100 and len(wrong) == 100 * (parties - 1)
    assert m.try_lock() and not m.try_lock()


def test_timeouts(procs: int) -> None:
    """Broken: a lock with a time-out waits longer, gets the mutex in spite of TimeoutError, or takes a wrong value."""
    m = Mutex()

    def attempt() -> None:
        for timeout in (0, -1, 0.001, 0.02):
            before = monotonic()
            with pytest.raises(TimeoutError, match="lock"):
                m.lock(timeout)
            assert monotonic() - before >= timeout
        with pytest.raises(TypeError):
            m.lock("soon")  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            m.lock(float("nan"))

    def main() -> None:
        m.lock()
        go(attempt).result()
        failed: list[BaseException] = []

        def on_thread() -> None:
            try:
                attempt()
            except BaseException as exc:
                failed.append(exc)

        t = thread(on_thread)
        t.join()
        assert not failed
        m.unlock()
        m.lock(LONG)
        m.unlock()
        assert m._waiting() == 0

    run(main, procs=procs)


def test_timeout_of_a_waiter_that_lost(procs: int) -> None:
    """Broken: a waiter that was woken, tried again and lost has no time-out any more, or reports a wrong one."""

    def main() -> None:
        m = Mutex()
        m.lock()
        a = start(lambda: m.lock(0.05))
        # Woken and overtaken, again and again, until its time is over.
        while a.state != "dead":
            m.unlock()
            if m.try_lock():
                gosched()
            else:  # it was handed the mutex: the other way to end
                break
        if isinstance(a.exception(), TimeoutError):
            assert "0.05" in str(a.exception())
        else:
            assert m.locked()

    run(main, procs=procs)


def test_35_not_overtaken_for_ever_same_machine() -> None:
    """Broken: a goroutine that takes the mutex again and again keeps it from one that has waited over a millisecond."""

    def main() -> None:
        m = Mutex()
        taken: list[float] = []
        got: list[float] = []
        since: list[float] = []

        def hog() -> None:
            while not got:
                with m:
                    taken.append(monotonic())
                    sleep(100e-6)
                    if m._queue:
                        since[:] = [m._queue[0][4]]

        def waiter() -> None:
            with m:
                got.append(monotonic())

        h = go(hog)
        while not m.locked():
            gosched()
        w = go(waiter)
        w.result()
        h.result()
        # The last unlock before the millisecond let the hog in again; no later one did.
        late = [t for t in taken if since[0] + STARVING < t < got[0]]
        assert len(late) <= 1

    run(main, procs=1)


@pytest.mark.parametrize("hog_on", ["goroutine", "thread"])
def test_35_hog(procs: int, hog_on: str) -> None:
    """Broken: behaviour 35 between machines: ten polite lockings beside a hog that hardly ever lets go never end."""
    over = threading.Event()
    m = Mutex()

    def hog() -> None:
        while not over.is_set():
            with m:
                until = monotonic() + 100e-6
                while monotonic() < until:
                    pass

    def main() -> None:
        if hog_on == "thread":
            h = thread(hog)
        else:
            h = go(hog)
            gosched()
        for _ in range(10):
            sleep(100e-6)
            with m:
                pass
        over.set()
        h.join()

    run(main, procs=procs)


def test_35_handed_over_in_order(procs: int) -> None:
    """Broken: waiters that have waited over a millisecond are not served first come, first served."""

    def main() -> None:
        m = Mutex()
        order: list[int] = []

        def wait(i: int) -> None:
            with m:
                order.append(i)
                sleep(2 * STARVING)  # so that the next ones grow old, too

        m.lock()
        tasks = []
        for i in range(6):
            tasks.append(start(wait, i))
        grow_old(m)
        m.unlock()
        assert m.locked()  # it never was free: the permit was handed over
        for task in tasks:
            task.result()
        assert order == list(range(6))
        assert not m.locked()

    run(main, procs=procs)


def test_normal_mode_lets_the_running_one_win() -> None:
    """Broken: an unlock makes the running goroutine wait for its turn although nobody has waited long (a convoy)."""

    def main() -> bool:
        m = Mutex()
        m.lock()
        a = go(m.lock)
        settle(a)
        m.unlock()
        # Not always: he may be handed it, if the machine is so slow that he has waited for a millisecond, and who has
        # just run a garbage collection, or for a whole time slice, gives way in try_lock, and he takes it then.
        won = m.try_lock()
        if won:
            m.unlock()
        a.result()
        return won

    assert any(run(main, procs=1) for _ in range(50))


def test_cancelled_waiter_takes_nothing(procs: int) -> None:
    """Broken: a cancelled waiter is let in, or an unlock wakes it instead of the one behind it."""

    def main() -> None:
        m = Mutex()
        order: list[str] = []

        def wait(name: str) -> None:
            with m:
                order.append(name)

        m.lock()
        tasks = [start(wait, name) for name in "abcd"]
        tasks[0].cancel()
        tasks[2].cancel()
        tasks[0].join()
        tasks[2].join()
        m.unlock()
        tasks[1].result()
        tasks[3].result()
        assert sorted(order) == ["b", "d"]
        assert not m.locked() and m._waiting() == 0

    run(main, procs=procs)


@pytest.mark.parametrize("old", [False, True], ids=["woken", "handed"])
def test_cancelled_after_it_was_woken(procs: int, old: bool) -> None:
    """Broken: the wake-up, or the permit, that a waiter was given just before it was cancelled is lost."""

    def main() -> None:
        m = Mutex()
        ended: list[str] = []

        def wait(name: str) -> None:
            with m:
                ended.append(name)
                gosched()

        m.lock()
        a, b = start(wait, "a"), start(wait, "b")
        if old:
            grow_old(m)
        m.unlock()  # gives it to a
        a.cancel()
        a.join()
        b.result()
        assert "b" in ended
        assert not m.locked() and m._waiting() == 0

    run(main, procs=procs)


def test_cancelled_loser(procs: int) -> None:
    """Broken: a waiter that was woken, lost and then was cancelled leaves the one behind it asleep."""

    def main() -> None:
        m = Mutex()
        m.lock()
        a, b = start(m.lock), start(m.lock)
        m.unlock()
        locked = m.try_lock()  # overtakes a, if a has not been quicker (or was handed it)
        a.cancel()
        a.join()
        if locked:
            assert not b.done()
            m.unlock()
        else:
            assert a.exception() is None
            m.unlock()  # in its name
        b.result()
        assert m.locked() and m._waiting() == 0

    run(main, procs=procs)


def test_many_timeouts_do_not_pile_up() -> None:
    """Broken: the tickets of those who timed out stay in the queue for as long as the mutex is locked."""

    def main() -> None:
        m = Mutex()
        m.lock()
        for _ in range(20):
            tasks = [go(m.lock, 1e-4) for _ in range(50)]
            for task in tasks:
                assert isinstance(task.exception(), TimeoutError)
        assert len(m._queue) < 100
        m.unlock()
        assert m.try_lock()

    run(main, procs=1)


# -- a plain thread that is interrupted by a signal handler just after it was given something ------------------------


class Interrupted(Exception):
    pass


def mutex_case(old: bool) -> Any:
    m = Mutex()
    m.lock()

    def give() -> None:
        if old:
            while monotonic() - m._queue[0][4] <= STARVING:
                pass
        m.unlock()

    return m.lock, give, m.try_lock


def semaphore_case() -> Any:
    s = Semaphore(3)
    s.acquire(3)
    return lambda: s.acquire(2), lambda: s.release(3), lambda: s.try_acquire(3)


def reader_case() -> Any:
    rw = RWMutex()
    rw.lock()
    return rw.rlock, rw.unlock, rw.try_lock


def writer_case() -> Any:
    rw = RWMutex()
    rw.rlock()
    return rw.lock, rw.runlock, rw.try_lock


def cond_case() -> Any:
    c = Cond()
    notified: list[int] = []

    def other() -> None:
        with c:
            c.wait()
            notified.append(1)

    def wait() -> None:
        with c:
            c.wait()

    second: list[threading.Thread] = []

    def give() -> None:
        second.append(settle(thread(other)))
        c.notify()

    def check() -> bool:
        second[0].join()
        return notified == [1] and c.L.try_lock()

    return wait, give, check


CASES = {
    "mutex woken": lambda: mutex_case(False),
    "mutex handed": lambda: mutex_case(True),
    "semaphore": semaphore_case,
    "reader": reader_case,
    "writer": writer_case,
    "cond": cond_case,
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_thread_gives_back(case: str) -> None:
    """Broken: what a plain thread was given in the moment in which a signal handler raised is lost for everybody."""
    wait, give, check = CASES[case]()
    main = threading.main_thread()

    handled = threading.Event()

    def handler(_number: int, _frame: Any) -> None:
        if not handled.is_set():
            handled.set()
            give()  # hands it to the very thread that is about to be interrupted
            raise Interrupted

    def kill() -> None:
        settle(main)
        # Again, because one that comes just before the thread blocks is only noticed when it has stopped blocking.
        while not handled.wait(0.01):
            signal.pthread_kill(main.ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        t = thread(kill)
        with pytest.raises(Interrupted):
            wait()
        t.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert check()


# -- RWMutex ------------------------------------------------------------------------------------------------------


def test_rw_readers_together_writers_alone(procs: int, jitter: None) -> None:
    """Broken: a writer is not alone, or readers exclude each other."""
    rw = RWMutex()
    readers = writers = 0
    most = 0

    def read() -> None:
        nonlocal readers, most
        for _ in range(50):
            with rw.read():
                with counting:
                    readers += 1
                    most = max(most, readers)
                gosched()
                assert writers == 0
                with counting:
                    readers -= 1

    def write() -> None:
        nonlocal writers
        for _ in range(25):
            with rw.write():
                assert readers == 0 and writers == 0
                writers = 1
                gosched()
                assert readers == 0 and writers == 1
                writers = 0

    counting = threading.Lock()

    def main() -> None:
        rw.rlock()
        assert rw.try_rlock()  # together, for certain
        rw.runlock()
        rw.runlock()
        failed: list[BaseException] = []

        def on_thread(fn: Any) -> None:
            try:
                fn()
            except BaseException as exc:
                failed.append(exc)

        tasks = spread(procs, *[read] * 5, *[write] * 3)
        threads = [thread(on_thread, read), thread(on_thread, write)]
        for task in tasks:
            task.result()
        for t in threads:
            t.join()
        assert not failed

    run(main, procs=procs)
    assert not rw.locked() and "0 readers and 0 writers waiting" in repr(rw)


def test_rw_35_waiting_writer_holds_off_readers(procs: int) -> None:
    """Broken: new readers overtake a waiting writer, which a steady stream of them would starve."""

    def main() -> None:
        rw = RWMutex()
        order: list[str] = []

        def write() -> None:
            with rw.write():
                order.append("w")

        def read() -> None:
            with rw.read():
                order.append("r")

        rw.rlock()
        w = start(write)
        assert not rw.try_rlock()
        with pytest.raises(TimeoutError):
            rw.rlock(0.001)
        r = start(read)
        assert r.state == "waiting"
        rw.runlock()
        w.result()
        r.result()
        assert order == ["w", "r"]

    run(main, procs=procs)


def test_rw_all_waiting_readers_before_the_next_writer(procs: int) -> None:
    """Broken: a reader waits for more than one writer, so that a steady stream of writers would starve readers."""

    def main() -> None:
        rw = RWMutex()
        order: list[str] = []

        def write(name: str) -> None:
            with rw.write():
                order.append(name)

        def read() -> None:
            with rw.read():
                order.append("r")
                gosched()

        rw.lock()
        tasks = [start(write, "w1"), start(read), start(write, "w2"), start(read), start(read)]
        rw.unlock()
        for task in tasks:
            task.result()
        assert order == ["r", "r", "r", "w1", "w2"]

    run(main, procs=procs)


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_rw_gone_writer_lets_readers_in(procs: int, how: str) -> None:
    """Broken: the readers that a writer held off stay out after it has timed out or was cancelled."""

    def main() -> None:
        rw = RWMutex()
        rw.rlock()
        w = start(rw.lock, LONG)
        last = start(rw.lock, 0.02 if how == "timeout" else None)
        readers = [start(rw.rlock) for _ in range(3)]
        assert all(r.state == "waiting" for r in readers)
        w.cancel()
        w.join()
        assert all(r.state == "waiting" for r in readers) or how == "timeout"
        if how == "cancel":
            last.cancel()
        last.join()
        for r in readers:
            r.result()
        assert "held by 4 readers, 0 readers and 0 writers waiting" in repr(rw)
        assert not rw.try_lock()
        for _ in range(4):
            rw.runlock()
        assert rw.try_lock()

    run(main, procs=procs)


def test_rw_errors_and_timeouts(procs: int) -> None:
    """Broken: an unlock that fits no lock goes unnoticed; a time-out on either side never comes, or takes the lock."""

    def main() -> None:
        rw = RWMutex()
        for wrong in (rw.unlock, rw.runlock, rw.read().unlock, rw.write().unlock):
            with pytest.raises(SyncError, match="once for every"):
                wrong()
        rw.rlock()
        with pytest.raises(SyncError):
            rw.unlock()
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError):
                rw.lock(timeout)
            with pytest.raises(TimeoutError):
                with rw.write(timeout):
                    pass
        rw.runlock()
        rw.lock()
        with pytest.raises(SyncError):
            rw.runlock()
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError):
                rw.rlock(timeout)
            with pytest.raises(TimeoutError):
                with rw.read(timeout):
                    pass
        with pytest.raises(TypeError):
            rw.rlock("soon")  # type: ignore[arg-type]
        rw.unlock()
        with rw.read(0), rw.read(LONG):
            assert rw.locked()
        with rw.write(0):
            assert not rw.read().try_lock() and not rw.write().try_lock()
        assert not rw.locked()

    run(main, procs=procs)


def test_rw_cancelled_after_it_was_let_in(procs: int) -> None:
    """Broken: a reader or writer that was let in and is cancelled before it runs leaves its lock behind."""

    def main() -> None:
        rw = RWMutex()

        def hold(side: Any) -> None:
            with side:
                gosched()

        rw.lock()
        readers = [start(hold, rw.read()) for _ in range(3)]
        writer = start(hold, rw.write())
        rw.unlock()
        for task in (*readers, writer):
            task.cancel()
        for task in (*readers, writer):
            task.join()
        assert not rw.locked() and rw.try_lock()

    run(main, procs=procs)
