"""select: behaviours 13 and 16 to 20, time-outs, cancellation, plain threads, bad input.

What makes select hard is that it is several operations of which exactly one happens, decided at one moment, whatever
the other parties do at that moment.  So most tests here let selects race, with each other and with plain operations,
and count: what was sent is what was received.  `spread` puts the parties on different machines.
"""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from typing import Any

import pytest

import gort
from gort import Chan, ChannelClosed, go, gosched, recv, run, select, send, sleep
from settling import LONG, settle
from spreading import spread

# -- behaviour 13: None and closed channels -----------------------------------------------------------------------


def test_13_none_is_never_ready(procs: int) -> None:
    """Broken: a None channel in a select is ready, or an error, or disturbs the other cases."""

    def main() -> None:
        ch: Chan[int] = Chan(1)
        assert select(recv(None), send(None, 1), default=True) == (-1, None, False)
        ch.send(5)
        assert select(recv(None), recv(ch), send(None, 1)) == (1, 5, True)
        waiting = settle(go(select, recv(None), recv(ch)))
        ch.send(6)
        assert waiting.result() == (1, 6, True)

    run(main, procs=procs)


@pytest.mark.parametrize("cases", [(), (recv(None),), (recv(None), send(None, 1))], ids=["none", "recv", "both"])
def test_13_nothing_but_none_blocks_for_good(procs: int, cases: tuple[Any, ...]) -> None:
    """Broken: a select that can never go ahead returns, raises, or cannot be timed out or cancelled."""

    def main() -> None:
        with pytest.raises(TimeoutError):
            select(*cases, timeout=0.01)
        with pytest.raises(TimeoutError):
            select(*cases, timeout=0)
        g = settle(go(select, *cases))
        for _ in range(100):
            gosched()
        assert g.state == "waiting"
        g.cancel()
        g.join()

    run(main, procs=procs)


def test_closed_channels_in_a_select(procs: int) -> None:
    """Broken: a receive case on a closed channel is no (i, None, False), or a send case on one is no ChannelClosed."""

    def main() -> None:
        ch: Chan[int] = Chan(2)
        other: Chan[int] = Chan()
        ch.send(1)
        ch.close()
        assert select(recv(other), recv(ch)) == (1, 1, True)
        assert select(recv(other), recv(ch)) == (1, None, False)
        assert select(recv(ch), default=True) == (0, None, False)
        for keywords in ({}, {"default": True}, {"timeout": LONG}):
            with pytest.raises(ChannelClosed):
                select(recv(other), send(ch, 1), **keywords)

        # closed while the select waits
        a: Chan[int] = Chan()
        receiver = settle(go(select, recv(other), recv(a)))
        a.close()
        assert receiver.result() == (1, None, False)
        b: Chan[int] = Chan()
        sender = settle(go(select, send(other, 1), send(b, 2)))
        b.close()
        with pytest.raises(ChannelClosed):
            sender.result()
        assert other.try_recv() == (None, False) and other.try_send(1) is False

    run(main, procs=procs)


# -- behaviours 16 and 17: random, and one atomic look ---------------------------------------------------------------


def test_16_select_chooses_at_random_among_the_ready(procs: int) -> None:
    """Broken: of two cases that are always ready one is hardly ever chosen."""

    def main() -> None:
        a: Chan[int] = Chan(100)
        b: Chan[int] = Chan(100)
        for i in range(100):
            a.send(i)
            b.send(i)
        counts = Counter(select(recv(a), recv(b))[0] for _ in range(100))
        assert counts[0] > 10 and counts[1] > 10
        counts = Counter(select(send(a, 0), recv(b), recv(a), default=True)[0] for _ in range(100))
        assert all(counts[i] > 10 for i in range(3)) and -1 not in counts

    run(main, procs=procs)


def test_17_a_value_that_moves_is_always_seen(procs: int, jitter: None) -> None:
    """Broken: select does not look at all its channels at one moment, and misses a value that is moved meanwhile."""

    def main() -> None:
        a: Chan[int] = Chan(1)
        b: Chan[int] = Chan(1)
        a.send(1)
        over: list[int] = []

        moved: list[int] = []

        def move() -> None:
            while not over:
                b.send(1)  # first into one, then out of the other: at every moment one of them holds a value
                a.recv()
                a.send(1)
                b.recv()
                moved.append(1)
                if len(moved) % 50 == 0:
                    gosched()

        def look() -> None:
            i = 0
            while i < 2000 or len(moved) < 200:  # without a GIL the mover may begin long after us
                i += 1
                index, value, ok = select(recv(a), recv(b), default=True)
                assert (index, value, ok) in ((0, 1, True), (1, 1, True))
                (a, b)[index].send(1)  # put it back where it was: nobody else can have filled the place
                if i % 50 == 0:
                    gosched()
            over.append(1)

        mover, looker = spread(procs, move, look)
        looker.result()
        mover.result()

    run(main, procs=procs)


@pytest.mark.parametrize("close", [False, True])
def test_17_nonblocking_select_race(procs: int, close: bool) -> None:
    """Broken: a select with default misses both channels although at every moment one of them was ready."""

    def main() -> None:
        missed = 0
        for _ in range(600):
            a: Chan[int] = Chan(1)
            b: Chan[int] = Chan(1)
            a.send(1)
            looker = go(select, recv(a), recv(b), default=True)
            if close:
                b.close()
            else:
                b.send(1)
            select(recv(a), default=True)
            missed += looker.result()[0] == -1
        assert missed == 0

    run(main, procs=procs)


# -- behaviours 18 and 19: meeting oneself, meeting each other ----------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 10])
def test_18_a_select_never_meets_itself(procs: int, capacity: int) -> None:
    """Broken: in a select that sends to and receives from one channel, the two meet each other."""

    def main() -> None:
        lonely: Chan[int] = Chan()
        with pytest.raises(TimeoutError):
            select(send(lonely, 1), recv(lonely), timeout=0.01)
        assert lonely.try_recv() == (None, False)

        ch: Chan[int] = Chan(capacity)

        def both(me: int) -> None:
            for i in range(1000):
                cases = [send(ch, me), recv(ch)]
                if i % 2:
                    cases.reverse()
                index, value, ok = select(*cases)
                if capacity == 0 and cases[index].chan is ch and value is not None:
                    assert value != me

        tasks = spread(min(procs, 2), lambda: both(1), lambda: both(2))
        # In an unbuffered channel each meets only the other, so they end together; in a buffered one they never block.
        for g in tasks:
            g.result(LONG)

    run(main, procs=procs)


def test_18_the_same_channel_twice(procs: int) -> None:
    """Broken: a channel that stands twice in a select delivers twice, or not at all."""

    def main() -> None:
        ch: Chan[int] = Chan()
        for i in range(300):
            g = settle(go(select, recv(ch), recv(ch), recv(ch)))
            ch.send(i)
            index, value, ok = g.result()
            assert index in (0, 1, 2) and (value, ok) == (i, True)
            assert not ch.try_send(0)
            g = settle(go(select, send(ch, 1), send(ch, 2)))
            value = ch.recv()
            assert g.result() == (value - 1, None, True)
            assert ch.try_recv() == (None, False)

    run(main, procs=procs)


@pytest.mark.parametrize("threads", [False, True], ids=["goroutines", "thread"])
def test_19_two_selects_always_meet(procs: int, threads: bool, jitter: None) -> None:
    """Broken: a select that sends and one that receives on the same channels miss each other and block for good."""
    n = 300 if threads else 1500

    def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()

        def giver() -> None:
            for i in range(n):
                select(send(a, i), send(b, i))

        def taker() -> list[int]:
            out = []
            for _ in range(n):
                cases = [recv(a), recv(b)]
                random.shuffle(cases)
                out.append(select(*cases)[1])
            return out

        if threads:
            thread = threading.Thread(target=giver)
            thread.start()
            assert go(taker).result() == list(range(n))
            thread.join()
        else:
            g, t = spread(procs, giver, taker)
            assert t.result() == list(range(n))
            g.result()

    run(main, procs=procs)


# -- behaviour 20 ---------------------------------------------------------------------------------------------------------


def test_20_ten_goroutines_four_channels(procs: int) -> None:
    """Broken: with cases switched off half-way somebody is left waiting, or a value is lost or doubled."""
    n = 400

    def main() -> None:
        chans: list[Chan[int]] = [Chan(), Chan(), Chan(2), Chan(3)]
        seen: list[Any] = []

        def plain_sender(k: int) -> None:
            for i in range(n):
                chans[k].send(i)

        def plain_receiver(k: int) -> None:
            for _ in range(n):
                seen.append((k, chans[k].recv()))

        def selects(sending: bool) -> None:
            left = [n] * 4
            open_: list[Any] = list(chans)
            while any(left):
                cases = [send(ch, n - left[k]) if sending else recv(ch) for k, ch in enumerate(open_)]
                k, value, ok = select(*cases)
                if not sending:
                    assert ok
                    seen.append((k, value))
                left[k] -= 1
                if left[k] == 0:
                    open_[k] = None  # the case is switched off

        tasks = [lambda k=k: plain_sender(k) for k in range(4)]
        tasks += [lambda k=k: plain_receiver(k) for k in range(4)]
        tasks += [lambda: selects(True), lambda: selects(False)]
        for g in spread(min(procs, 2), *tasks):
            g.result()
        assert Counter(seen) == Counter({(k, i): 2 for k in range(4) for i in range(n)})

    run(main, procs=procs)


# -- time-outs, cancellation, what is left behind ------------------------------------------------------------------------


def test_losing_cases_leave_nothing_behind(procs: int) -> None:
    """Broken: a select that ended by another case, a time-out or a cancellation still takes or gives a value."""

    def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan()
        for i in range(100):
            g = settle(go(select, recv(a), send(b, i)))
            if i % 4 == 0:
                a.send(i)
                assert g.result() == (0, i, True)
            elif i % 4 == 1:
                assert b.recv() == i
                assert g.result() == (1, None, True)
            elif i % 4 == 2:
                g.cancel()
                g.join()
            else:
                g.cancel()
                g.join()
                with pytest.raises(TimeoutError):
                    select(recv(a), send(b, i), timeout=1e-4)
            assert a.try_send(0) is False
            assert b.try_recv() == (None, False)

    run(main, procs=procs)


def test_a_timeout_and_a_cancel_that_race_with_a_case(procs: int, jitter: None) -> None:
    """Broken: when a time-out or a cancellation meets the other party, a value is lost or doubled."""
    rng = random.Random(f"select race {procs}")

    def main() -> None:
        a: Chan[int] = Chan()
        b: Chan[int] = Chan(1)
        sent: list[int] = []
        got: list[int] = []
        over: list[int] = []

        def feed() -> None:
            for i in range(1200):
                try:
                    select(send(a, i), send(b, i), timeout=rng.random() * 1e-4)
                    sent.append(i)
                except TimeoutError:
                    pass
            over.append(1)

        def eat() -> None:
            try:
                while not over:
                    try:
                        got.append(select(recv(a), recv(b), timeout=rng.random() * 1e-4)[1])
                    except TimeoutError:
                        pass
            except gort.Cancelled:
                return  # between two selects, with nothing in hand

        feeder, eater = spread(procs, feed, eat)
        while not over:
            sleep(1e-3)
            eater.cancel()
            eater.join()
            eater = go(eat)
        eater.join()
        feeder.result()
        while b.try_recv()[1]:
            got.append(-1)
        assert len(got) == len(sent)
        assert set(got) - {-1} <= set(sent) and len(set(got) - {-1}) >= len(got) - 1

    run(main, procs=procs)


def test_select_with_a_timeout_that_is_not_needed(procs: int) -> None:
    """Broken: a select with a time-out does not take what is there, or what comes before the time-out."""

    def main() -> None:
        ch: Chan[int] = Chan(1)
        assert select(send(ch, 1), timeout=0) == (0, None, True)
        assert select(recv(ch), timeout=-1) == (0, 1, True)
        g = settle(go(select, recv(ch), timeout=LONG))
        ch.send(2)
        assert g.result() == (0, 2, True)
        assert select(recv(ch), default=True, timeout=LONG) == (-1, None, False)

    run(main, procs=procs)


def test_select_on_a_plain_thread() -> None:
    """Broken: select does not work, wait or time out on a plain thread without a runtime."""
    a: Chan[int] = Chan()
    b: Chan[int] = Chan()
    before = threading.active_count()
    with pytest.raises(TimeoutError):
        select(recv(a), send(b, 1), timeout=0.01)
    assert select(recv(a), default=True) == (-1, None, False)
    thread = threading.Thread(target=lambda: [select(send(a, i), send(b, i)) for i in range(100)])
    thread.start()
    assert [select(recv(b), recv(a))[1] for _ in range(100)] == list(range(100))
    thread.join()
    assert threading.active_count() == before


def test_cases_may_be_kept_and_used_again() -> None:
    """Broken: a case object remembers something of the select that it was used in."""
    ch: Chan[Any] = Chan(1)
    give, take, give_none = send(ch, 5), recv(ch), send(ch, None)
    for _ in range(3):
        assert select(give) == (0, None, True)
        assert select(take) == (0, 5, True)
        assert select(give_none) == (0, None, True)
        assert select(take) == (0, None, True)
    assert "recv" in repr(take) and "send" in repr(give)


def test_bad_input() -> None:
    """Broken: what is no case, no channel or no time-out is not refused at once."""
    ch: Chan[int] = Chan()
    for bad in (ch, None, (ch, 1), recv):
        with pytest.raises(TypeError, match="recv"):
            select(bad)  # type: ignore[arg-type]
    for bad in (1, "ch", object()):
        with pytest.raises(TypeError, match="Chan"):
            recv(bad)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="Chan"):
            send(bad, 1)  # type: ignore[arg-type]
    for bad in ("1", float("nan")):
        with pytest.raises((TypeError, ValueError), match="timeout"):
            select(recv(ch), timeout=bad)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX")
@pytest.mark.parametrize("kind", ["recv", "send", "close"])
def test_a_plain_thread_that_a_signal_interrupts_just_as_a_case_is_done(kind: str) -> None:
    """Broken: the value that it was handed in that moment is gone; or one that was sent is there twice."""
    ch: Chan[Any] = Chan()

    class Interrupt(Exception):
        pass

    done = threading.Event()

    def handler(*_: Any) -> None:
        if done.is_set():
            return
        done.set()
        if kind == "recv":
            assert ch.try_send("value")
        elif kind == "send":
            assert ch.try_recv() == ("value", True)
        else:
            ch.close()
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, handler)
    me = threading.current_thread()

    def interrupts() -> None:
        settle(me)
        while not done.wait(0.01):  # a signal may come just before the thread sleeps, and then does not wake it
            signal.pthread_kill(me.ident, signal.SIGUSR1)

    sender = threading.Thread(target=interrupts)
    sender.start()
    try:
        with pytest.raises(Interrupt):
            select(send(ch, "value") if kind == "send" else recv(ch), recv(Chan()))
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    assert ch.try_recv() == (("value", True) if kind == "recv" else (None, False))
    assert ch.closed is (kind == "close")
