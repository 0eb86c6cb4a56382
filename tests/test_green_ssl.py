"""gort.green.ssl: TLS whose handshake, reads, writes and closing park the goroutine.

tests/localhost.pem is a certificate for "localhost", signed by itself, with its key: made for these tests alone.
"""

from __future__ import annotations

import errno
import os
import random
import socket as std_socket
import ssl as std
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gort
from gort import go, net, run
from settling import start
from spreading import go_all
from gort.green import socket, ssl

PEM = Path(__file__).parent / "localhost.pem"

pytestmark = pytest.mark.usefixtures("descriptors")


def server_context(module: Any = ssl) -> Any:
    context = module.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    return context


def client_context(module: Any = ssl) -> Any:
    return module.create_default_context(cafile=PEM)


def pair(version: Any = None, **options: Any) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """A client's and a server's end of one TLS connection."""
    a, b = socket.socketpair()
    server, client = server_context(), client_context()
    if version is not None:
        server.maximum_version = client.maximum_version = version
    g = go(server.wrap_socket, b, server_side=True, **options)
    return client.wrap_socket(a, server_hostname="localhost", **options), g.result()


def test_names_and_types():
    """It has the standard module's names, makes green sockets, and its contexts are standard contexts too."""
    missing = [name for name in vars(std) if not name.startswith("__") and not hasattr(ssl, name)]
    assert not missing
    assert ssl.SSLError is std.SSLError and ssl.CERT_REQUIRED is std.CERT_REQUIRED
    for context in (
        client_context(),
        server_context(),
        ssl._create_unverified_context(),
        ssl._create_default_https_context(),
    ):
        assert type(context) is ssl.SSLContext and isinstance(context, std.SSLContext)
    assert client_context().verify_mode == ssl.CERT_REQUIRED and client_context().check_hostname
    context = client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # the setters of the standard class work on it
    context.options |= ssl.OP_NO_COMPRESSION
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_both_directions_at_once(procs: int, version: str, jitter):
    """A reader and a writer on each end, on one machine and on two: every byte arrives, in order."""
    amount = 400_000

    def main() -> None:
        client, server = pair(getattr(ssl.TLSVersion, version))
        with client, server:
            assert isinstance(client, std.SSLSocket) and isinstance(client, socket.socket)
            assert client.version() == version.replace("_", ".") and client.getpeercert()["subject"]
            data = random.Random(1).randbytes(amount), random.Random(2).randbytes(amount)
            barrier = threading.Barrier(min(procs, 2))

            def write(sock: Any, data: bytes) -> None:
                rng = random.Random(3)
                barrier.wait()
                at = 0
                while at < len(data):
                    n = rng.randrange(1, 60_000)
                    sock.sendall(data[at : at + n])
                    at += n

            def read(sock: Any) -> bytes:
                barrier.wait()
                got = bytearray()
                while len(got) < amount:
                    got += sock.recv(random.randrange(1, 40_000))
                return bytes(got)

            ends = go_all((write, client, data[0]), (read, server), (write, server, data[1]), (read, client))
            assert [g.result() for g in ends] == [None, data[0], None, data[1]]

    run(main, procs=procs)


def test_certificates_are_checked():
    """The defaults refuse a certificate nobody vouches for, and one for another name; the server lives on."""

    def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            context = server_context()

            def serve() -> None:
                while True:
                    sock, _ = server.accept()
                    with sock:
                        try:
                            with context.wrap_socket(sock, server_side=True) as tls:
                                tls.sendall(tls.recv(100))
                        except OSError:
                            pass

            g = go(serve)
            address = ("localhost", server.getsockname()[1])
            for bad, name in ((ssl.create_default_context(), "localhost"), (client_context(), "example.org")):
                with socket.create_connection(address) as sock, pytest.raises(ssl.SSLCertVerificationError):
                    bad.wrap_socket(sock, server_hostname=name)
            with client_context().wrap_socket(socket.socket(), server_hostname="localhost") as tls:
                tls.connect(address)  # connects, then does the handshake
                tls.sendall(b"hello")
                assert tls.recv(100) == b"hello"
            assert "BEGIN CERTIFICATE" in ssl.get_server_certificate(address, ca_certs=str(PEM))
            g.cancel()
            g.join()

    run(main, procs=1)


def test_a_listening_tls_socket():
    """`accept` of a TLS listener gives green TLS sockets."""

    def main() -> None:
        with server_context().wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
            g = go(listener.accept)
            sock = socket.create_connection(listener.getsockname())
            with client_context().wrap_socket(sock, server_hostname="localhost") as client:
                peer, _ = g.result()
                with peer, peer.makefile("rw") as file:
                    assert type(peer) is ssl.SSLSocket
                    client.write(b"a line\n")
                    assert file.readline() == "a line\n"
                    file.write("and back\n")
                    file.flush()
                    buffer = bytearray(20)
                    assert client.recv_into(buffer) == 9 and buffer[:9] == b"and back\n"

    run(main, procs=1)


def test_time_outs_and_not_waiting():
    """The standard TimeoutError in handshake, read and write; SSLWantReadError for a non-blocking socket."""

    def main() -> None:
        a, b = socket.socketpair()
        with b:
            a.settimeout(0.01)
            with pytest.raises(TimeoutError):
                client_context().wrap_socket(a, server_hostname="localhost")  # nobody answers
        client, server = pair()
        with client, server:
            client.settimeout(0.01)
            for call in (lambda: client.recv(1), lambda: client.read(1), lambda: client.recv_into(bytearray(1))):
                with pytest.raises(TimeoutError, match="timed out"):
                    call()
            with pytest.raises(TimeoutError):
                client.sendall(bytes(10_000_000))
        client, server = pair()
        with client, server:
            client.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                client.recv(1)
            with pytest.raises(ssl.SSLWantWriteError):
                while True:
                    client.send(bytes(65536))
        a, b = socket.socketpair()
        with a, b:
            a.setblocking(False)
            with client_context().wrap_socket(a, server_hostname="localhost", do_handshake_on_connect=False) as tls:
                with pytest.raises(ssl.SSLWantReadError):
                    tls.do_handshake()
                g = go(server_context().wrap_socket, b, server_side=True)
                tls.do_handshake(block=True)
                assert tls.gettimeout() == 0.0
                g.result().close()

    run(main, procs=1)


@pytest.mark.parametrize("what", ["read", "handshake", "write"])
def test_close_and_cancel_reach_who_waits(procs: int, what: str):
    """`close` gives a waiting goroutine an OSError, `cancel` ends it, and no descriptor is left."""

    def main() -> None:
        for how in ("close", "cancel"):
            a, b = socket.socketpair()
            if what == "handshake":
                tls = client_context().wrap_socket(a, server_hostname="localhost", do_handshake_on_connect=False)
                wait: Callable[[], Any] = tls.do_handshake
                other: Any = b
            else:
                a.close()
                b.close()
                tls, other = pair()
                wait = partial(tls.recv, 1) if what == "read" else partial(tls.sendall, bytes(10_000_000))
            g = go(wait)
            gort.sleep(0.01)
            if how == "close":
                tls.close()
                exc = g.exception()
                assert isinstance(exc, OSError) and exc.errno == errno.EBADF
            else:
                g.cancel()
                assert isinstance(g.exception(), gort.Cancelled)
                tls.close()
            other.close()

    run(main, procs=procs)


def test_the_end_of_a_connection():
    """`unwrap` waits for the other side and gives the plain socket back; a lost connection ends as the options say."""

    def main() -> None:
        client, server = pair()
        g = go(client.unwrap)
        gort.gosched()
        assert server.recv(10) == b""
        plain = server.unwrap()
        other = g.result()
        other.sendall(b"in clear")
        assert plain.recv(100) == b"in clear"
        other.close()
        plain.close()
        client.close()
        server.close()

        for suppress in (True, False):
            client, server = pair(suppress_ragged_eofs=suppress)
            with client:
                os.close(server.detach())  # without the closing message
                if suppress:
                    assert client.recv(10) == b""
                else:
                    with pytest.raises(ssl.SSLEOFError):
                        client.recv(10)

    run(main, procs=1)


def test_shutdown_ends_a_waiting_read():
    """Another goroutine's `shutdown` is the end of the data for who reads, as it is for a thread."""

    def main() -> None:
        for call in (lambda s: s.recv(10), lambda s: s.makefile("rb").readline()):
            client, server = pair()
            with client, server:
                g = go(call, client)
                gort.sleep(0.005)
                client.shutdown(socket.SHUT_RDWR)
                assert g.result() == b""
                with pytest.raises(ValueError):
                    client.read(10)

    run(main, procs=1)


def test_a_standard_context_makes_standard_sockets():
    """The two kinds can be mixed: a standard context turns a green socket into a standard, blocking TLS socket."""

    def main() -> None:
        a, b = socket.socketpair()

        def serve() -> None:
            with server_context(std).wrap_socket(b, server_side=True) as sock:
                assert type(sock) is std.SSLSocket and os.get_blocking(sock.fileno())
                sock.sendall(sock.recv(100))

        thread = threading.Thread(target=serve)
        thread.start()
        with client_context().wrap_socket(a, server_hostname="localhost") as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
        thread.join()

    run(main)
    main()  # and without goroutines


def test_a_conn_with_a_context_of_this_module(procs: int) -> None:
    """Broken: of two goroutines that use a net.TLSConn with a green context, one blocks the thread that the other needs."""
    data = bytes(50_000_000)  # more than one slice's work
    listener = std_socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        """The other side, on a thread of its own, so that the writer never has to wait."""
        with server_context(std).wrap_socket(listener.accept()[0], server_side=True) as sock:
            left = 4 * len(data)
            while left:
                left -= len(sock.recv(2**16))
                sock.send(b"k")

    def main() -> None:
        with net.dial(listener.getsockname(), tls=client_context(), server_hostname="localhost") as conn:
            reader = start(lambda: list(iter(conn.read, b"")))
            for _ in range(4):
                conn.write(data)
            assert set(b"".join(reader.result())) == set(b"k")

    with listener:
        server = threading.Thread(target=serve)
        server.start()
        run(main, procs=procs)
        server.join()


def test_a_conn_is_closed_while_a_callback_waits() -> None:
    """Broken: a handshake calls back into the program, which waits there, and whoever closes the connection blocks the
    thread."""
    arrived, go_on = gort.Event(), gort.Event()

    def callback(*_: Any) -> None:
        arrived.set()
        go_on.wait()

    def main() -> None:
        context = server_context()
        context.sni_callback = callback
        with net.listen("127.0.0.1:0", tls=context) as listener:
            client = go(net.dial, listener.addr, tls=client_context(), server_hostname="localhost")
            conn = listener.accept()
            server = go(conn.handshake)
            arrived.wait()
            conn.close()
            go_on.set()
            assert isinstance(server.exception(), OSError) and isinstance(client.exception(), OSError)

    run(main, procs=1)
