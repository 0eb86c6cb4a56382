"""The network's examples, run as a user runs them: echo.py, redis_ping.py, portscan.py."""

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import threading

import pytest

from nettools import link_local, row_of_ports, unused_port
from test_examples import finish, run, start

pytestmark = pytest.mark.limit(150)


# -- echo.py -------------------------------------------------------------------------------------------------------


def test_echo_by_itself():
    """What a newcomer runs first: server and load in one command."""
    done = run("echo.py", "-c", 20, "-n", 400)
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode()
    assert "20 connections, 400 requests of 64 bytes" in out and "us of CPU a request" in out


def test_echo_with_many_connections():
    """Of many connections at once one is lost, or a byte of theirs (10,000 of them with GORT_STRESS)."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 100
    count = min(10_000 if os.environ.get("GORT_STRESS") else 1_000, most)
    done = run("echo.py", "-c", count, "-n", 10 * count)
    assert done.returncode == 0, done.stderr
    assert f"{count} connections, {10 * count} requests".encode() in done.stdout


@pytest.mark.parametrize("where", ["tcp", "unix"])
def test_echo_server_and_load_apart(where, tmp_path):
    """The server stops on Ctrl-C, with status 130 and no traceback, and its Unix socket's file is gone."""
    address = f"127.0.0.1:{unused_port()}" if where == "tcp" else f"unix:{tmp_path / 'echo'}"
    server = start("echo.py", "serve", address)
    assert b"listening at <Listener" in server.stdout.readline()
    done = run("echo.py", "load", address, "-c", 5, "-n", 50, "-s", 100_000)
    assert done.returncode == 0 and b"5 connections, 50 requests of 100000 bytes" in done.stdout, done.stderr
    server.send_signal(signal.SIGINT)
    ended = finish(server)
    assert ended.returncode == 130 and ended.stderr == b""
    assert not os.path.exists(tmp_path / "echo")


def test_echo_tells_what_is_wrong():
    """Wrong arguments and a server that is not there get a sentence."""
    done = run("echo.py", "load", f"127.0.0.1:{unused_port()}", "-c", 3, "-n", 3)
    assert done.returncode == 1 and b"3 connections: " in done.stderr and b"Traceback" not in done.stderr
    for address in ("nowhere", "localhost:99999"):
        done = run("echo.py", "load", address, "-c", 3, "-n", 3)
        assert done.returncode == 1 and b"3 connections: " in done.stderr and b"Traceback" not in done.stderr, done.stderr
    for args in (["-c", "0"], ["-s", "x"], ["dance"]):
        assert run("echo.py", *args).returncode == 2
    done = run("echo.py", "serve", "nowhere")
    assert done.returncode == 1 and b"has no port" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "example",
    [["echo.py", "-c", "2", "-n", "10"], ["echo.py", "serve", "localhost:0"], ["redis_ping.py", "localhost:0"], ["portscan.py"]],
)
def test_when_nobody_reads_the_output(example):
    """As with `| true`: another status, or something about it on standard error."""
    if example == ["portscan.py"]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            done = unread("portscan.py", "127.0.0.1", "-p", server.getsockname()[1])
    else:
        done = unread(*example)
    assert (done.returncode, done.stderr) == (141, b"")


def unread(*example):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        return run(*example, stdout=writing)
    finally:
        os.close(writing)


# -- redis_ping.py -------------------------------------------------------------------------------------------------


@pytest.fixture
def redis():
    """A server, and its port."""
    port = unused_port()
    server = start("redis_ping.py", f"127.0.0.1:{port}")
    assert b"listening" in server.stdout.readline()
    yield port
    server.send_signal(signal.SIGINT)
    ended = finish(server)
    assert ended.returncode == 130 and ended.stderr == b""


def command(*words):
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def ask(sock, data, answer):
    sock.sendall(data)
    got = b""
    while len(got) < len(answer):
        more = sock.recv(65536)
        assert more, got
        got += more
    assert got == answer


def test_redis_s_commands(redis):
    """The protocol: arrays and lines, pipelined and in pieces, binary values, errors that name what is wrong."""
    with socket.create_connection(("127.0.0.1", redis), timeout=30) as sock:
        ask(sock, b"PING\r\n", b"+PONG\r\n")
        ask(sock, command(b"PING", b"hello"), b"$5\r\nhello\r\n")
        value = bytes(range(256)) * 1000
        ask(sock, command(b"set", b"k", value), b"+OK\r\n")
        ask(sock, command(b"GET", b"k"), b"$%d\r\n%b\r\n" % (len(value), value))
        ask(sock, command(b"GET", b"none"), b"$-1\r\n")
        ask(sock, command(b"SET", b"k", b"v", b"NX"), b"$-1\r\n")
        ask(sock, command(b"SET", b"k", b"v", b"XX", b"EX", b"100"), b"+OK\r\n")
        ask(sock, command(b"TTL", b"k"), b":100\r\n")
        ask(sock, command(b"SET", b"gone", b"v", b"PX", b"1"), b"+OK\r\n")
        reply = b""
        while reply != b"$-1\r\n":
            sock.sendall(command(b"GET", b"gone"))
            reply = sock.recv(100)
        for wrong in (b"0", b"-1"):
            ask(sock, command(b"SET", b"k", b"v", b"EX", wrong), b"-ERR invalid expire time in 'set' command\r\n")
        for wrong in (b"9" * 400, b"9223372036854775808", b" 5 ", b"1_0"):
            ask(sock, command(b"SET", b"k", b"v", b"EX", wrong), b"-ERR value is not an integer or out of range\r\n")
        ask(sock, command(b"SET", b"most", b"9223372036854775807"), b"+OK\r\n")
        ask(sock, command(b"INCR", b"most"), b"-ERR increment or decrement would overflow\r\n")
        ask(sock, command(b"DEL", b"most"), b":1\r\n")
        ask(sock, command(b"\r\n+OK"), b"-ERR unknown command ' +OK'\r\n")
        ask(sock, b"PING\n", b"+PONG\r\n")
        many = b"".join(command(b"INCR", b"n") for _ in range(1000))
        ask(sock, many, b"".join(b":%d\r\n" % (i + 1) for i in range(1000)))
        for byte in command(b"MGET", b"k", b"n"):
            sock.sendall(bytes([byte]))
        ask(sock, b"", b"*2\r\n$1\r\nv\r\n$4\r\n1000\r\n")
        ask(sock, command(b"INCR", b"k"), b"-ERR value is not an integer or out of range\r\n")
        ask(sock, command(b"GET"), b"-ERR wrong number of arguments for 'get' command\r\n")
        ask(sock, command(b"SING"), b"-ERR unknown command 'SING'\r\n")
        ask(sock, command(b"DEL", b"k", b"n", b"none"), b":2\r\n")
        ask(sock, b"*1\r\n!", b"")
        ask(sock, b"x\r\n", b"-ERR Protocol error: expected '$', got '!'\r\n")
        assert sock.recv(10) == b""


def test_redis_keeps_its_promises_to_many_at_once(redis):
    """Clients at once: no INCR is lost."""

    def client():
        with socket.create_connection(("127.0.0.1", redis), timeout=30) as sock:
            sock.sendall(command(b"INCR", b"n") * 200)
            got = b""
            while got.count(b"\r\n") < 200:
                got += sock.recv(65536)

    threads = [threading.Thread(target=client) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with socket.create_connection(("127.0.0.1", redis), timeout=30) as sock:
        ask(sock, command(b"GET", b"n"), b"$4\r\n2000\r\n")


@pytest.mark.skipif(not shutil.which("redis-benchmark"), reason="redis-benchmark is not installed")
def test_redis_s_own_programs(redis):
    """redis-cli and redis-benchmark can drive it."""
    cli = ["redis-cli", "-p", str(redis)]
    assert subprocess.run([*cli, "set", "a", "b"], capture_output=True, timeout=60).stdout == b"OK\n"
    assert subprocess.run([*cli, "get", "a"], capture_output=True, timeout=60).stdout == b"b\n"
    bench = ["redis-benchmark", "-p", str(redis), "-t", "ping,set,get", "-n", "2000", "-P", "8", "--csv"]
    done = subprocess.run(bench, capture_output=True, timeout=100)
    assert done.returncode == 0 and done.stdout.count(b"\n") >= 4, (done.stdout, done.stderr)


# -- portscan.py ---------------------------------------------------------------------------------------------------


def test_portscan():
    """The open ports, all of them, and no other."""
    with row_of_ports(300) as sockets:
        opened = {sock.getsockname()[1] for sock in random.sample(sockets, 3)}
        ports = [sock.getsockname()[1] for sock in sockets]
        for port, sock in zip(ports, sockets):
            if port in opened:
                sock.listen()
        done = run("portscan.py", "localhost", "-p", f"{ports[0]}-{ports[-1]}", "-n", 100)
    assert done.returncode == 0 and {int(line.split()[0]) for line in done.stdout.splitlines()} == opened, done
    assert b"297 closed, 0 silent, 3 open" in done.stderr


@pytest.mark.skipif(not link_local(), reason="no interface has a link-local address")
def test_portscan_of_a_link_local_address():
    """The interface is forgotten, and no port is found."""
    with socket.socket(socket.AF_INET6) as server:
        server.bind(socket.getaddrinfo(link_local(), 0)[0][4])
        server.listen()
        port = server.getsockname()[1]
        done = run("portscan.py", link_local(), "-p", port)
    assert done.returncode == 0 and done.stdout.startswith(b"%d" % port), done


def test_portscan_tells_what_is_wrong():
    """An unknown host and wrong ports get a sentence."""
    done = run("portscan.py", "no.such.host.invalid")
    assert done.returncode == 1 and b"no.such.host.invalid" in done.stderr and b"Traceback" not in done.stderr
    for args in (["-p", "9-1"], ["-p", "x"], ["-n", "0"]):
        done = run("portscan.py", *(["localhost", *args] if args else []))
        assert done.returncode == 2 and b"Traceback" not in done.stderr
