"""The load of the server workloads: one client for all contenders, in a process of its own.

The client is a plain epoll loop and knows nothing of the server but its port. A request is MESSAGE bytes, and
the answer is the same bytes; every answer is checked. It goes through these steps:

    1   opens the connections, in batches with one request on each, so that a server's queue of connections
        that it has not yet accepted never overflows (an overflow costs a second's wait for the kernel's next try);
        `silent` more connections are opened first and say nothing from then on
    2   some more requests as a warm-up
    3   the closed loop: each connection has one request under way, always, until n are answered. The
        server's CPU time and the requests a second are those of this step
    4   the paced step: RATE requests a second on connections chosen at random, for PACED seconds. The
        latencies are those of this step: in a closed loop the latency is only the number of connections divided by
        the rate. They are sent whether or not earlier ones have been answered, so a server that stalls shows it.
        The client sleeps in between as a client does (to spin would take the CPU from the server on a small machine);
        its own waking up is part of everybody's latency

The client can cost as much as a fast server; then "requests a second" is the client's, and alike for the
fastest. The CPU time of a request is the server's alone.

The other half, `Load`, lives in the server's process. `drive` blocks, so each contender runs it in the way
that its library has for a call that blocks; it does nothing between two lines of the client's.
"""

import json
import sys

MESSAGE = 64
RATE = 2_000
PACED = 0.3
WARM_UP = 1_000
BATCH = 50
LOCAL = "127.0.0.1"
SPARE_DESCRIPTORS = 64


class Load:
    """The client's process, as its server's process sees it."""

    def __init__(self, port, n, connections, silent=0):
        import subprocess

        from benchmarks.contenders import environment, interpreter

        request = json.dumps({"port": port, "n": n, "connections": connections, "silent": silent})
        self._process = subprocess.Popen(
            [*interpreter(), "-m", "benchmarks.load", request],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def drive(self, meter):
        """Let the client do its work; blocks until it has ended. The closed loop is in the meter."""
        with self._process as process:
            self._expect("ready")
            with meter:
                process.stdin.write("go\n")
                process.stdin.flush()
                self._expect("done")
            meter.latencies.extend(json.loads(process.stdout.readline()))
            process.stdin.close()
            said = self._last_words()  # when it ends; it writes there only if it fails
        if process.returncode:
            raise RuntimeError(f"the client ended with status {process.returncode}: {said}")

    def _expect(self, word):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client has ended: {self._last_words()}")
        if line != word + "\n":
            raise RuntimeError(f"the client said {line!r} instead of {word!r}")

    def _last_words(self):
        from benchmarks.contenders import last_words

        return last_words(self._process.stderr.read()) or "it said nothing"


def raise_descriptor_limit():
    """Allow this process as many descriptors as the system lets it have; that number."""
    try:
        import resource
    except ImportError:
        return sys.maxsize
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # macOS refuses "unlimited"
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def too_many(connections):
    """Why this machine cannot hold so many connections in one process, as a sentence; None if it can."""
    import select

    if not hasattr(select, "epoll"):
        return "The server workloads need Linux: their client is an epoll loop."
    limit = raise_descriptor_limit()
    if connections + SPARE_DESCRIPTORS > limit:
        return f"{connections:,} connections need more than the {limit:,} descriptors allowed here (ulimit -n)."
    return None


class Client:
    """The client's connections and its loop over them."""

    def __init__(self, port):
        import select

        self.port = port
        self.message = b"x" * (MESSAGE - 1) + b"\n"
        self.epoll, self.EPOLLIN = select.epoll(), select.EPOLLIN
        self.opened = []
        self.connections = {}  # those that talk, by descriptor
        self.partial = {}

    def connect(self, count, talk=True):
        """Open `count` connections, each of which has had an answer when this returns."""
        import socket

        for first in range(0, count, BATCH):
            batch = [socket.create_connection((LOCAL, self.port)) for _ in range(min(BATCH, count - first))]
            self.opened += batch
            for connection in batch:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(self.message)
            for connection in batch:
                if connection.recv(MESSAGE, socket.MSG_WAITALL) != self.message:
                    raise SystemExit("the server's first answer was wrong")
                connection.setblocking(False)
                if talk:
                    self.epoll.register(connection.fileno(), self.EPOLLIN)
                    self.connections[connection.fileno()] = connection

    def close(self):
        for connection in self.opened:
            connection.close()
        self.epoll.close()

    def answered(self, fd):
        """Read what has come on a connection: True if that completes an answer."""
        data = self.partial.pop(fd, b"") + self.connections[fd].recv(MESSAGE)
        if data == self.message:
            return True
        if not data or not self.message.startswith(data):
            raise SystemExit("the server closed a connection" if not data else "a wrong answer from the server")
        self.partial[fd] = data
        return False

    def closed_loop(self, n):
        """n requests, one under way on each connection."""
        message, connections, poll = self.message, self.connections, self.epoll.poll
        idle = list(connections)[: min(n, len(connections))]
        for fd in idle:
            connections[fd].send(message)
        left = n - len(idle)
        answers = 0
        while answers < n:
            for fd, _ in poll():
                if self.answered(fd):
                    answers += 1
                    if left:
                        left -= 1
                        connections[fd].send(message)

    def paced(self, rate, seconds):
        """The latencies of rate * seconds requests sent at that rate."""
        import random
        from time import perf_counter

        randrange, connections, poll = random.Random(1).randrange, self.connections, self.epoll.poll
        free = list(connections)
        sent, latencies, count, number = {}, [], int(rate * seconds), 0
        start = perf_counter()
        while len(latencies) < count:
            now = perf_counter()
            while number < count and now >= start + number / rate and free:
                place = randrange(len(free))
                free[place], free[-1] = free[-1], free[place]
                fd = free.pop()
                sent[fd] = perf_counter()
                number += 1
                connections[fd].send(self.message)
            pause = start + number / rate - now if number < count and free else None
            for fd, _ in poll(pause and max(0.0, pause)):
                if self.answered(fd):
                    latencies.append(perf_counter() - sent.pop(fd))
                    free.append(fd)
        return latencies


def main(argv):
    request = json.loads(argv[0])
    raise_descriptor_limit()
    client = Client(request["port"])
    client.connect(request["silent"], talk=False)
    client.connect(request["connections"])
    client.closed_loop(WARM_UP)
    print("ready", flush=True)
    sys.stdin.readline()
    client.closed_loop(request["n"])
    print("done", flush=True)
    print(json.dumps(client.paced(RATE, PACED)), flush=True)
    client.close()


if __name__ == "__main__":
    main(sys.argv[1:])
