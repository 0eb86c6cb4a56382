"""Which TCP ports of a host are open?

    python examples/portscan.py localhost
    python examples/portscan.py 192.168.1.1 -p 1-65535 -n 1000 --timeout 0.5

Scan what is yours to scan. A goroutine for each port, so many at a time: each dials, and what comes of it goes into a
channel. A port that nobody answers for costs its time-out, a thousand of them at a time cost no more; one that is
closed answers at once. The open ones are printed as they are found:

    22      ssh
    631     ipp
    1022 closed, 0 silent, 2 open: 1024 ports of localhost (127.0.0.1) in 0.2 s

Exit status: 0 done, 1 the host is not known or cannot be reached, 2 a wrong argument, 130 interrupted by Ctrl-C,
141 nobody reads the output any more.
"""

import argparse
import errno
import os
import resource
import socket
import sys
import time
from collections import Counter

import gort
from gort import net

# Nobody there, or nobody who lets us: told by the network instead of the host.
UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL}


def probe(address: tuple, port: int, timeout: float) -> str:
    """"open", "closed", "silent", or why the network would not even try."""
    host, _, *scope = address
    try:
        with net.dial((host, port, *scope), timeout=timeout) as conn:
            # From a port of this machine to that very port: nobody listens there, TCP has connected us to ourselves.
            return "closed" if conn.local_addr == conn.remote_addr else "open"
    except ConnectionRefusedError:
        return "closed"
    except TimeoutError:
        return "silent"
    except OSError as error:
        if error.errno in UNREACHABLE:
            return error.strerror.partition(":")[0].lower()
        return "closed"  # reset, say


def scan(host: str, ports: list[int], at_once: int, timeout: float) -> int:
    """The main goroutine."""
    begin = time.monotonic()
    address = net.lookup(host)[0][4]  # once, not for each port
    todo: gort.Chan[int] = gort.Chan()
    found: gort.Chan[tuple[int, str]] = gort.Chan(at_once)

    def worker() -> None:
        for port in todo:
            found.send((port, probe(address, port, timeout)))

    def feeder() -> None:
        for port in ports:
            todo.send(port)
        todo.close()

    for _ in range(min(at_once, len(ports))):
        gort.go(worker)
    gort.go(feeder)
    outcomes = Counter({"closed": 0, "silent": 0, "open": 0})
    for _ in ports:
        port, outcome = found.recv()
        outcomes[outcome] += 1
        if outcome == "open":
            print(f"{port:<7} {service(port)}".rstrip(), flush=True)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    name = host if host == address[0] else f"{host} ({address[0]})"
    print(f"{counts}: {len(ports)} ports of {name} in {time.monotonic() - begin:.1f} s", file=sys.stderr)
    return 0 if outcomes["closed"] + outcomes["silent"] + outcomes["open"] else 1


def service(port: int) -> str:
    try:
        return socket.getservbyport(port, "tcp")
    except OSError:
        return ""


def port_list(text: str) -> list[int]:
    """"22,80,8000-8100"."""
    ports: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            low, high = int(first), int(last if dash else first)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is no port and no range like 1-1024") from None
        if not 1 <= low <= high <= 65535:
            raise argparse.ArgumentTypeError(f"{part!r}: ports are between 1 and 65535, the lower first")
        ports.update(dict.fromkeys(range(low, high + 1)))
    return list(ports)


def main() -> int:
    parser = argparse.ArgumentParser(prog="portscan", description="Tell which TCP ports of a host are open.")
    parser.add_argument("host", help="its name or address")
    parser.add_argument("-p", "--ports", type=port_list, default=port_list("1-1024"), help="22,80,8000-8100 (1-1024)")
    parser.add_argument("-n", "--at-once", metavar="N", type=int, default=500, help="how many at a time (500)")
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=1.0, help="how long to wait for an answer (1)")
    parser.add_argument("--procs", metavar="P", type=int, help="threads that run goroutines at a time")
    args = parser.parse_args()
    if args.at_once < 1:
        parser.error(f"--at-once is {args.at_once}; it must be 1 or more")
    if not args.timeout > 0:
        parser.error(f"--timeout is {args.timeout:g}; it must be more than 0")
    if args.procs is not None and args.procs < 1:
        parser.error(f"--procs is {args.procs}; it must be 1 or more")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and args.at_once + 50 > soft:
        if hard != resource.RLIM_INFINITY and args.at_once + 50 > hard:
            parser.error(f"--at-once is {args.at_once}, but the system lets a process have {hard} descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (args.at_once + 50, hard))
    try:
        return gort.run(scan, args.host, args.ports, args.at_once, args.timeout, procs=args.procs)
    except gort.ThreadLimit as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush says nothing
        return 141
    except OSError as error:
        print(f"portscan: {error.strerror or error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
