"""An echo server, and a client that loads it and tells how fast it was.

    python examples/echo.py                           both: the server in a process of its own, then the load
    python examples/echo.py serve localhost:7000      only the server; Ctrl-C stops it
    python examples/echo.py load localhost:7000       only the load

The server is the five lines of `echo`: a goroutine for each connection, in plain blocking code. The client starts a
goroutine for each of its connections; all of them send, wait for the answer, check it, and send again. What it prints:

    100 connections, 20000 requests of 64 bytes in 0.53 s: 37736/s; latency: half under 2.6 ms, 99 % under 3.9 ms
    server: 9.2 us of CPU a request

10,000 connections are no trouble (-c 10000), as far as the system lets a process have so many descriptors.

Exit status: 0 every byte came back, 1 some did not, 2 a wrong argument, 130 interrupted by Ctrl-C, 141 nobody reads the
output any more.
"""

import argparse
import os
import resource
import signal
import subprocess
import sys
import time

import gort
from gort import net


def echo(conn: net.Conn) -> None:
    while data := conn.read():
        conn.write(data)


def serve(address: str, tell: bool) -> None:
    """The main goroutine of a server."""
    listener = net.listen(address)
    print(listener.addr[1] if tell else f"listening at {listener!r}, Ctrl-C stops", flush=True)
    net.serve(listener, echo)


class Load:
    """Many connections, so many requests each."""

    def __init__(self, address: str, connections: int, requests: int, size: int) -> None:
        self.address = address
        self.connections = connections
        self.each = max(1, requests // connections)
        self.message = os.urandom(size)
        self.latencies: list[float] = []
        self.errors: list[str] = []
        self.start = gort.Event()
        self.connected = gort.WaitGroup()

    def client(self) -> None:
        ready = False
        try:
            with net.dial(self.address, timeout=60) as conn:
                self.connected.done()
                ready = True
                self.start.wait()
                for _ in range(self.each):
                    sent = time.perf_counter()
                    conn.write(self.message)
                    answer = conn.read(len(self.message))
                    while answer and len(answer) < len(self.message):
                        more = conn.read(len(self.message) - len(answer))
                        answer = answer + more if more else b""
                    self.latencies.append(time.perf_counter() - sent)
                    if answer != self.message:
                        raise OSError(f"the answer is {len(answer)} other bytes")
        except (OSError, ValueError) as error:  # a time-out is an OSError; a ValueError: that is no address
            self.errors.append(str(error))
        finally:
            if not ready:
                self.connected.done()

    def run(self) -> float:
        """Let all of them work; return how long that took from when all were connected."""
        room = gort.Semaphore(200)  # so many dials at a time: a server's queue is not endless

        def begin() -> None:
            with room:
                pass
            self.client()

        self.connected.add(self.connections)
        goroutines = [gort.go(begin) for _ in range(self.connections)]
        self.connected.wait()
        begun = time.perf_counter()
        self.start.set()
        for goroutine in goroutines:
            goroutine.result()
        return time.perf_counter() - begun

    def report(self, seconds: float) -> None:
        done = sorted(self.latencies)
        print(
            f"{self.connections} connections, {len(done)} requests of {len(self.message)} bytes in {seconds:.2f} s: "
            f"{len(done) / seconds:.0f}/s",
            end="",
        )
        if done:
            half, most = done[len(done) // 2], done[len(done) * 99 // 100]
            print(f"; latency: half under {half * 1000:.1f} ms, 99 % under {most * 1000:.1f} ms", end="")
        print(flush=True)


def load(args: argparse.Namespace, address: str) -> int:
    test = Load(address, args.connections, args.requests, args.size)
    seconds = gort.run(test.run, procs=args.procs)
    test.report(seconds)
    for error in sorted(set(test.errors))[:10]:
        print(f"echo: {test.errors.count(error)} connections: {error}", file=sys.stderr)
    return 1 if test.errors else 0


def both(args: argparse.Namespace) -> int:
    command = [sys.executable, __file__, "serve", "127.0.0.1:0", "--tell"]
    if args.procs is not None:
        command += ["--procs", str(args.procs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            status = load(args, f"127.0.0.1:{server.stdout.readline().strip()}")
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (usage.ru_utime + usage.ru_stime) / max(1, args.requests)
    print(f"server: {cpu * 1e6:.1f} us of CPU a request (its start included)", flush=True)
    return status


def more_descriptors() -> None:
    """Let this process have as many descriptors as the system allows."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> int:
    parser = argparse.ArgumentParser(prog="echo", description="An echo server, and a load client for it.")
    parser.add_argument("role", nargs="?", choices=["both", "serve", "load"], default="both")
    parser.add_argument("address", nargs="?", default="127.0.0.1:7000", help="HOST:PORT or unix:PATH (127.0.0.1:7000)")
    parser.add_argument("-c", "--connections", metavar="N", type=int, default=100, help="how many connections (100)")
    parser.add_argument("-n", "--requests", metavar="N", type=int, default=20_000, help="how many requests in all (20000)")
    parser.add_argument("-s", "--size", metavar="BYTES", type=int, default=64, help="how long a message is (64)")
    parser.add_argument("--procs", metavar="P", type=int, help="threads that run goroutines at a time")
    parser.add_argument("--tell", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in ("connections", "requests", "size", "procs"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}; it must be 1 or more")
    more_descriptors()
    try:
        if args.role == "serve":
            gort.run(serve, args.address, args.tell, procs=args.procs)
            return 0
        return load(args, args.address) if args.role == "load" else both(args)
    except gort.ThreadLimit as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush says nothing
        return 141
    except (OSError, ValueError) as error:
        print(f"echo: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
