"""What the tests of the network share."""

from __future__ import annotations

import os
import random
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import gort

HOSTS = ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]


@contextmanager
def row_of_ports(n: int) -> Iterator[list[socket.socket]]:
    """n sockets with ports of 127.0.0.1 in a row, so that no other program has any of them.

    Below the ports that systems give out, or one may connect to itself (then it is not refused).
    """
    while True:
        first = random.SystemRandom().randrange(20_000, 30_000)  # no seed: two suites may run side by side
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
            try:
                for port, sock in enumerate(sockets, first):
                    sock.bind(("127.0.0.1", port))
            except OSError:  # taken
                continue
            yield sockets
            return


def unused_port() -> int:
    """A port of 127.0.0.1 at which nobody listens, and that the system gives to nobody: it lies below those."""
    with row_of_ports(1) as [sock]:
        return int(sock.getsockname()[1])


def link_local() -> str:
    """A link-local IPv6 address of this machine, with its interface; "" if there is none."""
    try:
        rows = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    except OSError:
        return ""
    for number, _index, _length, scope, _flags, name in rows:
        if scope == "20":
            return f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(number))}%{name}"
    return ""


def descriptors() -> dict[str, str]:
    """The open descriptors of this process, and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # listdir's own
    return found


@contextmanager
def few_descriptors(free: int = 0) -> Iterator[None]:
    """The process may open so many descriptors more, and then gets EMFILE."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    # One filler for each number in use, so that no number below the limit is free.
    filler = [os.dup(0) for _ in range(max(int(name) for name in os.listdir("/dev/fd")) + 1)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(filler) + 1, limits[1]))
        for _ in range(free):
            os.close(filler.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in filler:
            os.close(fd)


@pytest.fixture
def left_nothing():
    """No test may leave a descriptor or a thread behind.

    Spare threads are excepted, which idle for a while, and so are the background runtime's machines: sysmon may start
    another one when it pleases, on a busy system, and as many as there are Ps then stay.
    """
    gort.go(lambda: None).join()  # the background runtime and its sysmon are there before anybody counts
    before = descriptors()
    threads = set(threading.enumerate())
    yield
    end = time.monotonic() + 10
    while True:
        new = {name: what for name, what in descriptors().items() if before.get(name) != what}
        background = {m["ident"] for m in gort.stats()["ms"]}
        alive = [
            t for t in threading.enumerate() if t not in threads and t.ident not in background and not t.name.startswith("gort-spare")
        ]
        if len(descriptors()) <= len(before) and not alive:
            return
        if time.monotonic() > end:
            pytest.fail(f"left behind: descriptors {new}, threads {alive}")
        time.sleep(0.01)
