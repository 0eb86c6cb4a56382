"""The seat, in which a connection's only reader waits (gort/runtime/direction.py): what comes at the worst moment is not lost.

The worst moments are between the reader's look whether there is something to wait for and its sitting down, and between that
and its second look.  `Window` is a seat in which something happens just then, as if another thread had done it.
"""

from __future__ import annotations

import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import greenlet

import gort
from gort import Cancelled, go, run, sleep
from gort.net import Conn, ConnClosed

from nettools import left_nothing  # noqa: F401

pytestmark = pytest.mark.usefixtures("left_nothing")

LONG = 50.0


def connected() -> tuple[Conn, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Conn(listener.accept()[0]), peer


class Window(list[Any]):
    """A seat; the first time that somebody sits down in it something happens, just before and just after."""

    def __init__(self, before: Callable[[], object], after: Callable[[], object]) -> None:
        self.events = [before, after]

    def append(self, w: Any) -> None:
        events, self.events = self.events, []
        for event in events[:1]:
            event()
        super().append(w)
        for event in events[1:]:
            event()


Event = Callable[[Conn, socket.socket], object]


def in_the_window(before: bool, event: Event, then: Event, later: Event | None = None) -> Any:
    """What a read gives or raises if event(conn, peer) happens in the window, and then(conn, peer) when its reader waits.

    later: this happens after the reader has sat down, and the event before.
    """

    def main() -> Any:
        conn, peer = connected()
        with conn, peer:

            got = []
            happened = []

            def happen(*events: Event | None) -> None:
                for one in events:
                    if one is not None:
                        one(conn, peer)

            def read() -> Any:
                for _ in range(2):  # the first of them goes the long way, and from then on it may sit
                    got.append(conn.read())
                first, second = (event, later) if before else (nothing, event)
                conn._in.seat = Window(lambda: happen(first), lambda: (happen(second), happened.append(True)))
                try:
                    return conn.read()
                except (Exception, Cancelled) as exc:
                    return exc

            g = go(read)
            for n in range(2):
                while len(got) != n or g.state != "waiting":
                    sleep(1e-4)
                peer.sendall(b"before")
            while not g.done() and not (happened and g.state == "waiting"):
                sleep(1e-4)
            then(conn, peer)
            value = g.result(LONG)
            if not conn.closed:
                # And nothing is left of it: the next reader gets what is its own.
                conn.set_deadline(None)
                peer.sendall(b"last")
                assert go(conn.read).result(LONG) == b"last"
                assert not conn._in.seat and conn._in.first is conn._in.others is None
            return value

    return run(main, procs=2)


WINDOW = pytest.mark.parametrize("before", [True, False], ids=["before", "after"])


def nothing(_conn: Conn, _peer: socket.socket) -> None:
    pass


def send(_conn: Conn, peer: socket.socket) -> None:
    peer.sendall(b"data")


@WINDOW
def test_data(before: bool) -> None:
    """Broken: a read waits for ever though data have come, and another machine's poller has told of them."""

    def come(conn: Conn, peer: socket.socket) -> None:
        peer.sendall(b"data")
        conn._in.fire()

    assert in_the_window(before, come, nothing) == b"data"


@WINDOW
def test_an_event_without_data(before: bool) -> None:
    """Broken: a read returns, or waits for ever, because of an event that was meant for another."""
    assert in_the_window(before, lambda conn, _peer: conn._in.fire(), send) == b"data"


@WINDOW
@pytest.mark.parametrize("seconds", [0.0, 0.01, LONG])
def test_a_deadline(before: bool, seconds: float) -> None:
    """Broken: a read does not mind a deadline that was set just then, or never returns."""

    def limit(conn: Conn, _peer: socket.socket) -> None:
        conn.set_read_deadline(time.monotonic() + seconds)

    value = in_the_window(before, limit, nothing if seconds < LONG else send)
    assert value == b"data" if seconds == LONG else type(value) is TimeoutError and "deadline" in str(value)


@WINDOW
def test_a_deadline_that_is_taken_back(before: bool) -> None:
    """Broken: a read whose connection has a deadline for a moment fails, or never returns."""

    def limit(conn: Conn, _peer: socket.socket) -> None:
        conn.set_read_deadline(time.monotonic() + LONG)
        conn.set_read_deadline(None)

    assert in_the_window(before, limit, send) == b"data"


@WINDOW
def test_close(before: bool) -> None:
    """Broken: a read of a connection that is closed just then waits for ever."""
    value = in_the_window(before, lambda conn, _peer: conn.close(), nothing)
    assert type(value) is ConnClosed


@WINDOW
def test_cancel(before: bool) -> None:
    """Broken: a cancellation that comes just then is lost, or what it leaves in the seat takes another's data."""

    def cancel(_conn: Conn, _peer: socket.socket) -> None:
        g = gort.current()
        assert g is not None
        thread = threading.Thread(target=g.cancel)
        thread.start()
        thread.join()

    assert type(in_the_window(before, cancel, nothing)) is Cancelled


@WINDOW
def test_another_reader(before: bool) -> None:
    """Broken: a read is lost if another goroutine begins to read, and gets the seat."""

    def another(conn: Conn, _peer: socket.socket) -> None:
        side = conn._in
        side.lock()
        side.appoint(object())
        side.latch.append(None)

    assert in_the_window(before, another, send) == b"data"


def limit(conn: Conn, _peer: socket.socket) -> None:
    conn.set_read_deadline(time.monotonic() + LONG)


def no_limit(conn: Conn, _peer: socket.socket) -> None:
    conn.set_read_deadline(None)


def close(conn: Conn, _peer: socket.socket) -> None:
    conn.close()


@pytest.mark.parametrize("second", [limit, no_limit, close])
@pytest.mark.parametrize("first", [limit, no_limit, close])
def test_one_thing_before_and_one_after(first: Event, second: Event) -> None:
    """Broken: two deadlines, or a deadline and a close, one on each side of a reader's sitting down, stop every goroutine
    of its machine, or the reader waits for ever."""
    value = in_the_window(True, first, nothing if close in (first, second) else send, later=second)
    assert type(value) is ConnClosed if close in (first, second) else value == b"data"


def test_what_a_woken_reader_is() -> None:
    """Broken: a goroutine that could run, if its machine had time for it, is shown as one that waits for I/O."""

    def main() -> None:
        conn, peer = connected()
        with conn, peer:
            got: list[bytes] = []

            def read() -> None:
                while data := conn.read():
                    got.append(data)

            g = go(read)
            for n in range(3):
                while len(got) != n or g.state != "waiting":
                    sleep(1e-4)
                if n == 2:
                    assert conn._in.seat and "read of descriptor" in g.wait_reason
                    conn._in.fire()
                    assert g.state == "runnable" and g.wait_reason == ""
                peer.sendall(b"data")
            peer.shutdown(socket.SHUT_WR)
            g.result(LONG)
            assert got == [b"data"] * 3

    run(main, procs=1)


def test_a_reader_that_came_after_the_event_when_another_takes_a_part_of_the_data() -> None:
    """Broken: data are there, and a reader waits for them that came when another had been woken for them."""

    def main() -> None:
        conn, peer = connected()
        with conn, peer:
            got: list[bytes] = []
            side = conn._in

            def second() -> None:
                for _ in range(2):  # from then on it may sit
                    got.append(conn.read())
                while side.first is None:
                    sleep(1e-4)
                peer.sendall(b"data")
                while side.first is not None:
                    gort.gosched()
                got.append(conn.read())

            g = go(second)
            for n in range(2):
                while len(got) != n or not g.wait_reason.startswith("I/O"):
                    sleep(1e-4)
                peer.sendall(b"before")
            while len(got) != 2:
                sleep(1e-4)
            # (A greenlet of a goroutine's own never gets the seat.)
            go(lambda: greenlet(lambda: got.append(conn.read(1))).switch()).result(LONG)
            g.result(LONG)
            assert got[2:] == [b"d", b"ata"]

    run(main, procs=1)


class Raised(Exception):
    pass


class HitSeat(list[Any]):
    """A seat; a signal comes when somebody has just been taken out of it."""

    def pop(self, *_: Any) -> Any:
        w = super().pop()
        if not raised:
            signal.raise_signal(signal.SIGUSR1)
        return w


raised: list[bool] = []


def test_a_signal_handler_raises_when_the_poller_has_just_taken_the_reader() -> None:
    """Broken: a reader is lost for good, and cannot even be cancelled."""

    def handler(*_: object) -> None:
        raised.append(True)
        raise Raised

    def main() -> None:
        conn, peer = connected()
        got = []

        def read() -> None:
            for n in range(3):
                if n == 2:  # the first of them goes the long way, and from then on it may sit
                    conn._in.seat = HitSeat()
                got.append(conn.read())

        with conn, peer:
            g = go(read)
            for n in range(2):
                while len(got) != n or g.state != "waiting":
                    sleep(1e-4)
                peer.sendall(b"before")
            while len(got) != 2 or not conn._in.seat:
                sleep(1e-4)
            peer.sendall(b"data")
            with pytest.raises(Raised):
                g.join(LONG)
            g.result(LONG)
            assert got[2:] == [b"data"]

    raised.clear()
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        run(main, procs=1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("trial", range(3))
def test_readers_and_everything_else_at_once(procs: int, jitter: None, trial: int) -> None:
    """Broken: of what several goroutines read from one connection, while deadlines move and readers are cancelled, something is lost."""
    chance = random.Random(trial)

    def main() -> None:
        conn, peer = connected()
        got: list[int] = []
        over = threading.Event()
        total = 4000

        def read() -> None:
            while True:
                try:
                    data = conn.read(chance.choice((1, 7, 65536)))
                except TimeoutError:
                    continue
                if not data:
                    return
                got.append(len(data))

        def disturb() -> None:  # a plain thread
            while not over.is_set():
                what = chance.randrange(4)
                if what == 0:
                    conn.set_read_deadline(time.monotonic() + chance.random() * 1e-3)
                elif what == 1:
                    conn.set_read_deadline(time.monotonic() + LONG)
                else:
                    conn.set_read_deadline(None)
                time.sleep(chance.random() * 1e-3)
            conn.set_read_deadline(None)

        def write() -> None:
            for _ in range(total):
                peer.sendall(b"x" * 8)
                if not chance.randrange(4):
                    time.sleep(1e-5)
            over.set()

        threads = [threading.Thread(target=disturb), threading.Thread(target=write)]
        for thread in threads:
            thread.start()
        readers = [go(read) for _ in range(3)]
        victims = []
        while not over.is_set():
            victim = go(read)
            victims.append(victim)
            sleep(chance.random() * 2e-3)
            victim.cancel()
        for thread in threads:
            while thread.is_alive():
                sleep(1e-3)
        peer.shutdown(socket.SHUT_WR)
        for g in readers:
            g.result(LONG)
        for g in victims:
            g.join(LONG)
            assert g.exception() is None or type(g.exception()) is Cancelled
        assert sum(got) == 8 * total
        conn.close()
        peer.close()

    run(main, procs=procs)
