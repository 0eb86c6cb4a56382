"""gort.sync under random cancellations and time-outs, on 1, 2 and 8 Ps and plain threads: nothing lost, nobody asleep.

A crew of goroutines (on as many machines as there are Ps) and plain threads works in rounds.  In a round every worker
does a fixed number of operations, each with a random time-out or none, and goes on until so many have succeeded;
meanwhile two vandals, a goroutine and a thread, cancel whatever they find, all the time, each in the middle of its
operation or anywhere else.  Between rounds nothing moves: a permit or a wake-up that was lost shows as a round that
does not end (the time limit shows the stacks), as a lock that is not free, or as a count that is wrong.

GORT_SEED replays a run's random choices (which thread runs when is not among them); the seed is printed at the start.
GORT_STRESS is how many seconds each test lasts; 0.1 by default.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

import gort
from gort import Cancelled, Chan, go, gosched, run, sleep
from gort.runtime.scope import Scope
from gort.sync import Barrier, BrokenBarrier, Cond, Event, Mutex, Once, RWMutex, Semaphore, SingleFlight, WaitGroup

SECONDS = float(os.environ.get("GORT_STRESS") or 0.1)
SEED = int(os.environ.get("GORT_SEED") or random.SystemRandom().randrange(2**32))
LONG = SECONDS >= 1

pytestmark = [pytest.mark.limit(SECONDS + 120), pytest.mark.usefixtures("_say_seed", "jitter")]


@pytest.fixture(scope="module")
def _say_seed(request: pytest.FixtureRequest) -> None:
    """On the real stderr, because a test that hangs never gets to show what was captured."""
    say(request, f"test_sync_stress: GORT_SEED={SEED}")


def say(request: pytest.FixtureRequest, text: str) -> None:
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{text}", file=sys.stderr, flush=True)


class Failed(Exception):
    """An operation that did not come off, and is to be tried again."""


class Worker:
    def __init__(self, seed: str) -> None:
        self.rng = random.Random(seed)
        self.scope: Scope | None = None
        self.orders: Chan[int] = Chan()

    def timeout(self) -> float | None:
        """None, none at all, or one that is often over before the operation is."""
        kind = self.rng.randrange(4)
        return None if kind < 2 else 0 if kind == 2 else self.rng.random() * 1e-3

    def pause(self) -> None:
        """Inside a critical section: stay, give way, or sleep."""
        kind = self.rng.randrange(8)
        if kind < 3:
            gosched()
        elif kind == 3:
            sleep(self.rng.random() * 3e-4)


class Crew:
    """Workers, vandals, and rounds of `operation(worker)` until the time is over."""

    def __init__(self, name: str, procs: int, operation: Callable[[Worker], None], check: Callable[[], None]) -> None:
        self.name = f"{name} {procs}"
        self.procs = procs
        self.operation = operation
        self.check = check
        self.rng = random.Random(f"{SEED} {self.name}")
        self.workers: list[Worker] = []
        self.done: Chan[BaseException | None] = Chan(100)
        self.over = False
        self.counts: Counter[str] = Counter()
        self.rounds = 0

    def run(self, goroutines: int = 8, threads: int = 2, each: int = 10) -> None:
        """The body of main."""
        barrier = threading.Barrier(self.procs)
        self.workers = [Worker(f"{SEED} {self.name} {number}") for number in range(goroutines + threads)]
        others: list[Any] = []

        # One goroutine for each machine, which blocks it until all are there, and then starts its share of the crew.
        # From a plain thread, because a goroutine may give way in `go`, to one that waits at the barrier for more.
        def begin(i: int) -> None:
            barrier.wait()
            for worker in self.workers[:goroutines][i :: self.procs]:
                others.append(go(self._work, worker))

        heads: list[gort.Goroutine[None]] = []
        starter = self._thread(lambda: heads.extend([go(begin, i) for i in range(self.procs)]))
        while starter.is_alive():
            gosched()
        for head in heads:
            head.result()
        for worker in self.workers[goroutines:]:
            others.append(self._thread(self._work, worker))
        others.append(go(self._vandal, random.Random(f"{SEED} {self.name} goroutine"), sleep))
        others.append(self._thread(self._vandal, random.Random(f"{SEED} {self.name} thread"), time.sleep))
        until = monotonic() + SECONDS
        while monotonic() < until or not self.rounds:
            self.round(each)
        self.over = True
        for worker in self.workers:
            worker.orders.close()
        for other in others:
            other.join()

    def _thread(self, fn: Callable[..., None], *args: Any) -> threading.Thread:
        t = threading.Thread(target=fn, args=args, daemon=True)
        t.start()
        return t

    def round(self, each: int) -> None:
        self.rounds += 1
        for worker in self.workers:
            worker.orders.send(each)
        errors = [error for error in (self.done.recv() for _ in self.workers) if error is not None]
        if errors:
            raise errors[0]
        self.check()

    def _work(self, worker: Worker) -> None:
        for left in worker.orders:
            error = None
            try:
                while left:
                    self.counts["tried"] += 1
                    try:
                        self._scoped(worker)
                        left -= 1
                    except (Failed, TimeoutError):
                        pass
            except BaseException as exc:
                error = exc
            self.done.send(error)

    def _scoped(self, worker: Worker) -> None:
        """In a scope that the vandals may cancel at any moment."""
        scope = Scope()
        scope.enter("a stress test")
        worker.scope = scope
        try:
            self.operation(worker)
        except BaseException as exc:
            worker.scope = None
            if scope.exit(exc):
                self.counts["cancelled"] += 1
                raise Failed from None
            raise
        worker.scope = None
        scope.exit(None)

    def _vandal(self, rng: random.Random, pause: Callable[[float], None]) -> None:
        while not self.over:
            scope = rng.choice(self.workers).scope
            if scope is not None:
                scope.cancel("by the vandal")
            pause(rng.random() * 2e-4)


@pytest.fixture
def crew(request: pytest.FixtureRequest, procs: int) -> Iterator[Callable[..., None]]:
    """Run a crew on so many Ps."""

    def start(operation: Callable[[Worker], None], check: Callable[[], None], **sizes: int) -> None:
        name = request.node.originalname
        team = Crew(name, procs, operation, check)
        run(team.run, procs=procs, **sizes)
        if LONG:
            say(request, f"{name} procs={procs}: {team.rounds} rounds, {dict(team.counts)}")

    yield start


# -----------------------------------------------------------------------------------------------------------------


def test_mutex(crew: Callable[..., None]) -> None:
    """Broken: two inside at once; or the permit or a wake-up is lost with a waiter that was cancelled or timed out."""
    m = Mutex()
    inside = 0

    def operation(worker: Worker) -> None:
        nonlocal inside
        if worker.rng.randrange(10) == 0:
            if not m.try_lock():
                raise Failed
        else:
            m.lock(worker.timeout())
        try:
            inside += 1
            assert inside == 1
            worker.pause()
            assert inside == 1
        finally:
            inside -= 1
            m.unlock()

    def check() -> None:
        assert m._waiting() == 0
        assert m.try_lock()
        m.unlock()

    crew(operation, check)


def test_rwmutex(crew: Callable[..., None]) -> None:
    """Broken: a writer is not alone; or a cancelled one keeps the lock; or held-off readers are forgotten."""
    rw = RWMutex()
    counting = threading.Lock()
    readers = writers = 0

    def operation(worker: Worker) -> None:
        nonlocal readers, writers
        if worker.rng.randrange(3):
            with rw.read(worker.timeout()):
                with counting:
                    readers += 1
                try:
                    assert writers == 0
                    worker.pause()
                    assert writers == 0
                finally:
                    with counting:
                        readers -= 1
        else:
            with rw.write(worker.timeout()):
                writers += 1
                try:
                    assert (readers, writers) == (0, 1)
                    worker.pause()
                    assert (readers, writers) == (0, 1)
                finally:
                    writers -= 1

    def check() -> None:
        assert "unlocked, 0 readers and 0 writers waiting" in repr(rw)

    crew(operation, check)


def test_semaphore(crew: Callable[..., None]) -> None:
    """Broken: more permits are out than there are; some are lost; or small waiters sleep behind a big one that left."""
    size = 5
    s = Semaphore(size)
    counting = threading.Lock()
    out = 0

    def operation(worker: Worker) -> None:
        nonlocal out
        n = worker.rng.choice((1, 1, 1, 2, 3, size))
        if worker.rng.randrange(10) == 0:
            if not s.try_acquire(n):
                raise Failed
        else:
            s.acquire(n, worker.timeout())
        try:
            with counting:
                out += n
                assert out <= size
            worker.pause()
        finally:
            with counting:
                out -= n
            s.release(n)

    def check() -> None:
        assert s.available == size and out == 0 and s._waiting() == 0

    crew(operation, check)


def test_cond(crew: Callable[..., None]) -> None:
    """Broken: a notification is lost with a waiter that was cancelled or timed out; or `wait` ends without the lock."""
    lock = Mutex()
    not_empty, not_full = Cond(lock), Cond(lock)
    room = 2
    items: deque[int] = deque([1])
    owner: list[Any] = []

    def mine(worker: Worker) -> None:
        assert lock.locked() and not owner
        owner.append(worker)

    def wait(worker: Worker, cond: Cond) -> None:
        owner.remove(worker)
        try:
            cond.wait(worker.timeout())
        finally:
            mine(worker)

    def put(worker: Worker) -> None:
        with lock:
            mine(worker)
            try:
                while len(items) >= room:
                    wait(worker, not_full)
                items.append(1)
                not_empty.notify()
            finally:
                owner.remove(worker)

    def take(worker: Worker) -> None:
        with lock:
            mine(worker)
            try:
                while not items:
                    wait(worker, not_empty)
                items.popleft()
                not_full.notify()
            finally:
                owner.remove(worker)

    # With one item at first and room for two, whoever is half-way can go on when others cannot, so nobody waits for
    # ever; and with every item one waiter is notified, never all, so one lost notification is one sleeper too many.
    def operation(worker: Worker) -> None:
        halves = [put, take]
        worker.rng.shuffle(halves)
        halves[0](worker)
        try:
            worker.pause()
        finally:
            surely(worker, halves[1])

    def surely(worker: Worker, half: Callable[[Worker], None]) -> None:
        while True:
            try:
                half(worker)
                return
            except (TimeoutError, Cancelled):
                pass

    def check() -> None:
        assert len(items) == 1 and not lock.locked()
        assert not_empty._waiting() == not_full._waiting() == 0

    crew(operation, check)


def test_cond_handing_over(crew: Callable[..., None]) -> None:
    """Broken: of many waiters one sleeps for ever, because a notification meant for it went to one that gave up."""
    cond = Cond()
    tokens = 1

    # One token goes round, and only its return notifies, one waiter each time.
    def operation(worker: Worker) -> None:
        nonlocal tokens
        with cond:
            while not tokens:
                cond.wait(worker.timeout())
            tokens -= 1
            assert tokens == 0
        try:
            worker.pause()
        finally:
            back(worker)

    def back(worker: Worker) -> None:
        nonlocal tokens
        while True:
            try:
                with cond:
                    tokens += 1
                    cond.notify()
                return
            except Cancelled:
                pass

    def check() -> None:
        assert tokens == 1 and cond._waiting() == 0 and not cond.L.locked()

    crew(operation, check)


def test_event_and_waitgroup(crew: Callable[..., None]) -> None:
    """Broken: a waiter for an event or a WaitGroup is not woken; or a cancelled goroutine is not counted off."""
    group = WaitGroup()

    def child(event: Event, worker: Worker, timeout: float | None) -> None:
        event.wait(timeout)

    def operation(worker: Worker) -> None:
        own = WaitGroup()
        event = Event()
        children = []
        try:
            for _ in range(worker.rng.randrange(4)):
                group.add()
                try:
                    children.append(own.go(child, event, worker, worker.timeout()))
                finally:
                    group.done()
            for g in children:
                if worker.rng.randrange(3) == 0:
                    g.cancel()  # before it started, or while it waits
            event.set()
            own.wait(worker.timeout())
        finally:
            event.set()
            for g in children:
                while True:
                    try:
                        g.exception()
                        break
                    except Cancelled:
                        pass
            own.wait(0)

    def check() -> None:
        group.wait(0)

    crew(operation, check, each=3)


def test_once_and_singleflight(crew: Callable[..., None]) -> None:
    """Broken: two calls for one key at once; somebody waits for a call that ended; a leader's cancellation spreads."""
    flight = SingleFlight()
    counting = threading.Lock()
    active: Counter[int] = Counter()
    shared = [Once() for _ in range(8)]
    runs: Counter[Any] = Counter()

    def operation(worker: Worker) -> None:
        key = worker.rng.randrange(3)

        def call() -> int:
            with counting:
                active[key] += 1
                assert active[key] == 1
            try:
                worker.pause()
                return key * 2
            finally:
                with counting:
                    active[key] -= 1

        value, _shared = flight.do(key, call, worker.timeout())
        assert value == key * 2

        slot = worker.rng.randrange(len(shared))
        mine = shared[slot]

        def count() -> None:
            with counting:
                runs[mine] += 1
                assert runs[mine] == 1
            worker.pause()

        mine.do(count, worker.timeout())
        assert mine.done()
        shared[slot] = Once()

    def check() -> None:
        assert not flight._calls and not +active
        runs.clear()
        shared[:] = [Once() for _ in shared]

    crew(operation, check)


def test_barrier(crew: Callable[..., None]) -> None:
    """Broken: a party of a broken barrier waits for ever; parties of one round get the same number, or too few pass."""
    parties = 2
    barrier = Barrier(parties)
    counting = threading.Lock()
    numbers: Counter[int] = Counter()
    finished = 0
    needed = 10 * 3  # workers x operations of a round: the last ones are let off

    def operation(worker: Worker) -> None:
        nonlocal finished
        if finished >= needed - parties:
            with counting:
                finished += 1
            return
        try:
            # A time-out always: the one party that is left over at the end of a round has nobody to meet.
            number = barrier.wait(worker.rng.random() * 2e-3)
        except BrokenBarrier:
            if worker.rng.randrange(2):
                barrier.reset()
            else:
                gosched()
            raise Failed from None
        with counting:
            numbers[number] += 1
            finished += 1

    def check() -> None:
        nonlocal finished
        assert barrier.n_waiting == 0
        assert numbers[0] == numbers[1]
        finished = 0
        numbers.clear()

    crew(operation, check, each=3)
