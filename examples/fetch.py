"""GET many URLs at a time, http and https, so many at once and no more.

    python examples/fetch.py URL...                 a line for each, as they come
    python examples/fetch.py - < URLS               one URL a line
    python examples/fetch.py --save DIR URL...      and the bodies as files in DIR

This is the standard library's http.client, as it is, in plain blocking code. All that is ours is where a connection
comes from: a socket of gort.green, which parks the goroutine where a standard one would block its thread. So a thousand
slow servers are waited for by one thread, names are looked up beside that, files are written beside that, and every
line below reads as if there were but one URL.

A line tells status, bytes, seconds and URL, with tabs between them. Redirections are followed. What cannot be had is
named on standard error.

Exit status: 0 all of them came with a status below 400, 1 some did not, 2 a wrong argument, 130 interrupted by Ctrl-C,
141 nobody reads the output any more.
"""

import argparse
import http.client
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import BinaryIO, NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import gort
from gort.green import socket, ssl

CHUNK = 1 << 16
REDIRECTIONS = 10


class Outcome(NamedTuple):
    """What became of a URL: an error, or the rest."""

    url: str
    error: Exception | None = None
    status: int = 0
    size: int = 0
    seconds: float = 0.0
    moved: str = ""  # where it came from in the end, if that was elsewhere


class HTTPConnection(http.client.HTTPConnection):
    """http.client's, over a green socket."""

    def connect(self) -> None:
        self.sock = socket.create_connection((self.host, self.port))


class HTTPSConnection(http.client.HTTPSConnection, HTTPConnection):
    """The same with TLS: the standard class connects as its base, ours, does, and has its green context wrap that."""


class Fetcher:
    """What the fetches have in common."""

    def __init__(self, timeout: float, cafile: str | None, directory: str | None) -> None:
        self.timeout = timeout
        self.context = ssl.create_default_context(cafile=cafile)  # certificates are checked
        self.directory = directory

    def fetch(self, number: int, url: str) -> Outcome:
        """GET a URL, and whatever it redirects to, within the time limit."""
        begin = time.monotonic()
        at = url
        try:
            with gort.timeout(self.timeout):
                for _ in range(REDIRECTIONS + 1):
                    status, size, location = self.get(number, at)
                    if location is None:
                        return Outcome(url, None, status, size, time.monotonic() - begin, at if at != url else "")
                    at = urljoin(at, location)
                raise http.client.HTTPException(f"more than {REDIRECTIONS} redirections")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Outcome(url, error)

    def get(self, number: int, url: str) -> tuple[int, int, str | None]:
        """One request: (status, size of the body, where it redirects to)."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("only http://HOST... and https://HOST... can be fetched")
        # Always with a port: without one http.client looks for it in the host, where an IPv6 address has colons too.
        port = parts.port if parts.port is not None else {"http": 80, "https": 443}[parts.scheme]
        if parts.scheme == "https":
            connection: HTTPConnection = HTTPSConnection(parts.hostname, port, context=self.context)
        else:
            connection = HTTPConnection(parts.hostname, port)
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
        with closing(connection):
            connection.request("GET", target, headers={"User-Agent": "gort-fetch"})
            with connection.getresponse() as response:
                if response.status in (301, 302, 303, 307, 308) and response.headers["Location"]:
                    return response.status, 0, response.headers["Location"]
                size = 0
                with self.file(number, parts.hostname + target) as file:
                    while data := response.read(CHUNK):
                        size += len(data)
                        if file is not None:
                            file.write(data)
                if response.length:
                    raise http.client.IncompleteRead(b"", response.length)
                return response.status, size, None

    def file(self, number: int, name: str) -> AbstractContextManager[BinaryIO | None]:
        """Where a body goes."""
        if self.directory is None:
            return nullcontext()
        name = f"{number:04} {re.sub('[^-.A-Za-z0-9]+', '_', name)[:200]}"
        return gort.open(os.path.join(self.directory, name), "wb")  # writes it on spare threads


def fetch_all(urls: Iterator[str], fetcher: Fetcher, limit: int) -> bool:
    """The main goroutine: show what comes. Did all of them come?"""
    outcomes: gort.Chan[Outcome] = gort.Chan()

    def start() -> None:
        with closing(outcomes), gort.Group(limit=limit) as group:
            for number, url in enumerate(urls, 1):
                # Waits while as many as may be are on their way.
                group.go(lambda number, url: outcomes.send(fetcher.fetch(number, url)), number, url)

    starter = gort.go(start)
    good = True
    for outcome in outcomes:
        if outcome.error is not None:
            print(f"fetch: {outcome.url}: {str(outcome.error) or type(outcome.error).__name__}", file=sys.stderr)
            good = False
            continue
        good = good and outcome.status < 400
        where = f"{outcome.url}\t-> {outcome.moved}" if outcome.moved else outcome.url
        print(outcome.status, outcome.size, f"{outcome.seconds:.3f}", where, sep="\t", flush=True)
    starter.result()
    return good


def lines(arguments: list[str]) -> Iterator[str]:
    """The URLs; "-" stands for those on standard input."""
    for argument in arguments:
        if argument != "-":
            yield argument
            continue
        # A pipe or a terminal: waiting for a line stops no fetch.  What is no text is no URL, and named as such.
        with gort.open(0, closefd=False, errors="replace") as file:
            yield from filter(None, map(str.strip, file))


def positive(kind: type) -> object:
    def check(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    check.__name__ = f"positive {'whole ' * (kind is int)}number"
    return check


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="fetch",
        description="GET URLs, many at a time, and print a line for each: status, bytes, seconds, URL.",
        epilog="Exit status: 0 all came with a status below 400; 1 some did not; 2 a wrong argument; 130 interrupted.",
    )
    option = parser.add_argument
    option("urls", metavar="URL", nargs="+", help='http:// or https://; "-": one a line from standard input')
    option("-n", "--limit", metavar="N", type=positive(int), default=100, help="fetches at a time (%(default)s)")
    option("--timeout", metavar="S", type=positive(float), default=30.0, help="seconds for each of them (%(default)g)")
    option("--cafile", metavar="FILE", help="trust the certificates in FILE, not the system's")
    option("--save", metavar="DIR", help="write the bodies to files in DIR")
    option("--procs", metavar="P", type=positive(int), help="threads that run goroutines at a time")
    args = parser.parse_args()
    if "-" in args.urls and sys.stdin is None:
        parser.error("-: the standard input is closed")
    if args.save is not None and not os.path.isdir(args.save):
        parser.error(f"--save {args.save}: it is no directory")
    try:
        fetcher = Fetcher(args.timeout, args.cafile, args.save)
    except OSError as error:
        parser.error(f"--cafile {args.cafile}: {error.strerror or error}")
    try:
        good = gort.run(fetch_all, lines(args.urls), fetcher, args.limit, procs=args.procs)
    except gort.ThreadLimit as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C need not be so polite
        print("fetch: interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # of standard output: what concerns a URL has been told
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush says nothing
        if isinstance(error, BrokenPipeError):
            return 141
        print(f"fetch: standard output: {error.strerror}", file=sys.stderr)
        return 1
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
