"""gort.open: the built-in open, whose files do not stop other goroutines."""

from __future__ import annotations

import builtins
import errno
import gc
import io
import itertools
import os
import pty
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

import gort
from gort import descriptors, go, run, soon
from gort.green import os as green_os
from gort.runtime.netpoll import DescriptorClosed

from settling import settle

pytestmark = pytest.mark.usefixtures("descriptors")

# --- the same as the built-in -----------------------------------------------------------------------------------------

MODES = [a + b + c for a in ("r", "w", "a", "x") for b in ("", "+") for c in ("", "t", "b")]


def describe(file: Any) -> Any:
    kinds = (io.TextIOWrapper, io.BufferedRandom, io.BufferedWriter, io.BufferedReader, io.FileIO)
    kind = next(kind for kind in kinds if isinstance(file, kind))
    names = ("mode", "name", "encoding", "errors", "newlines", "line_buffering", "closed")
    calls = ("readable", "writable", "seekable", "isatty", "tell")
    return (
        kind,
        *(getattr(file, name, None) for name in names),
        *(getattr(file, name)() for name in calls),
        getattr(getattr(file, "buffer", file), "mode", None),
    )


def outcome(call: Any) -> Any:
    try:
        return call()
    except Exception as exc:
        return type(exc), getattr(exc, "errno", None)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("buffering", [-1, 0, 1, 16])
@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.filterwarnings("ignore:line buffering")
def test_every_mode_gives_what_the_built_in_gives(tmp_path: Path, mode: str, buffering: int, exists: bool):
    """The same kind of file with the same properties, or the same error; and after the same calls the same content."""
    results = []
    for which, open_ in (("one", builtins.open), ("two", gort.open)):
        path = tmp_path / which / "file"
        path.parent.mkdir()
        if exists:
            path.write_bytes(b"line 1\nline 2\r\nline 3\n" * 3)

        def use(open_: Any = open_, path: Path = path) -> Any:
            with open_(path, mode, buffering) as file:
                seen = [describe(file)]
                data: Any = b"new\n" if "b" in mode else "new\n"
                for call in (
                    lambda: file.readline(),
                    lambda: file.read(3),
                    lambda: file.write(data) if "+" not in mode else None,
                    lambda: file.seek(0),
                    lambda: file.write(data),
                    lambda: file.seek(2),
                    lambda: list(file),
                    lambda: file.truncate(9),
                    lambda: file.seek(0, 2),
                ):
                    seen.append(outcome(call))
            return seen, file.closed, outcome(lambda: file.read()), path.read_bytes()

        results.append(repr(outcome(lambda: run(use))).replace(str(path), ""))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "args",
    [
        ("",),
        ("no such file",),
        ("/",),
        (".", "w"),
        (3.5,),
        (None,),
        ("x", "q"),
        ("x", "rw"),
        ("x", "bt"),
        ("x", ""),
        ("x", 3),
        ("x", "rb", -1, "utf-8"),
        ("x", "rb", -1, None, "strict"),
        ("x", "rb", -1, None, None, "\n"),
        ("x", "r", 0),
        ("x", "r", "1"),
        ("/etc/passwd", "r", -1, "no such encoding"),
        ("/etc/passwd", "r", -1, "utf-8", "strict", "bad"),
        ("x", "w", -1, None, None, None, False),
        (-1,),
        (10**6,),
        ("a\0b",),
    ],
)
def test_bad_arguments_give_the_same_errors(tmp_path: Path, monkeypatch, args: tuple[Any, ...]):
    """And leave no descriptor open."""
    monkeypatch.chdir(tmp_path)
    assert outcome(lambda: run(lambda: gort.open(*args))) == outcome(lambda: builtins.open(*args))
    assert outcome(lambda: gort.open(*args)) == outcome(lambda: builtins.open(*args))


def test_openers_numbers_and_paths(tmp_path: Path):
    """opener=, closefd=, a descriptor's number, bytes and path objects as names."""
    path = tmp_path / "f"
    path.write_text("content")

    def main() -> None:
        with gort.open("f", opener=lambda name, flags: os.open(tmp_path / name, flags)) as file:
            assert file.read() == "content"
        fd = os.open(path, os.O_RDWR)
        with gort.open(fd, closefd=False) as file:
            assert file.read() == "content" and file.fileno() == fd
        with gort.open(fd, "r+") as file:
            file.write("more")
        with pytest.raises(OSError):
            os.fstat(fd)
        with gort.open(os.fsencode(path)) as file, gort.open(path, "rb", buffering=0) as raw:
            assert file.read() == "contentmore" and raw.read() == b"contentmore"

    path.write_text("content")
    run(main)


def test_text(tmp_path: Path):
    """Encodings, error handlers, newlines; with the encoding of the locale by default."""
    path = tmp_path / "f"

    def main() -> None:
        for encoding, newline in itertools.product(("utf-8", "utf-16", "latin-1"), (None, "", "\n", "\r\n")):
            for open_ in (gort.open, builtins.open):
                with open_(path, "w", encoding=encoding, newline=newline) as file:
                    file.write("grüße\nzwei\r\n")
                    file.writelines(["drei\r", "vier"])
                written = path.read_bytes()
                with builtins.open(path, encoding=encoding, newline=newline) as file:
                    expected = file.readlines()
                with gort.open(path, encoding=encoding, newline=newline) as file:
                    assert list(file) == expected
                if open_ is gort.open:
                    first = written
            assert first == written
        path.write_bytes(b"\xff\xfe!")
        with gort.open(path, encoding="ascii") as file, pytest.raises(UnicodeDecodeError):
            file.read()
        with gort.open(path, encoding="ascii", errors="surrogateescape") as file:
            assert os.fsencode(file.read()) == b"\xff\xfe!"

    run(main)


# --- it does not stop others ------------------------------------------------------------------------------------------


@pytest.fixture
def slow_disk(monkeypatch):
    """Each call of the raw file hangs until a goroutine of the same P lets it go; which calls there were."""
    from gort import files

    calls: list[str] = []
    gate = threading.Event()

    def wrap(name: str) -> Any:
        method = getattr(io.FileIO, name)

        def slow(self: Any, *args: Any) -> Any:
            calls.append(name)
            assert gate.wait(30), "nobody let it go: the other goroutines are stopped"
            return method(self, *args)

        return slow

    class Slow(io.FileIO):
        readinto, read, readall, write, truncate, close = map(
            wrap, "readinto read readall write truncate close".split()
        )

    class Shim:
        FileIO = Slow
        DEFAULT_BUFFER_SIZE = io.DEFAULT_BUFFER_SIZE

    monkeypatch.setattr(files, "io", Shim)
    monkeypatch.setattr(soon, "_NOWAIT", None)
    return gate, calls


@pytest.mark.parametrize(
    ("mode", "call"),
    [
        ("rb", lambda f: f.read()),
        ("rb", lambda f: f.read(10)),
        ("rb", lambda f: f.readline()),
        ("r", lambda f: f.readline()),
        ("r", lambda f: next(f)),
        ("wb", lambda f: f.write(bytes(1_000_000))),
        ("w", lambda f: (f.write("x"), f.flush())),
        ("r+b", lambda f: f.truncate(3)),
        ("w", lambda f: f.close()),
    ],
)
def test_a_slow_disk_stops_nobody(tmp_path: Path, slow_disk: Any, mode: str, call: Any):
    """While the system works on a file, the other goroutines of the same P run."""
    gate, calls = slow_disk
    path = tmp_path / "f"
    path.write_bytes(b"line\n" * 10)

    def main() -> None:
        file = gort.open(path, mode)
        g = go(call, file)
        while not calls and not g.done():
            gort.sleep(0.001)
        assert not g.done()
        gate.set()
        g.result()
        file.close()

    run(main, procs=1)


@pytest.mark.parametrize("nowait", [True, False])
def test_opening_stops_nobody(tmp_path: Path, monkeypatch, nowait: bool):
    """A FIFO's open waits for the other side, a goroutine of the same P; reading it parks and can be cancelled."""
    if not nowait:
        monkeypatch.setattr(soon, "_NOWAIT", None)
    path = tmp_path / "fifo"
    os.mkfifo(path)

    def main() -> None:
        g = go(gort.open, path, "rb")
        gort.sleep(0.01)
        with gort.open(path, "wb", buffering=0) as writing, g.result() as reading:
            g = go(reading.readline)
            gort.sleep(0.005)
            writing.write(b"line\nand")
            assert g.result() == b"line\n"
            g = go(reading.read, 100)
            gort.sleep(0.005)
            g.cancel()
            assert isinstance(g.exception(), gort.Cancelled)
            big = bytes(500_000)
            g = go(lambda: reading.read(len(big)))
            view = memoryview(big)
            while view:
                view = view[writing.write(view) :]
            assert len(g.result()) == len(big)

    run(main, procs=1)


@pytest.mark.parametrize("mode", ["r", "wb", os.O_RDONLY, os.O_WRONLY])
def test_a_fifo_to_which_nobody_comes(tmp_path: Path, mode: Any, procs: int):
    """Cancelled in its opening, a goroutine waits on for ever, and so does the end of the program; or one who comes later
    finds nobody, or the descriptor of the one who is gone stays open."""
    path = tmp_path / "fifo"
    opens, reads = (gort.open, mode == "r") if isinstance(mode, str) else (green_os.open, mode == os.O_RDONLY)
    os.mkfifo(path)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None

    def main() -> None:
        g = settle(go(opens, path, mode))
        g.cancel()
        assert isinstance(g.exception(20), gort.Cancelled)
        with pytest.raises(TimeoutError), gort.timeout(0.01):
            opens(path, mode)

    threads = set(threading.enumerate())
    begin = time.monotonic()
    run(main, procs=procs)
    assert time.monotonic() - begin < 15
    # The threads may still be there: what they open in the end, they close.
    both = os.open(path, os.O_RDWR)  # now nobody waits
    with open(path, "wb" if reads else "rb", 0) as other:
        while set(threading.enumerate()) - threads:
            time.sleep(0.001)
        os.close(both)
        if reads:
            with pytest.raises(BrokenPipeError):
                other.write(b"x")
        else:
            assert other.read() == b""
    deadline = time.monotonic() + 20
    while before is not None and len(os.listdir("/proc/self/fd")) > before:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_ctrl_c_while_a_fifo_is_opened(tmp_path: Path):
    """Broken: a program whose main goroutine waits there takes no notice of Ctrl-C."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    program = f"""
import gort, sys
def main():
    gort.go(lambda: print("here", flush=True))
    gort.open({str(path)!r})
try:
    gort.run(main)
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        try:
            assert process.communicate(timeout=20)[0] == "interrupted\n"
        finally:
            process.kill()


def test_a_terminal_parks():
    """Reading from a terminal waits in the poller, and leaves the terminal's mode alone: a shell shares it."""
    master, slave = pty.openpty()

    def main() -> None:
        with gort.open(slave, closefd=False) as file:
            assert file.isatty() and file.line_buffering
            g = go(file.readline)
            gort.sleep(0.01)
            os.write(master, b"typed\n")
            assert g.result() == "typed\n"
            assert os.get_blocking(slave)
            g = go(file.readline)
            gort.sleep(0.005)
            g.cancel()
            g.join()
        with gort.open(slave, "w", closefd=False) as file:
            print("shown", file=file)

    run(main, procs=1)
    seen = b""
    while b"shown" not in seen:  # behind the echo; a pseudo-terminal passes on when it comes to it
        seen += os.read(master, 1000)
    os.close(master)
    os.close(slave)


@pytest.mark.parametrize("content", [b"", b"x", b"abc" * 100_000])
@pytest.mark.parametrize("nowait", [True, False])
def test_cached_or_not_the_content_is_the_same(tmp_path: Path, monkeypatch, content: bytes, nowait: bool):
    """With RWF_NOWAIT and without: each way to read gives every byte, once."""
    if not nowait:
        monkeypatch.setattr(soon, "_NOWAIT", None)
    path = tmp_path / "f"
    path.write_bytes(content)

    def main() -> None:
        for buffering in (-1, 0, 100):
            with gort.open(path, "rb", buffering) as file:
                assert file.read() == content
                file.seek(0)
                parts = []
                while part := file.read(7001):
                    parts.append(part)
                assert b"".join(parts) == content
                file.seek(max(0, len(content) - 5))
                buffer = bytearray(50)
                assert buffer[: file.readinto(buffer)] == content[-5:]
                assert file.tell() == len(content)

    run(main)


# --- many at a time ---------------------------------------------------------------------------------------------------


def test_many_goroutines_share_a_file(tmp_path: Path, procs: int, jitter):
    """Lines that many goroutines write to one file are whole, none is lost; many readers take each line once."""
    path = tmp_path / "log"
    lines = [f"{i} {'x' * (i % 90)}\n" for i in range(1500)]

    def main() -> None:
        for mode, convert in (("w", str), ("wb", str.encode)):
            with gort.open(path, mode, buffering=200 if "b" in mode else -1) as file:

                def write(part: list[str], file: Any = file, convert: Any = convert) -> None:
                    for line in part:
                        file.write(convert(line))

                for g in [go(write, lines[i::10]) for i in range(10)]:
                    g.result()
            assert sorted(path.read_text().splitlines(True)) == sorted(lines)
        with gort.open(path, buffering=200) as file:
            got: list[str] = []

            def read() -> None:
                while line := file.readline():
                    got.append(line)

            for g in [go(read) for _ in range(10)]:
                g.result()
            assert sorted(got) == sorted(lines)

    run(main, procs=procs)


def test_random_access_by_many(tmp_path: Path, procs: int):
    """A read-write file behaves like a mirror in memory, whatever is done to it, in goroutines that take turns."""
    path = tmp_path / "f"
    path.write_bytes(bytes(5000))

    def main() -> None:
        mutex = gort.Mutex()
        mirror = io.BytesIO(bytes(5000))
        with gort.open(path, "r+b", buffering=64) as file:

            def work(seed: int) -> None:
                rng = random.Random(seed)
                for _ in range(60):
                    with mutex:
                        at = rng.randrange(5000)
                        data = rng.randbytes(rng.randrange(200))
                        for f in (file, mirror):
                            f.seek(at)
                        if rng.random() < 0.5:
                            for f in (file, mirror):
                                f.write(data)
                        else:
                            assert file.read(len(data)) == mirror.read(len(data))

            for g in [go(work, i) for i in range(6)]:
                g.result()
            file.seek(0)
            assert file.read() == mirror.getvalue()

    run(main, procs=procs)


def test_a_cancelled_open_leaves_no_descriptor(tmp_path: Path, procs: int):
    """Cancelled at any moment, a ``with gort.open(...)`` closes what it opened, and the file holds whole writes."""
    path = tmp_path / "f"

    def main() -> None:
        def work() -> None:
            while True:
                with gort.open(path, "ab", buffering=0) as file:
                    file.write(b"0123456789")
                with gort.open(path, "rb") as file:
                    file.read(100)

        rng = random.Random(2)
        for _ in range(40):
            g = go(work)
            gort.sleep(rng.random() * 0.002)
            g.cancel()
            g.join()
        assert path.stat().st_size % 10 == 0 if path.exists() else True

    run(main, procs=procs)


def test_a_dropped_file_is_written_and_closed(tmp_path: Path):
    """As with the built-in: what was written is in the file, with a ResourceWarning."""
    path = tmp_path / "f"

    def main() -> None:
        for mode, data in (("w", "text"), ("wb", b"text"), ("r+", "text")):
            path.write_text("")
            file = gort.open(path, mode)
            file.write(data)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del file
                gc.collect()
            assert path.read_text() == "text"
            assert [w.category for w in caught] == [ResourceWarning]

    run(main)


def test_on_a_plain_thread(tmp_path: Path):
    """Without a runtime it is the built-in open; a file may go from a goroutine to a thread and back."""
    path = tmp_path / "f"
    with gort.open(path, "w+") as file:
        file.write("a\n")

        def main() -> None:
            file.write("b\n")
            thread = threading.Thread(target=lambda: file.write("c\n"))
            thread.start()
            thread.join()

        run(main)
        file.seek(0)
        assert list(file) == ["a\n", "b\n", "c\n"]


def test_a_file_left_open_at_exit(tmp_path):
    """A file that the program never closes is not flushed at exit, or the exit prints a traceback."""
    path = tmp_path / "left"
    program = f"""
import gort
def main():
    global text, raw, both
    text = gort.open({str(path)!r}, "w"); text.write("a")
    raw = gort.open({str(path)!r} + "b", "wb", 0); raw.write(b"b")
    both = gort.open({str(path)!r} + "c", "w+b"); both.write(b"c")
gort.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stderr == ""
    assert [Path(f"{path}{end}").read_text() for end in ("", "b", "c")] == ["a", "b", "c"]


@pytest.mark.parametrize("call", [lambda f: f.readinto(bytearray(5)), lambda f: f.readinto1(bytearray(5)), lambda f: f.read()])
def test_reading_what_is_only_written(tmp_path: Any, call: Any) -> None:
    """Broken: the file waits for itself."""

    def main() -> None:
        with gort.open(tmp_path / "file", "wb") as file:
            with pytest.raises(io.UnsupportedOperation):
                call(file)
            file.write(b"on")

    run(main)
    assert (tmp_path / "file").read_bytes() == b"on"


def test_an_unbuffered_file_s_errors_are_the_builtin_s(tmp_path: Path) -> None:
    """Who expects what the built-in open's file raises, gets another error: EBADF, say, or BufferError."""
    path = tmp_path / "file"

    def errors(opening: Any) -> list[str]:
        found = []
        for mode, call in (
            ("wb", lambda f: f.read()),
            ("wb", lambda f: f.read(None)),
            ("wb", lambda f: f.read("x")),
            ("w+b", lambda f: f.read("x")),
            ("w+b", lambda f: f.readinto(b"no room")),
            ("w+b", lambda f: f.readinto("text")),
        ):
            with opening(path, mode, 0) as file, pytest.raises((OSError, TypeError)) as info:
                call(file)
            found.append(type(info.value).__name__)
        return found

    assert run(errors, gort.open) == errors(open)


@pytest.mark.parametrize("nowait", [True, False])
def test_close_wakes_who_waits_in_a_raw_file(nowait: bool, monkeypatch, procs: int) -> None:
    """A pipe's file is closed, and whoever reads or writes there waits for ever."""
    if not nowait:
        monkeypatch.setattr(soon, "_NOWAIT", None)

    def main() -> None:
        read, write = os.pipe()
        with gort.open(read, "rb", 0) as reader, gort.open(write, "wb", 0) as writer:
            g = settle(go(reader.read, 1))
            reader.close()
            assert isinstance(g.exception(20), DescriptorClosed)
        read, write = os.pipe()
        with gort.open(read, "rb", 0), gort.open(write, "wb", 0) as writer:
            while descriptors.is_ready(write, descriptors.WRITE):
                writer.write(bytes(4096))
            g = settle(go(writer.write, bytes(1 << 16)))
            writer.close()
            error = g.exception(20)
            assert isinstance(error, OSError) and error.errno == errno.EBADF and f"descriptor {write}" in str(error)

    run(main, procs=procs)
