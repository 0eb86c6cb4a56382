"""gort.net as its users see it: connections, listeners, dialling, serving, TLS.  Faults are in test_net_faults.py."""

import array
import errno
import fcntl
import os
import pickle
import random
import socket
import ssl
import subprocess
import sys
import termios
import threading
import time
import warnings
from pathlib import Path

import pytest

import gort
from gort import net
from gort.net import address, resolve
from gort.runtime.blocking import inquire

from nettools import HOSTS, left_nothing, link_local, unused_port  # noqa: F401  (left_nothing is a fixture)
from settling import settle, start, thread

pytestmark = pytest.mark.usefixtures("left_nothing")


def run(fn, procs=None):
    return gort.run(fn, procs=procs)


def serving(handler, at="127.0.0.1:0", **kw):
    """A server in a goroutine: (listener, its goroutine)."""
    tls = kw.pop("tls", None)
    listener = net.listen(at, tls=tls)
    return listener, gort.go(net.serve, listener, handler, **kw)


def echo(conn):
    while data := conn.read():
        conn.write(data)


class Server:
    """``with Server(handler) as addr: ...``"""

    def __init__(self, handler, at="127.0.0.1:0", **kw):
        self.listener, self.g = serving(handler, at, **kw)

    def __enter__(self):
        return self.listener.addr

    def __exit__(self, *_):
        self.listener.close()
        self.g.result(20)


# -- reading and writing ------------------------------------------------------------------------------------------


def test_echo(procs):
    """What one side writes is not what the other reads."""

    def main():
        with Server(echo) as addr, net.dial(addr) as conn:
            for size in (1, 10, 65535, 65536, 65537, 1_000_000):
                data = random.randbytes(size)
                g = gort.go(conn.write, data)
                assert conn.read_exactly(size) == data
                g.result(5)

    run(main, procs)


@pytest.mark.parametrize("at", ["127.0.0.1:0", "[::1]:0", ":0", "unix", "unix:@gort-test-%d"])
def test_every_kind_of_address(at, tmp_path):
    """A kind of address cannot be listened at and dialled."""
    if at == "[::1]:0" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    if at == "unix":
        at = tmp_path / "socket"
    elif "%d" in at:
        at %= os.getpid()

    def main():
        with Server(echo, at) as addr:
            if at == ":0":
                for host in HOSTS:
                    with net.dial((host, addr[1])) as conn:
                        conn.write(b"hello")
                        assert conn.read_exactly(5) == b"hello"
            else:
                with net.dial(addr) as conn:
                    assert "closed" not in repr(conn)
                    conn.write(b"hello")
                    assert conn.read_exactly(5, timeout=5) == b"hello"

    run(main)
    if isinstance(at, Path):
        assert not at.exists()


def pipe_of_conns():
    a, b = socket.socketpair()
    return net.Conn(a), net.Conn(b)


def pipe_of_tls(certificate):
    a, b = pipe_of_conns()
    g = gort.go(net.start_tls, b, certificate.server(), server_side=True)
    a = net.start_tls(a, certificate.client(), server_hostname="gort.test")
    return a, g.result(5)


def tcp_pair():
    with net.listen("127.0.0.1:0") as listener:
        a = net.dial(listener.addr)
        return a, listener.accept(5)


def unread(conn):
    """How many bytes wait in the system."""
    n = array.array("i", [0])
    fcntl.ioctl(conn.fileno(), termios.FIONREAD, n)
    return n[0]


def send_whole(a, b, data):
    """Send, and wait until all of it waits to be read."""
    a.write(data)
    end = time.monotonic() + 20
    while unread(b) < len(data):
        assert time.monotonic() < end
        gort.sleep(0.001)


@pytest.mark.parametrize("size", [1, 447, 448, 449, 2000, 65535, 65536])
def test_a_read_returns_all_there_is(size):
    """`read` asks for a few bytes first; then it does not return the rest, or splits what would fit."""

    def main():
        for make in (pipe_of_conns, tcp_pair):
            a, b = make()
            with a, b:
                for k in (size, 3, size, size, *[1] * 12, size):
                    waiting = gort.go(b.read)
                    gort.gosched()  # so that it waits, and the next read takes the short way
                    a.write(b"?")
                    assert waiting.result(20) == b"?"
                    send_whole(a, b, b"y" * k)
                    assert b.read() == b"y" * k
                send_whole(a, b, b"z" * 2000)
                assert [len(b.read(n)) for n in (300, 500, 700, 1000)] == [300, 500, 700, 500]
                send_whole(a, b, b"e" * 448)
                a.close_write()
                gort.sleep(0.01)
                assert b.read() == b"e" * 448 and b.read() == b"" and b.read() == b""

    run(main)


@pytest.mark.parametrize("size", [447, 448, 449])
def test_a_reset_behind_data_is_told_once_they_are_read(size):
    """`read` looks for more behind a full read, and what it meets there is lost, or the data are."""

    def main():
        a, b = tcp_pair()
        with b:
            b.write(b"unread, so that closing resets")
            send_whole(a, b, b"x" * size)
            a.close()
            gort.sleep(0.02)
            assert b.read() == b"x" * size
            with pytest.raises(ConnectionResetError):
                b.read()
            assert b.read() == b""

    run(main)


def test_reading_ahead_loses_nothing():
    """read_until, read_exactly, lines and read lose or repeat what was read ahead."""

    def main():
        for make in (pipe_of_conns, tcp_pair):
            a, b = make()
            with a, b:
                a.write(b"one\ntwo\r\n\r\n12345rest")
                assert b.read_until() == b"one\n"
                assert b.read_until(b"\r\n\r\n") == b"two\r\n\r\n"
                assert b.read_exactly(3) == b"123"
                assert b.read(1) == b"4"
                with pytest.raises(TimeoutError):
                    b.read_exactly(100, timeout=0.02)
                with pytest.raises(TimeoutError):
                    b.read_until(b"#", timeout=0.02)
                assert b.read() == b"5rest"
                a.write(b"x\ny\n" + b"z")
                a.close_write()
                assert list(b.lines()) == [b"x\n", b"y\n", b"z"]
                assert b.read() == b"" and b.read() == b""
                assert b.read_exactly(0) == b""
                with pytest.raises(net.IncompleteRead) as info:
                    b.read_exactly(2)
                assert info.value.partial == b""
                b.write(b"abc")
                b.close_write()
                with pytest.raises(net.IncompleteRead) as info:
                    a.read_exactly(4)
                assert info.value.partial == b"abc" and isinstance(info.value, EOFError)

    run(main)


def test_a_separator_across_reads_is_found():
    """A separator of several bytes that comes in pieces is missed."""

    def main():
        a, b = tcp_pair()
        with a, b:
            g = gort.go(b.read_until, b"ABCD")
            for byte in b"xxABCABCD":
                a.write(bytes([byte]))
                gort.sleep(0.002)
            assert g.result(5) == b"xxABCABCD"
            g = gort.go(b.read_all)
            a.write(b"1" * 100_000)
            a.close_write()
            assert g.result(5) == b"1" * 100_000

    run(main)


def test_limits():
    """A peer that sends no separator fills the memory."""

    def main():
        a, b = tcp_pair()
        with a, b:
            a.write(b"x" * 1000 + b"\n")
            with pytest.raises(net.LimitExceeded, match="within 100 bytes"):
                b.read_until(limit=100)
            with pytest.raises(net.LimitExceeded):
                b.read_until(limit=1000)
            assert len(b.read_until(limit=1001)) == 1001
            a.write(b"x" * 1000)
            a.close_write()
            with pytest.raises(net.LimitExceeded):
                b.read_all(limit=999)
            assert b.read_all(limit=1000) == b"x" * 1000

    run(main)


def test_writes_take_turns(procs, jitter):
    """Two goroutines' writes mingle when the first does not fit into the socket's buffer."""
    size, writers = 300_000, 6

    def main():
        a, b = tcp_pair()
        with a, b:
            def write(i):
                if i % 2:
                    a.writev([bytes([i]) * (size // 3)] * 3)
                else:
                    a.write(bytes([i]) * size)

            gs = [gort.go(write, i) for i in range(writers)]
            for _ in range(writers):
                block = b.read_exactly(size)
                assert block.count(block[0]) == size
            for g in gs:
                g.result(5)

    run(main, procs)


def test_write_takes_every_buffer():
    """A buffer that is no bytes is cut short, or refused without a reason."""

    def main():
        a, b = tcp_pair()
        with a, b:
            numbers = array.array("i", range(1000))
            a.write(memoryview(numbers))
            assert b.read_exactly(4000) == numbers.tobytes()
            a.write(bytearray(b"abc"))
            a.write(b"")
            a.writev([])
            a.writev([b"", b"d", bytearray(b"ef"), memoryview(b"gh")])
            assert b.read_exactly(8) == b"abcdefgh"
            a.writev([b"%d " % i for i in range(5000)])  # more than the system takes in one call
            expected = b"".join(b"%d " % i for i in range(5000))
            assert b.read_exactly(len(expected)) == expected
            for bad in ("text", None, 3):
                with pytest.raises(TypeError, match="data must be bytes.*encode a str"):
                    a.write(bad)
            a.write(b"still in order")
            assert b.read_exactly(14) == b"still in order"

    run(main)


@pytest.mark.parametrize("tls", [False, True])
def test_sendfile(tls, tmp_path, certificate):
    """A file's bytes do not arrive, or not those that were asked for."""
    data = random.randbytes(3_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)

    def main():
        def handler(conn):
            with open(path, "rb") as f:
                f.seek(5)
                assert conn.sendfile(f) == len(data)
                assert f.tell() == 5
                assert conn.sendfile(f, 100, 1000) == 1000
                assert conn.sendfile(f.fileno(), len(data) - 10, 1000) == 10
                assert conn.sendfile(f, len(data)) == 0

        with Server(handler, tls=certificate.server() if tls else None) as addr:
            with net.dial(addr, tls=certificate.client() if tls else None, server_hostname="gort.test") as conn:
                assert conn.read_all() == data + data[100:1100] + data[-10:]

    run(main)


def test_half_close():
    """A side that has ended its writing can no longer read."""

    def main():
        def handler(conn):
            conn.write(conn.read_all()[::-1])

        with Server(handler) as addr, net.dial(addr) as conn:
            conn.write(b"abc")
            conn.close_write()
            assert conn.read_all() == b"cba"
            with pytest.raises(BrokenPipeError) as info:
                conn.write(b"more")
            assert info.value.written == 0
            conn.close_read()
            assert conn.read() == b""

    run(main)


def test_a_short_read_then_the_end():
    """The peer's end, when it arrives together with the last data, is not seen: the next read waits for ever."""

    def main():
        for wait in (0, 0.01):
            for first in (True, False):
                a, b = tcp_pair()
                with a, b:
                    if first:  # so that b is known to the poller, and has made a short read
                        a.write(b"0")
                        assert b.read() == b"0"
                        g = gort.go(b.read)
                        a.write(b"1")
                        assert g.result(5) == b"1"
                    g = gort.go(b.read)
                    gort.sleep(wait)
                    a.write(b"last")
                    a.close()
                    gort.sleep(wait)
                    assert g.result(5) == b"last"
                    assert b.read(timeout=5) == b""

    run(main)


def test_urgent_data_and_the_short_read():
    """A read that ends early at urgent data is taken for one that has emptied the socket."""

    def main():
        a, b = tcp_pair()
        with a, b:
            a.write(b"0")
            assert b.read() == b"0"
            for _ in range(5):
                a.write(b"before")
                a.socket.send(b"!", socket.MSG_OOB)
                a.write(b"after")
                gort.sleep(0.02)
                got = b""
                while len(got) < 11:
                    got += b.read(timeout=5)
                assert got == b"beforeafter"

    run(main)


def test_a_descriptor_passed_over_a_unix_socket_and_the_short_read():
    """A read that ends early at a passed descriptor is taken for one that has emptied the socket."""

    def main():
        a, b = pipe_of_conns()
        with a, b:
            r, w = os.pipe()
            a.write(b"0")
            assert b.read() == b"0"
            socket.send_fds(a.socket, [b"one"], [r])
            a.write(b"two")
            got = b""
            while len(got) < 6:
                got += b.read(timeout=5)
            os.close(r)
            os.close(w)

    run(main)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 64])
def test_sizes_of_reads(n, procs):
    """Reads of just as many bytes as there are confuse the "is it empty?" of the short read."""

    def main():
        a, b = tcp_pair()
        with a, b:
            got = bytearray()
            done = gort.go(lambda: [got.extend(d) for d in iter(lambda: b.read(n), b"")])
            sent = bytearray()
            rng = random.Random(n)
            for _ in range(200):
                piece = rng.randbytes(rng.choice([1, n, n, 2 * n, 3 * n + 1]))
                sent += piece
                a.write(piece)
                if rng.random() < 0.5:
                    gort.gosched()
            a.close_write()
            done.result(20)
            assert got == sent

    run(main, procs)


def test_two_readers_get_everything(procs, jitter):
    """With several goroutines reading one connection a byte is lost, repeated or left lying."""

    def main():
        a, b = tcp_pair()
        with a, b:
            total = 200_000
            got = gort.Chan(10_000)

            def reader():
                while data := b.read(100):
                    got.send(len(data))

            gs = [gort.go(reader) for _ in range(4)]
            for _ in range(total // 100):
                a.write(b"x" * 100)
            count = 0
            while count < total:
                count += got.recv(10)
            assert count == total
            a.close_write()
            for g in gs:
                g.result(10)

    run(main, procs)


def test_two_who_read_ahead_are_told():
    """Two goroutines in read_until tear each other's data apart."""

    def main():
        a, b = tcp_pair()
        with a, b:
            g = gort.go(b.read_until)
            while g.state != "waiting":
                gort.sleep(0.001)
            with pytest.raises(gort.GortError, match="two goroutines read"):
                b.read_exactly(3)
            a.write(b"line\nmore")
            assert g.result(5) == b"line\n"
            assert b.read_exactly(4) == b"more"

    run(main)


# -- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_time_outs_and_deadlines(where):
    """Behaviour 29, through a Conn."""

    def main():
        a, b = tcp_pair()
        with a, b:
            start = time.monotonic()
            with pytest.raises(TimeoutError, match=r"read of <Conn .* timed out after 0.05 s"):
                b.read(timeout=0.05)
            assert 0.05 <= time.monotonic() - start < 3
            with pytest.raises(TimeoutError):
                b.read(timeout=0)
            with pytest.raises(TimeoutError) as info:
                a.write(b"x" * 50_000_000, timeout=0.05)
            written = info.value.written
            assert 0 < written < 50_000_000
            b.set_read_deadline(time.monotonic() - 1)
            with pytest.raises(TimeoutError, match="deadline"):  # though there is data
                b.read()
            b.set_read_deadline(None)
            assert len(b.read_exactly(written, timeout=10)) == written
            a.set_write_deadline(time.monotonic() - 1)
            with pytest.raises(TimeoutError, match="deadline"):
                a.write(b"x")
            with pytest.raises(TimeoutError, match="deadline"):
                a.writev([b"x"])
            a.set_deadline(None)
            a.write(b"x")
            assert b.read(timeout=5) == b"x"
            b.set_deadline(time.monotonic() + 0.05)
            with pytest.raises(TimeoutError, match="deadline"):
                b.read()
            with pytest.raises(TimeoutError, match="deadline"):
                b.read_until()

    run(main) if where == "goroutine" else main()


def test_what_was_read_ahead_is_no_excuse_for_a_deadline_or_a_close():
    """A loop over lines that have come goes on behind its deadline, or behind the connection's end."""

    def main():
        a, b = pipe_of_conns()
        with a, b:
            b.write(b"one\ntwo\nthree\n")
            assert a.read_until() == b"one\n"
            operations = (lambda: a.read(1), a.read_until, lambda: a.read_exactly(1), lambda: next(a.lines()), a.read_all)
            a.set_read_deadline(time.monotonic())
            for operation in operations:
                with pytest.raises(TimeoutError):
                    operation()
            a.set_read_deadline(None)
            assert a.read_until() == b"two\n" and a.read_exactly(2) == b"th"
            a.close()
            for operation in operations:
                with pytest.raises(net.ConnClosed):
                    operation()

    run(main)
    main()  # on a plain thread


def test_a_deadline_that_is_moved_ends_a_read():
    """A reader on the short way of waiting does not notice a deadline that is set later."""

    def main():
        a, b = tcp_pair()
        with a, b:
            for _ in range(3):
                a.write(b"x")
                assert b.read() == b"x"
            g = gort.go(lambda: (b.read(), b.read()))
            while g.state != "waiting":
                gort.sleep(0.001)
            a.write(b"y")  # now it waits on the short way
            gort.sleep(0.01)
            b.set_deadline(time.monotonic() + 0.02)
            assert isinstance(g.exception(5), TimeoutError)
            g = gort.go(b.read)
            b.set_deadline(None)
            a.write(b"z")
            assert b.read(timeout=5) == b"z" if g.done() else g.result(5) == b"z"

    run(main)


def test_a_time_limit_around_several_operations():
    """gort.timeout() does not reach a read."""

    def main():
        a, b = tcp_pair()
        with a, b:
            with pytest.raises(TimeoutError, match="time limit of 0.05 s"), gort.timeout(0.05):
                while True:
                    b.read()
            a.write(b"x")
            assert b.read(timeout=5) == b"x"

    run(main)


# -- the end of a connection --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_close_wakes_reader_and_writer(where, procs):
    """A read or write that waits outlives its connection, or ends without a clear error."""

    def main():
        a, b = tcp_pair()
        with a, b:
            ended = gort.Chan(4)
            begun = threading.Event()

            def reads():
                try:
                    a.read()
                    begun.set()
                    while True:
                        a.read()
                except Exception as exc:
                    ended.send(exc)

            def writes():
                try:
                    while True:
                        a.write(b"x" * 100_000)
                except Exception as exc:
                    ended.send(exc)

            goroutines, threads = [], []
            for fn in (reads, writes):
                if where == "goroutine":
                    goroutines.append(gort.go(fn))
                else:
                    threads.append(threading.Thread(target=fn))
                    threads[-1].start()
            b.write(b"1")
            while not begun.is_set():
                gort.sleep(0.001)
            if where == "goroutine":
                while any(g.state != "waiting" for g in goroutines):
                    gort.sleep(0.001)
            else:
                while a._d.read.first is None or a._d.write.first is None:
                    gort.sleep(0.001)
            a.close()
            for _ in range(2):
                exc = ended.recv(5)
                assert type(exc) is net.ConnClosed and isinstance(exc, (gort.GortError, OSError))
                assert exc.errno == errno.EBADF and "has been closed on this side" in str(exc)
            for thread in threads:
                thread.join()
            for operation in (a.read, a.read_until, a.read_all, lambda: a.write(b"x"), lambda: a.writev([b"x"]), a.close_write):
                with pytest.raises(net.ConnClosed):
                    operation()
            assert a.closed and a.fileno() == -1 and "closed" in repr(a)
            a.close()

    run(main, procs)


def test_cancelled_in_a_read_and_in_a_write():
    """A cancelled read or write leaves the connection unusable, or its turn taken."""

    def main():
        a, b = tcp_pair()
        with a, b:
            g = gort.go(b.read)
            while g.state != "waiting":
                gort.sleep(0.001)
            g.cancel()
            g.join(5)
            big = b"x" * 20_000_000
            g = gort.go(a.write, big)
            while g.state != "waiting":
                gort.sleep(0.001)
            second = gort.go(a.write, b"never sent")
            while second.state != "waiting":
                gort.sleep(0.001)
            second.cancel()
            second.join(5)
            g.cancel()
            g.join(5)
            assert g._exc.written > 0
            assert len(b.read_exactly(g._exc.written)) == g._exc.written
            a.write(b"end")
            assert b.read_exactly(3) == b"end"

    run(main)


# -- listening and dialling ---------------------------------------------------------------------------------------


def test_a_listener():
    """accept, iteration, time-out, deadline and close of a listener."""

    def main():
        with net.listen("127.0.0.1:0") as listener:
            assert str(listener.addr[1]) in repr(listener)
            with pytest.raises(TimeoutError, match="accept on"):
                listener.accept(timeout=0.02)
            with pytest.raises(TimeoutError):
                listener.accept(timeout=0)
            listener.set_deadline(time.monotonic() - 1)
            with pytest.raises(TimeoutError):
                listener.accept()
            listener.set_deadline(None)
            got = gort.go(lambda: [conn.read_all() for conn in listener])
            for i in range(5):
                with net.dial(listener.addr) as conn:
                    conn.write(b"%d" % i)
            while got.wait_reason != f"I/O: read of descriptor {listener.fileno()}":
                gort.sleep(0.001)
            listener.close()
            assert got.result(5) == [b"0", b"1", b"2", b"3", b"4"]
            with pytest.raises(net.ConnClosed):
                listener.accept()
            assert listener.closed and "closed" in repr(listener)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the list above leaves the closing to the collector
        run(main)


def test_listen_errors(tmp_path):
    """An address that cannot be listened at is not named in the error."""

    def main():
        with net.listen("127.0.0.1:0") as listener:
            with pytest.raises(OSError, match=f"listen at 127.0.0.1:{listener.addr[1]}") as info:
                net.listen(listener.addr)
            assert info.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError, match="listen at 192.0.2.1:0"):
            net.listen("192.0.2.1:0")
        path = tmp_path / "s"
        with net.listen(path), pytest.raises(OSError, match=f"listen at unix:{path}"):
            net.listen(path)
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(str(path))
        stale.listen()
        stale.close()
        assert path.exists()
        with net.listen(path):  # a dead server's is replaced
            pass
        path.write_text("a file of somebody's")
        with pytest.raises(OSError):
            net.listen(path)
        assert path.read_text()
        with pytest.raises(OSError, match="listen at unix:"):
            net.listen("unix:/nonexistent/dir/socket")

    run(main)


@pytest.mark.parametrize(
    "bad, error, text",
    [
        ("localhost", ValueError, "has no port"),
        ("localhost:", ValueError, "has no port"),
        ("::1:80", ValueError, "several colons"),
        ("localhost:99999", ValueError, "between 0 and 65535"),
        (("localhost", -1), ValueError, "between 0 and 65535"),
        (("localhost", 8.0), TypeError, "port in address"),
        (80, TypeError, "address must be"),
        (None, TypeError, "address must be"),
        ("unix:", ValueError, "names no path"),
        (("::1", 80, 2**20, 0), ValueError, "flow label .* between 0 and 1048575"),
    ],
)
def test_bad_addresses(bad, error, text):
    """A wrong address is found out late, or not explained."""
    for fn in (net.dial, net.listen):
        with pytest.raises(error, match=text):
            fn(bad)


def test_addresses():
    """An address is understood as another."""
    assert address.parse("a:1") == ("a", 1, 0)
    assert address.parse("[::1]:http") == ("::1", "http", 0)
    assert address.parse(("::1", 5, 0, 0)) == ("::1", 5, 0)
    assert address.parse(("::1", 5, 7, 0)) == ("::1", 5, 7)
    assert address.parse(("fe80::1", 5, 0, 2)) == address.parse("[fe80::1%2]:5") == address.parse(("fe80::1%2", 5, 0, 2))
    assert address.parse("unix:/x y") == ("/x y",)
    assert str(address.parse("unix:@x")) == "unix:@x"
    assert str(address.parse(("::1", 5))) == "[::1]:5"


LABELS = """
import sys
from gort import net

def hook(event, args):
    if event in ("socket.bind", "socket.connect"):
        print(event, args[1][2])

with net.listen("[::1]:0") as listener:
    sys.addaudithook(hook)
    host, port, _, scope = listener.addr
    net.dial((host, port, 0x12345, scope)).close()
    net.dial((host, port, 0, scope)).close()
    net.listen((host, 0, 0x54321, scope)).close()
"""


@pytest.mark.skipif("::1" not in HOSTS, reason="there is no IPv6")
def test_a_flow_label_reaches_the_system():
    """That of an address of four parts is dropped on the way."""
    done = subprocess.run([sys.executable, "-c", LABELS], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.split() == ["socket.connect", str(0x12345), "socket.connect", "0", "socket.bind", str(0x54321)]
    with socket.socket(socket.AF_INET6) as s:
        s.bind(("::1", 0))
        port = s.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):  # it makes no other place of one's own
        net.dial(("::1", port, 0x12345, 0), local=("::1", port))


@pytest.mark.skipif(not link_local(), reason="no interface has a link-local address")
def test_a_link_local_address_keeps_its_interface():
    """The address that a listener gives can not be dialled, nor listened at again."""

    def main():
        with net.listen(f"[{link_local()}]:0") as listener:
            g = gort.go(listener.accept)
            with net.dial(listener.addr, timeout=20) as conn, g.result(20):
                assert conn.remote_addr == listener.addr
            host, _, _, scope = listener.addr
        with net.listen((host, 0, 0, scope)) as listener:
            assert listener.addr[3] == scope != 0

    run(main)


def test_other_bad_input():
    """A wrong argument gets no sentence that names it."""
    for call, error, text in [
        (lambda: net.serve("127.0.0.1:0", None), TypeError, "handler must be"),
        (lambda: net.serve("127.0.0.1:0", print, limit=0), ValueError, "limit must be"),
        (lambda: net.serve("127.0.0.1:0", print), gort.GortError, "inside a goroutine"),
        (lambda: net.dial("127.0.0.1:1", timeout="x"), TypeError, "timeout must be"),
        (lambda: net.dial("127.0.0.1:1", tls="yes"), TypeError, "tls must be"),
        (lambda: net.listen("127.0.0.1:0", tls=True), TypeError, "tls must be"),
        (lambda: net.listen("127.0.0.1:0", backlog=-1), ValueError, "backlog must be"),
        (lambda: net.Conn(3), TypeError, "sock must be"),
        (lambda: net.Listener(3), TypeError, "sock must be"),
        (lambda: net.lookup(3), TypeError, "host must be"),
    ]:
        with pytest.raises(error, match=text):
            call()
    with socket.socket(type=socket.SOCK_DGRAM) as udp, pytest.raises(ValueError, match="stream socket"):
        net.Conn(udp)
    a, b = pipe_of_conns()
    with a, b:
        for call, error, text in [
            (lambda: a.read(-1), ValueError, "read_all"),
            (lambda: a.read("x"), TypeError, "str"),
            (lambda: a.read_exactly(1.5), TypeError, "n must be"),
            (lambda: a.read_until("x"), TypeError, "separator must be bytes"),
            (lambda: a.read_until(b""), ValueError, "separator must not be empty"),
            (lambda: a.read_until(limit=0), ValueError, "limit must"),
            (lambda: a.lines(limit=0), ValueError, "limit must"),
            (lambda: a.read(1, timeout="x"), TypeError, "timeout must be"),
            (lambda: a.set_deadline("x"), TypeError, "when must be"),
        ]:
            with pytest.raises(error, match=text):
                call()
        assert a.read(0) == b""


def test_dial_errors_name_the_address():
    """A connection that is refused does not say where."""
    port = unused_port()

    def main():
        with pytest.raises(ConnectionRefusedError, match=f"dial 127.0.0.1:{port}"):
            net.dial(f"127.0.0.1:{port}")
        with pytest.raises(FileNotFoundError, match="dial unix:/nonexistent"):
            net.dial("unix:/nonexistent")
        with pytest.raises(socket.gaierror, match="no.such.host.invalid"):
            net.dial("no.such.host.invalid:1", timeout=30)
        with pytest.raises(socket.gaierror, match="no valid host name"):
            net.dial("a" * 70 + ".example:80")

    run(main)
    main()  # on a plain thread


def blackhole():
    """A listening socket whose queue is full: connecting to it gets no answer."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(3):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(listener.getsockname())
        fillers.append(s)
    return listener, fillers


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_dial_times_out(where):
    """A peer that does not answer holds a dial longer than its time-out."""
    listener, fillers = blackhole()

    def main():
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="dial .* timed out after 0.1 s"):
            net.dial(listener.getsockname(), timeout=0.1)
        assert 0.1 <= time.monotonic() - start < 5

    run(main) if where == "goroutine" else main()
    for s in (listener, *fillers):
        s.close()


def test_dial_is_cancelled():
    """A cancelled dial leaves its sockets or goroutines behind."""
    listener, fillers = blackhole()

    def main():
        g = gort.go(net.dial, listener.getsockname())
        while g.state != "waiting":
            gort.sleep(0.001)
        g.cancel()
        g.join(5)
        assert gort.num_goroutine() == 1

    run(main)
    for s in (listener, *fillers):
        s.close()


def infos(*addresses):
    family = {True: socket.AF_INET6, False: socket.AF_INET}
    return [(family[":" in host], socket.SOCK_STREAM, 6, "", (host, port, *((0, 0) if ":" in host else ()))) for host, port in addresses]


def test_families_by_turns():
    """A host with ten dead IPv6 addresses keeps its IPv4 address waiting."""
    from gort.net.dialing import by_turns

    many = infos(("::1", 1), ("::1", 2), ("::1", 3), ("127.0.0.1", 4), ("127.0.0.1", 5))
    assert [info[4][1] for info in by_turns(many)] == [1, 4, 2, 5, 3]
    assert by_turns(infos(("127.0.0.1", 4))) == infos(("127.0.0.1", 4))


def test_happy_eyeballs(monkeypatch, procs):
    """An address that does not answer, or refuses, keeps dial from the next; or a loser's socket stays open."""
    from gort.net import dialing

    monkeypatch.setattr(dialing, "HEAD_START", 0.1)
    listener, fillers = blackhole()
    silent = listener.getsockname()

    def main():
        with Server(echo) as addr:
            dead = ("127.0.0.1", unused_port())
            for addresses, longest in [
                ([silent, addr], 5),
                ([dead, silent, addr], 5),
                ([dead, dead, dead, addr], 5),
                ([addr, silent], 0.25),
            ]:
                monkeypatch.setattr(dialing, "lookup", lambda *_, a=addresses: infos(*a))
                start = time.monotonic()
                with net.dial("some.where:80", timeout=20) as conn:
                    assert time.monotonic() - start < longest + 1
                    conn.write(b"x")
                    assert conn.read_exactly(1) == b"x"
            monkeypatch.setattr(dialing, "lookup", lambda *_: infos(dead, dead, silent))
            with pytest.raises(TimeoutError, match="dial some.where:80 timed out after 0.4 s"):
                net.dial("some.where:80", timeout=0.4)
            monkeypatch.setattr(dialing, "lookup", lambda *_: infos(dead, ("127.0.0.1", unused_port())))
            with pytest.raises(ConnectionRefusedError, match="dial some.where:80") as info:
                net.dial("some.where:80", timeout=20)
            assert len(info.value.__notes__) == 1
            monkeypatch.setattr(dialing, "lookup", lambda *_: infos(silent, silent, silent))
            g = gort.go(net.dial, "some.where:80")
            gort.sleep(0.3)
            g.cancel()
            g.join(5)
        assert gort.num_goroutine() == 1

    run(main, procs)
    for s in (listener, *fillers):
        s.close()


@pytest.mark.parametrize("first", ["attempt", "dial"])
def test_refused_and_silent_until_the_time_is_over(first, monkeypatch):
    """dial(timeout=) to a host that refuses at one address and is silent at another says it was refused, not that time is over."""
    from gort.net import dialing

    monkeypatch.setattr(dialing, "HEAD_START", 0.01)
    listener, fillers = blackhole()
    dead = ("127.0.0.1", unused_port())
    monkeypatch.setattr(dialing, "lookup", lambda *_: infos(dead, listener.getsockname(), dead))
    connect = dialing._connect
    sooner = 0.1 if first == "attempt" else -0.1  # both have the same limit, and it is a race who notices first
    monkeypatch.setattr(dialing, "_connect", lambda *args: connect(*args[:-1], args[-1] - sooner))

    def main():
        with pytest.raises(TimeoutError, match="dial some.where:80 timed out after 0.4 s"):
            net.dial("some.where:80", timeout=0.4)

    run(main)
    for s in (listener, *fillers):
        s.close()


@pytest.mark.parametrize("local", [5, ("127.0.0.1", 99999), ("a\0b", 0)])
def test_a_bad_local_address_of_a_host_with_two(local, monkeypatch):
    """dial(local=...) never returns: an attempt ends by an error that is no OSError, and nobody is told."""
    from gort.net import dialing

    monkeypatch.setattr(dialing, "lookup", lambda *_: infos(("127.0.0.1", 1), ("127.0.0.2", 1)))

    def main():
        with pytest.raises((TypeError, OverflowError)), gort.timeout(20):
            net.dial("some.where:80", local=local)
        assert gort.num_goroutine() == 1

    run(main)


def test_a_dial_to_a_free_port_never_meets_itself():
    """Dialling a free port of this machine connects the socket to itself now and then: a port that is not there."""
    port = unused_port()

    def main():
        sock = socket.socket()
        sock.bind(("127.0.0.1", port))
        sock.close()
        with pytest.raises(ConnectionRefusedError):
            net.dial(("127.0.0.1", port), local=("127.0.0.1", port))

    run(main)


def test_names_are_looked_up_on_another_thread(monkeypatch):
    """A slow name server stops every goroutine of the machine, or holds a dial whose time is over."""
    released = threading.Event()
    real = socket.getaddrinfo
    threads = []

    def slow(host, *args, **kw):
        if host == "slow.example":
            threads.append(threading.get_ident())
            released.wait(20)
            host = "127.0.0.1"
        return real(host, *args, **kw)

    def getaddrinfo(host, port, family, kind, proto, flags=0):
        if flags & socket.AI_NUMERICHOST:
            return real(host, port, family, kind, proto, flags)
        return slow(host, port, family, kind, proto, flags)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    def main():
        beats = []
        heart = gort.go(lambda: [beats.append(gort.sleep(0.01)) for _ in range(10_000)])
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="dial slow.example:80 timed out"):
            net.dial("slow.example:80", timeout=0.2)
        with pytest.raises(TimeoutError, match="look-up of 'slow.example'"):
            net.lookup("slow.example", timeout=0.05)
        assert time.monotonic() - start < 5 and len(beats) > 5
        g = gort.go(net.lookup, "slow.example")
        gort.sleep(0.05)
        g.cancel()
        g.join(5)
        assert threading.get_ident() not in threads
        released.set()
        assert net.lookup("slow.example", 80)[0][4] == ("127.0.0.1", 80)
        heart.cancel()

    run(main)


def test_a_time_limit_of_a_plain_thread_ends_its_look_up(monkeypatch):
    """Only a goroutine's time-out holds while a name is looked up; a thread waits for the name server."""
    answered = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host, *args):
        if host != "slow.example":
            return real(host, *args)
        if args[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror
        answered.wait()
        return real("127.0.0.1", *args)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with pytest.raises(TimeoutError, match="dial slow.example:80 timed out"):
            net.dial("slow.example:80", timeout=0.05)
        with pytest.raises(TimeoutError, match="look-up of 'slow.example'"):
            net.lookup("slow.example", timeout=0.05)
        with pytest.raises(TimeoutError, match="time limit"), gort.timeout(0.05):
            net.dial("slow.example:80")
    finally:
        answered.set()
    assert net.lookup("slow.example", 80, 20)[0][4] == ("127.0.0.1", 80)
    with pytest.raises(socket.gaierror, match="no.such.host.invalid"):
        net.lookup("no.such.host.invalid", timeout=20)


@pytest.mark.parametrize("way", ["dial", "lookup", "green"])
def test_the_end_does_not_wait_for_a_look_up_that_was_abandoned(way, monkeypatch, capfd):
    """A name server that does not answer holds up the end of the program, or has it complain of what was left behind."""
    from gort.green import socket as green

    answered = threading.Event()
    asked = []
    over = threading.Semaphore(0)
    real = socket.getaddrinfo

    def getaddrinfo(host, *args):
        if host != "slow.example":
            return real(host, *args)
        if args[-1] & socket.AI_NUMERICHOST:
            raise socket.gaierror
        asked.append(threading.current_thread())
        answered.wait()
        over.release()
        return real("127.0.0.1", *args)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    def main():
        if way == "dial":
            with pytest.raises(TimeoutError, match="dial"):
                net.dial("slow.example:80", timeout=0.05)
        elif way == "lookup":
            g = gort.go(net.lookup, "slow.example")
            while not asked:
                gort.sleep(0.001)
            g.cancel()
            g.join(10)
        else:
            with pytest.raises(TimeoutError), gort.timeout(0.05):
                green.getaddrinfo("slow.example", 80, 0, socket.SOCK_STREAM)
        while not asked:
            gort.sleep(0.001)

    try:
        run(main)
        assert asked[0].is_alive() and capfd.readouterr().err == ""
        assert resolve._turn.try_acquire(100)
        resolve._turn.release(100)
    finally:
        answered.set()
    assert over.acquire(timeout=10)
    asked[0].join(10)
    assert not asked[0].is_alive()


def test_a_look_up_s_end_and_its_cancellation_meet(procs, jitter):
    """Of both none wakes the caller, or both do."""

    def ask(i):
        time.sleep(1e-5 * (i % 5))
        return i

    def main():
        counts = [0, 0]
        for round_ in range(40):
            gs = [gort.go(inquire, ask, i) for i in range(8)]
            for _ in range(round_ % 5):
                gort.gosched()
            gort.sleep(1e-5 * (round_ % 7))
            for g in gs:
                g.cancel()
            for i, g in enumerate(gs):
                try:
                    assert g.result(20) == i
                    counts[0] += 1
                except gort.GoroutineCancelled:
                    counts[1] += 1
        assert sum(counts) == 320 and counts[1]

    run(main, procs)


def test_lookup():
    """Numbers and names are looked up wrongly."""

    def main():
        assert net.lookup("127.0.0.1", 80)[0][4] == ("127.0.0.1", 80)
        assert {info[4][0] for info in net.lookup("localhost")} & {"127.0.0.1", "::1"}
        assert net.lookup("localhost", "http")[0][4][1] == 80
        assert net.lookup("")[0][4][0] in ("0.0.0.0", "::")
        assert resolve._turn.try_acquire(100)
        resolve._turn.release(100)

    run(main)
    main()


# -- serve --------------------------------------------------------------------------------------------------------


def test_many_connections_echo(procs):
    """Of many connections at once one is not served, or gets another's bytes."""

    def main():
        def client(addr, i):
            with net.dial(addr) as conn:
                for j in range(5):
                    data = b"%d-%d " % (i, j) * 20
                    conn.write(data)
                    assert conn.read_exactly(len(data)) == data

        with Server(echo) as addr:
            gs = [gort.go(client, addr, i) for i in range(200)]
            for g in gs:
                g.result(20)

    run(main, procs)


def test_the_limit(procs):
    """More connections than the limit are served at a time, or one beyond it is lost."""

    def main():
        now, most = [0], [0]
        lock = gort.Mutex()

        def handler(conn):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            conn.read()
            gort.sleep(0.002)
            with lock:
                now[0] -= 1
            conn.write(b"done")

        def client(addr):
            with net.dial(addr) as conn:
                conn.write(b"x")
                assert conn.read_all() == b"done"

        with Server(handler, limit=3) as addr:
            gs = [gort.go(client, addr) for _ in range(20)]
            for g in gs:
                g.result(20)
        assert most[0] == 3

    run(main, procs)


def test_the_graceful_stop(procs):
    """Closing the listener cuts off who is being served, or serve returns before they are done, or never."""

    def main():
        for grace in (None, 20, 0.05, 0):
            begun = gort.Chan(10)
            ended = []

            def handler(conn, begun=begun, ended=ended):
                begun.send(1)
                try:
                    conn.write(conn.read())
                    ended.append("served")
                finally:
                    gort.sleep(0.01)
                    ended.append("cleaned up")

            listener, g = serving(handler, grace=grace)
            conns = [net.dial(listener.addr) for _ in range(3)]
            for _ in conns:
                begun.recv(5)
            listener.close()
            with pytest.raises(ConnectionRefusedError):
                net.dial(("127.0.0.1", conns[0].remote_addr[1]))
            if grace in (None, 20):
                gort.sleep(0.02)
                assert not g.done()
                for conn in conns:
                    conn.write(b"x")
                    assert conn.read_all() == b"x"
            g.result(5)
            expected = ["cleaned up"] * 3 + (["served"] * 3 if grace in (None, 20) else [])
            assert sorted(ended) == expected
            for conn in conns:
                conn.close()
            assert gort.num_goroutine() == 1

    run(main, procs)


def test_the_graceful_stop_of_a_full_server(procs):
    """While all places are taken a close of the listener is not seen: serve does not return when grace is over."""

    def main():
        begun = gort.Chan(1)

        def handler(conn):
            begun.send(1)
            conn.read()

        listener, g = serving(handler, limit=1, grace=0.3)
        with net.dial(listener.addr) as conn:
            begun.recv(5)
            gort.sleep(0.02)  # the server waits for room meanwhile; if not yet, it has to see the close all the same
            start = time.monotonic()
            listener.close()
            g.result(5)
            assert 0.25 < time.monotonic() - start < 4
            assert conn.read(timeout=5) == b""

    run(main, procs)


def test_the_listeners_own_deadline_is_no_end_of_grace():
    """serve takes the TimeoutError of a Listener's set_deadline for the end of grace, and says nothing."""

    def main():
        def handler(conn):
            conn.read()

        listener, g = serving(handler, grace=20)
        with net.dial(listener.addr):
            listener.set_deadline(time.monotonic() + 0.05)
            with pytest.raises(TimeoutError):
                g.result(5)
            assert g.done()
            assert listener.closed
            assert gort.num_goroutine() == 1

    run(main)


@pytest.mark.parametrize("how", ["cancel", "time limit", "end of main"])
def test_serve_is_interrupted(how, procs):
    """A cancelled server leaves its listener, its handlers or their connections behind."""
    begun = []
    cleaned = []

    def main():
        news = gort.Chan(5)

        def handler(conn):
            begun.append(1)
            try:
                news.send(1)
                conn.read_all()
            finally:
                cleaned.append(1)

        listener = net.listen("127.0.0.1:0")
        addr = listener.addr
        if how == "time limit":
            clients = [socket.create_connection(addr) for _ in range(5)]
            with pytest.raises(TimeoutError), gort.timeout(0.1):
                net.serve(listener, handler)  # (On a busy system not all five may have come in by then.)
            assert len(cleaned) == len(begun)
            assert gort.num_goroutine() == 1
        else:
            g = gort.go(net.serve, listener, handler)
            clients = [socket.create_connection(addr) for _ in range(5)]
            for _ in clients:  # one that has not begun would have nothing to clean up
                news.recv(20)
            if how == "end of main":
                return clients, addr
            g.cancel()
            g.join(5)
            assert len(cleaned) == 5
            assert gort.num_goroutine() == 1
        return clients, addr

    clients, addr = run(main, procs)
    assert len(cleaned) == len(begun)
    for client in clients:
        try:
            assert client.recv(10) == b""
        except ConnectionResetError:
            assert how == "time limit"  # it stood in the system's queue
        client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(addr)


def test_a_server_that_ends_with_handlers_that_have_not_begun():
    """Handlers that the end of the program drops before they run keep serve waiting for ever."""

    def main():
        listener = net.listen("127.0.0.1:0")
        clients = [socket.create_connection(listener.addr) for _ in range(40)]
        gort.go(net.serve, listener, lambda conn: conn.read())
        gort.gosched()
        return clients

    for client in run(main, 1):
        client.close()


def test_handlers_are_placed_as_the_build_wants():
    """With a GIL handlers move to other machines; or without one they all stay on the one that accepts."""
    free_threaded = not getattr(sys, "_is_gil_enabled", lambda: True)()
    seen = set()
    stats = {}

    def handler(conn):
        seen.add(gort.current().carrier.m.id)
        while conn.read():
            end = time.perf_counter() + 0.002
            while time.perf_counter() < end:
                pass
            conn.write(b"x")

    def main():
        listener, g = serving(handler)
        done = threading.Event()
        limit = time.monotonic() + 30

        def load():
            while True:
                socks = [socket.create_connection(listener.addr) for _ in range(60)]
                for _ in range(3):
                    for s in socks:
                        s.send(b"x")
                    for s in socks:
                        assert s.recv(10)
                for s in socks:
                    s.close()
                if not free_threaded or len(seen) > 1 or time.monotonic() > limit:
                    break
            done.set()

        thread = threading.Thread(target=load)
        thread.start()
        while not done.is_set():
            gort.sleep(0.01)
        thread.join()
        stats.update(gort.stats())
        listener.close()
        g.result(10)

    run(main, 2)
    if free_threaded:
        assert len(seen) > 1
    else:
        assert not stats["stolen"] or stats["handed_off"], stats  # a hand-off moves them, and must


# -- TLS ----------------------------------------------------------------------------------------------------------


class Certificate:
    def __init__(self, cert, key):
        self.files = (str(cert), str(key))

    def server(self):
        return self.files

    def client(self):
        return ssl.create_default_context(cafile=self.files[0])


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate of a certification authority of one's own, for "gort.test"."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=gort.test"),
        *("-addext", "subjectAltName=DNS:gort.test,IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the openssl program is needed to make a certificate")
    return Certificate(cert, key)


def test_tls(procs, certificate):
    """Data over TLS do not arrive as they were sent, in both directions at once."""

    def main():
        with Server(echo, tls=certificate.server()) as addr:
            with net.dial(addr, tls=certificate.client()) as conn:
                assert conn.tls.version().startswith("TLS") and isinstance(conn, net.TLSConn)
                data = random.randbytes(3_000_000)
                g = gort.go(conn.write, data)
                assert conn.read_exactly(len(data)) == data
                g.result(5)
                conn.writev([b"a\n", b"", b"b\n"])
                assert conn.read_until() == b"a\n" and conn.read_exactly(2) == b"b\n"
                with pytest.raises(TimeoutError):
                    conn.read(timeout=0.02)
                conn.set_deadline(time.monotonic() - 1)
                with pytest.raises(TimeoutError):
                    conn.read()
                with pytest.raises(TimeoutError):
                    conn.write(b"x")
                conn.set_deadline(None)
                conn.close_write()
                assert conn.read(timeout=5) == b""
            with pytest.raises(net.ConnClosed):
                conn.read()

    run(main, procs)


def test_tls_verifies_by_default(certificate):
    """A certificate that nobody vouches for, or for another host, is accepted."""

    def main():
        with Server(echo, tls=certificate.server()) as addr:
            with pytest.raises(ssl.SSLCertVerificationError):
                net.dial(addr, tls=True)
            with pytest.raises(ssl.SSLCertVerificationError, match="not valid for 'other.test'"):
                net.dial(addr, tls=certificate.client(), server_hostname="other.test")
            net.dial(addr, tls=certificate.client(), server_hostname="gort.test").close()
            lax = ssl.create_default_context()
            lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
            net.dial(addr, tls=lax).close()
            with net.dial(addr) as plain:  # no TLS at all: the server hangs up, and goes on
                plain.write(b"GET / HTTP/1.0\r\n\r\n")
                try:
                    plain.read_all(timeout=5)
                except ConnectionResetError:
                    pass

    run(main)


def test_all_are_told_why_a_tls_handshake_has_failed(certificate, procs):
    """Only who shakes hands is told; another goroutine, or the next operation, hears of an EOF, or goes on all the same."""

    def main():
        with Server(echo, tls=certificate.server()) as addr:
            sock = socket.create_connection(addr)
            with net.TLSConn(sock, ssl.create_default_context(), server_hostname="gort.test") as conn:
                write = lambda: conn.write(b"x")  # noqa: E731
                gs = [gort.go(fn) for fn in (conn.read, write, conn.handshake, conn.read)]
                for fn in (*[g.result for g in gs], conn.read, write, conn.handshake, conn.close_write):
                    with pytest.raises(ssl.SSLCertVerificationError, match="self.signed certificate") as info:
                        fn()
                    assert info.value.verify_code == 18 and info.value.conn is conn
                    assert not fn is write or info.value.written == 0
            with pytest.raises(net.ConnClosed):
                conn.read()

    run(main, procs)


def test_a_tls_client_that_is_slow_holds_up_nobody(certificate):
    """A client that does not shake hands stops the server, or a dial to a silent server never ends."""

    def main():
        with Server(echo, tls=certificate.server()) as addr:
            with net.dial(addr) as silent:
                with net.dial(addr, tls=certificate.client()) as conn:
                    conn.write(b"x")
                    assert conn.read(timeout=5) == b"x"
                silent.close()
        with net.listen("127.0.0.1:0") as listener:
            with pytest.raises(TimeoutError, match="timed out after 0.2 s"):
                net.dial(listener.addr, tls=certificate.client(), timeout=0.2)

    run(main)


def test_start_tls(certificate):
    """An open connection cannot go on over TLS."""

    def main():
        def handler(conn):
            assert conn.read_until() == b"STARTTLS\n"
            conn.write(b"OK\n")
            with net.start_tls(conn, certificate.server(), server_side=True) as secure:
                echo(secure)

        with Server(handler) as addr:
            conn = net.dial(addr)
            conn.write(b"STARTTLS\n")
            assert conn.read_until() == b"OK\n"
            with net.start_tls(conn, certificate.client(), server_hostname="gort.test", timeout=5) as secure:
                secure.write(b"hidden")
                assert secure.read_exactly(6) == b"hidden"
                with pytest.raises(net.ConnClosed):
                    conn.read()

    run(main)


def test_start_tls_of_a_closed_connection():
    """It does not say that the connection was closed, and where."""
    a, b = pipe_of_conns()
    b.close()
    with a, pytest.raises(net.ConnClosed):
        net.start_tls(b)


def test_tls_readers_and_writers_on_different_machines(certificate, jitter):
    """A goroutine that reads and one that writes a TLS connection meet inside OpenSSL."""

    def main():
        with Server(echo, tls=certificate.server()) as addr:
            conns = [net.dial(addr, tls=certificate.client()) for _ in range(4)]
            data = random.randbytes(400_000)
            writers = [gort.go(conn.write, data) for conn in conns]
            readers = [gort.go(conn.read_exactly, len(data)) for conn in conns]
            for g in readers:
                assert g.result(20) == data
            for g in writers:
                g.result(20)
            for conn in conns:
                conn.close()

    run(main, 8)


def test_tls_close_write_waits_until_the_peer_is_told(certificate):
    """close_write returns while the message is not sent, for the buffers are full: the peer waits for ever."""

    def main():
        a, b = pipe_of_tls(certificate)
        with a, b, socket.socket(fileno=os.dup(a.fileno())) as under_a, socket.socket(fileno=os.dup(b.fileno())) as under_b:
            junk = 0  # past TLS, which so knows nothing of it
            with pytest.raises(BlockingIOError):
                while True:
                    junk += under_a.send(bytes(1000))
            g = gort.go(a.close_write)
            gort.sleep(0.02)
            assert not g.done()
            a.set_write_deadline(time.monotonic())
            with pytest.raises(TimeoutError):
                g.result(5)
            a.set_write_deadline(None)
            g = gort.go(a.close_write)
            while junk:
                junk -= len(under_b.recv(min(junk, 1000)))
            g.result(5)
            assert b.read(timeout=5) == b""
            b.write(b"later")
            assert a.read(timeout=5) == b"later"

    run(main)


def test_tls_close_write_keeps_what_has_not_been_read(certificate):
    """What the peer had sent is thrown away when one tells it that nothing more will come."""

    def main():
        a, b = pipe_of_tls(certificate)
        data = random.randbytes(50_000)
        with a, b:
            b.write(data)
            a.close_write()
            assert b.read(timeout=5) == b""
            b.write(b"later")
            assert a.read(1, timeout=5) == data[:1]
            assert a.read_exactly(len(data) - 1, timeout=5) == data[1:]
            assert a.read(timeout=5) == b"later"
            b.close()
            assert a.read(timeout=5) == b""

    run(main)


@pytest.mark.parametrize("ended", ["seen", "unseen"])
def test_a_tls_write_to_a_peer_that_has_gone(ended, certificate, procs):
    """It raises another error than over TCP: one of the ssl module's for the end of what there is to read."""

    def main():
        a, b = pipe_of_tls(certificate)
        b.close()
        with a:
            if ended == "seen":
                assert a.read(timeout=5) == b""
            for _ in range(2):
                with pytest.raises(BrokenPipeError) as info:
                    a.write(b"x" * 1000)
                assert (info.value.written, info.value.errno) == (0, errno.EPIPE)
            assert a.read(timeout=5) == b""

    run(main, procs)


def test_tls_close_write_before_the_handshake(certificate):
    """It returns without having told anybody, and the peer waits for ever."""

    def handler(conn):
        told.append(conn.read(timeout=10))
        returned.recv(10)  # (What came while close_write looks for the peer's own end would be an error.)
        conn.write(b"still here")

    def main():
        with Server(handler, tls=certificate.server()) as addr:
            sock = socket.create_connection(addr)
            with net.tls.TLSConn(sock, certificate.client(), server_hostname="gort.test") as conn:
                conn.close_write()
                returned.send(1)
                assert conn.read(timeout=10) == b"still here"
        assert told == [b""]

    told = []
    returned = gort.Chan(1)
    run(main)


def test_an_error_of_a_closed_connection_tells_which():
    """Its repr, its arguments or its copy by pickle name no connection."""

    def main():
        a, b = pipe_of_conns()
        with b:
            a.close()
            with pytest.raises(net.ConnClosed) as info:
                a.read()
        assert f"Conn {a._d.fd} closed" in repr(info.value) and info.value.errno == errno.EBADF
        assert str(pickle.loads(pickle.dumps(info.value))) == str(info.value)

    run(main)


def test_tls_time_limits_hold_across_directions(certificate):
    """A write that has to read first, for a handshake or in the midst, goes on after its deadline or timeout."""

    class WantsToRead:
        def send(self, data):
            raise ssl.SSLWantReadError

    def check(conn):
        conn.set_write_deadline(time.monotonic() + 0.05)
        with pytest.raises(TimeoutError, match="write of .* deadline is over"):
            conn.write(b"x")
        with pytest.raises(TimeoutError):  # and from the start
            conn.write(b"x")
        conn.set_write_deadline(time.monotonic() + 50)
        with pytest.raises(TimeoutError, match="timed out after 0.05 s"):
            conn.write(b"x", timeout=0.05)
        conn.set_write_deadline(None)
        with pytest.raises(TimeoutError, match="timed out after 0.05 s"):
            conn.write(b"x", timeout=0.05)

    def main():
        with net.listen("127.0.0.1:0", tls=certificate.server()) as listener:
            with net.dial(listener.addr), listener.accept(5) as conn:  # who never says anything
                with gort.timeout(20):
                    check(conn)
                secure = conn._ssl
                conn._ssl, conn._done = WantsToRead(), True
                with gort.timeout(20):
                    check(conn)
                conn._ssl, conn._done = secure, False

    run(main)


@pytest.mark.parametrize("what", ["handshake", "write", "read"])
@pytest.mark.parametrize("before", [None, 50.0])
def test_a_tls_deadline_moved_while_it_waits_across_holds(what, before, certificate, procs):
    """A write that waits to read (or a read that waits to write) does not see that its deadline is moved meanwhile."""

    class Wants:
        def send(self, data):
            raise ssl.SSLWantReadError

        def recv(self, n):
            raise ssl.SSLWantWriteError

    def main():
        with net.listen("127.0.0.1:0", tls=certificate.server()) as listener:
            with net.dial(listener.addr), listener.accept(5) as conn:
                secure = conn._ssl
                if what != "handshake":
                    conn._ssl, conn._done = Wants(), True
                if what == "read":  # so that it has to wait until it may write
                    conn.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                    with pytest.raises(BlockingIOError):
                        while True:
                            os.write(secure.fileno(), b"x" * 65536)
                set_deadline = conn.set_read_deadline if what == "read" else conn.set_write_deadline
                set_deadline(None if before is None else time.monotonic() + before)
                operate = conn.read if what == "read" else lambda: conn.write(b"x")
                g = gort.go(operate)
                while not (g.state == "waiting" and "I/O" in g.wait_reason):
                    gort.sleep(0.001)
                set_deadline(time.monotonic() + 40)
                while not (g.state == "waiting" and "I/O" in g.wait_reason):
                    gort.sleep(0.001)
                set_deadline(time.monotonic() + 0.02)
                with pytest.raises(TimeoutError, match="deadline is over"):
                    g.result(15)
                assert not conn._across
                conn._ssl, conn._done = secure, False

    run(main, procs)


@pytest.mark.parametrize("what", ["handshake", "read", "write", "close_write"])
def test_closed_in_a_tls_handshake(what, certificate, procs):
    """Who waits for the handshake gets another error than ConnClosed, or `written` is missing."""

    def main():
        with net.listen("127.0.0.1:0", tls=certificate.server()) as listener:
            with net.dial(listener.addr), listener.accept(5) as conn:  # who never says anything
                g = start(getattr(conn, what), *([b"x"] if what == "write" else []))
                conn.close()
                with pytest.raises(net.ConnClosed, match="TLSConn") as info:
                    g.result(15)
                assert what != "write" or info.value.written == 0

    run(main, procs)


@pytest.mark.parametrize("when", ["before", "moved", "timeout"])
def test_a_time_limit_behind_another_s_tls_handshake(when, certificate, procs):
    """The deadline of a write that waits until another goroutine has shaken hands does not hold."""

    def main():
        with net.listen("127.0.0.1:0", tls=certificate.server()) as listener:
            with net.dial(listener.addr), listener.accept(5) as conn:  # who never says anything
                other = start(conn.read)
                if when == "before":
                    conn.set_write_deadline(time.monotonic() + 0.05)
                write = start(lambda: conn.write(b"x", timeout=0.05 if when == "timeout" else None))
                if when == "moved":
                    conn.set_write_deadline(time.monotonic() + 0.05)
                with pytest.raises(TimeoutError) as info:
                    write.result(15)
                assert info.value.written == 0 and not other.done()
                conn.close()
                assert isinstance(other.exception(15), net.ConnClosed)

    run(main, procs)


@pytest.mark.parametrize("when", ["before", "moved"])
@pytest.mark.parametrize("order", [("read", "write"), ("write", "read")], ids=["reader-first", "writer-first"])
@pytest.mark.parametrize("over", ["read", "write"])
def test_a_deadline_in_a_tls_handshake_ends_its_own_side_only(over, order, when, certificate, procs):
    """A read deadline ends a write too that has to shake hands (or a write deadline a read), or the handshake is lost."""

    def main():
        with net.listen("127.0.0.1:0", tls=certificate.server()) as listener:
            with net.dial(listener.addr) as plain, listener.accept(5) as conn:
                operate = {"read": conn.read, "write": lambda: conn.write(b"hello")}
                set_deadline = conn.set_read_deadline if over == "read" else conn.set_write_deadline
                if when == "before":
                    set_deadline(time.monotonic() + 0.05)
                ops = {name: start(operate[name]) for name in order}
                if when == "moved":
                    set_deadline(time.monotonic() + 0.05)
                with pytest.raises(TimeoutError, match=f"{over} of .* deadline is over"):
                    ops.pop(over).result(15)
                ((_name, other),) = ops.items()
                settle(other)
                assert not other.done()
                set_deadline(None)
                again = start(operate[over])
                with net.start_tls(plain, certificate.client(), server_hostname="gort.test", timeout=15) as client:
                    client.write(b"good day")
                    assert client.read_exactly(5, timeout=15) == b"hello"
                    results = {other.result(15), again.result(15)}
                    assert results == {b"good day", None}

    run(main, procs)


@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_a_tls_read_that_waits_to_write_minds_no_write_deadline(where, certificate):
    """It gets the writer's TimeoutError, from the start or when that deadline comes, and loses what it would have read."""

    class Wants:
        room = False

        def recv(self, n):
            if not self.room:
                raise ssl.SSLWantWriteError
            return b"data"

    def main():
        for late in (0.05, -1):  # before the deadline comes, and after it
            a, b = pipe_of_tls(certificate)
            with a, b:
                secure = a._ssl
                junk = 0  # past TLS, which so knows nothing of it
                with pytest.raises(BlockingIOError):
                    while True:
                        junk += os.write(secure.fileno(), b"x" * 65536)
                a._ssl = stub = Wants()
                a.set_write_deadline(time.monotonic() + late)
                got = []
                read = (start if where == "goroutine" else thread)(lambda: got.append(a.read()))
                with pytest.raises(TimeoutError):
                    while True:  # it may return for nothing
                        a._d.wait_write()
                if where == "goroutine":
                    settle(read)
                stub.room = True
                while junk:
                    junk -= len(os.read(b.fileno(), junk))
                read.join(15)
                assert got == [b"data"]
                a._ssl = secure

    run(main)


def test_a_tls_handshake_minds_both_deadlines(certificate):
    """`handshake` by itself goes on for ever, or its error does not say why it ended."""

    def main():
        with net.listen("127.0.0.1:0", tls=certificate.server()) as listener:
            with net.dial(listener.addr), listener.accept(5) as conn:  # who never says anything
                for set_deadline in (conn.set_read_deadline, conn.set_write_deadline, conn.set_deadline):
                    set_deadline(time.monotonic() + 0.05)
                    with pytest.raises(TimeoutError, match="handshake of .* deadline is over"):
                        conn.handshake()
                    with pytest.raises(TimeoutError, match="deadline is over"):
                        conn.handshake(timeout=15)
                    set_deadline(None)
                    g = start(conn.handshake)
                    set_deadline(time.monotonic())
                    with pytest.raises(TimeoutError, match="deadline is over"):
                        g.result(15)
                    set_deadline(None)
                with pytest.raises(TimeoutError, match="handshake of .* timed out after 0.05 s"):
                    conn.handshake(timeout=0.05)
                with pytest.raises(TimeoutError, match="read of .* timed out after 0.05 s"):
                    conn.read(timeout=0.05)

    run(main)


def test_tls_sendfile_is_one_write(certificate, tmp_path, procs):
    """Another's write lands in the midst of a file."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * 3_000_000)

    def main():
        a, b = pipe_of_tls(certificate)
        with a, b, path.open("rb") as file:
            first = gort.go(a.sendfile, file)
            got = b.read()
            second = start(a.write, b"w" * 1000)
            got += b.read_exactly(3_001_000 - len(got))
            assert got == b"f" * 3_000_000 + b"w" * 1000
            assert first.result() == 3_000_000
            second.result()

    run(main, procs)


@pytest.mark.parametrize("n", [sys.maxsize, 10**9])
def test_a_read_of_more_than_there_is_memory_for(n):
    """What has come is lost when the system refuses room for all that was asked for."""

    def main():
        a, b = pipe_of_conns()
        with a, b:
            a.write(b"x" * 500)
            got = b.read(n)
            while len(got) < 500:
                got += b.read(n)
            assert got == b"x" * 500

    run(main)


def test_after_close_read_nothing_is_read():
    """What still comes is read after close_read."""

    def main():
        with Server(echo) as addr, net.dial(addr) as conn:
            conn.close_read()
            conn.write(b"hello")
            assert conn.read() == b"" and conn.read(5, timeout=1) == b""
            conn.set_deadline(None)
            assert conn.read() == b""

    run(main)


def test_an_address_that_the_system_would_cut_short(tmp_path):
    """A path with a zero byte makes a socket of another name, and leaves it there."""

    def main():
        for call in (net.listen, net.dial):
            with pytest.raises(ValueError, match="zero byte"):
                call(f"unix:{tmp_path}/a\0b")
            with pytest.raises(ValueError, match="has no port"):
                call("[::1]")

    run(main)
    assert not list(tmp_path.iterdir())
