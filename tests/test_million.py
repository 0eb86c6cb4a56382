"""The account after a million operations: channels, select, mutex, cond and cancellation, on 1, 2 and 8 Ps.

test_sieve_stress.py and test_sync_stress.py look for the rare order of events; they wait, time out and cancel nearly
always.  Here the same objects are used at full speed, by goroutines on all machines and by plain threads, in rounds of
some thousand operations, each round with a seed of its own.  At the end of each round the account must be right: what
went in has come out, once, and in order; nobody is asleep for ever; every lock is free and every permit is back.

By default a test does some thousand operations; with GORT_STRESS a million, and more until so many seconds are over.
How many it were, and the seeds, is said on stderr; GORT_SEED=number does the round of that seed again: the workload's
choices and the runtime's (select's, the thieves'), though not the system's, which thread runs when.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gort
from gort import Cancelled, Chan, ChannelClosed, Cond, Group, Mutex, RWMutex, Semaphore, go, gosched, run, select, sleep
from spreading import go_all

STRESS = float(os.environ.get("GORT_STRESS") or 0)
OPERATIONS = 1_000_000 if STRESS else 4_000
ROUND = 20_000 if STRESS else 2_000  # operations in a round, about

pytestmark = [pytest.mark.limit(3600 if STRESS else 60), pytest.mark.usefixtures("jitter")]

Round = Callable[[random.Random], int]


@pytest.fixture
def account(procs: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Round], None]]:
    """Runs rounds, each as a main goroutine, until there have been operations enough."""
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(text, end="", file=sys.stderr, flush=True)

    def rounds(one: Round) -> None:
        given = os.environ.get("GORT_SEED")
        begin = time.monotonic()
        operations = 0
        say(f"\n{request.node.name}: GORT_SEED=")
        while operations < OPERATIONS or time.monotonic() - begin < STRESS:
            seed = int(given) if given else random.SystemRandom().randrange(10**9)
            say(f"{seed} ")
            monkeypatch.setenv("GORT_SEED", str(seed))  # for the runtime's own choices
            operations += run(one, random.Random(seed), procs=procs)
            if given:
                break
        say(f"\n{request.node.name}: {operations} operations, {time.monotonic() - begin:.1f} s, nothing lost\n")

    yield rounds


def everywhere(rng: random.Random, *fns: Callable[[random.Random], int]) -> int:
    """Call these, each with a generator of its own, in goroutines that begin on as many machines as there are Ps, in one
    round of five every fourth in a plain thread; the sum of what they return."""
    machines = gort.gomaxprocs()
    plain = range(3, len(fns), 4) if rng.random() < 0.2 else ()
    goroutines = [n for n in range(len(fns)) if n not in plain]
    barrier = threading.Barrier(min(machines, len(goroutines)))
    whole = len(goroutines) // barrier.parties * barrier.parties  # the barrier has whole turns
    seeds = [rng.random() for _ in fns]
    results: Chan[Any] = Chan(len(fns))

    def begin(n: int) -> None:
        barrier.wait()  # holds the machine, so that the next one begins on another
        call(n)

    def call(n: int) -> None:
        try:
            results.send(fns[n](random.Random(seeds[n])))
        except BaseException as exc:
            results.send(exc)

    go_all(*[(begin if place < whole else call, n) for place, n in enumerate(goroutines)])
    threads = [threading.Thread(target=call, args=(n,)) for n in plain]
    for thread in threads:
        thread.start()
    total = 0
    for _ in fns:
        got = results.recv()
        if isinstance(got, BaseException):
            raise got
        total += got
    for thread in threads:
        thread.join()
    return total


def in_order(values: list[tuple[int, int]]) -> bool:
    """Are the numbers of each sender, as one receiver had them from one channel, in the order in which he sent them?"""
    last: dict[int, int] = {}
    for sender, number in values:
        if last.get(sender, -1) >= number:
            return False
        last[sender] = number
    return True


# -- channels -----------------------------------------------------------------------------------------------------------


def test_channels(account: Callable[[Round], None]) -> None:
    """Broken: a value is lost, doubled or out of order, or a receiver sleeps on beside a closed channel."""

    def one(rng: random.Random) -> int:
        chans: list[Chan[tuple[int, int]]] = [Chan(rng.choice((0, 1, 3, 100))) for _ in range(3)]
        each = ROUND // 16
        received: list[list[tuple[int, int]]] = []

        def sender(me: int) -> Callable[[random.Random], int]:
            def send(rng: random.Random) -> int:
                for n in range(each):
                    ch = chans[(me + n) % 3]
                    how = rng.random()
                    if how < 0.8:
                        ch.send((me, n))
                    elif how < 0.9:
                        for _ in range(5):  # and not for ever: eight that spin are all that two cores would do
                            if ch.try_send((me, n)):
                                break
                            gosched()
                        else:
                            ch.send((me, n))
                    else:
                        while True:
                            try:
                                ch.send((me, n), timeout=1e-4)
                                break
                            except TimeoutError:
                                pass
                ended.send(me)
                return each

            return send

        def receiver(ch: Chan[tuple[int, int]]) -> Callable[[random.Random], int]:
            def receive(rng: random.Random) -> int:
                got: list[tuple[int, int]] = []
                received.append(got)
                while True:
                    how = rng.random()
                    try:
                        if how < 0.9:
                            got.append(ch.recv())
                        elif how < 0.95:
                            got.append(ch.recv(timeout=1e-4))
                        else:
                            value, ok = ch.try_recv()
                            if ok:
                                got.append(value)  # type: ignore[arg-type]
                            else:
                                gosched()
                    except TimeoutError:
                        pass
                    except ChannelClosed:
                        return len(got)

            return receive

        ended: Chan[int] = Chan(8)

        def closer(_rng: random.Random) -> int:
            for _ in range(8):
                ended.recv()
            for ch in chans:
                ch.close()
            return 0

        total = everywhere(rng, *[sender(n) for n in range(8)], *[receiver(ch) for ch in chans * 2], closer)
        counted = Counter(value for got in received for value in got)
        assert counted == Counter({(me, n): 1 for me in range(8) for n in range(each)})
        assert all(in_order(got) for got in received)
        assert all(len(ch) == 0 for ch in chans)
        return total

    account(one)


# -- select -------------------------------------------------------------------------------------------------------------


def test_select(account: Callable[[Round], None]) -> None:
    """Broken: a select does none or two of its operations, or two selects that could meet sleep for ever."""

    def one(rng: random.Random) -> int:
        chans: list[Chan[tuple[int, int]]] = [Chan(rng.choice((0, 0, 1, 5))) for _ in range(4)]
        over: Chan[None] = Chan()
        each = ROUND // 12
        taken: list[list[tuple[int, int]]] = []
        put: Counter[tuple[int, int]] = Counter()
        lock = threading.Lock()
        left = [6]

        def party(me: int, sends: bool) -> Callable[[random.Random], int]:
            def talk(rng: random.Random) -> int:
                mine = rng.sample(chans, 4)
                got: list[tuple[int, int]] = []
                taken.append(got)
                sent: list[tuple[int, int]] = []
                done = 0
                while len(sent) < each if sends else True:
                    value = (me, len(sent))
                    # Those who only receive do so everywhere, so nobody's send can be one that nobody wants.
                    cases = [gort.recv(ch) for ch in mine[: rng.randrange(1, 5) if sends else 4]]
                    if sends:
                        cases += [gort.send(ch, value) for ch in mine[rng.randrange(4) :]]
                    else:
                        cases.append(gort.recv(over))
                    rng.shuffle(cases)
                    how = rng.random()
                    try:
                        index, got_value, ok = select(*cases, default=how < 0.1, timeout=1e-4 if how > 0.9 else None)
                    except TimeoutError:
                        continue
                    if index < 0:
                        gosched()
                        continue
                    case = cases[index]
                    if case.chan is over:
                        assert not ok
                        break
                    done += 1
                    if case.value is gort.selecting.NOTHING:
                        assert ok
                        got.append(got_value)
                    else:
                        assert ok and got_value is None
                        sent.append(value)
                if sends:
                    with lock:
                        put.update(sent)
                        left[0] -= 1
                        last = left[0] == 0
                    if last:
                        over.close()
                return done

            return talk

        total = everywhere(rng, *[party(n, True) for n in range(6)], *[party(n, False) for n in range(6, 10)])
        counted = Counter(value for got in taken for value in got)
        for ch in chans:
            while (rest := ch.try_recv())[1]:
                counted[rest[0]] += 1  # type: ignore[index]
        assert counted == put == Counter({(me, n): 1 for me in range(6) for n in range(each)})
        return total

    account(one)


# -- locks --------------------------------------------------------------------------------------------------------------


def test_mutex(account: Callable[[Round], None]) -> None:
    """Broken: two hold a lock at once, a permit is lost or made, or a waiter sleeps beside a free lock."""

    def one(rng: random.Random) -> int:
        mutex, rw, permits = Mutex(), RWMutex(), Semaphore(5)
        plain = {"mutex": 0, "write": 0}  # changed only under the lock, and not atomically
        inside = [0, 0]  # readers, permits that are out
        guard = threading.Lock()
        done = Counter[str]()
        each = ROUND // 12

        def hold(name: str, rng: random.Random) -> None:
            value = plain[name]
            if rng.random() < 0.05:
                gosched()
            plain[name] = value + 1

        def work(rng: random.Random) -> int:
            mine = Counter[str]()
            while mine.total() < each:
                how = rng.randrange(10)
                wait = None if how % 2 else rng.choice((0, 1e-4))
                try:
                    if how < 4:
                        mutex.lock(wait)
                        hold("mutex", rng)
                        mutex.unlock()
                        mine["mutex"] += 1
                    elif how < 6:
                        rw.lock(wait)
                        assert inside[0] == 0
                        hold("write", rng)
                        assert inside[0] == 0
                        rw.unlock()
                        mine["write"] += 1
                    elif how < 8:
                        rw.rlock(wait)
                        with guard:
                            inside[0] += 1
                        before = plain["write"]
                        if rng.random() < 0.05:
                            gosched()
                        assert plain["write"] == before
                        with guard:
                            inside[0] -= 1
                        rw.runlock()
                        mine["read"] += 1
                    else:
                        n = rng.randrange(1, 6)
                        permits.acquire(n, timeout=wait)
                        with guard:
                            inside[1] += n
                            assert inside[1] <= 5
                        if rng.random() < 0.05:
                            gosched()
                        with guard:
                            inside[1] -= n
                        permits.release(n)
                        mine["permits"] += 1
                except TimeoutError:
                    gosched()
            with guard:
                done.update(mine)
            return mine.total()

        total = everywhere(rng, *[work] * 12)
        assert plain == {"mutex": done["mutex"], "write": done["write"]}
        assert mutex.try_lock() and rw.try_lock() and permits.try_acquire(5)
        return total

    account(one)


def test_cond(account: Callable[[Round], None]) -> None:
    """Broken: a notification is lost, so that producers and consumers of a bounded buffer sleep for ever; or an item is."""

    def one(rng: random.Random) -> int:
        lock = Mutex()
        not_full, not_empty = Cond(lock), Cond(lock)
        buffer: deque[tuple[int, int]] = deque()
        room = rng.choice((1, 2, 5, 50))
        each = ROUND // 8
        taken: list[list[tuple[int, int]]] = []

        def wait(cond: Cond, rng: random.Random) -> None:
            try:
                cond.wait(timeout=1e-4 if rng.random() < 0.2 else None)
            except TimeoutError:
                pass

        def producer(me: int) -> Callable[[random.Random], int]:
            def produce(rng: random.Random) -> int:
                for n in range(each):
                    with lock:
                        while len(buffer) >= room:
                            wait(not_full, rng)
                        buffer.append((me, n))
                        not_empty.notify_all() if rng.random() < 0.1 else not_empty.notify()
                return each

            return produce

        def consumer(rng: random.Random) -> int:
            got: list[tuple[int, int]] = []
            taken.append(got)
            for _ in range(each):
                with lock:
                    while not buffer:
                        wait(not_empty, rng)
                    got.append(buffer.popleft())
                    not_full.notify_all() if rng.random() < 0.1 else not_full.notify()
            return each

        total = everywhere(rng, *[producer(n) for n in range(4)], *[consumer] * 4)
        assert Counter(value for got in taken for value in got) == Counter({(m, n): 1 for m in range(4) for n in range(each)})
        assert all(in_order(got) for got in taken)
        assert not buffer and lock.try_lock()
        return total

    account(one)


# -- cancellation ---------------------------------------------------------------------------------------------------------


def test_cancel(account: Callable[[Round], None]) -> None:
    """Broken: who is cancelled loses a value, keeps a lock, cleans up twice or not at all, or does not end."""

    def one(rng: random.Random) -> int:
        chans: list[Chan[int]] = [Chan(rng.choice((0, 0, 2))) for _ in range(2)]
        lock, permits = Mutex(), Semaphore(3)
        cond = Cond(lock)
        never: Chan[None] = Chan()
        sent: list[int] = []
        received: list[int] = []
        ended: list[str] = []
        numbers = itertools.count().__next__  # which, unlike a range's, gives each number once without a GIL too
        done = [0] * 8

        def operation(rng: random.Random) -> None:
            """One operation, which cancellation either has happened to, or not."""
            how = rng.randrange(8)
            if how < 2:
                value = numbers()
                chans[how].send(value)
                sent.append(value)
            elif how < 4:
                received.append(chans[how - 2].recv())
            elif how == 4:
                value = numbers()
                index, got, _ok = select(gort.send(chans[0], value), gort.recv(chans[1]), gort.recv(never))
                if index == 0:
                    sent.append(value)
                else:
                    received.append(got)
            elif how == 5:
                with lock:
                    if rng.random() < 0.2:
                        cond.wait()
                    else:
                        cond.notify_all()
            elif how == 6:
                with permits:
                    gosched()
            else:
                sleep(rng.random() * 1e-4)

        def victim(rng: random.Random, me: int) -> None:
            try:
                while True:
                    operation(rng)
                    done[me] += 1
            except Cancelled:
                ended.append("cancelled")
                with permits:  # clean-up may wait
                    pass
                raise
            finally:
                ended.append("end")

        def limited(rng: random.Random) -> None:
            """The same by a block's time limit, and by a group's end."""
            if rng.random() < 0.5:
                with pytest.raises(TimeoutError), gort.timeout(rng.random() * 3e-4):
                    while True:
                        operation(rng)
            else:
                with Group() as group:
                    group.go(forever, random.Random(rng.random()))
                    sleep(rng.random() * 1e-4)
                    group.cancel()

        def forever(rng: random.Random) -> None:
            while True:
                operation(rng)

        def hunter(me: int) -> Callable[[random.Random], int]:
            """Starts victims and cancels them."""

            def hunt(rng: random.Random) -> int:
                cancelled = 0
                while cancelled < ROUND // 50:
                    count = rng.randrange(1, 6)
                    gs = [go(victim, random.Random(rng.random()), me) for _ in range(count)]
                    if gort.current() is not None and rng.random() < 0.3:
                        limited(rng)
                    for g in gs:
                        if rng.random() < 0.5:
                            sleep(rng.random() * 2e-4)
                        for _ in range(rng.choice((1, 1, 2))):
                            g.cancel()
                    for g in gs:
                        assert type(g.exception()) is Cancelled
                    cancelled += count
                return cancelled

            return hunt

        total = everywhere(rng, *[hunter(n) for n in range(8)])
        for ch in chans:
            while (rest := ch.try_recv())[1]:
                received.append(rest[0])  # type: ignore[arg-type]
        assert Counter(sent) == Counter(received)
        assert len(set(sent)) == len(sent)
        assert ended.count("end") >= ended.count("cancelled")
        assert lock.try_lock() and permits.try_acquire(3)
        while gort.num_goroutine() > 1:  # one that has just sent its result may not have ended yet
            sleep(1e-4)
        return total + sum(done)

    account(one)
