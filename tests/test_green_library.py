"""The standard library's own clients and servers, running on gort.green.

Each is unchanged code that has been given the twins instead of the modules it imported; server and clients are
goroutines of one P, so that anything that blocked its thread would hang.
"""

from __future__ import annotations

import asyncio
import http.client
import http.server
import smtplib
import socket as std
import socketserver
import urllib.request
import xmlrpc.client
from pathlib import Path
from typing import Any

import pytest

import gort
from gort import go, run
from gort.green import os, queue, select, selectors, socket, ssl, threading, time

PEM = Path(__file__).parent / "localhost.pem"

pytestmark = pytest.mark.usefixtures("descriptors")


@pytest.fixture(autouse=True)
def green(monkeypatch):
    """As if these modules had imported the twins."""
    for module in (http.client, http.server, smtplib, socketserver, urllib.request, xmlrpc.client):
        for name, twin in (
            ("socket", socket),
            ("ssl", ssl),
            ("selectors", selectors),
            ("threading", threading),
            ("time", time),
        ):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, twin)
    monkeypatch.setattr(socketserver, "_ServerSelector", selectors.PollSelector)
    monkeypatch.setenv("no_proxy", "*")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        body = self.path.encode() * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for i in range(0, len(body), 1000):
            part = body[i : i + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_http(tls: bool):
    """http.server with http.client and urllib: keep-alive, chunks, many clients at a time, with and without TLS."""
    context = ssl.create_default_context(cafile=str(PEM))

    def main() -> None:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            assert isinstance(server.socket, socket.socket)
            if tls:
                serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                serving.load_cert_chain(PEM)
                server.socket = serving.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            serve = go(server.serve_forever, 0.01)
            port = server.server_address[1]

            def client(i: int) -> None:
                if tls:
                    connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=context)
                else:
                    connection = http.client.HTTPConnection("localhost", port, timeout=30)
                for path in (f"/{i}", f"/{i}/again"):
                    connection.request("GET", path)
                    with connection.getresponse() as response:
                        assert response.status == 200 and response.read() == path.encode() * 1000
                    assert isinstance(connection.sock, socket.socket)
                connection.request("POST", "/", body=b"%d" % i * 3000)
                with connection.getresponse() as response:
                    assert response.read() == b"%d" % i * 3000
                connection.close()

            for g in [go(client, i) for i in range(5)]:  # as many as its queue holds
                g.result()
            url = f"http{'s' if tls else ''}://localhost:{port}/urllib"
            with urllib.request.urlopen(url, timeout=30, context=context if tls else None) as response:
                assert response.read() == b"/urllib" * 1000
            server.shutdown()
            serve.result()

    run(main, procs=1)


def test_socketserver():
    """A TCPServer that serves one after the other, and stops on request while it waits."""

    class Upper(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    def main() -> None:
        with socketserver.TCPServer(("127.0.0.1", 0), Upper) as server:
            serve = go(server.serve_forever, 0.01)
            for _ in range(3):
                with socket.create_connection(server.server_address) as sock, sock.makefile("rw") as file:
                    file.write("one\ntwo\n")
                    file.flush()
                    assert file.readline() + file.readline() == "ONE\nTWO\n"
            server.shutdown()
            serve.result()

    run(main, procs=1)


def test_smtplib():
    """A mail is handed over: dialogue by lines, both sides wait for each other."""
    received: list[str] = []

    def serve(server: Any) -> None:
        sock, _ = server.accept()
        with sock, sock.makefile("rw", newline="\r\n") as file:

            def say(line: str) -> None:
                file.write(line + "\r\n")
                file.flush()

            say("220 here")
            while line := file.readline().rstrip("\r\n").lower():
                received.append(line)
                if line.startswith("data"):
                    say("354 go on")
                    while (line := file.readline().rstrip("\r\n")) != ".":
                        received.append(line)
                say("221 bye" if line == "quit" else "250 ok")
                if line == "quit":
                    return

    def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            g = go(serve, server)
            with smtplib.SMTP("127.0.0.1", server.getsockname()[1], "me", timeout=30) as smtp:
                smtp.sendmail("a@example.org", ["b@example.org"], "Subject: x\n\n.dot\nlast\n")
            g.result()
        assert "mail from:<a@example.org>" in received and received[-4:] == ["", "..dot", "last", "quit"]

    run(main, procs=1)


def test_asyncio_over_a_green_selector():
    """asyncio's own loop, in a goroutine, on the twin of its selector: other goroutines run while it waits."""

    async def echo(reader: Any, writer: Any) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def serve(address: Any, stop: Any) -> str:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            address.send(server.sockets[0].getsockname())
            await asyncio.sleep(0.001)
            while not stop:
                await asyncio.sleep(0.001)
        return "stopped"

    def main() -> None:
        address: gort.Chan[Any] = gort.Chan(1)
        stop: list[int] = []

        def loop_in_a_goroutine() -> str:
            loop = asyncio.SelectorEventLoop(selectors.DefaultSelector())
            try:
                return loop.run_until_complete(serve(address, stop))
            finally:
                loop.close()

        g = go(loop_in_a_goroutine)
        where = address.recv()
        for _ in range(5):
            with socket.create_connection(where) as sock, sock.makefile("rw") as file:
                file.write("line\n")
                file.flush()
                assert file.readline() == "line\n"
        stop.append(1)
        assert g.result() == "stopped"

    run(main, procs=1)


@pytest.mark.parametrize("what", ["select", "poll", "epoll", "os.read", "file", "lock", "queue", "recv"])
def test_what_never_waits_gives_way(what: str, tmp_path: Path):
    """A loop whose calls always find something must not keep its P for itself."""
    path = tmp_path / "f"
    path.write_bytes(bytes(100_000))

    def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server, gort.open(path, "rb", buffering=0) as file:
            writable = socket.create_connection(server.getsockname())
            poll, epoll = select.poll(), select.epoll()
            poll.register(writable, select.POLLOUT)
            epoll.register(writable, select.EPOLLOUT)
            lock, q = threading.Lock(), queue.Queue()
            a, b = socket.socketpair()
            calls: dict[str, Any] = {
                "select": lambda: select.select([], [writable], []),
                "poll": poll.poll,
                "epoll": epoll.poll,
                "os.read": lambda: os.read(file.fileno(), 10) or file.seek(0),
                "file": lambda: file.read(10) or file.seek(0),
                "lock": lambda: lock.acquire() and lock.release(),
                "queue": lambda: (q.put(1), q.get()),
                "recv": lambda: (a.send(b"x"), b.recv(1)),
            }

            def spin() -> None:
                while True:
                    calls[what]()

            spinner = go(spin)
            for _ in range(3):
                gort.sleep(0.001)
            spinner.cancel()
            while not spinner.done():  # (it is raised where it would wait, which this one never does)
                gort.sleep(0)
                calls[what] = lambda: gort.sleep(1)
            for each in (writable, epoll, a, b):
                each.close()

    run(main, procs=1)


def test_the_standard_module_is_untouched():
    """Borrowing code must not change where it was borrowed from."""
    assert std.create_connection.__globals__ is vars(std)
    assert std.socket.makefile.__globals__ is vars(std)
    with std.create_server(("127.0.0.1", 0)) as server:
        assert type(server) is std.socket
