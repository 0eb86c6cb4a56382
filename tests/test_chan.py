"""Channels: behaviours 10 to 15, time-outs, cancellation, plain threads, and the hot path held to the plain one.

`Chan.send` and `Chan.recv` are written out by hand for speed; operations with a time-out, `select`, `recv_ok` and
everything on a plain thread go by the same cases in plain words.  From outside nobody may be able to tell which of
them it was.  So one small model of a channel says what must come out of a random list of sends, receives and a close,
and each way of doing them is held to it, and so is a mixture of all.

Nothing here sleeps to let something happen: `settle` waits until a goroutine waits (or has ended), by its state.
"""

from __future__ import annotations

import os
import random
import threading
from collections import Counter, deque
from time import monotonic
from typing import Any

import greenlet
import pytest

import gort
from gort import Chan, ChannelClosed, go, gosched, run, select
from settling import LONG, settle, start
from spreading import go_all

# -- the ways of doing the same -----------------------------------------------------------------------------------


def select_recv(ch: Chan[Any]) -> Any:
    _index, value, ok = select(gort.recv(ch))
    if not ok:
        raise ChannelClosed("by select")
    return value


def ok_recv(ch: Chan[Any]) -> Any:
    value, ok = ch.recv_ok()
    if not ok:
        raise ChannelClosed("by recv_ok")
    return value


def next_recv(ch: Chan[Any]) -> Any:
    for value in ch:
        return value
    raise ChannelClosed("by iteration")


SENDS = {
    "hot": lambda ch, v: ch.send(v),
    "timeout": lambda ch, v: ch.send(v, timeout=LONG),
    "select": lambda ch, v: select(gort.send(ch, v)),
}
RECVS = {
    "hot": lambda ch: ch.recv(),
    "timeout": lambda ch: ch.recv(timeout=LONG),
    "select": select_recv,
    "ok": ok_recv,
    "next": next_recv,
}


class Model:
    """What a channel is, in the plainest words: the outcome of each operation, by its number."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.buf: deque[Any] = deque()
        self.senders: deque[tuple[int, Any]] = deque()
        self.receivers: deque[int] = deque()
        self.closed = False
        self.out: dict[int, Any] = {}

    def do(self, number: int, kind: str, value: Any) -> None:
        if kind == "close":
            self.out[number] = "closed" if self.closed else "ok"
            self.closed = True
            for other in [*self.receivers, *(n for n, _ in self.senders)]:
                self.out[other] = "closed"
            self.receivers.clear()
            self.senders.clear()
        elif kind == "send":
            if self.closed:
                self.out[number] = "closed"
            elif self.receivers:
                self.out[self.receivers.popleft()] = value
                self.out[number] = "ok"
            elif len(self.buf) < self.capacity:
                self.buf.append(value)
                self.out[number] = "ok"
            else:
                self.senders.append((number, value))
        elif self.buf:
            self.out[number] = self.buf.popleft()
            self._admit(self.buf.append)
        elif self.senders:
            self._admit(lambda v: self.out.__setitem__(number, v))
        elif self.closed:
            self.out[number] = "closed"
        else:
            self.receivers.append(number)

    def _admit(self, put: Any) -> None:
        if self.senders:
            number, value = self.senders.popleft()
            put(value)
            self.out[number] = "ok"


def play(rng: random.Random, how: str, capacity: int, threads: bool) -> None:
    """One random list of operations, each in a task of its own, against the model."""
    ch: Chan[int] = Chan(capacity)
    model = Model(capacity)
    out: dict[int, Any] = {}

    def do(number: int, kind: str, way: str) -> None:
        try:
            if kind == "close":
                ch.close()
                out[number] = "ok"
            elif kind == "send":
                SENDS[way](ch, number)
                out[number] = "ok"
            else:
                out[number] = RECVS[way](ch)
        except ChannelClosed:
            out[number] = "closed"

    tasks: list[Any] = []
    tape = []
    for number in range(rng.randrange(4, 24)):
        kind = "close" if rng.random() < 0.04 else rng.choice(["send", "recv"])
        ways = SENDS if kind == "send" else RECVS
        way = rng.choice(list(ways)) if how == "mixed" else how
        tape.append((kind, way))
        if threads:
            task: Any = threading.Thread(target=do, args=(number, kind, way))
            task.start()
        else:
            task = go(do, number, kind, way)
        settle(task)
        tasks.append(task)
        model.do(number, kind, number)
        assert (len(ch), ch.closed) == (len(model.buf), model.closed), tape
    patience = monotonic() + 10
    while len(out) < len(model.out) and monotonic() < patience:
        gosched()  # those that the last operations woke
    got = dict(out)
    if not model.closed:
        ch.close()
    for task in tasks:
        task.join()
    assert got == model.out, tape


@pytest.mark.parametrize("how", ["hot", "timeout", "select", "mixed"])
def test_every_way_keeps_to_the_model(how: str) -> None:
    """Broken: the hot path of send and recv, or a plain one, gives another outcome than Go's rules say."""

    def main() -> None:
        rng = random.Random(f"model {how}")
        for number in range(150):
            play(rng, how, number % 4, threads=False)

    run(main, procs=1)


def test_plain_threads_keep_to_the_model() -> None:
    """Broken: a channel behaves otherwise for plain threads than for goroutines (and needs no runtime for them)."""
    rng = random.Random("model threads")
    for number in range(25):
        play(rng, "mixed", number % 4, threads=True)


# -- behaviours 10 to 15 ------------------------------------------------------------------------------------------


def test_10_receive_on_empty_and_send_on_full_block(procs: int) -> None:
    """Broken: a receive on an empty channel or a send on a full one does not wait, or a default does."""

    def main() -> None:
        for capacity in (0, 1, 3):
            ch: Chan[int] = Chan(capacity)
            assert select(gort.recv(ch), default=True) == (-1, None, False)
            assert ch.try_recv() == (None, False)
            receiver = start(ch.recv)
            assert receiver.state == "waiting"
            ch.send(7)
            assert receiver.result() == 7
            for i in range(capacity):
                ch.send(i)
            assert select(gort.send(ch, 9), default=True) == (-1, None, False)
            assert ch.try_send(9) is False
            sender = start(ch.send, capacity)
            assert sender.state == "waiting"
            assert [ch.recv() for _ in range(capacity + 1)] == list(range(capacity + 1))
            sender.result()

    run(main, procs=procs)


def test_11_fifo_for_capacities_0_to_199(procs: int) -> None:
    """Broken: one sender's values arrive in another order than they were sent."""

    def main() -> None:
        for capacity in range(200):
            ch: Chan[int] = Chan(capacity)

            def feed(ch: Chan[int] = ch) -> None:
                for i in range(100):
                    ch.send(i)

            sender = go(feed)
            assert [ch.recv() for _ in range(100)] == list(range(100))
            sender.result()

    run(main, procs=procs)


@pytest.mark.parametrize("capacity", [0, 1, 10])
@pytest.mark.parametrize("tasks", ["goroutines", "threads", "both"])
def test_11_four_senders_four_receivers(procs: int, tasks: str, capacity: int, jitter: None) -> None:
    """Broken: with several senders and receivers a value is lost or doubled, or overtakes one of the same sender."""
    n = 1000 if tasks == "goroutines" else 100
    # A goroutine that blocks its machine lets the others be stolen: so they begin on as many machines as there are Ps.
    spread = threading.Barrier(procs if tasks == "goroutines" else 1)

    def main() -> None:
        ch: Chan[tuple[int, int]] = Chan(capacity)
        seen: list[list[tuple[int, int]]] = [[] for _ in range(4)]

        def feed(k: int) -> None:
            spread.wait()
            for i in range(n):
                ch.send((k, i))

        def eat(k: int) -> None:
            spread.wait()
            while (item := ch.recv())[0] >= 0:
                seen[k].append(item)

        def begin(fn: Any, k: int) -> Any:
            if tasks == "both" and k % 2:
                return go(fn, k)
            thread = threading.Thread(target=fn, args=(k,))
            thread.start()
            return thread

        if tasks == "goroutines":
            started: list[Any] = list(go_all(*[(fn, k) for fn in (eat, feed) for k in range(4)]))
        else:
            started = [begin(fn, k) for fn in (eat, feed) for k in range(4)]
        eaters, feeders = started[:4], started[4:]
        joiner = go(lambda: [(f.join() if isinstance(f, gort.Goroutine) else join_thread(f)) for f in feeders])
        joiner.result()
        for _ in eaters:
            ch.send((-1, 0))
        for e in eaters:
            e.join() if isinstance(e, gort.Goroutine) else join_thread(e)
        assert Counter(x for part in seen for x in part) == Counter((k, i) for k in range(4) for i in range(n))
        for part in seen:
            for k in range(4):
                mine = [i for kk, i in part if kk == k]
                assert mine == sorted(mine)

    run(main, procs=procs)


def join_thread(thread: threading.Thread) -> None:
    """Wait for a plain thread without blocking this goroutine's machine."""
    while thread.is_alive():
        gort.sleep(0.001)


def test_12_close_drains_in_order_then_says_closed(procs: int) -> None:
    """Broken: values in the buffer are lost by close, or a drained channel does not say that it is closed."""

    def main() -> None:
        for drain in (lambda ch: [ch.recv() for _ in range(5)], lambda ch: list(ch)):
            ch: Chan[int] = Chan(5)
            for i in range(5):
                ch.send(i)
            ch.close()
            assert ch.closed and len(ch) == 5
            assert drain(ch) == [0, 1, 2, 3, 4]
            assert ch.recv_ok() == (None, False)
            assert ch.try_recv() == (None, False)
            assert select(gort.recv(ch)) == (0, None, False)
            assert list(ch) == []
            for way in (ch.recv, lambda ch=ch: ch.recv(timeout=LONG)):
                with pytest.raises(ChannelClosed):
                    way()

    run(main, procs=procs)


def test_12_close_wakes_every_blocked_receiver_and_sender(procs: int) -> None:
    """Broken: somebody who is blocked on a channel when it is closed stays blocked, or gets the wrong answer."""

    def main() -> None:
        ch: Chan[int] = Chan()
        receivers = [start(way, ch) for way in list(RECVS.values()) * 10]
        oks = [start(ch.recv_ok) for _ in range(10)]
        loops = [start(list, ch) for _ in range(10)]
        ch.close()
        for g in receivers:
            with pytest.raises(ChannelClosed):
                g.result()
        assert [g.result() for g in oks] == [(None, False)] * 10
        assert [g.result() for g in loops] == [[]] * 10

        full: Chan[int] = Chan(1)
        full.send(0)
        senders = [start(way, full, i) for i, way in enumerate(list(SENDS.values()) * 10, 1)]
        full.close()
        for g in senders:
            with pytest.raises(ChannelClosed):
                g.result()
        assert list(full) == [0]  # nothing of those whose send failed

    run(main, procs=procs)


def test_13_send_on_closed_and_close_of_closed_are_errors() -> None:
    """Broken: a send on a closed channel, or a second close, passes in silence or hangs."""
    ch: Chan[int] = Chan(3)
    ch.close()

    def check() -> None:
        for way in (*SENDS.values(), lambda c, v: c.try_send(v), lambda c, v: c.send(v, timeout=0)):
            with pytest.raises(ChannelClosed):
                way(ch, 1)
        with pytest.raises(ChannelClosed):
            ch.close()
        assert len(ch) == 0

    check()  # on a plain thread
    run(check, procs=1)


@pytest.mark.parametrize("recv_way", RECVS)
@pytest.mark.parametrize("send_way", SENDS)
def test_14_full_buffer_with_a_blocked_sender(send_way: str, recv_way: str) -> None:
    """Broken: a receive from a full channel does not take the head, or the blocked sender's value not the tail."""

    def main() -> None:
        ch: Chan[int] = Chan(3)
        for i in range(3):
            ch.send(i)
        senders = [start(SENDS[send_way], ch, i) for i in (3, 4)]
        for expected in range(5):
            assert RECVS[recv_way](ch) == expected
            assert len(ch) == min(3, 4 - expected)
            senders[0].join(LONG)
        for g in senders:
            g.result()

    run(main, procs=1)


def test_15_waiters_are_served_first_come_first_served(procs: int) -> None:
    """Broken: a waiter on a channel is overtaken by one that came later."""

    def main() -> None:
        ways = list(RECVS.values())
        ch: Chan[int] = Chan()
        receivers = [start(ways[i % len(ways)], ch) for i in range(50)]
        for i in range(50):
            ch.send(i)
        assert [g.result() for g in receivers] == list(range(50))
        sends = list(SENDS.values())
        senders = [start(sends[i % len(sends)], ch, i) for i in range(50)]
        assert [ch.recv() for _ in range(50)] == list(range(50))
        for g in senders:
            g.result()

    run(main, procs=procs)


# -- time-outs and cancellation -----------------------------------------------------------------------------------


def test_a_timed_out_operation_leaves_nothing_behind(procs: int) -> None:
    """Broken: a send that timed out delivers its value after all, or a receive that timed out swallows one."""

    def main() -> None:
        ch: Chan[int] = Chan()
        for seconds in (0, -1, 0.001, 1e-9):
            for _ in range(50):
                with pytest.raises(TimeoutError):
                    ch.send(1, timeout=seconds)
                with pytest.raises(TimeoutError):
                    ch.recv(timeout=seconds)
                with pytest.raises(TimeoutError):
                    ch.recv_ok(timeout=seconds)
        assert ch.try_recv() == (None, False)
        assert ch.try_send(1) is False
        assert len(ch) == 0

    run(main, procs=procs)
    main()  # and on a plain thread


def test_a_timeout_that_races_with_its_completion(procs: int, jitter: None) -> None:
    """Broken: when a time-out and the other party come at the same moment, a value is lost or doubled."""
    rng = random.Random(f"race {procs}")

    def main() -> None:
        ch: Chan[int] = Chan()
        sent: list[int] = []
        got: list[int] = []
        over = []

        def feed() -> None:
            for i in range(1500):
                try:
                    ch.send(i, timeout=rng.random() * 1e-4)
                    sent.append(i)
                except TimeoutError:
                    pass
            over.append(1)

        def eat() -> None:
            while not over:
                try:
                    got.append(ch.recv(timeout=rng.random() * 1e-4))
                except TimeoutError:
                    pass

        tasks = [go(feed), go(eat)]
        for g in tasks:
            g.result()
        assert got == sent

    run(main, procs=procs)


def test_cancelled_waiters_take_nothing_and_give_nothing(procs: int) -> None:
    """Broken: a goroutine cancelled at a channel swallows a later value, or its own value is still delivered."""

    def main() -> None:
        ch: Chan[int] = Chan()
        receivers = [start(ch.recv) for _ in range(20)]
        for g in receivers[::2]:
            g.cancel()
        for g in receivers[::2]:
            g.join()
        for i in range(10):
            ch.send(i)
        assert [g.result() for g in receivers[1::2]] == list(range(10))
        senders = [start(ch.send, i) for i in range(20)]
        for g in senders[::2]:
            g.cancel()
        for g in senders[::2]:
            g.join()
        assert [ch.recv() for _ in range(10)] == list(range(1, 20, 2))
        assert ch.try_recv() == (None, False)

    run(main, procs=procs)


def test_cancel_after_the_value_was_handed_over_loses_no_value() -> None:
    """Broken: a receiver that was cancelled just after it was given a value loses the value."""

    def main() -> None:
        ch: Chan[int] = Chan()
        log: list[Any] = []

        def eat() -> None:
            log.append(ch.recv())
            try:
                ch.recv()
            except gort.Cancelled:
                log.append("cancelled")
                raise

        g = start(eat)
        ch.send(1)  # handed over; g has not run since
        g.cancel()
        g.join()
        assert log == [1, "cancelled"]

    run(main, procs=1)


# -- plain threads, foreign greenlets, scheduler callbacks --------------------------------------------------------


def test_a_thread_and_a_goroutine_talk(procs: int) -> None:
    """Broken: a message between a plain thread and a goroutine, in either direction, is lost or wakes nobody."""
    there: Chan[int] = Chan()
    back: Chan[int] = Chan()

    def echo() -> None:
        for value in there:
            back.send(value + 1)

    with gort.Runtime(procs) as runtime:
        g = runtime.go(echo)
        for i in range(500):
            there.send(i)
            assert back.recv() == i + 1
        there.close()
        g.result()


def test_channels_between_plain_threads_start_no_runtime() -> None:
    """Broken: two plain threads cannot use a channel without gort starting threads of its own."""
    ch: Chan[int] = Chan()
    got: list[int] = []
    thread = threading.Thread(target=lambda: got.extend(ch))
    thread.start()
    before = threading.active_count()
    for i in range(200):
        ch.send(i)
    assert threading.active_count() == before
    ch.close()
    thread.join()
    assert got == list(range(200))


def test_a_greenlet_of_the_programs_own_may_wait() -> None:
    """Broken: a greenlet that a goroutine made itself cannot block on a channel, or wakes somewhere else."""

    def main() -> None:
        ch: Chan[int] = Chan()
        feeder = go(lambda: [ch.send(i) for i in range(20)])
        me = greenlet.getcurrent()

        def inside() -> list[int]:
            assert greenlet.getcurrent() is not me
            return [ch.recv() for _ in range(10)]

        assert greenlet.greenlet(inside).switch() == list(range(10))
        assert [ch.recv() for _ in range(10)] == list(range(10, 20))
        feeder.result()

    run(main, procs=1)


# -- what it is ---------------------------------------------------------------------------------------------------


def test_what_a_channel_says_of_itself() -> None:
    """Broken: capacity, len, closed, truth, repr or the typing form of a channel."""
    ch = Chan[int](3)
    assert os.path.basename(__file__) in repr(ch)  # where it was made
    ch = Chan(3)
    assert type(Chan[int](3)) is Chan and ch.capacity == 3 and len(ch) == 0 and ch and not ch.closed
    ch.send(1)
    assert len(ch) == 1
    assert "1/3" in repr(ch) and os.path.basename(__file__) in repr(ch)
    ch.close()
    assert ch.closed and "closed" in repr(ch)
    assert Chan().capacity == 0
    assert Chan[list[str]]().capacity == 0
    with pytest.raises(AttributeError):
        ch.something = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("bad", [1.5, "3", None, [], 2.0])
def test_a_capacity_that_is_no_whole_number(bad: Any) -> None:
    """Broken: a wrong capacity is accepted, and fails later somewhere else."""
    with pytest.raises(TypeError, match="capacity"):
        Chan(bad)


def test_a_negative_capacity() -> None:
    """Broken: a negative capacity is accepted."""
    with pytest.raises(ValueError, match="capacity"):
        Chan(-1)


@pytest.mark.parametrize("bad", ["1", [], float("nan")])
def test_a_timeout_that_is_no_number(bad: Any) -> None:
    """Broken: a wrong time-out of a send or receive that would wait is not refused at once."""
    ch: Chan[int] = Chan()

    def check() -> None:
        for operation in (lambda: ch.send(1, timeout=bad), lambda: ch.recv(timeout=bad), lambda: ch.recv_ok(bad)):
            with pytest.raises((TypeError, ValueError), match="timeout"):
                operation()

    check()
    run(check, procs=1)
