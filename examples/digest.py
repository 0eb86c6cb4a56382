"""SHA-256 of every file below a directory, and which of them are duplicates.

    python examples/digest.py DIR > SUMS          one line a file, as sha256sum writes it
    sha256sum -c --quiet SUMS                     accepts it, and says nothing if all is well
    grep '^#' SUMS                                the duplicates

One goroutine walks, N hash, and the main one reduces. Two channels join them:

    walk ---files---> hash_files, N of them ---outcomes---> reduce
      \\------ directories that it may not read ------/

Every one is written as if it were alone: it waits where it must, and the scheduler runs another one meanwhile.
Nothing is locked, because nothing is shared: a buffer belongs to one hash_files, and only reduce touches the
terminal. The channels hold a few items, so the walk waits when it is too far ahead; at most N files are open at
once, and only the results take memory.

The files come in the order of their paths' bytes (LC_ALL=C sort), the same in every run. Symbolic links, pipes,
sockets and devices are left out, as by `find DIR -type f`. Two hard links to one file count as duplicates.

The duplicates follow as comment lines, those that waste most first. GNU's sha256sum -c and Perl's shasum -c ignore
comments; for a checker that does not, there is --no-duplicates. What cannot be read is named on standard error.

Exit status: 0 all files were read, 1 some were not (or the output could not be written),
2 a wrong argument, 130 interrupted by Ctrl-C, 141 nobody reads the output any more.
"""

import argparse
import errno
import hashlib
import itertools
import os
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

import gort

CHUNK = 1 << 20  # what is read and hashed at a time: a millisecond's work, so their fixed costs do not count


class Outcome(NamedTuple):
    """What became of one path. Exactly one of *digest* and *error* is set."""

    number: int  # its place in the output
    path: bytes  # as bytes from first to last: a name need not be valid text
    size: int = 0
    digest: str | None = None
    error: OSError | None = None


# --- the goroutines -----------------------------------------------------------------------------


def digest(top: bytes, jobs: int, screen: "Screen", duplicates: bool) -> int:
    """The main goroutine: start the others, then reduce. Returns how many paths could not be read."""
    files: gort.Chan[tuple[int, bytes]] = gort.Chan(64)
    outcomes: gort.Chan[Outcome] = gort.Chan(64)
    workers = [gort.go(walk, top, files, outcomes)]
    workers += [gort.go(hash_files, files, outcomes) for _ in range(jobs)]

    def close_after_the_last() -> None:
        for worker in workers:
            worker.join()
        outcomes.close()

    gort.go(close_after_the_last)
    # This one is the main goroutine's own work, so Ctrl-C finds it even while it waits for a full pipe to be read.
    unread = reduce(outcomes, screen, duplicates)
    for worker in workers:
        worker.result()  # an exception in any of them is one here
    return unread


def walk(top: bytes, files: gort.Chan[tuple[int, bytes]], outcomes: gort.Chan[Outcome]) -> None:
    """Send the regular files below *top*, numbered. Closing *files* tells the hashers that there are no more."""
    numbers = itertools.count()
    pending = [os.path.join(top, b"")]  # directories are the paths that end in a slash
    with closing(files):
        while pending:
            path = pending.pop()
            if not path.endswith(b"/"):
                files.send((next(numbers), path))
                continue
            try:
                pending += sorted(entries(path), reverse=True)
            except OSError as error:
                outcomes.send(Outcome(next(numbers), path, error=error))


def hash_files(files: gort.Chan[tuple[int, bytes]], outcomes: gort.Chan[Outcome]) -> None:
    """One of N: hash what comes, until there are no more files."""
    buffer = memoryview(bytearray(CHUNK))
    for number, path in files:
        try:
            size, digest = sha256(path, buffer)
        except OSError as error:
            outcomes.send(Outcome(number, path, error=error))
        else:
            outcomes.send(Outcome(number, path, size, digest))


def reduce(outcomes: gort.Chan[Outcome], screen: "Screen", duplicates: bool) -> int:
    """Put the outcomes in order, print them, find the duplicates. Returns how many paths could not be read."""
    early: dict[int, Outcome] = {}  # came before their turn
    turn = files = size = unread = 0
    same: defaultdict[tuple[int, str], list[bytes]] = defaultdict(list)
    ticker = gort.Ticker(0.1)
    try:
        while True:
            # The outcomes as they come, and ten times a second the screen, also while they do not come.
            case, outcome, ok = gort.select(gort.recv(outcomes), gort.recv(ticker.c))
            if case == 1:
                screen.refresh(f"{files:,} files, {amount(size)}")
                continue
            if not ok:
                break
            early[outcome.number] = outcome
            while (outcome := early.pop(turn, None)) is not None:
                turn += 1
                if outcome.digest is None:
                    unread += 1
                    screen.complain(f"{shown(outcome.path)}: {outcome.error.strerror}")
                    continue
                files += 1
                size += outcome.size
                screen.print(sum_line(outcome.digest, outcome.path))
                if duplicates:
                    same[outcome.size, outcome.digest].append(outcome.path)
        for line in duplicate_lines(same):
            screen.print(line)
        screen.refresh(f"{files:,} files, {amount(size)}")
    finally:
        ticker.stop()
        screen.clear()
    return unread


# --- files --------------------------------------------------------------------------------------


def entries(directory: bytes) -> Iterator[bytes]:
    """The directories in *directory*, each with a slash at its end, and the regular files.

    With that slash, the order of the names in each directory is the order of the whole paths.
    """
    with os.scandir(directory) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield entry.path + b"/"
            elif entry.is_file(follow_symlinks=False):
                yield entry.path


def sha256(path: bytes, buffer: memoryview) -> tuple[int, str]:
    """How many bytes the file at *path* has, and their SHA-256."""
    state = hashlib.sha256()
    total = 0
    with open(path, "rb", buffering=0, opener=open_without_waiting) as file:
        while size := file.readinto(buffer):
            state.update(buffer[:size])
            total += size
            gort.gosched()  # no wait in this loop lets others run: give way here, or a huge file holds them up
        if size is None:  # not the end: it has nothing to read at the moment (some of /proc, or a pipe by now)
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return total, state.hexdigest()


def open_without_waiting(path: bytes, flags: int) -> int:
    # It was a regular file when walk saw it. Should it be a pipe or a link by now: wait for no writer, follow nothing.
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


# --- text ---------------------------------------------------------------------------------------


def sum_line(digest: str, path: bytes) -> bytes:
    """A line as GNU sha256sum writes it: a backslash in front says that the name is escaped."""
    name = escape(path)
    return b"%s%s  %s\n" % (b"" if name == path else b"\\", digest.encode(), name)


def escape(path: bytes) -> bytes:
    return path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b"\r", b"\\r")


def duplicate_lines(same: dict[tuple[int, str], list[bytes]]) -> Iterator[bytes]:
    """The groups of equal files, those that waste most first, as comments."""
    groups = [(size, paths) for (size, _), paths in same.items() if len(paths) > 1]
    groups.sort(key=lambda group: (-group[0] * (len(group[1]) - 1), group[1]))
    for size, paths in groups:
        yield f"# duplicates: {len(paths)} files of {size} bytes\n".encode()
        for path in paths:
            yield b"#   %s\n" % escape(path)


def shown(path: bytes) -> str:
    """*path* for a person: quoted if it holds anything that a terminal could not show, or would obey."""
    name = os.fsdecode(path)
    return name if name.isprintable() else ascii(name)


def amount(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            break
        size /= 1000
    else:
        unit = "TB"
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"


class Screen:
    """Standard output and standard error, which may well be one terminal.

    Lines are kept until refresh(), which takes the progress line away, writes them and draws it again.
    """

    def __init__(self, progress: bool) -> None:
        self.drawing = progress and sys.stderr.isatty()
        self.started = time.monotonic()
        self.lines: list[bytes] = []
        self.complaints: list[str] = []

    def print(self, line: bytes) -> None:
        self.lines.append(line)

    def complain(self, text: str) -> None:
        self.complaints.append(f"digest: {text}\n")

    def refresh(self, status: str) -> None:
        if self.lines or self.complaints:
            self.clear()
        rest = memoryview(b"".join(self.lines))
        self.lines.clear()
        while rest:  # not through sys.stdout: what that still holds when we are stopped, it would write at exit
            rest = rest[os.write(sys.stdout.fileno(), rest) :]
        if self.complaints:
            sys.stderr.write("".join(self.complaints))
            self.complaints.clear()
        if self.drawing:
            status = f"{status}, {time.monotonic() - self.started:.0f} s"
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{status[:width]}\x1b[K", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.drawing:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


# --- the command line ---------------------------------------------------------------------------


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def directory(text: str) -> bytes:
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"there is no directory {text!r}")
    return os.fsencode(text)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="digest",
        description="Print the SHA-256 of every regular file below DIR as sha256sum does, for sha256sum -c to check,"
        " then the duplicates as comment lines, which sha256sum -c ignores. Symbolic links, pipes, sockets and devices"
        " are left out.",
        epilog="Exit status: 0 all files were read; 1 some were not, they are named on standard error; 2 a wrong"
        " argument; 130 interrupted.",
    )
    cpus = gort.num_cpu()
    option = parser.add_argument
    option("dir", metavar="DIR", type=directory)
    option("-j", "--jobs", metavar="N", type=positive, default=2 * cpus, help="goroutines that hash (%(default)s)")
    option("--procs", metavar="N", type=positive, help=f"threads that run goroutines at once (GORT_PROCS, or {cpus})")
    option("--no-duplicates", action="store_true", help="only the lines of sha256sum, no comments")
    option("--no-progress", action="store_true", help="no progress line, even if standard error is a terminal")
    args = parser.parse_args()
    if sys.stderr is None:
        return 2  # closed, so there is no place to say so
    if sys.stdout is None:
        parser.error("standard output is closed")

    screen = Screen(progress=not args.no_progress)
    try:
        unread = gort.run(digest, args.dir, args.jobs, screen, not args.no_duplicates, procs=args.procs)
    except gort.ThreadLimit as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second Ctrl-C need not be so polite
        print("digest: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        print(f"digest: stopped: {error.strerror}", file=sys.stderr)
        return 1
    return 1 if unread else 0


if __name__ == "__main__":
    sys.exit(main())
