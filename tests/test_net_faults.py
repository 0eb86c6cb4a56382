"""What goes wrong on a network, made to go wrong: after each fault the server goes on, and nothing is left behind.

Left behind would be: a descriptor, a thread (both checked after each test), a goroutine (checked in `program`).
"""

import errno
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

import gort
from gort import net
from gort.net import listener as listener_module

from nettools import HOSTS, few_descriptors, left_nothing, unused_port  # noqa: F401

pytestmark = pytest.mark.usefixtures("left_nothing")

ROOT = Path(__file__).resolve().parent.parent
FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()


def program(main, procs=None):
    """Run main as the main goroutine; at its end no other may be left."""

    def checked():
        main()
        end = time.monotonic() + 10
        while gort.num_goroutine() > 1:
            assert time.monotonic() < end, gort.stacks()
            gort.sleep(0.001)

    gort.run(checked, procs=procs)


@contextmanager
def server(handler, **kw):
    listener = net.listen("127.0.0.1:0")
    g = gort.go(net.serve, listener, handler, **kw)
    try:
        yield listener
    finally:
        listener.close()
        g.result(20)


@contextmanager
def reports():
    """What gort.excepthook is told meanwhile."""
    told = []
    before = gort.excepthook
    gort.excepthook = told.append
    try:
        yield told
    finally:
        gort.excepthook = before


def echo(conn):
    while data := conn.read():
        conn.write(data)


def works(listener):
    """The server still serves."""
    with net.dial(listener.addr, timeout=10) as conn:
        conn.write(b"hello")
        assert conn.read_exactly(5, timeout=10) == b"hello"


def answer(sock):
    """What a plain socket of a test receives: on a thread that the goroutines can spare."""
    return gort.blocking(sock.recv, 1000)


def reset(sock):
    """Close a socket so that its peer gets a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_the_peer_resets_in_the_middle_of_a_read(procs):
    """A reset is taken for the end of the data, hangs the reader, or ends the server."""

    def main():
        seen = gort.Chan(10)

        def handler(conn):
            try:
                echo(conn)
            except OSError as exc:
                seen.send(exc)
                raise

        with reports() as told, server(handler) as listener:
            for first in (b"", b"some data"):
                client = socket.create_connection(listener.addr)
                if first:
                    client.send(first)
                    assert answer(client) == first
                gort.sleep(0.01)
                reset(client)
                assert type(seen.recv(5)) is ConnectionResetError
            works(listener)
        assert told == []  # a peer that went is no error of the handler's

    program(main, procs)


def test_the_peer_resets_in_the_middle_of_a_write(procs):
    """A reset hangs who writes, or loses how far the write had come."""

    def main():
        seen = gort.Chan(10)

        def handler(conn):
            try:
                conn.write(b"x" * 50_000_000)
            except OSError as exc:
                seen.send(exc)
                raise

        with reports() as told, server(handler) as listener:
            for _ in range(2):
                client = socket.create_connection(listener.addr)
                assert answer(client)
                reset(client)
                exc = seen.recv(10)
                assert isinstance(exc, (ConnectionResetError, BrokenPipeError))
                assert 0 < exc.written < 50_000_000
        assert told == []

    program(main, procs)


def test_half_open_connections(procs):
    """Peers that connect and never say anything hold up the others, or cannot be got rid of by a time-out."""

    def main():
        def handler(conn):
            conn.set_deadline(time.monotonic() + 1)
            with pytest.raises(TimeoutError):
                echo(conn)

        with server(handler) as listener:
            silent = [socket.create_connection(listener.addr) for _ in range(50)]
            half = [socket.create_connection(listener.addr) for _ in range(5)]
            for s in half:
                s.send(b"x")
            with net.dial(listener.addr) as conn:
                conn.write(b"y")
                assert conn.read(timeout=5) == b"y"
            for s in silent:
                s.settimeout(20)
                assert answer(s) == b""
                s.close()
            for s in half:
                assert answer(s) == b"x" and answer(s) == b""
                s.close()

    program(main, procs)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
def test_a_peer_that_the_system_has_given_up():
    """Its handler's error is reported, as if it were a fault of the program's; or a time-out of gort's own is not."""

    def main():
        seen = gort.Chan(10)

        def handler(conn):
            try:
                if conn.read() == b"deaf":  # who reads nothing, so that the system waits in vain
                    conn.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 100)
                    conn.write(b"x" * 50_000_000)
                else:
                    conn.read(timeout=0.01)
            except OSError as exc:
                seen.send(exc)
                raise

        with reports() as told, server(handler) as listener:
            for word in (b"deaf", b"mute"):
                with net.dial(listener.addr) as client:
                    client.write(word)
                    exc = seen.recv(30)
                    assert isinstance(exc, TimeoutError) and exc.errno == (errno.ETIMEDOUT if word == b"deaf" else None)
            end = time.monotonic() + 10
            while not told:
                assert time.monotonic() < end
                gort.sleep(0.001)
        assert [args.exc_value.errno for args in told] == [None]

    program(main)


def test_a_peer_that_vanishes_is_asked_for_a_sign_of_life():
    """A peer that lost its power is waited for for ever: the system is not told to ask for it."""

    def main():
        for host in HOSTS:
            with net.listen((host, 0)) as listener, net.dial(listener.addr) as conn, listener.accept(10) as other:
                for sock in (conn.socket, other.socket):
                    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
                    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 15

    program(main)


def test_no_descriptor_left_for_accept(procs):
    """EMFILE ends the server, spins, or loses the connections that could not be accepted at once."""
    clients = []
    looks = []

    def main():
        with server(echo) as listener:
            works(listener)
            count = 20
            clients.extend(socket.socket() for _ in range(count))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            top = max(int(name) for name in os.listdir("/proc/self/fd"))
            fillers = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (top + 20, hard))
            try:
                try:
                    while True:
                        fillers.append(os.dup(0))
                except OSError as exc:
                    assert exc.errno == errno.EMFILE
                for client in clients:
                    client.connect(listener.addr)  # into the system's queue
                    client.send(b"patience")
                cpu = time.process_time()
                gort.sleep(0.3)
                looks.append(time.process_time() - cpu)
                assert listener.refused > 0
                for fd in fillers[: len(fillers) // 2]:
                    os.close(fd)
                del fillers[: len(fillers) // 2]
                served = 0
                for client in clients:  # in the order they came; each that ends makes room for others
                    client.settimeout(20)
                    assert answer(client) == b"patience"
                    client.close()
                    served += 1
                assert served == count
            finally:
                for fd in fillers:
                    os.close(fd)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            works(listener)

    program(main, procs)
    assert looks[0] < 0.2, "it spins"


def test_a_plain_thread_waits_when_no_descriptor_is_left():
    """Its reads, writes and accepts fail (EMFILE), spin, or do not end when their time is over or they are closed."""
    a, b = socket.socketpair()
    with net.Conn(a) as conn, net.Conn(b) as peer, net.listen("127.0.0.1:0") as listener:
        client = net.dial(listener.addr)  # while there is a descriptor for it
        with client, few_descriptors():
            with pytest.raises(OSError, match="Too many"):
                os.dup(0)
            cpu = time.process_time()
            with pytest.raises(TimeoutError, match="timed out after 0.2 s"):
                conn.read(timeout=0.2)
            assert time.process_time() - cpu < 0.15, "it spins"
            conn.set_read_deadline(time.monotonic() + 0.05)
            with pytest.raises(TimeoutError, match="deadline is over"):
                conn.read()
            conn.set_read_deadline(None)
            with pytest.raises(TimeoutError), gort.timeout(0.05):  # whose clock is the background runtime's
                conn.read()
            with pytest.raises(TimeoutError, match="no descriptor left"):
                listener.accept(timeout=0.05)
            data = os.urandom(3_000_000)  # more than there is room for, so both have to wait
            writer = threading.Thread(target=conn.write, args=[data])
            writer.start()
            assert peer.read_exactly(len(data), timeout=20) == data
            writer.join()
            errors = []

            def reads():
                try:
                    peer.read()
                except OSError as exc:
                    errors.append(exc)

            reader = threading.Thread(target=reads)
            reader.start()
            peer.close()
            reader.join(20)
            assert [type(exc) for exc in errors] == [net.ConnClosed]
        listener.accept(5).close()  # it was not lost


def test_sendfile_when_no_descriptor_is_left(tmp_path, procs):
    """It fails (EMFILE), though no descriptor is needed to send a file."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1_000_000))

    def main():
        a, b = socket.socketpair()
        with net.Conn(a) as conn, net.Conn(b) as peer, path.open("rb") as file:
            reader = gort.go(peer.read_exactly, 900_000, timeout=20)
            with few_descriptors():
                assert conn.sendfile(file, 50_000, 900_000) == 900_000
            assert reader.result(20) == path.read_bytes()[50_000:950_000]

    program(main, procs)


class Scripted(socket.socket):
    """A listening socket that fails first as the script says."""

    script: list[int]

    def accept(self):
        if self.script:
            number = self.script.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


@pytest.mark.parametrize("name", ["ECONNABORTED", "EPROTO", "EHOSTUNREACH", "ENFILE", "ENOBUFS", "ENOMEM", "EMFILE"])
def test_errors_of_accept_that_pass(name):
    """A connection that was given up before it was accepted, or a short shortage, ends the server."""

    def main():
        sock = Scripted()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.script = [getattr(errno, name)] * 4
        with net.Listener(sock) as listener:
            g = gort.go(net.serve, listener, echo)
            works(listener)
            assert not sock.script
            assert listener.refused == (4 if getattr(errno, name) in listener_module._FULL else 0)
            listener.close()
            g.result(5)

    program(main)


def test_errors_of_accept_that_do_not_pass():
    """An error that will never go away is tried again for ever."""

    def main():
        sock = Scripted()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.script = [errno.EINVAL]
        listener = net.Listener(sock)
        with pytest.raises(OSError) as info:
            net.serve(listener, echo)
        assert info.value.errno == errno.EINVAL and listener.closed

    program(main)


def test_a_client_that_gives_up_in_the_queue():
    """A connection that was reset before it was accepted ends the server (on some systems accept then fails)."""

    def main():
        with net.listen("127.0.0.1:0") as listener:
            for _ in range(5):
                reset(socket.create_connection(listener.addr))
            ok = socket.create_connection(listener.addr)
            with reports() as told:
                g = gort.go(net.serve, listener, echo)
                ok.send(b"x")
                assert answer(ok) == b"x"
                ok.close()
                listener.close()
                g.result(5)
            assert told == []

    program(main)


def test_signals_without_end(procs):
    """EINTR ends an accept, a read, a write or a look-up, or loses data."""
    came = []

    def main():
        before = signal.signal(signal.SIGALRM, lambda *_: came.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        try:
            with server(echo) as listener:
                data = os.urandom(500_000)
                for _ in range(4):
                    with net.dial(("localhost", listener.addr[1])) as conn:
                        g = gort.go(conn.write, data)
                        assert conn.read_exactly(len(data)) == data
                        g.result(5)
                while len(came) < 50:
                    gort.sleep(0.005)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    program(main, procs)


def test_a_connection_s_descriptor_is_closed_by_other_code(procs):
    """A descriptor that other code closed hangs its goroutine for good, or keeps the number's next owner from its data."""

    def main():
        a, b = socket.socketpair()
        conn = net.Conn(a)
        timed = gort.go(conn.read, timeout=0.1)
        reader = gort.go(conn.read)
        gort.sleep(0.02)
        os.close(conn.fileno())
        assert isinstance(timed.exception(5), (TimeoutError, OSError))
        with pytest.raises(OSError) as info:
            conn.write(b"x")
        assert info.value.errno == errno.EBADF
        c, d = socket.socketpair()
        if d.fileno() == conn.fileno():
            c, d = d, c
        assert c.fileno() == conn.fileno()
        with net.Conn(c) as new:
            g = gort.go(new.read)
            gort.sleep(0.02)
            d.send(b"for the new one")
            assert g.result(5) == b"for the new one"
            a.detach()  # it is not ours any more
            conn.close()
            assert reader.exception(5) is not None
            d.send(b"still there")
            assert new.read(timeout=5) == b"still there"
        b.close()
        d.close()

    program(main, procs)


def test_ten_thousand_reads_time_out_at_once():
    """Of many reads that end at one instant one is forgotten, or they take a search each."""
    pairs = 1000 if resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 3000 else 200

    def main():
        socks = [socket.socketpair() for _ in range(pairs)]
        conns = [net.Conn(s) for ab in socks for s in ab]
        when = time.monotonic() + 0.7
        each = 10_000 // len(conns)

        def reads(conn):
            with pytest.raises(TimeoutError):
                conn.read(timeout=max(0.0, when - time.monotonic()))

        for conn in conns:
            conn.set_read_deadline(when)
        gs = [gort.go(reads, conn) for conn in conns for _ in range(each)]
        for g in gs:
            g.result(30)
        assert when <= time.monotonic() < when + 15
        for conn in conns:
            conn.close()

    program(main)


def test_an_exception_in_a_handler(procs):
    """A handler's error ends the server, leaves its connection open, or is not reported, or twice."""

    def main():
        def handler(conn):
            if conn.read() == b"bad":
                raise ZeroDivisionError("on purpose")
            conn.write(b"good")

        with reports() as told:
            with server(handler, limit=2) as listener:
                for word in (b"bad", b"ok", b"bad", b"bad", b"ok"):
                    with net.dial(listener.addr) as conn:
                        conn.write(word)
                        assert conn.read_all(timeout=10) == (b"good" if word == b"ok" else b"")
            end = time.monotonic() + 10
            while len(told) < 3:
                assert time.monotonic() < end
                gort.sleep(0.001)
        assert [args.exc_type for args in told] == [ZeroDivisionError] * 3

    program(main, procs)


def test_a_reset_that_a_group_in_a_handler_meets(procs):
    """A peer's end is reported if goroutines of the handler's meet it; or another's error beside it is not."""

    def main():
        def errand(begun):
            begun.send(None)
            try:
                gort.sleep(60)
            except gort.Cancelled:  # the group has met the reset: this error is beside it, and never instead of it
                raise ConnectionRefusedError("the errand's own") from None

        def handler(conn):
            other = conn.read(1)
            with gort.Group() as group:
                if other == b"!":
                    begun = gort.Chan(1)
                    group.go(errand, begun)
                    begun.recv()  # (a goroutine that is cancelled before it begins never runs)
                group.go(conn.write, b"x" * 50_000_000)
                group.go(conn.read_all)

        with reports() as told, server(handler) as listener:
            for word in (b".", b"!", b"."):
                client = socket.create_connection(listener.addr)
                client.send(word)
                assert answer(client)
                reset(client)
            end = time.monotonic() + 10
            while not told or gort.num_goroutine() > 2:
                assert time.monotonic() < end, (told, gort.stacks())
                gort.sleep(0.001)
        assert len(told) == 1
        kinds = set(map(type, told[0].exc_value.exceptions))
        assert ConnectionRefusedError in kinds and kinds & {ConnectionResetError, BrokenPipeError}

    program(main, procs)


def test_another_connection_s_reset_in_a_handler_is_an_error():
    """A handler whose own errand fails (a database's connection is reset) is not reported."""

    def main():
        port = unused_port()

        def handler(conn):
            net.dial(("127.0.0.1", port))

        with reports() as told, server(handler) as listener:
            with net.dial(listener.addr) as conn:
                assert conn.read_all(timeout=10) == b""
            end = time.monotonic() + 10
            while not told:
                assert time.monotonic() < end
                gort.sleep(0.001)
        assert told[0].exc_type is ConnectionRefusedError

    program(main)


def test_cancelled_everywhere(procs, jitter):
    """A cancellation at some point of dialling, serving, reading or writing leaves something behind."""

    def main():
        import random

        rng = random.Random(procs)

        def client(addr):
            with net.dial(addr) as conn:
                conn.write(b"x" * rng.choice([1, 1000, 300_000]))
                conn.close_write()
                conn.read_all()

        with reports(), server(echo, grace=0) as listener:
            for _ in range(15):
                gs = [gort.go(client, listener.addr) for _ in range(8)]
                for g in gs:
                    for _ in range(rng.randrange(4)):
                        gort.gosched()
                    g.cancel()
                for g in gs:
                    g.join(20)
            works(listener)

    program(main, procs)


CTRL_C = """
import os, signal, sys, threading, time
import gort
from gort import net

def echo(conn):
    try:
        while data := conn.read():
            conn.write(data)
    finally:
        cleaned.append(1)

cleaned = []

def main():
    listener = net.listen("127.0.0.1:0")
    if where == "dial":
        import socket
        full = socket.socket(); full.bind(("127.0.0.1", 0)); full.listen(0)
        fill = [socket.socket() for _ in range(3)]
        for s in fill:
            s.setblocking(False)
            s.connect_ex(full.getsockname())
        print("ready", flush=True)
        net.dial(full.getsockname())
    g = gort.go(net.serve, listener, echo)
    conns = [net.dial(listener.addr) for _ in range(20)]
    for conn in conns:  # so that each has its handler, which has begun
        conn.write(b"x")
        conn.read_exactly(1)
    if where == "busy":
        def load(conn):
            try:
                while True:
                    conn.write(b"x" * 100)
                    conn.read_exactly(100)
            except (OSError, net.IncompleteRead):
                pass  # the server's side may have been cancelled first
        for conn in conns:
            gort.go(load, conn)
    print("ready", flush=True)
    if where == "lines":
        conns[0].read_until()
    g.result()

where = sys.argv[1]
try:
    gort.run(main, procs=int(sys.argv[2]))
except KeyboardInterrupt:
    left = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    print("interrupted", len(cleaned), left)
    sys.exit(7)
"""


@pytest.mark.parametrize("where", ["idle", "busy", "lines", "dial"])
def test_ctrl_c_in_the_middle(where, procs):
    """Ctrl-C does not end a server, or leaves handlers without their clean-up, or threads running."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "faulthandler", "-c", CTRL_C, where, str(procs)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGABRT)
            print(child.communicate()[1])
    assert (out, child.returncode) == (f"interrupted {0 if where == 'dial' else 20} []\n", 7), (out, err)
    assert "Traceback" not in err, err


PLAIN_CTRL_C = """
import os, signal, socket, sys, threading
import gort
from gort import net
from gort.green import os as green_os, select, subprocess
from gort.green import socket as green

gort.go(lambda: None).join()  # so there is a background runtime, to whom SIGINT belongs
a, b = socket.socketpair()
conn, peer = net.Conn(a), net.Conn(b)
listener = net.listen("127.0.0.1:0")
pipe, _ = os.pipe()
twin = green.socket(fileno=os.dup(conn.fileno()))

def limited():
    with gort.timeout(50):
        conn.read()

class Early(socket.socket):
    sent = False

    def recv(self, n):
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGINT)
        raise BlockingIOError

def early():  # in the middle of gort's own work, which then waits
    with net.Conn(Early(fileno=os.dup(a.fileno()))) as conn:
        conn.read()

wait = {
    "read": conn.read, "write": lambda: conn.write(bytes(10**8)), "accept": listener.accept, "green": lambda: twin.recv(1),
    "limited": limited, "early": early, "select": lambda: select.select([conn], [], []), "pipe": lambda: green_os.read(pipe, 1),
    "process": lambda: subprocess.run(["sleep", "50"]),
}[sys.argv[1]]
before = os.listdir("/proc/self/fd")
try:
    if wait is not early:  # who interrupts himself
        print("ready", flush=True)
    wait()
except KeyboardInterrupt:
    assert os.listdir("/proc/self/fd") == before
    peer.write(b"x")
    assert conn.read(timeout=20) == b"x"
    print("interrupted", threading.active_count() < 10)
    sys.exit(7)
"""


@pytest.mark.parametrize("where", ["read", "write", "accept", "green", "limited", "early", "select", "pipe", "process"])
def test_ctrl_c_while_a_plain_thread_waits(where):
    """The main thread, a plain one beside a runtime, cannot be interrupted in its waits for I/O."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "faulthandler", "-c", PLAIN_CTRL_C, where]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
    try:
        if where != "early":
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.1)
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGABRT)
            print(child.communicate()[1])
    assert (out, err, child.returncode) == ("interrupted True\n", "", 7)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_that_closes_its_parent_s_listener(tmp_path, procs):
    """The parent can not be reached any more: its Unix socket's file is gone."""
    path = tmp_path / "socket"

    def main():
        with net.listen(path) as listener:
            pid = os.fork()
            if not pid:
                listener.close()
                os._exit(0)
            assert gort.blocking(os.waitpid, pid, 0)[1] == 0
            with net.dial(path, timeout=20), listener.accept(20):
                pass
        assert not path.exists()

    program(main, procs)


def test_threads_use_connections_beside_goroutines(jitter):
    """A plain thread and goroutines on one connection disturb each other."""

    def main():
        with server(echo) as listener:
            conn = net.dial(listener.addr)
            total = 300_000
            got = []

            def reads():
                left = total
                while left:
                    data = conn.read(min(left, 5000))
                    left -= len(data)
                got.append(total - left)

            thread = threading.Thread(target=reads)
            thread.start()
            for _ in range(total // 1000):
                conn.write(b"x" * 1000)
            while not got:
                gort.sleep(0.001)
            thread.join()
            assert got == [total]
            conn.close()

    program(main)


# -- each fault again and again, and Ctrl-C in the middle of it ------------------------------------------------------

FAULTS = """
import errno, os, resource, signal, socket, struct, sys, threading, time
import gort
from gort import net

def fds():
    return len(os.listdir("/proc/self/fd"))

def echo(conn):
    while data := conn.read():
        conn.write(data)

def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()

def went(n):  # how often the fault has happened
    if n == 20:
        print("ready", flush=True)

def works(listener):
    with net.dial(listener.addr, timeout=20) as conn:
        conn.write(b"hello")
        assert conn.read_exactly(5, timeout=20) == b"hello"

def resets(listener):  # in the middle of reads and of writes
    for n in range(1, 10**9):
        with net.dial(listener.addr) as conn:
            if n % 2:
                conn.write(b"x")
            else:
                try:
                    conn.write(b"x" * 10_000_000, timeout=0.01)
                except TimeoutError:
                    pass
            conn.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        went(n)

def half_open(listener):
    for n in range(1, 10**9):
        with net.dial(listener.addr) as a, net.dial(listener.addr) as b:
            b.close_write()
            try:
                a.read(timeout=0.001)
            except TimeoutError:
                pass
        went(n)

def emfile(listener):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    clients = [socket.socket() for _ in range(10)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (fds() + 2, hard))
    fillers = []
    try:
        try:
            while True:
                fillers.append(os.dup(0))
        except OSError as exc:
            assert exc.errno == errno.EMFILE
        for client in clients:
            client.connect(listener.addr)
        while not listener.refused:
            gort.sleep(0.001)
        went(20)
        gort.sleep(100)
    finally:
        for fd in fillers:
            os.close(fd)
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

def aborted(listener):
    for n in range(1, 10**9):
        reset(socket.create_connection(listener.addr))  # perhaps before it is accepted
        went(n)
        gort.gosched()

def eintr(listener):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for n in range(1, 10**9):
            works(listener)
            went(n)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

def closed(listener):  # by other code, which then gets the number for something else
    def read(conn):
        try:
            conn.read()
        except OSError:
            pass
    for n in range(1, 10**9):
        a, b = socket.socketpair()
        with b, net.Conn(a) as conn:
            g = gort.go(read, conn)
            while g.state != "waiting":
                gort.gosched()
            os.close(a.detach())
            gort.gosched()
        g.join(20)
        went(n)

def forks(listener):
    for n in range(1, 10**9):
        with net.dial(listener.addr) as conn:
            pid = os.fork()
            if not pid:
                conn.close()
                listener.close()
                os._exit(0)
            try:
                conn.write(b"still")
                assert conn.read_exactly(5) == b"still"
            finally:
                assert gort.blocking(os.waitpid, pid, 0)[1] == 0
        went(2 * n)

def time_outs(listener):
    socks = [socket.socketpair() for _ in range(100)]
    conns = [net.Conn(sock) for pair in socks for sock in pair]
    def reads(conn):
        for n in range(1, 10**9):
            try:
                conn.read()
            except TimeoutError:
                gort.sleep(0.001)
            except net.ConnClosed:
                return
    try:
        when = time.monotonic() + 0.5
        for conn in conns:
            conn.set_deadline(when)
        for conn in conns:
            for _ in range(50):
                gort.go(reads, conn)
        gort.sleep(0.5)
        went(20)
        gort.sleep(100)
    finally:
        for conn in conns:
            conn.close()

def handler_fails(listener):
    for n in range(1, 10**9):
        with net.dial(listener.addr) as conn:
            conn.write(b"!")
            assert conn.read_all(timeout=20) == b""
        went(n)

def handle(conn):
    first = conn.read()
    if first == b"!":
        raise ZeroDivisionError("on purpose")
    conn.write(first)
    echo(conn)

def main():
    listener = net.listen("127.0.0.1:0")
    gort.go(net.serve, listener, handle)
    works(listener)
    try:
        gort.go(faults, listener).result()
    finally:
        over.append(1)

def faults(listener):
    try:
        fault(listener)
    except (OSError, net.IncompleteRead):
        if not over:  # else the server's side was cancelled before this one
            raise

over = []
fault = globals()[sys.argv[1]]
before_hook = gort.excepthook
gort.excepthook = lambda args: None if args.exc_type is ZeroDivisionError else before_hook(args)
before = fds()
try:
    gort.run(main, procs=int(sys.argv[2]))
except KeyboardInterrupt:
    left = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
    gort.run(lambda: None)  # and the next one works
    print("interrupted", fds() - before, left, gort.num_goroutine())
    sys.exit(7)
"""


@pytest.mark.parametrize(
    "fault",
    ["resets", "half_open", "emfile", "aborted", "eintr", "closed", "forks", "time_outs", "handler_fails"],
)
@pytest.mark.parametrize("procs", [1, 2, 8] if "GORT_STRESS" in os.environ else [2])
def test_ctrl_c_in_the_middle_of_a_fault(fault, procs):
    """Ctrl-C meets a fault, and does not end the program, or leaves a descriptor, a thread or a goroutine behind."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-X", "faulthandler", "-c", FAULTS, fault, str(procs)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGABRT)
        if not child.stdout.closed:
            print(child.communicate())
    assert (out, err, child.returncode) == ("interrupted 0 [] 0\n", "", 7)
