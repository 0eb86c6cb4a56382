"""gort.green.socket: a standard socket whose waiting parks the goroutine.

Where a test says "parks", it has another goroutine on the *same* P that must run for the first one to go on: if the
thread blocked, the test would hang and meet its time limit.
"""

from __future__ import annotations

import errno
import gc
import os
import queue
import random
import socket as std
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import gort
from gort import go, run
from nettools import few_descriptors
from spreading import go_all
from gort.green import socket

pytestmark = pytest.mark.usefixtures("descriptors")


def on_machines(procs: int, *fns: Callable[[], Any]) -> list[Any]:
    """Run these on as many machines as there are Ps (two at most); their results."""
    barrier = threading.Barrier(min(procs, 2, len(fns)))

    def begin(fn: Callable[[], Any]) -> Any:
        barrier.wait()
        return fn()

    assert len(fns) % barrier.parties == 0
    return [g.result() for g in go_all(*[(begin, fn) for fn in fns])]


def full(sock: std.socket) -> int:
    """Fill a socket's send buffer; how many bytes went in?"""
    before = sock.gettimeout()
    sock.setblocking(False)
    n = 0
    try:
        while True:
            n += sock.send(bytes(65536))
    except BlockingIOError:
        pass
    sock.settimeout(before)
    return n


def drain(sock: std.socket, n: int) -> None:
    while n:
        n -= len(sock.recv(min(n, 1 << 20)))


# --- what it is -------------------------------------------------------------------------------------------------------


def test_it_has_every_name_of_the_standard_module():
    """Otherwise code that imports it instead of socket fails with AttributeError."""
    missing = [name for name in vars(std) if not name.startswith("__") and not hasattr(socket, name)]
    assert not missing
    assert set(std.__all__) <= {name for name in dir(socket)}
    for name in (
        "gaierror",
        "herror",
        "timeout",
        "error",
        "AF_INET",
        "SOL_SOCKET",
        "SocketKind",
        "inet_aton",
        "SocketIO",
    ):
        assert getattr(socket, name) is getattr(std, name), "one class of errors, not two"


def test_everything_that_makes_sockets_makes_green_ones():
    """Otherwise a socket that blocks its thread slips in."""

    def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()) as client:
                peer, address = server.accept()
                with peer, client.dup() as twin, socket.fromfd(client.fileno(), client.family, client.type) as third:
                    assert address == client.getsockname()
                    for sock in (server, client, peer, twin, third):
                        assert type(sock) is socket.socket and isinstance(sock, std.socket)
                    twin.sendall(b"1")
                    third.sendall(b"2")
                    assert peer.recv(1) + peer.recv(1) == b"12"
        a, b = socket.socketpair()
        with a, b:
            assert type(a) is type(b) is socket.socket
        with socket.socket(fileno=socket.socket().detach()) as adopted:
            assert (adopted.family, adopted.type) == (socket.AF_INET, socket.SOCK_STREAM)

    run(main)


@pytest.mark.parametrize(
    "value", [None, 0, 0.0, 3, 2.5, True, -1, -0.5, float("nan"), float("inf"), 1e300, "1", [], 10**30]
)
def test_settimeout_judges_its_argument_as_the_standard_one_does(value: Any):
    """Code that relies on what is accepted, or on which error comes, must not notice a difference."""

    def outcome(sock: std.socket) -> Any:
        try:
            sock.settimeout(value)
        except Exception as exc:
            return type(exc)
        return sock.gettimeout(), sock.timeout, sock.getblocking()

    with std.socket() as a, socket.socket() as b:
        assert outcome(a) == outcome(b)


def test_what_the_user_sets_is_kept_apart_from_what_the_system_has():
    """The system's socket is non-blocking, always; the user sees what he has set; `detach` gives it back like that."""
    with socket.socket() as sock:
        assert sock.gettimeout() is None and sock.getblocking() and sock.timeout is None
        for value in (5.0, 0.0, None):
            sock.settimeout(value)
            assert sock.gettimeout() == value
            assert not os.get_blocking(sock.fileno())
        sock.setblocking(False)
        assert sock.gettimeout() == 0.0 and not sock.getblocking()
        sock.setblocking(True)
        assert sock.gettimeout() is None
        with sock.dup() as twin:
            assert twin.gettimeout() is None
    for value, blocking in ((None, True), (0.0, False), (4.0, False)):
        sock = socket.socket()
        sock.settimeout(value)
        fd = sock.detach()
        assert sock.fileno() == -1 and os.get_blocking(fd) is blocking
        os.close(fd)
    std.setdefaulttimeout(7)
    try:
        with socket.socket() as sock:
            assert sock.gettimeout() == 7.0
            assert socket.getdefaulttimeout() == 7.0
    finally:
        std.setdefaulttimeout(None)


@pytest.mark.parametrize("how", ["dup", "fromfd"])
def test_a_detached_twin_leaves_the_others_as_they_are(how: str):
    """The number that is given back is made blocking, and so is the socket it was a duplicate of: it stops its machine."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            twin = a.dup() if how == "dup" else socket.fromfd(a.fileno(), a.family, a.type)
            twin.settimeout(None)
            fd = twin.detach()
            a.settimeout(0.01)
            with pytest.raises(TimeoutError):
                a.recv(1)
            with socket.socket(fileno=fd) as again:
                b.send(b"x")
                assert again.recv(1) == b"x"
            b.dup().close()
            fd = b.detach()  # the last one
            blocking = os.get_blocking(fd)
            os.close(fd)
            assert blocking

    run(main, procs=1)


def test_bad_use_gives_the_standard_errors():
    """The errors of a closed socket, of a bad address, of missing arguments are the standard ones."""
    sock = socket.socket()
    sock.close()
    for call in (
        lambda: sock.recv(1),
        lambda: sock.send(b"x"),
        lambda: sock.accept(),
        lambda: sock.connect(("127.0.0.1", 1)),
    ):
        with pytest.raises(OSError) as info:
            call()
        assert info.value.errno == errno.EBADF
    assert sock.fileno() == -1 and "[closed]" in repr(sock)
    sock.close()
    with socket.socket() as sock:
        for args in ((), ("127.0.0.1",), (("127.0.0.1",),), (("127.0.0.1", "http"),), ((1, 2),)):
            with pytest.raises(TypeError):
                sock.connect(*args)
            with pytest.raises(TypeError):
                run(lambda args=args: sock.connect(*args))
        with pytest.raises(TypeError):
            sock.sendto(b"x")
        with pytest.raises(TypeError):
            sock.recv("1")
        with pytest.raises(TypeError):
            sock.sendall("text")
        with pytest.raises(ValueError):
            sock.recv(-1)
    with pytest.raises(OSError):
        socket.socket(fileno=10**6)


# --- waiting ----------------------------------------------------------------------------------------------------------

RECEIVERS: dict[str, Callable[[std.socket], bytes]] = {
    "recv": lambda s: s.recv(5),
    "recv_into": lambda s: (lambda b: bytes(b[: s.recv_into(b)]))(bytearray(5)),
    "recv_into nbytes": lambda s: (lambda b: bytes(b[: s.recv_into(b, 5)]))(bytearray(9)),
    "recvfrom": lambda s: s.recvfrom(5)[0],
    "recvfrom_into": lambda s: (lambda b: bytes(b[: s.recvfrom_into(b)[0]]))(bytearray(5)),
    "recvmsg": lambda s: s.recvmsg(5)[0],
    "recvmsg_into iterator": lambda s: (lambda b: bytes(b[: s.recvmsg_into(iter([b]))[0]]))(bytearray(5)),
    "recvmsg_into": lambda s: (lambda b: bytes(b[: s.recvmsg_into([b])[0]]))(bytearray(5)),
    "makefile": lambda s: s.makefile("rb", buffering=0).read(5),
    "makefile line": lambda s: s.makefile("rb").readline(),
}

SENDERS: dict[str, Callable[[std.socket, bytes], int]] = {
    "send": lambda s, data: s.send(data),
    "sendall": lambda s, data: s.sendall(data) or len(data),
    "sendmsg": lambda s, data: s.sendmsg([data[:100], data[100:]]),
    "sendmsg iterator": lambda s, data: s.sendmsg(iter([data[:100], data[100:]])),
    "makefile": lambda s, data: s.makefile("wb", buffering=0).write(data),
}


@pytest.mark.parametrize("how", RECEIVERS)
@pytest.mark.parametrize("timeout", [None, 30.0])
def test_a_receive_parks(how: str, timeout: float | None):
    """The sender on the same P gets to run while the receiver waits; the data is whole."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            a.settimeout(timeout)
            go(b.sendall, b"data\n")
            assert RECEIVERS[how](a) == b"data\n"

    run(main, procs=1)


@pytest.mark.parametrize("how", SENDERS)
def test_a_send_into_a_full_buffer_parks(how: str):
    """The receiver on the same P gets to run while the sender waits for room."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            n = full(a)
            g = go(drain, b, n)
            sent = SENDERS[how](a, bytes(1000))
            assert 0 < sent <= 1000
            g.join()
            drain(b, sent)

    run(main, procs=1)


@pytest.mark.parametrize("how", [*RECEIVERS, "accept"])
def test_a_receive_times_out(how: str):
    """The standard time-out, as the standard exception, and the socket is as before."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b, socket.create_server(("127.0.0.1", 0)) as server:
            a.settimeout(0.01)
            server.settimeout(0.01)
            with pytest.raises(socket.timeout, match="timed out"):
                server.accept() if how == "accept" else RECEIVERS[how](a)
            b.send(b"late\n")
            assert a.recv(5) == b"late\n"

    run(main)


@pytest.mark.parametrize("how", SENDERS)
def test_a_send_times_out(how: str):
    """The same for sends into a full buffer."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            full(a)
            a.settimeout(0.01)
            with pytest.raises(TimeoutError, match="timed out"):
                SENDERS[how](a, b"x")

    run(main)


@pytest.mark.parametrize("value", [0, "dontwait"])
def test_non_blocking_is_non_blocking(value: Any):
    """Who asked not to wait gets BlockingIOError at once, as from the standard socket."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            flags = socket.MSG_DONTWAIT if value else 0
            if not value:
                a.settimeout(0)
            for call in (lambda: a.recv(1, flags), lambda: a.recv_into(bytearray(1), 1, flags)):
                with pytest.raises(BlockingIOError):
                    call()
            full(a)
            with pytest.raises(BlockingIOError):
                a.send(b"x", flags)
            if not value:
                with pytest.raises(BlockingIOError):
                    a.sendall(b"x")
                with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
                    server.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        server.accept()
                    client.setblocking(False)
                    assert client.connect_ex(server.getsockname()) in (0, errno.EINPROGRESS)

    run(main)


def test_datagrams(procs: int):
    """sendto, recvfrom and connected datagram sockets; a name as address."""

    def main() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
            a.bind(("localhost", 0))
            b.bind(("127.0.0.1", 0))
            g = go(a.recvfrom, 100)
            assert b.sendto(b"hello", ("localhost", a.getsockname()[1])) == 5
            assert g.result() == (b"hello", b.getsockname())
            assert b.sendto(b"flags", 0, a.getsockname()) == 5
            assert b.sendmsg([b"m", b"sg"], [], 0, ("localhost", a.getsockname()[1])) == 3
            assert a.recv(100) + a.recv(100) == b"flagsmsg"

    run(main, procs=procs)


# --- connecting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_UNIX"])
def test_echo(procs: int, family: str, tmp_path):
    """Accept, connect, send and receive, many connections at a time: every byte comes back."""
    if family == "AF_INET6" and not std.has_ipv6:
        pytest.skip("no IPv6 here")

    def echo(sock: std.socket) -> None:
        with sock:
            while data := sock.recv(1000):
                sock.sendall(data)

    def serve(server: std.socket) -> None:
        while True:
            go(echo, server.accept()[0])

    def client(address: Any, seed: int) -> None:
        data = random.Random(seed).randbytes(20_000)
        with socket.socket(getattr(socket, family)) as sock:
            sock.connect(address)
            g = go(sock.sendall, data)
            got = bytearray()
            while len(got) < len(data):
                got += sock.recv(4000)
            g.join()
            assert got == data

    def main() -> None:
        with socket.socket(getattr(socket, family)) as server:
            server.bind({"AF_INET": ("127.0.0.1", 0), "AF_INET6": ("::1", 0), "AF_UNIX": str(tmp_path / "s")}[family])
            server.listen(100)
            g = go(serve, server)
            for client_ in [go(client, server.getsockname(), i) for i in range(20)]:
                client_.result()
            g.cancel()
            g.join()

    try:
        run(main, procs=procs)
    except OSError as exc:
        if family == "AF_INET6" and exc.errno == errno.EADDRNOTAVAIL:
            pytest.skip("no IPv6 here")
        raise


def test_connect_errors():
    """A refused connection is ConnectionRefusedError; connect_ex returns the number; both leave the socket usable."""

    def main() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            address = closed.getsockname()
            for timeout in (None, 30):
                with socket.socket() as sock:
                    sock.settimeout(timeout)
                    with pytest.raises(ConnectionRefusedError):
                        sock.connect(address)
                    assert sock.connect_ex(address) == errno.ECONNREFUSED
                    with socket.create_server(("127.0.0.1", 0)) as server:
                        assert sock.connect_ex(server.getsockname()) == 0
                        with pytest.raises(OSError) as info:
                            sock.connect(server.getsockname())
                        assert info.value.errno == errno.EISCONN
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=30)
        with socket.socket() as sock:
            with pytest.raises(socket.gaierror):
                sock.connect(("no such name.invalid", 80))
            with pytest.raises(socket.gaierror):
                sock.connect_ex(("no such name.invalid", 80))

    run(main)


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
def test_connect_to_one_who_does_not_accept(family: str, tmp_path):
    """A connect that has to wait times out, is ended by `close`, and goes through when there is room again."""

    def main() -> None:
        with socket.socket(getattr(socket, family)) as server:
            server.bind(("127.0.0.1", 0) if family == "AF_INET" else str(tmp_path / "s"))
            server.listen(0)
            socks = []
            while True:  # fill its queue
                sock = socket.socket(getattr(socket, family))
                socks.append(sock)
                sock.settimeout(0.1)
                try:
                    sock.connect(server.getsockname())
                except TimeoutError:
                    break
            sock.settimeout(0.05)
            if family == "AF_UNIX":
                assert sock.connect_ex(server.getsockname()) == errno.EAGAIN
            else:
                waiting = socket.socket()
                g = go(waiting.connect, server.getsockname())
                gort.sleep(0.02)
                waiting.close()
                assert g.exception().errno == errno.EBADF
            last = socket.socket(getattr(socket, family))
            g = go(last.connect, server.getsockname())
            for _ in range(len(socks) - 1):
                server.accept()[0].close()
            with server.accept()[0]:
                if family == "AF_UNIX":
                    g.result()  # (a TCP client asks again only after a second)
            g.cancel()
            g.join()
            for each in (*socks, last):
                each.close()

    run(main, procs=1)


def test_names_are_looked_up_without_stopping_others(monkeypatch):
    """A look-up that takes long runs on a spare thread: connect, bind, sendto, create_connection, getaddrinfo & co."""
    let_go = threading.Event()
    threads = set()
    real = std.getaddrinfo

    def slow(host: Any, *args: Any, **kw: Any) -> Any:
        threads.add(threading.get_ident())
        assert let_go.wait(30)
        return real("127.0.0.1" if host in ("slow.example", b"slow.example") else host, *args, **kw)

    monkeypatch.setattr(std, "getaddrinfo", slow)
    for name in ("gethostbyname", "gethostbyaddr", "getnameinfo"):
        monkeypatch.setattr(std, name, lambda *args, name=name: slow("127.0.0.1", 1) and name)

    def main() -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.socket() as a,
            socket.socket() as b,
            socket.socket(type=socket.SOCK_DGRAM) as c,
        ):
            port = server.getsockname()[1]
            jobs = [
                lambda: socket.create_connection(("slow.example", port)).close(),
                lambda: a.connect(("slow.example", port)),
                lambda: b.bind((b"slow.example", 0)),
                lambda: c.sendto(b"x", ("slow.example", port)),
                lambda: socket.getaddrinfo("slow.example", 80),
                lambda: socket.gethostbyname("slow.example"),
                lambda: socket.gethostbyaddr("127.0.0.1"),
                lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
            ]
            waiting = [go(job) for job in jobs]
            gort.sleep(0.01)
            assert not any(g.done() for g in waiting)
            let_go.set()
            for g in waiting:
                g.result()
            assert a.getpeername() == ("127.0.0.1", port)
            assert len(threads) == len(jobs) and threading.get_ident() not in threads

    run(main, procs=1)


# --- many at a time, the end, cancelling ------------------------------------------------------------------------------


def test_one_reads_and_one_writes_the_same_socket(procs: int, jitter):
    """Behaviour 31: they do not disturb each other, on any machines; every byte arrives in order."""
    amount = 300_000

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            data = random.Random(1).randbytes(amount), random.Random(2).randbytes(amount)

            def write(sock: std.socket, data: bytes) -> None:
                rng = random.Random(3)
                at = 0
                while at < len(data):
                    n = rng.randrange(1, 50_000)
                    sock.sendall(data[at : at + n])
                    at += n

            def read(sock: std.socket) -> bytes:
                got = bytearray()
                while len(got) < amount:
                    got += sock.recv(random.randrange(1, 30_000))
                return bytes(got)

            results = on_machines(
                procs, lambda: write(a, data[0]), lambda: write(b, data[1]), lambda: read(a), lambda: read(b)
            )
            assert results[2:] == [data[1], data[0]]

    run(main, procs=procs)


@pytest.mark.parametrize("how", ["recv", "send", "accept", "recvfrom", "makefile"])
def test_close_wakes_who_waits(procs: int, how: str):
    """They get OSError (EBADF), not a time-out and not somebody else's data, also if they are on another machine."""

    def main() -> None:
        a, b = socket.socketpair()
        server = socket.create_server(("127.0.0.1", 0))
        full(a)
        calls = {
            "recv": lambda: a.recv(1),
            "send": lambda: a.send(b"x"),
            "accept": lambda: server.accept(),
            "recvfrom": lambda: a.recvfrom(1),
            "makefile": lambda: a.makefile("rb", buffering=0).read(1),
        }

        def close() -> None:
            gort.sleep(0.02)
            if how == "makefile":
                a._real_close()  # `close` itself waits for the file, as in the standard library
            a.close()
            server.close()

        def wait() -> None:
            with pytest.raises(OSError) as info:
                calls[how]()
            assert info.value.errno == errno.EBADF

        on_machines(procs, wait, close)
        b.close()

    run(main, procs=procs)


def test_a_number_used_again_does_not_wake_the_old_waiter():
    """Behaviour 30."""

    def main() -> None:
        for _ in range(50):
            a, b = socket.socketpair()
            old = go(a.recv, 10)
            gort.gosched()
            number = a.fileno()
            a.close()
            c, d = socket.socketpair()
            assert number in (c.fileno(), d.fileno())
            new = go(c.recv, 10)
            d.sendall(b"new")
            assert new.result() == b"new"
            assert old.exception().errno == errno.EBADF
            for sock in (b, c, d):
                sock.close()

    run(main, procs=1)


def test_the_other_side_goes_away():
    """The end of a stream is b"", a reset is ConnectionResetError, a write to nobody BrokenPipeError."""

    def pair() -> tuple[Any, Any]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            return client, server.accept()[0]

    def main() -> None:
        client, peer = pair()
        reader = go(client.recv, 10)
        gort.gosched()
        peer.close()
        assert reader.result() == b"" and client.recv(10) == b""
        client.close()

        client, peer = pair()
        reader = go(client.recv, 10)
        gort.gosched()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert type(reader.exception()) is ConnectionResetError
        client.close()

        client, peer = pair()
        full(client)
        writer = go(client.sendall, bytes(1 << 20))
        gort.gosched()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        assert isinstance(writer.exception(), (ConnectionResetError, BrokenPipeError))
        client.close()

        client, peer = pair()
        reader = go(client.recv, 10)
        gort.gosched()
        client.shutdown(socket.SHUT_RD)
        assert reader.result() == b""
        peer.shutdown(socket.SHUT_WR)
        client.close()
        peer.close()

    run(main)


def test_cancelling_a_receive_loses_nothing(procs: int, jitter):
    """Receivers are cancelled all the time, at any moment; every message still comes to somebody, once."""
    total = 3000 if os.environ.get("GORT_STRESS") else 400

    def main() -> None:
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with a, b:
            seen: list[int] = []

            def receive() -> None:
                while True:
                    seen.append(int(a.recv(100)))

            def send() -> None:
                for i in range(total):
                    b.send(b"%d" % i)
                    if i % 7 == 0:
                        gort.gosched()

            sender = go(send)
            rng = random.Random(1)
            while not sender.done() or len(seen) < total:
                receivers = [go(receive) for _ in range(2)]
                gort.sleep(rng.choice([0, 0, 0.0005, 0.001]))
                for g in receivers:
                    g.cancel()
                for g in receivers:
                    g.join()
            assert sorted(seen) == list(range(total))

    run(main, procs=procs)


def test_a_cancelled_wait_and_a_time_limit_reach_every_operation():
    """`Goroutine.cancel` and `gort.timeout` end a wait on a socket, and the socket can be used afterwards."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b, socket.create_server(("127.0.0.1", 0)) as server:
            full(b)
            for call in (
                lambda: a.makefile("rb").readline() and a.recv(1),
                server.accept,
                lambda: b.sendall(bytes(10**7)),
            ):
                waiting: list[int] = []

                def wait(call: Any = call, waiting: list[int] = waiting) -> None:
                    try:
                        waiting.append(1)
                        while True:
                            call()
                    finally:
                        waiting.append(2)

                g = go(wait)
                gort.sleep(0.005)
                g.cancel()
                g.join()
                assert waiting == [1, 2]
            with pytest.raises(TimeoutError), gort.timeout(0.01):
                server.accept()
            with socket.create_connection(server.getsockname()):
                server.accept()[0].close()

    run(main)


def test_a_cancelled_create_connection_leaves_no_socket_open():
    """Not even while its exception, whose frames know the socket, is still at hand."""

    def main() -> None:
        def numbers() -> list[str]:
            return os.listdir("/dev/fd")

        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            filling = []
            while True:
                filling.append(socket.socket())
                filling[-1].settimeout(0.05)
                try:
                    filling[-1].connect(server.getsockname())
                except TimeoutError:
                    break
            before = numbers()
            waiting = [go(socket.create_connection, server.getsockname()) for _ in range(5)]
            gort.sleep(0.005)
            assert len(numbers()) == len(before) + 5
            for g in waiting:
                g.cancel()
            errors = [g.exception() for g in waiting]
            assert {type(error) for error in errors} == {gort.Cancelled}
            assert numbers() == before
            with pytest.raises(TimeoutError), gort.timeout(0.005):
                socket.create_connection(server.getsockname())
            with pytest.raises(TimeoutError, match="timed out"):
                socket.create_connection(server.getsockname(), 0.005)
            assert numbers() == before
            for sock in filling:
                sock.close()

    run(main, procs=1)


@pytest.mark.parametrize(
    "address",
    [
        ("a\0b", 80),
        ("", 80),
        ("<broadcast>", 80),
        ("::1", 80),
        ("999.1.1.1", 80),
        ("\u00e9", 80),
        (b"\xff", 80),
        ("x" * 300, 80),
        ("127.1", 1),
        ("127.0.0.1", 70000),
        ("127.0.0.1", -1),
        (None, 80),
        ("127.0.0.1", "80"),
        ["127.0.0.1", 80],
        "x",
        (),
        (bytearray(b"x y"), 1),
    ],
)
def test_odd_addresses_give_the_standard_errors(address: Any):
    """Also those that are looked up before, in another place than the standard socket does it."""

    def outcome(module: Any, name: str) -> Any:
        with module.socket() as sock:
            sock.settimeout(30)
            try:
                return getattr(sock, name)(address)
            except Exception as exc:
                return type(exc), str(exc)

    for name in ("connect", "connect_ex"):
        expected = outcome(std, name)
        got = run(lambda name=name: outcome(socket, name))
        if name == "connect_ex" and isinstance(got, tuple):
            got = (got[0], got[1].replace("connect()", "connect_ex()"))
        assert got == expected


def test_on_a_plain_thread_it_is_a_standard_socket():
    """No goroutine, no runtime: waits block the thread, time-outs work, and goroutines and threads can talk."""
    a, b = socket.socketpair()
    with a, b:
        thread = threading.Thread(target=lambda: b.sendall(a_message))
        a_message = bytes(1_000_000)
        thread.start()
        drain(a, len(a_message))
        thread.join()
        a.settimeout(0.01)
        with pytest.raises(TimeoutError, match="timed out"):
            a.recv(1)
        a.settimeout(None)
        with socket.create_server(("localhost", 0)) as server:
            thread = threading.Thread(target=lambda: socket.create_connection(server.getsockname()).close())
            thread.start()
            server.accept()[0].close()
            thread.join()

        def main() -> bytes:
            thread = threading.Thread(target=lambda: (b.recv(1), b.sendall(b"from a thread")))
            thread.start()
            g = go(a.recv, 100)
            gort.gosched()
            a.sendall(b"x")
            return g.result()

        assert run(main) == b"from a thread"


def test_a_plain_thread_waits_without_a_descriptor_to_be_had():
    """At the limit of open files a receive fails, or does not end when its time is over, instead of waiting."""
    outcomes: Any = queue.Queue()
    a, b = socket.socketpair()

    def receives() -> None:
        for timeout in (0.05, None):
            a.settimeout(timeout)
            try:
                outcomes.put(a.recv(1))
            except Exception as exc:
                outcomes.put(exc)

    with a, b:
        with few_descriptors():
            with pytest.raises(OSError):
                os.dup(0)
            thread = threading.Thread(target=receives)
            thread.start()
            assert isinstance(outcomes.get(timeout=20), TimeoutError)
            b.send(b"x")
            assert outcomes.get(timeout=20) == b"x"
            thread.join()


def test_a_busy_receiver_gives_way():
    """Two goroutines that always find data must not starve a third: socket calls look whether the slice is over."""

    def main() -> int:
        a, b = socket.socketpair()
        with a, b:

            def spin() -> None:
                while True:
                    b.send(b"x")
                    a.recv(1)

            spinner = go(spin)
            for _ in range(5):
                gort.sleep(0.001)
            spinner.cancel()
            return 5

    assert run(main, procs=1) == 5


# --- files over sockets, and the rest ---------------------------------------------------------------------------------


def test_two_goroutines_may_use_one_file(procs: int):
    """With the standard buffers the second would get RuntimeError, or block the thread that the first needs."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            lines = [f"{i} {'x' * (i % 50)}\n" for i in range(300)]
            with a.makefile("r", encoding="ascii") as reading, b.makefile("w", encoding="ascii") as writing:

                def write(part: list[str]) -> None:
                    for line in part:
                        writing.write(line)
                        writing.flush()

                got: list[str] = []

                def read() -> None:
                    while line := reading.readline():
                        got.append(line)

                readers = [go(read) for _ in range(3)]
                writers = [go(write, lines[i::3]) for i in range(3)]
                for g in writers:
                    g.result()
                b.shutdown(socket.SHUT_WR)
                for g in readers:
                    g.result()
                assert sorted(got) == sorted(lines)

    run(main, procs=procs)


def test_makefile_modes_and_errors():
    """All the modes of makefile; a time-out in the middle is remembered, as in the standard library."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            with a.makefile("rwb") as both, b.makefile("rw", encoding="utf-8", newline="\n") as text:
                g = go(both.readline)
                text.write("grüß\n")
                text.flush()
                assert g.result() == "grüß\n".encode()
                both.write(b"back\n")
                both.flush()
                assert text.readline() == "back\n"
            with pytest.raises(ValueError):
                a.makefile("x")
            with pytest.raises(ValueError):
                a.makefile("r", buffering=0)
            a.settimeout(0.01)
            with a.makefile("rb") as late:
                with pytest.raises(TimeoutError):
                    late.read(1)
                with pytest.raises(OSError, match="timed out object"):
                    late.read(1)
            a.close()
            assert a.fileno() == -1

    run(main)


def test_a_dropped_file_is_flushed():
    """As with the standard library, a writer that is dropped without being closed has sent what it had."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            file = a.makefile("w")
            file.write("kept")
            del file
            gc.collect()
            assert b.recv(10) == b"kept"

    run(main)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_dropped_sockets_are_closed():
    """Sockets that were waited for and dropped without `close` leave no descriptor, and their numbers work again."""

    def main() -> None:
        for _ in range(100):
            a, b = socket.socketpair()
            g = go(a.recv, 1)
            gort.gosched()
            b.send(b"x")
            assert g.result() == b"x"
            del g

    run(main)


def test_sendfile(tmp_path):
    """A regular file, parts of one, something that is no file; the sender parks, the position is right after it."""
    path = tmp_path / "f"
    data = random.Random(5).randbytes(1_500_000)
    path.write_bytes(data)

    def main() -> None:
        import io

        a, b = socket.socketpair()
        with a, b, open(path, "rb") as file:

            def received(n: int) -> bytes:
                got = bytearray()
                while len(got) < n:
                    got += b.recv(1 << 16)
                return bytes(got)

            for offset, count in ((0, None), (1000, None), (5, 100_000)):
                expected = data[offset:][:count]
                g = go(received, len(expected))
                assert a.sendfile(file, offset, count) == len(expected)
                assert g.result() == expected
                assert file.tell() == offset + len(expected)
            g = go(received, 500_000)
            assert a.sendfile(io.BytesIO(data[:500_000])) == 500_000
            assert g.result() == data[:500_000]
            a.settimeout(0.01)
            with pytest.raises(TimeoutError):
                a.sendfile(file)
            a.settimeout(0)
            with pytest.raises(ValueError):
                a.sendfile(file)
            with open(path) as text, pytest.raises(ValueError):
                a.sendfile(text)

    run(main, procs=1)


def test_descriptors_can_be_sent():
    """send_fds and recv_fds are the standard ones over a socket that parks."""

    def main() -> None:
        a, b = socket.socketpair()
        read, write = os.pipe()
        with a, b:
            g = go(socket.recv_fds, a, 100, 1)
            gort.gosched()
            socket.send_fds(b, [b"here"], [read])
            data, fds, _flags, _address = g.result()
            assert data == b"here"
            os.write(write, b"through")
            assert os.read(fds[0], 100) == b"through"
            for fd in (read, write, *fds):
                os.close(fd)

    run(main, procs=1)


def test_many_time_outs_at_once():
    """Two thousand receives that time out at the same instant: each gets its TimeoutError, none is lost."""

    def main() -> None:
        a, b = socket.socketpair()
        with a, b:
            a.settimeout(0.05)
            waiting = [go(a.recv, 1) for _ in range(2000)]
            assert {type(g.exception()) for g in waiting} == {TimeoutError}

    run(main)


@pytest.mark.skipif(not hasattr(std, "MSG_WAITALL"), reason="this system has no MSG_WAITALL")
@pytest.mark.parametrize("module", [std, socket], ids=["standard", "green"])
def test_waitall_waits_for_all(module: Any) -> None:
    """Broken: a protocol that takes its records whole with MSG_WAITALL gets pieces."""

    def main() -> None:
        a, b = module.socketpair()
        with a, b:
            writer = threading.Thread(target=lambda: [b.send(bytes([65 + i])) for i in range(10)] and b.close())
            writer.start()
            assert a.recv(4, std.MSG_WAITALL) == b"ABCD"
            buffer = bytearray(5)
            assert a.recv_into(buffer, 4, std.MSG_WAITALL) == 4 and buffer == b"EFGH\0"
            assert a.recv(4, std.MSG_WAITALL) == b"IJ"  # all there is
            writer.join()
            with pytest.raises(ValueError):
                a.recv(-1, std.MSG_WAITALL)

    run(main, procs=1)


@pytest.mark.skipif(not hasattr(std, "MSG_DONTWAIT"), reason="this system has no MSG_DONTWAIT")
@pytest.mark.parametrize("module", [std, socket], ids=["standard", "green"])
def test_dontwait_is_for_sockets_without_a_timeout(module: Any) -> None:
    """Broken: sendall waits though it must not; or a socket with a time-out does not wait, as the standard one does."""

    def main() -> None:
        a, b = module.socketpair()
        with a, b:
            with pytest.raises(BlockingIOError):
                a.sendall(b"x" * 10_000_000, std.MSG_DONTWAIT)
            with pytest.raises(BlockingIOError):
                a.recv(1, std.MSG_DONTWAIT)
            a.settimeout(0.01)
            with pytest.raises(TimeoutError):
                a.recv(1, std.MSG_DONTWAIT)

    run(main, procs=1)


@pytest.mark.parametrize("module", [std, socket], ids=["standard", "green"])
def test_the_system_s_time_limits_hold(module: Any, tmp_path) -> None:
    """Broken: a limit set by SO_RCVTIMEO or SO_SNDTIMEO is no limit, a program that relies on it waits for ever."""
    limit = struct.pack("ll", 0, 50_000)

    def main() -> None:
        a, b = module.socketpair()
        with a, b:
            for option in (std.SO_RCVTIMEO, std.SO_SNDTIMEO):
                a.setsockopt(std.SOL_SOCKET, option, limit)
            start = time.monotonic()
            for call in (lambda: a.recv(1), lambda: a.recv_into(bytearray(1)), lambda: a.sendall(bytes(10_000_000))):
                with pytest.raises(BlockingIOError) as caught:
                    call()
                assert caught.value.errno == errno.EAGAIN
            assert time.monotonic() - start >= 0.15
            timer = threading.Timer(0.1, b.send, (b"x",))
            timer.start()
            a.setsockopt(std.SOL_SOCKET, std.SO_RCVTIMEO, bytes(16))  # none any more
            assert a.recv(1) == b"x"
            timer.join()
            a.settimeout(0.01)  # a time-out of the socket object's own comes first
            with pytest.raises(TimeoutError):
                a.recv(1)
        with module.socket(std.AF_UNIX) as listener, module.socket(std.AF_UNIX) as c1, module.socket(std.AF_UNIX) as c2:
            listener.setsockopt(std.SOL_SOCKET, std.SO_RCVTIMEO, limit)
            listener.bind(str(tmp_path / "s"))
            listener.listen(0)
            with pytest.raises(BlockingIOError):
                listener.accept()
            c1.connect(str(tmp_path / "s"))
            c2.setsockopt(std.SOL_SOCKET, std.SO_SNDTIMEO, limit)
            with pytest.raises(BlockingIOError):
                c2.connect(str(tmp_path / "s"))

    run(main, procs=1)


@pytest.mark.skipif(not hasattr(std, "MSG_ERRQUEUE"), reason="this system has no MSG_ERRQUEUE")
@pytest.mark.parametrize("module", [std, socket], ids=["standard", "green"])
def test_the_queue_of_errors_is_not_waited_for(module: Any) -> None:
    """Broken: a look whether there are errors (MSG_ERRQUEUE), which never waits, waits for one."""

    def main() -> None:
        with module.socket(std.AF_INET, std.SOCK_DGRAM) as sock:
            with pytest.raises(BlockingIOError):
                sock.recvmsg(1, 100, std.MSG_ERRQUEUE)

    run(main, procs=1)
