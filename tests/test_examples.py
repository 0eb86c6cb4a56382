"""The examples, run as a user runs them: as programs, on files made for the test.

digest.py is the program that a newcomer runs first, so it is held to what it promises, against two independent
judges: hashlib in this file, and the system's own sha256sum where there is one.

Two tricks keep these tests honest. The tests may run as root, whom no permission bits stop, so "unreadable" is made
of a path longer than the system takes (ENAMETOOLONG): it can be listed and not opened, by anybody. And "a run that
takes long" is made of sparse files of a terabyte: they cost nothing to make, and no machine hashes them in the time
that a test has.
"""

import errno
import hashlib
import http.server
import os
import pty
import resource
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import gort

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT = 60  # seconds for a run of an example, or for its first output: after that it is ended, and its stacks shown

pytestmark = pytest.mark.limit(150)

ODD_NAMES = [
    b"plain",
    b"two words ",
    b" \ttab",
    b"-c",
    b"# not a comment",
    b"back\\slash",
    b"\\",
    b"new\nline",
    b"carriage\rreturn",
    b"all\\of\r\nthem\\n",
    b"\xff\xfe",
    b"\xff\n\xfe\\",
    "gr\u00fc\u00dfe \U0001f40d".encode(),
]


def environment() -> dict[str, str]:
    """This process's, with gort importable whether it is installed or not, and standard output buffered as usual."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": ""}


def command(example: str, *args: object) -> list[str | bytes]:
    program = [sys.executable, "-X", "faulthandler", str(ROOT / "examples" / example)]
    return program + [arg if isinstance(arg, bytes) else str(arg) for arg in args]


def start(example: str, *args: object, **options) -> subprocess.Popen:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command(example, *args), env=environment(), **options)


def finish(program: subprocess.Popen) -> subprocess.CompletedProcess:
    """Wait for its end. If it hangs, fail with the stacks of its threads (faulthandler's answer to SIGABRT)."""
    try:
        out, err = program.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        program.send_signal(signal.SIGABRT)
        out, err = program.communicate(timeout=TIMEOUT)
        pytest.fail(f"the example hangs. {len(out or b'')} bytes of output; its stacks:\n{os.fsdecode(err or b'')}")
    return subprocess.CompletedProcess(program.args, program.returncode, out, err)


def await_output(program: subprocess.Popen) -> None:
    if not select.select([program.stdout], [], [], TIMEOUT)[0]:
        finish(program)
        pytest.fail("the example ended without output")


def run(example: str, *args: object, **options) -> subprocess.CompletedProcess:
    with start(example, *args, **options) as program:
        return finish(program)


# --- judges -------------------------------------------------------------------------------------


def unescape(name: bytes) -> bytes:
    out = bytearray()
    rest = iter(name)
    for byte in rest:
        out += {b"\\"[0]: b"\\", b"n"[0]: b"\n", b"r"[0]: b"\r"}[next(rest)] if byte == b"\\"[0] else bytes([byte])
    return bytes(out)


def parse(output: bytes) -> tuple[list[tuple[bytes, str]], list[tuple[int, list[bytes]]]]:
    """digest's standard output as ([(path, sum)], [(size, [path])]): the files, and the groups of duplicates."""
    assert output == b"" or output.endswith(b"\n")
    assert b"\r" not in output, "some tools take it for the end of a line"
    files, groups = [], []
    for line in output.split(b"\n")[:-1]:
        if line.startswith(b"# duplicates: "):
            count, files_, of, size, bytes_ = line.removeprefix(b"# duplicates: ").split(b" ")
            assert (files_, of, bytes_) == (b"files", b"of", b"bytes")
            groups.append((int(size), []))
            expected = int(count)
        elif line.startswith(b"#   "):
            groups[-1][1].append(unescape(line.removeprefix(b"#   ")))
            assert len(groups[-1][1]) <= expected
        else:
            assert not groups, "a file's line after the duplicates"
            escaped = line.startswith(b"\\")
            digest, name = line.removeprefix(b"\\").split(b"  ", 1)
            assert len(digest) == 64
            files.append((unescape(name) if escaped else name, digest.decode()))
            assert escaped == (files[-1][0] != name), "escaped exactly if it must be"
    return files, groups


def regular_files(top: Path) -> list[bytes]:
    found = []
    for directory, _, names in os.walk(os.fsencode(top)):
        paths = [os.path.join(directory, name) for name in names]
        found += [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]
    return sorted(found)


def sums(paths: list[bytes]) -> list[tuple[bytes, str]]:
    found = []
    for path in paths:
        with open(path, "rb") as file:
            found.append((path, hashlib.file_digest(file, "sha256").hexdigest()))
    return found


def assert_sha256sum_accepts(output: bytes, cwd: Path) -> None:
    """Without a word, comments included. Where there is no such tool, parse() and sums() have judged already."""
    tool = shutil.which("sha256sum")
    if tool is None:
        return
    check = [tool, "--check", "--strict", "--quiet", "-"]
    judged = subprocess.run(check, input=output, capture_output=True, cwd=cwd, timeout=TIMEOUT)
    assert (judged.returncode, judged.stdout, judged.stderr) == (0, b"", b"")


# --- trees --------------------------------------------------------------------------------------


@pytest.fixture
def odd_tree(tmp_path: Path) -> Path:
    """Odd names for files and for directories, each file with content of its own."""
    top = tmp_path / "tree"
    top.mkdir()
    for name in ODD_NAMES:
        directory = os.path.join(os.fsencode(top), b"dir " + name)
        os.mkdir(directory)
        for path in os.path.join(os.fsencode(top), name), os.path.join(directory, name):
            with open(path, "wb") as file:
                file.write(path)
    return top


@pytest.fixture
def too_long_tree(tmp_path: Path):
    """A tree that holds one file and one directory with paths longer than PATH_MAX. Yields (top, file, directory)."""
    top = tmp_path / "tree"
    top.mkdir()
    limit = os.pathconf(top, "PC_PATH_MAX")
    here = os.open(top, os.O_RDONLY)
    path = os.fsencode(top)
    try:
        while len(path) + 102 < limit:
            name = b"d" * 100
            os.mkdir(name, dir_fd=here)
            inner = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here, path = inner, os.path.join(path, name)
        for name in b"short", b"f" * 200:
            with open(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=here), "wb") as file:
                file.write(name)
        os.mkdir(b"e" * 200, dir_fd=here)
        yield top, os.path.join(path, b"f" * 200), os.path.join(path, b"e" * 200)
    finally:
        os.close(here)
        shutil.rmtree(top)  # by descriptors, so a path may be too long for it to name


@pytest.fixture
def endless_tree(tmp_path: Path) -> Path:
    """One small file, then files that nobody has the time to hash, more of them than there are hashers."""
    top = tmp_path / "tree"
    top.mkdir()
    (top / "a").write_bytes(b"first")
    for number in range(40):
        with open(top / f"b{number:02}", "wb") as file:
            file.truncate(1 << 40)
    return top


@pytest.fixture(scope="module")
def big_tree(tmp_path_factory: pytest.TempPathFactory):
    """Over 10,000 real files: the standard library, as often as it takes."""
    top = tmp_path_factory.mktemp("big")
    library = Path(sysconfig.get_path("stdlib"))
    sources = [path for path in library.rglob("*.py") if "site-packages" not in path.parts]
    count = 0
    while count <= 10_000:
        copy = top / f"copy {count}"
        for source in sources:
            target = copy / source.relative_to(library)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        count += len(sources)
    yield top
    shutil.rmtree(top)


# --- digest.py ----------------------------------------------------------------------------------


def test_digest_of_ten_thousand_files(big_tree: Path, procs: int) -> None:
    done = run("digest.py", big_tree, "--procs", procs)
    assert (done.returncode, done.stderr) == (0, b"")
    files, groups = parse(done.stdout)
    assert len(files) > 10_000
    assert files == sums(regular_files(big_tree))
    assert_sha256sum_accepts(done.stdout, big_tree)

    same: dict[str, list[bytes]] = {}
    for path, digest in files:
        same.setdefault(digest, []).append(path)
    expected = sorted(paths for paths in same.values() if len(paths) > 1)
    assert expected and sorted(paths for _, paths in groups) == expected


@pytest.mark.parametrize("jobs", [1, 3, 20])
def test_digest_of_odd_names(odd_tree: Path, procs: int, jobs: int) -> None:
    done = run("digest.py", odd_tree, "--procs", procs, "-j", jobs)
    assert (done.returncode, done.stderr) == (0, b"")
    files, groups = parse(done.stdout)
    assert files == sums(regular_files(odd_tree))
    assert len(files) == 2 * len(ODD_NAMES)
    assert groups == []
    assert_sha256sum_accepts(done.stdout, odd_tree)


def test_digest_writes_what_sha256sum_writes(odd_tree: Path) -> None:
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("there is no sha256sum to compare with")
    names = [name for name in ODD_NAMES if b"\r" not in name]  # escaped since coreutils 9.0 only
    paths = [os.path.join(b"tree", name) for name in names]
    written = subprocess.check_output([tool, "--", *paths], cwd=odd_tree.parent)
    lines = run("digest.py", "tree", cwd=odd_tree.parent).stdout.split(b"\n")
    assert set(written.split(b"\n")) <= set(lines)


@pytest.mark.parametrize("top", [".", "tree", "tree/", "./tree", "../{parent}/tree"])
def test_digest_paths_start_with_dir_as_it_was_given(odd_tree: Path, top: str) -> None:
    top = top.format(parent=odd_tree.parent.name)
    cwd = odd_tree if top == "." else odd_tree.parent
    done = run("digest.py", top, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, b"")
    files, _ = parse(done.stdout)
    assert len(files) == 2 * len(ODD_NAMES)
    assert all(path.startswith(os.path.join(os.fsencode(top), b"")) for path, _ in files)
    assert_sha256sum_accepts(done.stdout, cwd)


def test_digest_of_dir_with_odd_bytes(tmp_path: Path) -> None:
    top = os.path.join(os.fsencode(tmp_path), b"-\xff\n")
    os.mkdir(top)
    with open(os.path.join(top, b"file"), "wb"):
        pass
    done = run("digest.py", "--", b"-\xff\n", cwd=tmp_path)
    assert done.returncode == 0
    assert parse(done.stdout)[0] == [(b"-\xff\n/file", hashlib.sha256(b"").hexdigest())]
    assert_sha256sum_accepts(done.stdout, tmp_path)


def test_digest_of_an_empty_dir(tmp_path: Path) -> None:
    done = run("digest.py", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_digest_reads_whole_files(tmp_path: Path) -> None:
    for size in 0, 1, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 3_000_000:
        (tmp_path / str(size)).write_bytes(os.urandom(size))
    files, _ = parse(run("digest.py", tmp_path).stdout)
    assert files == sums(regular_files(tmp_path))


def test_digest_prints_in_byte_order_of_the_paths(tmp_path: Path) -> None:
    # "/" sorts between "." and "0", so a directory's files belong between those of its longer-named neighbours.
    for path in "a/z", "a.b", "a0", "a-", "a/b/c", "a/b.c", "A", "z/a":
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    files, _ = parse(run("digest.py", ".", cwd=tmp_path).stdout)
    names = [path.decode() for path, _ in files]
    assert names == ["./A", "./a-", "./a.b", "./a/b.c", "./a/b/c", "./a/z", "./a0", "./z/a"]


def test_digest_names_duplicates(tmp_path: Path) -> None:
    contents = {"small": b"s" * 10, "large": b"L" * 100_000, "middle": b"m" * 1000, "single": b"x", "nothing": b""}
    (tmp_path / "sub").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    for name in "small", "large", "nothing":
        (tmp_path / "sub" / f"{name}\n").write_bytes(contents[name])
    for number in range(200):
        (tmp_path / f"middle {number:03}").write_bytes(contents["middle"])

    done = run("digest.py", ".", cwd=tmp_path)
    _, groups = parse(done.stdout)
    middles = [b"./middle", *(b"./middle %03d" % number for number in range(200))]
    assert groups == [  # those that waste most first
        (1000, middles),
        (100_000, [b"./large", b"./sub/large\n"]),
        (10, [b"./small", b"./sub/small\n"]),
        (0, [b"./nothing", b"./sub/nothing\n"]),
    ]
    assert_sha256sum_accepts(done.stdout, tmp_path)

    without = run("digest.py", ".", "--no-duplicates", cwd=tmp_path)
    assert without.stdout == b"".join(line for line in done.stdout.splitlines(True) if not line.startswith(b"#"))


def test_digest_names_what_it_may_not_read(too_long_tree: tuple[Path, bytes, bytes], procs: int) -> None:
    top, file, directory = too_long_tree
    for name in "a first file", "z last file":
        (top / name).write_bytes(name.encode())
    done = run("digest.py", top, "--procs", procs)
    assert done.returncode == 1
    error = os.fsencode(os.strerror(errno.ENAMETOOLONG))
    assert done.stderr == b"digest: %s/: %s\ndigest: %s: %s\n" % (directory, error, file, error)
    files, _ = parse(done.stdout)
    short = os.path.join(os.path.dirname(file), b"short")
    assert files == sums([os.fsencode(top / "a first file"), short, os.fsencode(top / "z last file")])


def test_digest_quotes_a_name_that_a_terminal_would_obey(too_long_tree: tuple[Path, bytes, bytes]) -> None:
    _, file, _ = too_long_tree
    above = os.path.dirname(file)
    os.mkdir(os.path.join(above, b"\xff\x1b[2J"))
    here = os.open(os.path.join(above, b"\xff\x1b[2J"), os.O_RDONLY)
    os.close(os.open(b"g" * 200, os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)
    done = run("digest.py", above)
    assert done.returncode == 1
    assert b"\x1b" not in done.stderr
    assert b"\\udcff\\x1b[2J/" in done.stderr
    assert len(done.stderr.splitlines()) == 3


def test_digest_leaves_out_what_is_no_regular_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(".", target_is_directory=True)
    (tmp_path / "link").symlink_to("sub/file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "device").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        done = run("digest.py", ".")
    assert (done.returncode, done.stderr) == (0, b"")
    assert parse(done.stdout) == ([(b"./sub/file", hashlib.sha256(b"x").hexdigest())], [])


def test_digest_of_what_has_nothing_to_read_at_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a file when it was found and is a pipe by now, say: it must not count as an empty file."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    import digest

    path = os.fsencode(tmp_path / "pipe")
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)
    try:
        for data in (b"", b"some"):
            os.write(pipe, data)
            with pytest.raises(BlockingIOError):
                gort.run(digest.sha256, path, memoryview(bytearray(10)))
    finally:
        os.close(pipe)


def test_digest_follows_a_link_given_as_dir(odd_tree: Path) -> None:
    link = odd_tree.parent / "link"
    link.symlink_to("tree", target_is_directory=True)
    files, _ = parse(run("digest.py", "link", cwd=odd_tree.parent).stdout)
    assert len(files) == 2 * len(ODD_NAMES)


def test_digest_needs_few_descriptors(tmp_path: Path) -> None:
    """However deep and wide the tree."""
    here = tmp_path
    for level in range(60):
        here = here / f"level{level}"
        here.mkdir()
        for number in range(20):
            (here / f"file{number}").write_bytes(b"%d %d" % (level, number))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))

    done = run("digest.py", tmp_path, "-j", 8, "--procs", 2, preexec_fn=limit)
    assert (done.returncode, done.stderr) == (0, b"")
    assert parse(done.stdout)[0] == sums(regular_files(tmp_path))


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["no such directory"], "there is no directory 'no such directory'"),
        (["file"], "there is no directory 'file'"),
        ([""], "there is no directory ''"),
        ([".", "-j", "0"], "'0' is not a number of 1 or more"),
        ([".", "--jobs", "many"], "'many' is not a number of 1 or more"),
        ([".", "--procs", "-1"], "'-1' is not a number of 1 or more"),
        ([".", "--procs", "1000000000"], "raise GORT_MAXTHREADS or lower procs"),
        ([], "the following arguments are required: DIR"),
    ],
)
def test_digest_of_bad_arguments(tmp_path: Path, args: list[str], sentence: str) -> None:
    (tmp_path / "file").touch()
    done = run("digest.py", *args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode().endswith(f"{sentence}\n")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("descriptor", [1, 2])
def test_digest_needs_its_outputs(odd_tree: Path, descriptor: int) -> None:
    """A closed descriptor's number goes to the next file that is opened: what was meant for it must not get there."""
    done = run("digest.py", odd_tree, preexec_fn=lambda: os.close(descriptor))
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr


def test_digest_ends_quietly_when_nobody_reads(odd_tree: Path, procs: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run("digest.py", odd_tree, "--procs", procs, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_digest_ends_quietly_when_the_reader_leaves(endless_tree: Path, procs: int) -> None:
    """The reader takes the first line and goes. There is more to hash, and to write, but nobody to write it for."""
    for number in range(2000):
        (endless_tree / f"a{number:04}").touch()
    with start("digest.py", endless_tree, "--procs", procs) as program:
        await_output(program)
        program.stdout.readline()
        program.stdout.close()
        program.stdout = None
        done = finish(program)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_digest_says_that_it_can_not_write(odd_tree: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = run("digest.py", odd_tree, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"digest: stopped: %s\n" % os.fsencode(os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("jobs", [1, 8])
def test_digest_stops_at_once_on_interrupt(endless_tree: Path, procs: int, jobs: int) -> None:
    with start("digest.py", endless_tree, "--procs", procs, "-j", jobs) as program:
        # The first line is out while the files behind it are being hashed: that alone shows that they give way.
        await_output(program)
        assert program.stdout.readline().endswith(b"/a\n")
        program.send_signal(signal.SIGINT)
        done = finish(program)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"digest: interrupted\n")


def test_digest_stops_on_interrupt_while_nobody_reads(endless_tree: Path, procs: int) -> None:
    """More output than a pipe holds, and a reader (a pager, say) that does not go on reading."""
    for number in range(2000):
        (endless_tree / f"a{number:04}").touch()
    with start("digest.py", endless_tree, "--procs", procs) as program:
        await_output(program)
        program.send_signal(signal.SIGINT)
        output, program.stdout = program.stdout, None  # finish() shall not read it either
        done = finish(program)
        output.close()
    assert (done.returncode, done.stderr) == (130, b"digest: interrupted\n")


def test_digest_shows_progress_on_a_terminal_and_cleans_up(odd_tree: Path) -> None:
    screen, tty = pty.openpty()
    done = run("digest.py", odd_tree, stderr=tty)  # it writes too little to fill the terminal's buffer
    os.close(tty)
    shown = read_terminal(screen)
    os.close(screen)
    assert done.returncode == 0
    assert parse(done.stdout)[0] == sums(regular_files(odd_tree))
    assert f"\r{2 * len(ODD_NAMES)} files, ".encode() in shown
    assert b"\n" not in shown, "one line, written over and over"
    assert shown.endswith(b"\r\x1b[K"), "and taken away at the end"


def read_terminal(screen: int) -> bytes:
    shown = b""
    while True:
        try:
            piece = os.read(screen, 65536)
        except OSError:  # Linux's way to say that nobody has the other end open any more
            piece = b""
        if not piece:
            return shown
        shown += piece


# --- sieve.py and pipeline.py -------------------------------------------------------------------


def primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 150])
def test_sieve(count: int, procs: int) -> None:
    done = run("sieve.py", count, "--procs", procs)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [int(line) for line in done.stdout.split()] == primes(count)


def test_sieve_prints_a_hundred_unless_told() -> None:
    assert [int(line) for line in run("sieve.py").stdout.split()] == primes(100)


@pytest.mark.parametrize(
    "example",
    [["digest.py", "."], ["sieve.py"], ["pipeline.py"], ["fetch.py", "x"], ["portscan.py", "x"], ["echo.py"], ["redis_ping.py"]],
)
def test_more_threads_than_there_may_be(example: list[str]) -> None:
    done = run(*example, "--procs", "100000")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"GORT_MAXTHREADS" in done.stderr and b"Traceback" not in done.stderr
    assert run(*example, "--procs", "0").returncode == 2


@pytest.mark.parametrize("args", [["-1"], ["many"], ["5", "--procs", "0"]])
def test_sieve_of_bad_arguments(args: list[str]) -> None:
    done = run("sieve.py", *args)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Traceback" not in done.stderr


def test_pipeline_goes_on_without_the_slow_answer(procs: int) -> None:
    done = run("pipeline.py", "--procs", procs, "--patience", 2)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().splitlines() == [
        "no answer for 2 seconds, so I go on without the rest",
        *(f"{number} x {number} = {number * number}" for number in range(1, 21) if number != 13),
        "missing: 13",
    ]


# --- fetch.py -----------------------------------------------------------------------------------


class Site(http.server.ThreadingHTTPServer):
    """A server on threads of this process, and what it has seen."""

    request_queue_size = 200

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Page)
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.gate: threading.Barrier | None = None
        self.url = f"http://localhost:{self.server_address[1]}"


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site = self.server
        with site.lock:
            site.now += 1
            site.most = max(site.most, site.now)
        if site.gate is not None:
            site.gate.wait(TIMEOUT)
        status, headers, body = self.answer(self.path)
        with site.lock:
            site.now -= 1
        self.send_response(status)
        for header in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if path == "/moved":
            return 302, {"Location": "there?a=b%20c"}, b"look there"
        if path == "/six":
            return 302, {"Location": "http://[::1]/"}, b""
        if path == "/round":
            return 301, {"Location": "/round"}, b""
        if path == "/short":
            return 200, {"Content-Length": "1000"}, b"less than that"
        if path == "/hang":
            threading.Event().wait(TIMEOUT)
        return (404 if path == "/missing" else 200), {}, path.encode() * 5000

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site():
    with serving(Site()) as site:
        yield site


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    with site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        yield site
        site.shutdown()
        thread.join()


def fetched(done: subprocess.CompletedProcess) -> dict[str, tuple[int, int]]:
    """URL (and where it moved): (status, size)."""
    rows = [line.split("\t", 3) for line in done.stdout.decode().splitlines()]
    assert all(0 <= float(seconds) < TIMEOUT for _, _, seconds, _ in rows)
    return {url: (int(status), int(size)) for status, size, _, url in rows}


def test_fetch_of_many_urls(site: Site, procs: int, tmp_path: Path) -> None:
    paths = [f"/{number}" for number in range(60)]
    done = run("fetch.py", "--procs", procs, "--save", tmp_path, *[site.url + path for path in paths])
    assert (done.returncode, done.stderr) == (0, b"")
    assert fetched(done) == {site.url + path: (200, len(path) * 5000) for path in paths}
    files = sorted(tmp_path.iterdir())
    assert [file.read_bytes() for file in files] == [path.encode() * 5000 for path in paths]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_fetch_of_an_ipv6_address() -> None:
    with serving(Site("::1")) as site:
        url = f"http://[::1]:{site.server_address[1]}"
        done = run("fetch.py", f"{url}/x", f"{url}/moved")
        assert (done.returncode, done.stderr, len(fetched(done))) == (0, b"", 2)
        for other in ("http://[::1]/", f"{url}/six"):
            done = run("fetch.py", other)  # the default port, at which there may be somebody or not
            assert done.stdout or b"refused" in done.stderr, done


def test_fetch_has_so_many_on_their_way_and_no_more(site: Site) -> None:
    site.gate = threading.Barrier(7)  # none is answered before seven are there
    done = run("fetch.py", "-n", 7, *[f"{site.url}/{number}" for number in range(21)])
    assert (done.returncode, len(fetched(done)), site.most) == (0, 21, 7)


def test_fetch_goes_on_when_some_cannot_be_had(site: Site) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        bad = {
            f"http://localhost:{nobody.getsockname()[1]}/": "refused",
            "http://no such host.invalid/": "",
            "ftp://localhost/": "only http://",
            "nonsense": "only http://",
            "http://localhost:nonsense/": "",
            f"{site.url}/round": "redirections",
            f"{site.url}/short": "IncompleteRead",
            f"{site.url}/hang": "time limit",
        }
        good = [f"{site.url}/gr\u00fc\u00df e", f"{site.url}/moved", f"{site.url}/missing", f"{site.url}#part", f"{site.url}?q"]
        urls = [*bad, *good]
        with start("fetch.py", "--timeout", 1, "-", stdin=subprocess.PIPE) as program:
            program.stdin.write("\n\n".join(urls).encode())
            program.stdin.close()
            program.stdin = None
            done = finish(program)
    assert done.returncode == 1
    answers = fetched(done)
    assert answers == {
        f"{site.url}/gr\u00fc\u00df e": (200, len("/gr%C3%BC%C3%9F%20e") * 5000),
        f"{site.url}/moved\t-> {site.url}/there?a=b%20c": (200, len("/there?a=b%20c") * 5000),
        f"{site.url}/missing": (404, len("/missing") * 5000),
        f"{site.url}#part": (200, 5000),
        f"{site.url}?q": (200, len("/?q") * 5000),
    }
    errors = done.stderr.decode().splitlines()
    assert len(errors) == len(bad)
    for url, text in bad.items():
        assert any(line.startswith(f"fetch: {url}: ") and text in line for line in errors), (url, errors)


def test_fetch_checks_certificates(site: Site) -> None:
    pem = ROOT / "tests" / "localhost.pem"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    site.socket = context.wrap_socket(site.socket, server_side=True, do_handshake_on_connect=False)
    port = site.server_address[1]
    done = run("fetch.py", "--cafile", pem, *[f"https://localhost:{port}/{number}" for number in range(20)])
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(fetched(done)) == 20
    done = run("fetch.py", f"https://localhost:{port}/")
    assert done.returncode == 1 and b"CERTIFICATE_VERIFY_FAILED" in done.stderr and done.stdout == b""


def test_fetch_stops_at_ctrl_c_and_when_nobody_reads(site: Site) -> None:
    with start("fetch.py", "-n", 50, f"{site.url}/first", *[f"{site.url}/hang"] * 100) as program:
        await_output(program)
        program.send_signal(signal.SIGINT)
        done = finish(program)
    assert (done.returncode, done.stderr) == (130, b"fetch: interrupted\n")
    with start("fetch.py", "-n", 1, *[f"{site.url}/{number}" for number in range(500)]) as program:
        await_output(program)
        program.stdout.close()
        program.stdout = None
        done = finish(program)
    assert (done.returncode, done.stderr) == (141, b"")


def test_fetch_of_an_input_that_is_no_text(site: Site) -> None:
    with start("fetch.py", "-", stdin=subprocess.PIPE) as program:
        program.stdin.write(b"\xff\x96\0\n" + f"{site.url}/good\n".encode())
        program.stdin.close()
        program.stdin = None
        done = finish(program)
    assert done.returncode == 1 and list(fetched(done)) == [f"{site.url}/good"]
    assert done.stderr.startswith(b"fetch: ") and b"can be fetched" in done.stderr and done.stderr.count(b"\n") == 1
    done = run("fetch.py", "-", stdin=None, preexec_fn=lambda: os.close(0))
    assert done.returncode == 2 and b"input is closed" in done.stderr and b"Traceback" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_fetch_when_its_output_has_no_room(site: Site) -> None:
    with open("/dev/full", "w") as full:
        done = run("fetch.py", f"{site.url}/x", stdout=full)
    assert (done.returncode, done.stderr) == (1, b"fetch: standard output: No space left on device\n")


def test_fetch_when_a_body_cannot_be_saved(site: Site, tmp_path: Path) -> None:
    """Something else than that is said on standard error: of what the failed fetches have left open."""
    most = os.pathconf(tmp_path, "PC_PATH_MAX") - 10
    directory = str(tmp_path)
    while len(directory) < most:
        directory += "/" + "d" * min(200, most - len(directory))
    os.makedirs(directory)
    done = run("fetch.py", "--save", directory, *[f"{site.url}/{number}" for number in range(10)])
    assert (done.returncode, done.stdout) == (1, b"")
    lines = done.stderr.splitlines()
    assert len(lines) == 10 and all(line.startswith(b"fetch: http://") and b"too long" in line for line in lines), lines


def test_fetch_says_what_is_wrong_with_its_arguments(tmp_path: Path) -> None:
    for args, text in (
        ([], b"URL"),
        (["-n", "0", "http://x"], b"positive whole number"),
        (["--timeout", "-1", "http://x"], b"positive number"),
        (["--save", tmp_path / "none", "http://x"], b"no directory"),
        (["--cafile", tmp_path / "none", "http://x"], b"No such file"),
    ):
        done = run("fetch.py", *args)
        assert done.returncode == 2 and text in done.stderr and b"Traceback" not in done.stderr
