"""gort.green.select, selectors and time: waiting for many descriptors, or for a while, parks the goroutine."""

from __future__ import annotations

import errno
import os
import resource
import select as std
import selectors as std_selectors
import socket as std_socket
import time as std_time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest

import gort
from gort import go, run
from gort.green import os as green_os
from gort.green import select, selectors, time

pytestmark = pytest.mark.usefixtures("descriptors")

SELECTORS = [selectors.SelectSelector, selectors.PollSelector, selectors.DefaultSelector]  # the last: epoll, or kqueue


@pytest.fixture
def pair():
    a, b = std_socket.socketpair()
    with a, b:
        yield a, b


def epoll_wait(fd: int, timeout: float | None) -> Any:
    with select.epoll() as epoll:
        epoll.register(fd, select.EPOLLIN)
        return epoll.poll(timeout)


def poll_wait(fd: int, timeout: float | None) -> Any:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return poll.poll(None if timeout is None else timeout * 1000)


def select_wait(fd: int, timeout: float | None) -> Any:
    return select.select([fd], [], [], timeout)[0]


WAYS: dict[str, Callable[[int, float | None], Any]] = {"select": select_wait, "poll": poll_wait, "epoll": epoll_wait}


def test_names():
    """Every name of the standard modules is there."""
    for twin, module in ((select, std), (selectors, std_selectors), (time, std_time)):
        missing = [name for name in vars(module) if not name.startswith("__") and not hasattr(twin, name)]
        assert not missing
    assert select.error is OSError and select.EPOLLIN == std.EPOLLIN
    assert issubclass(selectors.DefaultSelector, std_selectors.BaseSelector)
    assert time.tzname == std_time.tzname and time.monotonic is std_time.monotonic


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("timeout", [None, 30, -1])
def test_it_parks_until_something_is_ready(pair: Any, way: str, timeout: float | None):
    """A goroutine of the same P makes the descriptor ready."""
    if way == "select" and timeout == -1:
        timeout = None
    a, b = pair

    def main() -> None:
        g = go(WAYS[way], a.fileno(), timeout)
        gort.sleep(0.005)
        assert not g.done()
        b.send(b"x")
        assert g.result()
        assert WAYS[way](a.fileno(), 0), "still ready: nothing was taken"

    run(main, procs=1)


@pytest.mark.parametrize("way", WAYS)
def test_it_times_out(pair: Any, way: str):
    """With an empty answer, not early; and 0 does not wait."""
    a, _ = pair

    def main() -> None:
        for timeout in (0, 0.02, 0.0015):
            before = std_time.monotonic()
            assert WAYS[way](a.fileno(), timeout) == []
            assert std_time.monotonic() - before >= timeout

    run(main)
    main()


@pytest.mark.parametrize("way", WAYS)
def test_it_can_be_cancelled_and_leaves_nothing(pair: Any, way: str, procs: int):
    """Cancelled in the middle, again and again, no descriptor is left and the next wait works."""
    a, b = pair

    def main() -> None:
        for _ in range(20):
            waiting = [go(WAYS[way], a.fileno(), None) for _ in range(5)]
            gort.sleep(0.0005)
            for g in waiting:
                g.cancel()
            for g in waiting:
                g.join()
        with pytest.raises(TimeoutError), gort.timeout(0.01):
            WAYS[way](a.fileno(), None)
        g = go(WAYS[way], a.fileno(), None)
        b.send(b"x")
        assert g.result()

    run(main, procs=procs)


@contextmanager
def no_descriptors():
    """Nobody can open anything meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(name) for name in os.listdir("/proc/self/fd")) + 20, hard))
    try:
        with pytest.raises(OSError) as info:
            while True:
                fillers.append(os.dup(0))
        assert info.value.errno == errno.EMFILE
        yield
    finally:
        for fd in fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("way", ["select", "poll", "os.read"])
@pytest.mark.parametrize("timeout", [None, 30])
def test_it_waits_though_there_is_no_descriptor_left(pair: Any, way: str, timeout: float | None, procs: int):
    """EMFILE fails a wait for what is there already, or loses what comes."""
    a, b = pair
    wait = WAYS.get(way, lambda fd, timeout: green_os.read(fd, 1))

    def main() -> None:
        with no_descriptors():
            waiting = [go(wait, a.fileno(), timeout) for _ in range(1 if way == "os.read" else 3)]
            late = go(wait, a.fileno(), 0.05) if way != "os.read" else None
            gort.sleep(0.03)
            assert not any(g.done() for g in waiting)
            if late is not None:
                assert late.result(20) == []
            cancelled = go(wait, a.fileno(), timeout)
            gort.sleep(0.01)
            cancelled.cancel()
            cancelled.join(20)
            b.send(b"x")
            for g in waiting:
                assert g.result(20)

    run(main, procs=procs)
    assert way == "os.read" or a.recv(10) == b"x"


def test_select_tells_what_is_ready_for_what():
    """Read, write and urgent lists, sockets and numbers in any mix, the same object in two lists."""

    def main() -> None:
        server = std_socket.create_server(("127.0.0.1", 0))
        a = std_socket.create_connection(server.getsockname())
        b, _ = server.accept()
        with server, a, b:
            assert select.select([a], [a, a.fileno()], [a], 1) == ([], [a, a.fileno()], [])
            g = go(select.select, iter([a, server]), [], [], 30)
            gort.sleep(0.005)
            b.send(b"x")
            assert g.result() == ([a], [], [])
            a.recv(1)
            g = go(select.select, [], [], [a], 30)
            gort.sleep(0.005)
            b.send(b"!", std_socket.MSG_OOB)
            assert g.result() == ([], [], [a])
        assert select.select([], [], [], 0.001) == ([], [], [])
        with open(os.devnull) as file:
            assert select.select([file], [], [], 30)[0] == [file]

    run(main, procs=1)


def test_bad_arguments_give_the_standard_errors(pair: Any):
    """The same exceptions, in a goroutine too."""
    a, _ = pair
    closed = std_socket.socket()
    closed.close()

    def outcome(module: Any, call: Callable[[Any], Any]) -> Any:
        try:
            return call(module)
        except Exception as exc:
            return type(exc), getattr(exc, "errno", None)

    def polled(module: Any, *args: Any) -> Any:
        poll = module.poll()
        poll.register(a, module.POLLIN)
        return poll.poll(*args)

    def closed_epoll(module: Any, then: Callable[[Any], Any]) -> Any:
        epoll = module.epoll()
        epoll.close()
        epoll.close()
        assert epoll.closed
        return then(epoll)

    calls: list[Callable[[Any], Any]] = [
        lambda m: m.select([a], [], [], -1),
        lambda m: m.select([a], [], [], "1"),
        lambda m: m.select([closed], [], [], 1),
        lambda m: m.select([object()], [], [], 1),
        lambda m: m.select([-1], [], [], 1),
        lambda m: m.select(1, [], [], 1),
        lambda m: m.select([5000], [], [], 1),
        lambda m: polled(m, "1"),
        lambda m: polled(m, 2**31),
        lambda m: polled(m, 2**70),
        lambda m: polled(m, float("inf")),
        lambda m: m.epoll().poll(1e300),
        lambda m: m.select([a], [], [], 1e300),
        lambda m: m.select([a], [], [], float("nan")),
        lambda m: m.poll().register(closed),
        lambda m: m.poll().unregister(a),
        lambda m: m.poll().modify(a, m.POLLIN),
        lambda m: m.poll().register("x"),
        lambda m: m.epoll().unregister(a),
        lambda m: m.epoll(-5),
        lambda m: m.epoll().poll("1"),
        lambda m: m.epoll().poll(0, 0),
        lambda m: closed_epoll(m, lambda e: e.poll(1)),
        lambda m: closed_epoll(m, lambda e: e.fileno()),
        lambda m: closed_epoll(m, lambda e: e.__enter__()),
        lambda m: closed_epoll(m, lambda e: e.register(a)),
    ]
    for number, call in enumerate(calls):
        expected = outcome(std, call)
        assert outcome(select, call) == expected, number
        assert run(lambda call=call: outcome(select, call)) == expected, number


def test_a_closed_descriptor_in_a_poll():
    """It is reported as POLLNVAL at once, as ever."""

    def main() -> None:
        a, b = std_socket.socketpair()
        poll = select.poll()
        poll.register(a, select.POLLIN)
        fd = a.fileno()
        a.close()
        b.close()
        assert poll.poll() == [(fd, select.POLLNVAL)]
        poll.unregister(fd)
        assert poll.poll(1) == []

    run(main)


def test_epoll_is_an_epoll(pair: Any):
    """Edge-triggered, one-shot, modify, fromfd, maxevents; closing it ends a wait with EBADF."""
    a, b = pair

    def main() -> None:
        epoll = select.epoll()
        epoll.register(a, select.EPOLLIN | select.EPOLLET)
        g = go(epoll.poll)
        gort.sleep(0.005)
        b.send(b"x")
        assert g.result() == [(a.fileno(), select.EPOLLIN)]
        assert epoll.poll(0.001) == [], "an edge comes once"
        b.send(b"x")
        assert epoll.poll(30, 1) == [(a.fileno(), select.EPOLLIN)]
        epoll.modify(a, select.EPOLLOUT | select.EPOLLONESHOT)
        assert epoll.poll() == [(a.fileno(), select.EPOLLOUT)]
        assert epoll.poll(0.001) == []
        other = select.epoll.fromfd(os.dup(epoll.fileno()))
        other.modify(a, select.EPOLLIN)
        assert epoll.poll() == [(a.fileno(), select.EPOLLIN)] == other.poll()
        other.close()
        epoll.unregister(a)
        g = go(epoll.poll)
        gort.sleep(0.005)
        epoll.close()
        assert epoll.closed and g.exception().errno == errno.EBADF

    run(main, procs=1)


@pytest.mark.parametrize("selector_class", SELECTORS, ids=lambda cls: cls.__name__)
def test_selectors(selector_class: Any, procs: int):
    """A selector-based echo server, written for threads, serves goroutines of the same P."""

    def serve(selector: Any, server: Any) -> None:
        selector.register(server, selectors.EVENT_READ)
        while selector.get_map():
            for key, events in selector.select():
                assert events == selectors.EVENT_READ
                if key.fileobj is server:
                    sock, _ = server.accept()
                    selector.register(sock, selectors.EVENT_READ)
                    continue
                data = key.fileobj.recv(1000)
                if data == b"stop":
                    selector.unregister(server)
                if data in (b"", b"stop"):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                else:
                    key.fileobj.sendall(data)

    def client(address: Any) -> None:
        from gort.green import socket

        with socket.create_connection(address) as sock:
            for i in range(20):
                sock.sendall(b"%d" % i)
                assert sock.recv(100) == b"%d" % i

    def main() -> None:
        with selector_class() as selector, std_socket.create_server(("127.0.0.1", 0)) as server:
            g = go(serve, selector, server)
            for each in [go(client, server.getsockname()) for _ in range(10)]:
                each.result()
            with std_socket.create_connection(server.getsockname()) as sock:
                sock.send(b"stop")
                g.result()
            assert selector.select(0.001) == []

    run(main, procs=procs)


def test_time_sleep():
    """It parks, for at least so long; its arguments are judged as time.sleep's."""

    def main() -> None:
        order: list[int] = []
        sleepers = [go(lambda n=n: (time.sleep(n / 200), order.append(n))) for n in (3, 1, 2)]
        before = std_time.monotonic()
        for g in sleepers:
            g.join()
        assert order == [1, 2, 3] and std_time.monotonic() - before >= 3 / 200
        time.sleep(0)
        time.sleep(True / 1000)
        for bad in (-1, -0.1, float("nan"), "1", None, [], 1j):
            errors = []
            for sleep in (time.sleep, std_time.sleep):
                with pytest.raises((ValueError, TypeError)) as info:
                    sleep(bad)
                errors.append((info.type, str(info.value)))
            assert errors[0][0] is errors[1][0]

    run(main, procs=1)
    time.sleep(0.001)
