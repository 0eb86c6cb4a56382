"""Behaviour 21, and random programs: whatever happens at the same moment, no value is lost or doubled.

A random program is a handful of channels and some goroutines (and plain threads) that send, receive, select, time
out, are cancelled and start again, as their seed says.  What cannot be foreseen is who meets whom.  What is known is
the account: every value is written into a book by its sender once the send has returned, and by its receiver.  At the
end the two books agree.  A sender that is cancelled or times out in a send knows that its value has not been sent.

The seed of each round is printed; GORT_SEED=number replays it, as far as threads let it.  Each of these tests goes on
for a third of a second, or for GORT_STRESS=seconds, with a new seed for each round.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gort
from gort import Chan, Runtime, Ticker, Timer, after, go, gosched, run, select, sleep
from spreading import spread

STRESS = float(os.environ.get("GORT_STRESS") or 0.3)
LIMIT = 120 + 2 * STRESS


@pytest.fixture
def seeds(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Iterator[Iterator[int]]:
    """The seeds of the rounds of one test, each printed before its round, so that a hang shows it too."""

    def rounds() -> Iterator[int]:
        given = os.environ.get("GORT_SEED")
        end = time.monotonic() + STRESS
        with capsys.disabled():
            print(f"\n{request.node.name}: GORT_SEED=", end="")
        while True:
            seed = int(given) if given else random.randrange(10**9)
            with capsys.disabled():
                print(seed, end=" ", flush=True)
            random.seed(seed)  # for select's choice
            yield seed
            if given or time.monotonic() >= end:
                return

    yield rounds()


# -- behaviour 21 -----------------------------------------------------------------------------------------------------


def test_21_the_prime_sieve(procs: int) -> None:
    """Broken: a long chain of goroutines, each made on the way, passes on a wrong row of numbers or gets stuck."""

    def generate(out: Chan[int]) -> None:
        n = 2
        while True:
            out.send(n)
            n += 1

    def sift(prime: int, source: Chan[int], out: Chan[int]) -> None:
        for n in source:
            if n % prime:
                out.send(n)

    def main() -> list[int]:
        ch: Chan[int] = Chan()
        go(generate, ch)
        primes = []
        for _ in range(120):
            prime = ch.recv()
            primes.append(prime)
            after_it: Chan[int] = Chan()
            go(sift, prime, ch, after_it)
            ch = after_it
        return primes

    assert run(main, procs=procs) == [n for n in range(2, 660) if all(n % k for k in range(2, n))][:120]


def test_21_many_receivers_one_channel(procs: int) -> None:
    """Broken: with 23 receivers on one channel a value is lost or doubled."""
    n = 271_828 if os.environ.get("GORT_STRESS") else 46_000

    def main() -> int:
        ch: Chan[int] = Chan()
        sums: Chan[int] = Chan()

        def add() -> None:
            total = 0
            for value in ch:
                total += value
            sums.send(total)

        for _ in range(23):
            go(add)
        for i in range(n):
            ch.send(i)
        ch.close()
        return sum(sums.recv() for _ in range(23))

    assert run(main, procs=procs) == n * (n - 1) // 2


# -- the account --------------------------------------------------------------------------------------------------------


class Books:
    """Who has sent and received what.  Lists, because append is atomic with and without a GIL."""

    def __init__(self, seed: int, channels: int) -> None:
        self.rng = random.Random(seed)
        self.chans: list[Chan[Any]] = [Chan(self.rng.choice((0, 0, 1, 2, 10))) for _ in range(channels)]
        self.sent: list[Any] = []
        self.received: list[Any] = []
        self.number = 0

    def sender(self, me: int, n: int, seed: int) -> None:
        """Send n values, in all ways.  A value that was given up gets a new name, so that its ghost would be seen."""
        rng = random.Random(seed)
        for i in range(n):
            for again in range(10**9):
                value = (me, seed, i, again)
                ch = rng.choice(self.chans)
                how = rng.randrange(6)
                try:
                    if how == 0:
                        ch.send(value)
                    elif how == 1:
                        ch.send(value, timeout=rng.random() * 2e-4)
                    elif how == 2:
                        if not ch.try_send(value):
                            gosched()
                            continue
                    else:
                        two = rng.sample(self.chans, 2)
                        cases = [gort.send(c, value) for c in two]
                        if how == 3:
                            select(*cases)
                        elif how == 4:
                            select(*cases, timeout=rng.random() * 2e-4)
                        elif select(*cases, default=True)[0] < 0:
                            gosched()
                            continue
                except TimeoutError:
                    continue
                self.sent.append(value)
                break

    def receiver(self, seed: int, over: list[int]) -> None:
        """Receive, in all ways, until there is nothing more to come."""
        rng = random.Random(seed)
        while not over:
            ch = rng.choice(self.chans)
            how = rng.randrange(5)
            try:
                if how == 0:
                    value: Any = ch.recv(timeout=1e-3)
                elif how == 1:
                    value = ch.recv(timeout=rng.random() * 2e-4)
                elif how == 2:
                    value, ok = ch.try_recv()
                    if not ok:
                        gosched()
                        continue
                else:
                    cases = [gort.recv(c) for c in self.chans]
                    index, value, ok = select(*cases, timeout=rng.random() * (1e-2 if how == 3 else 2e-4))
                    assert ok and 0 <= index < len(cases)
            except TimeoutError:
                continue
            self.received.append(value)

    def check(self) -> None:
        for ch in self.chans:  # what is still in the buffers
            while (got := ch.try_recv())[1]:
                self.received.append(got[0])
        sent, received = Counter(self.sent), Counter(self.received)
        assert max(received.values()) == 1, "a value was doubled"
        assert not sent - received, "a value was lost"
        assert not received - sent, "a value was delivered whose send was given up"


@pytest.mark.limit(LIMIT)
@pytest.mark.parametrize("threads", [0, 2], ids=["goroutines", "threads-too"])
def test_random_senders_and_receivers(procs: int, threads: int, jitter: None, seeds: Iterator[int]) -> None:
    """Broken: among sends, receives, selects and time-outs that race, a value is lost or doubled, or somebody hangs."""
    for seed in seeds:
        books = Books(seed, 4)
        over: list[int] = []

        def main(books: Books = books, over: list[int] = over, seed: int = seed) -> None:
            plain = [threading.Thread(target=books.sender, args=(100 + k, 40, seed)) for k in range(threads)]
            plain += [threading.Thread(target=books.receiver, args=(seed + k, over)) for k in range(threads)]
            for thread in plain:
                thread.start()
            parts = [lambda k=k: books.sender(k, 60, seed + k) for k in range(8)]
            parts += [lambda k=k: books.receiver(seed + k, over) for k in range(8)]
            tasks = spread(procs, *parts)
            for g in tasks[:8]:
                g.result()
            while any(thread.is_alive() for thread in plain[:threads]):
                sleep(1e-3)
            over.append(1)
            for g in tasks:
                g.result()
            while any(thread.is_alive() for thread in plain):
                sleep(1e-3)

        run(main, procs=procs)
        books.check()


@pytest.mark.limit(LIMIT)
def test_random_cancellation(procs: int, jitter: None, seeds: Iterator[int]) -> None:
    """Broken: a goroutine cancelled anywhere loses or doubles a value, is cancelled twice, or does not end."""
    for seed in seeds:
        books = Books(seed, 3)

        def main(books: Books = books, seed: int = seed) -> None:
            rng = random.Random(seed)
            over: list[int] = []
            ended: list[Any] = []

            def task(fn: Callable[..., None], *args: Any) -> None:
                try:
                    fn(*args)
                except gort.Cancelled:
                    ended.append("cancelled")
                    sleep(rng.random() * 1e-4)  # its cleanup may block
                    gosched()
                    raise
                finally:
                    ended.append("end")

            receivers = [go(books.receiver, seed + k, over) for k in range(3)]
            tasks = []
            victims = []
            for k in range(60):
                if rng.random() < 0.5:
                    g = go(task, books.sender, k, rng.randrange(1, 20), seed + k)
                else:
                    g = go(task, books.receiver, seed + k, over)
                tasks.append(g)
                if rng.random() < 0.7:
                    victims.append(g)
                if rng.random() < 0.5:
                    sleep(rng.random() * 3e-4)
                while victims and rng.random() < 0.5:
                    victim = victims.pop(rng.randrange(len(victims)))
                    for _ in range(rng.choice((1, 1, 2))):
                        victim.cancel()
            over.append(1)
            for g in receivers:
                g.result()
            late = go(books.receiver, seed, [])  # so that the senders that are left find somebody
            for g in tasks:
                assert type(g.exception()) in (type(None), gort.Cancelled)
            late.cancel()
            late.join()
            cancelled = sum(type(g.exception()) is gort.Cancelled for g in tasks)
            assert ended.count("cancelled") <= cancelled and len(ended) - ended.count("cancelled") <= len(tasks)

        run(main, procs=procs)
        books.check()


@pytest.mark.limit(LIMIT)
def test_random_everything(procs: int, jitter: None, seeds: Iterator[int]) -> None:
    """Broken: a program that uses all of the runtime at once, with the number of Ps changing, hangs or breaks."""
    for seed in seeds:
        alive: list[int] = []
        ended: list[int] = []

        def grow(seed: int, depth: int, alive: list[int] = alive, ended: list[int] = ended) -> int:
            rng = random.Random(seed)
            alive.append(1)
            try:
                children = [go(grow, rng.random(), depth - 1) for _ in range(rng.randrange(4) if depth else 0)]
                ch: Chan[int] = Chan(rng.randrange(2))
                if children and rng.random() < 0.2:
                    rng.choice(children).cancel()
                for _ in range(rng.randrange(4)):
                    how = rng.randrange(8)
                    if how == 0:
                        sleep(rng.random() * 2e-4)
                    elif how == 1:
                        gosched()
                    elif how == 2:
                        after(rng.random() * 2e-4).recv()
                    elif how == 3:
                        t = Timer(rng.random() * 2e-4)
                        assert t.stop() or t.c.try_recv() == (None, False)
                    elif how == 4:
                        ticker = Ticker(1e-4)
                        ticker.c.recv()
                        ticker.stop()
                    elif how == 5:
                        gort.gomaxprocs(rng.randrange(1, 5))
                    elif how == 6:
                        time.sleep(rng.random() * 2e-4)  # blocks its machine
                    else:
                        g = go(ch.send, 1)
                        assert ch.recv() == 1
                        g.join()
                return 1 + sum(g.result() for g in children if not isinstance(g.exception(), gort.Cancelled))
            finally:
                ended.append(1)

        for k in range(10):
            assert run(grow, seed + k, 5, procs=procs) >= 1
            with Runtime(procs) as runtime:
                tasks = [runtime.go(grow, seed + k + j, 3) for j in range(5)]
                if k % 2:
                    for g in tasks:
                        g.join()
            for g in tasks:
                assert type(g.exception()) in (type(None), gort.Cancelled)
        assert len(alive) == len(ended)
