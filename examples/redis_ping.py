"""A server that speaks enough of Redis's protocol for redis-cli and redis-benchmark.

    python examples/redis_ping.py                      listens at 127.0.0.1:6379; Ctrl-C stops it
    python examples/redis_ping.py localhost:7000
    redis-cli -p 7000 set greeting hello
    redis-benchmark -p 7000 -t ping,set,get -q -P 16

It has PING, ECHO, SET (with EX, PX, NX, XX), GET, DEL, EXISTS, INCR, DECR, MSET, MGET, APPEND, STRLEN, TTL, KEYS, DBSIZE,
FLUSHALL, and what the two programs ask for by themselves. A goroutine for each connection: it reads what there is, does
every command that has come completely, and answers all of them with one write. That is pipelining, and it is all that
there is to it.

One dictionary serves all connections. A command never waits in the middle, so on one machine no other comes in between;
without a GIL several machines run commands at once, and the ones that read and then write (INCR, APPEND, SET NX) take a
lock for it.

Exit status: 1 it cannot listen there, 2 a wrong argument, 130 ended by Ctrl-C, 141 nobody reads its output.
"""

import argparse
import fnmatch
import os
import re
import sys
import time
from collections.abc import Callable

import gort
from gort import net

OK = b"+OK\r\n"
NIL = b"$-1\r\n"
LONGEST = 512 * 1024 * 1024  # bytes of a value, as in Redis

data: dict[bytes, bytes] = {}
ends: dict[bytes, float] = {}  # when a key goes away, by time.monotonic()
changes = gort.Mutex()


class Wrong(Exception):
    """What a client gets as its error."""


# -- the protocol ------------------------------------------------------------------------------------------------


def bulk(value: bytes | None) -> bytes:
    return NIL if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def array(items: list[bytes]) -> bytes:
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def number(value: int) -> bytes:
    return b":%d\r\n" % value


def parse(buf: bytearray, pos: int) -> tuple[list[bytes], int]:
    """The command that begins at pos, and where it ends; that is pos if it has not come completely."""
    inline = buf[pos] != 42  # no "*": a line, as somebody types it
    eol = buf.find(b"\n" if inline else b"\r\n", pos)
    if eol < 0:
        if len(buf) - pos > 65536:
            raise Wrong("Protocol error: too big inline request")
        return [], pos
    if inline:
        return bytes(buf[pos:eol]).split(), eol + 1
    end = eol + 2
    words = []
    for _ in range(size(buf[pos + 1 : eol], 1024 * 1024, "multibulk")):
        eol = buf.find(b"\r\n", end)
        if eol < 0:
            return [], pos
        if buf[end] != 36:
            raise Wrong(f"Protocol error: expected '$', got '{chr(buf[end])}'")
        length = size(buf[end + 1 : eol], LONGEST, "bulk")
        begin, end = eol + 2, eol + 4 + length
        if len(buf) < end:
            return [], pos
        words.append(bytes(buf[begin : end - 2]))
    return words, end


def size(digits: bytearray, most: int, what: str) -> int:
    try:
        value = int(digits)
    except ValueError:
        value = -1
    if not 0 <= value <= most:
        raise Wrong(f"Protocol error: invalid {what} length")
    return value


def client(conn: net.Conn) -> None:
    """One connection."""
    buf = bytearray()
    while chunk := conn.read():
        buf += chunk
        replies = []
        pos = 0
        stop = False
        try:
            while pos < len(buf) and not stop:
                words, end = parse(buf, pos)
                if end == pos:
                    break
                pos = end
                if words:
                    replies.append(execute(words))
                    stop = words[0].upper() == b"QUIT"
        except Wrong as error:  # the protocol itself is broken: there is no way to go on
            replies.append(b"-ERR %b\r\n" % str(error).encode())
            stop = True
        if replies:
            conn.write(b"".join(replies))
        if stop:
            return
        del buf[:pos]


# -- the commands ------------------------------------------------------------------------------------------------


def execute(words: list[bytes]) -> bytes:
    name = words[0].upper()
    try:
        least, most, command = COMMANDS[name]
    except KeyError:
        return b"-ERR unknown command '%b'\r\n" % b" ".join(name[:128].splitlines())
    if not least <= len(words) - 1 <= most:
        return b"-ERR wrong number of arguments for '%b' command\r\n" % name.lower()
    try:
        return command(*words[1:])
    except Wrong as error:
        return b"-ERR %b\r\n" % str(error).encode()


def value_of(key: bytes) -> bytes | None:
    """A key's value, unless its time is over."""
    if ends and ends.get(key, float("inf")) <= time.monotonic():
        ends.pop(key, None)
        data.pop(key, None)
    return data.get(key)


def ping(word: bytes | None = None) -> bytes:
    return b"+PONG\r\n" if word is None else bulk(word)


def set_(key: bytes, value: bytes, *options: bytes) -> bytes:
    if not options:
        data[key] = value
        if ends:
            ends.pop(key, None)
        return OK
    words = [option.upper() for option in options]
    end = None
    while words:
        word = words.pop(0)
        if word in (b"EX", b"PX") and words:
            number = whole(words.pop(0))
            if number <= 0:
                raise Wrong("invalid expire time in 'set' command")
            end = time.monotonic() + number / (1 if word == b"EX" else 1000)
        elif word not in (b"NX", b"XX"):
            raise Wrong("syntax error")
    asked = {option.upper() for option in options}
    with changes:
        if (b"NX" in asked and value_of(key) is not None) or (b"XX" in asked and value_of(key) is None):
            return NIL
        data[key] = value
        ends.pop(key, None)
        if end is not None:
            ends[key] = end
    return OK


def get(key: bytes) -> bytes:
    return bulk(value_of(key))


def delete(*keys: bytes) -> bytes:
    with changes:
        gone = 0
        for key in keys:
            gone += value_of(key) is not None
            data.pop(key, None)
            ends.pop(key, None)
        return number(gone)


def whole(word: bytes) -> int:
    if not re.fullmatch(rb"-?\d{1,19}", word) or not -(2**63) <= int(word) < 2**63:
        raise Wrong("value is not an integer or out of range")
    return int(word)


def add(key: bytes, amount: int) -> bytes:
    with changes:
        value = whole(value_of(key) or b"0") + amount
        if not -(2**63) <= value < 2**63:
            raise Wrong("increment or decrement would overflow")
        data[key] = b"%d" % value
        return number(value)


def append(key: bytes, more: bytes) -> bytes:
    with changes:
        data[key] = (value_of(key) or b"") + more
        return number(len(data[key]))


def mset(*words: bytes) -> bytes:
    if len(words) % 2:
        raise Wrong("wrong number of arguments for 'mset' command")
    with changes:
        for key, value in zip(words[::2], words[1::2], strict=True):
            data[key] = value
            ends.pop(key, None)
    return OK


def ttl(key: bytes) -> bytes:
    if value_of(key) is None:
        return number(-2)
    return number(-1 if key not in ends else round(ends[key] - time.monotonic()))


def keys(pattern: bytes) -> bytes:
    return array([bulk(key) for key in list(data) if fnmatch.fnmatchcase(key, pattern) and value_of(key) is not None])


def flush(*_: bytes) -> bytes:
    with changes:
        data.clear()
        ends.clear()
    return OK


MANY = 2**31
COMMANDS: dict[bytes, tuple[int, int, Callable[..., bytes]]] = {
    b"PING": (0, 1, ping),
    b"ECHO": (1, 1, bulk),
    b"SET": (2, MANY, set_),
    b"GET": (1, 1, get),
    b"DEL": (1, MANY, delete),
    b"EXISTS": (1, MANY, lambda *names: number(sum(value_of(name) is not None for name in names))),
    b"INCR": (1, 1, lambda key: add(key, 1)),
    b"DECR": (1, 1, lambda key: add(key, -1)),
    b"INCRBY": (2, 2, lambda key, amount: add(key, whole(amount))),
    b"MSET": (2, MANY, mset),
    b"MGET": (1, MANY, lambda *names: array([bulk(value_of(name)) for name in names])),
    b"APPEND": (2, 2, append),
    b"STRLEN": (1, 1, lambda key: number(len(value_of(key) or b""))),
    b"TTL": (1, 1, ttl),
    b"KEYS": (1, 1, keys),
    b"DBSIZE": (0, 0, lambda: number(len(data))),
    b"FLUSHALL": (0, 1, flush),
    b"FLUSHDB": (0, 1, flush),
    b"SELECT": (1, 1, lambda _number: OK),
    b"QUIT": (0, 0, lambda: OK),
    # What redis-cli and redis-benchmark ask by themselves.
    b"COMMAND": (0, MANY, lambda *_: array([])),
    b"CONFIG": (1, MANY, lambda _get, *names: array([bulk(word) for name in names for word in (name, b"")])),
    b"CLIENT": (1, MANY, lambda *_: OK),
    b"INFO": (0, MANY, lambda *_: bulk(b"# Server\r\nredis_version:0.0.0\r\nserver:gort\r\n")),
}


def serve(address: str) -> None:
    """The main goroutine."""
    with net.listen(address) as listener:
        print(f"listening at {listener!r}, Ctrl-C stops", flush=True)
        net.serve(listener, client, grace=0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="redis_ping", description="A server for redis-cli and redis-benchmark.")
    parser.add_argument("address", nargs="?", default="127.0.0.1:6379", help="HOST:PORT or unix:PATH (127.0.0.1:6379)")
    parser.add_argument("--procs", metavar="P", type=int, help="threads that run goroutines at a time")
    args = parser.parse_args()
    if args.procs is not None and args.procs < 1:
        parser.error(f"--procs is {args.procs}; it must be 1 or more")
    try:
        gort.run(serve, args.address, procs=args.procs)
        return 0
    except gort.ThreadLimit as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter's last flush says nothing
        return 141
    except (OSError, ValueError) as error:
        print(f"redis_ping: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
