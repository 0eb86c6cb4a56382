"""gort.green.os and subprocess: waiting for processes, pipes and files stops no other goroutine."""

from __future__ import annotations

import errno
import gc
import inspect
import os as std
import pty
import signal
import socket as std_socket
import subprocess as std_subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import gort
from gort import go, run, soon
from gort.green import os, socket, subprocess

from nettools import few_descriptors
from settling import settle

pytestmark = [pytest.mark.usefixtures("descriptors"), pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")]

PYTHON = [sys.executable, "-S", "-E", "-c"]


@pytest.fixture(autouse=True)
def no_children():
    """No child process is left, not even a dead one."""

    def children() -> set[int]:
        found = set()
        for name in filter(str.isdigit, std.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat", "rb") as f:
                    if int(f.read().rpartition(b")")[2].split()[1]) == std.getpid():
                        found.add(int(name))
            except OSError:
                pass  # it has ended meanwhile
        return found

    before = children()  # multiprocessing, in another test, may have started its helpers
    yield
    assert not children() - before


@pytest.fixture
def pipe():
    read, write = std.pipe()
    yield read, write
    for fd in (read, write):
        try:
            std.close(fd)
        except OSError:
            pass


def test_names():
    """Every name of the standard modules is there, and what cannot block is the standard object."""
    for twin, module in ((os, std), (subprocess, std_subprocess)):
        missing = [name for name in vars(module) if not name.startswith("__") and not hasattr(twin, name)]
        assert not missing
    assert os.environ is std.environ and os.stat is std.stat and os.path is std.path
    assert subprocess.CalledProcessError is std_subprocess.CalledProcessError and subprocess.PIPE == std_subprocess.PIPE
    assert issubclass(subprocess.Popen, std_subprocess.Popen)


def test_the_functions_of_os_have_the_signatures_of_the_standard_ones():
    """`help` and `inspect` show other parameters, or only that there are some."""
    for name, fn in vars(os).items():
        known = getattr(std, name, None)
        if known in (None, fn) or not callable(known) or name.startswith("_"):
            continue
        try:
            signature = inspect.signature(known)
        except ValueError:  # a function of C that tells none
            continue
        mine = inspect.signature(fn).parameters.values()
        assert [(p.name, p.kind, p.default) for p in mine] == [
            (p.name, p.kind, p.default) for p in signature.parameters.values()
        ], name


# --- subprocess -------------------------------------------------------------------------------------------------------


def test_waiting_for_a_process_parks(procs: int):
    """Each way to wait lets the other goroutines of the P run: they let the process go on."""

    def main() -> None:
        for how in ("wait", "wait timeout", "communicate", "communicate timeout", "with"):
            read, write = std.pipe()
            process = subprocess.Popen(["sh", "-c", "read line; exit 3"], stdin=read)
            std.close(read)

            def wait(how: str = how, process: Any = process) -> int:
                if how == "with":
                    with process:
                        pass
                elif how.startswith("communicate"):
                    assert process.communicate(timeout=30 if "timeout" in how else None) == (None, None)
                else:
                    process.wait(timeout=30 if "timeout" in how else None)
                return process.returncode

            waiting = [go(wait) for _ in range(3)]
            gort.sleep(0.005)
            assert process.poll() is None and not any(g.done() for g in waiting)
            std.write(write, b"go on\n")
            std.close(write)
            assert [g.result() for g in waiting] == [3, 3, 3]

    run(main, procs=procs)


def test_run_and_its_like():
    """run, call, check_call, check_output, getoutput, getstatusoutput: results and errors as ever."""

    def main() -> None:
        done = subprocess.run(
            "cat; echo err >&2; exit 2", shell=True, input="grüße", capture_output=True, encoding="utf-8"
        )
        assert (done.stdout, done.stderr, done.returncode) == ("grüße", "err\n", 2)
        with pytest.raises(subprocess.CalledProcessError) as info:
            done.check_returncode()
        assert info.value.returncode == 2
        assert subprocess.call(["sh", "-c", "exit 4"]) == 4
        with pytest.raises(subprocess.CalledProcessError):
            subprocess.check_call(["false"])
        assert subprocess.check_output(["echo", "x"]) == b"x\n"
        assert subprocess.getoutput("echo x; exit 1") == "x"
        assert subprocess.getstatusoutput("echo x; exit 1") == (1, "x")
        assert subprocess.run(["sh", "-c", "kill -9 $$"]).returncode == -9
        with pytest.raises(FileNotFoundError):
            subprocess.run(["no such program"])
        with pytest.raises(ValueError):
            subprocess.run(["true"], input=b"", stdin=subprocess.PIPE)

    run(main)
    main()


def test_a_preexec_fn():
    """It runs between fork and exec, in a child that has a goroutine's stack and no runtime; the parent goes on."""

    def main() -> None:
        gs = [go(gort.sleep, 0.01) for _ in range(10)]
        done = subprocess.run(["sh", "-c", "umask"], preexec_fn=lambda: std.umask(0o123), capture_output=True)  # noqa: PLW1509
        assert done.stdout == b"0123\n"
        for g in gs:
            g.result()
        with pytest.raises(subprocess.SubprocessError):
            subprocess.run(["true"], preexec_fn=lambda: 1 / 0)  # noqa: PLW1509

    run(main)


@pytest.mark.parametrize("how", ["run", "wait", "communicate"])
def test_time_outs(how: str):
    """TimeoutExpired, with what came until then; `run` has killed the process."""

    def main() -> None:
        if how == "run":
            with pytest.raises(subprocess.TimeoutExpired) as info:
                subprocess.run("echo first; exec sleep 60", shell=True, capture_output=True, timeout=0.2)
            assert info.value.stdout == b"first\n"
            return
        with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01) if how == "wait" else process.communicate(timeout=0.01)
            assert process.poll() is None
            process.kill()
            assert process.communicate() == (b"", None) and process.returncode == -signal.SIGKILL

    run(main)


def test_pipes_park_and_stay_blocking_for_others():
    """The pipes are gort's files; a pipeline hands one on to the next process, for whom it must be a usual one."""

    def main() -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            assert std.get_blocking(process.stdin.fileno()) and std.get_blocking(process.stdout.fileno())
            for i in range(5):
                g = go(process.stdout.readline)
                gort.sleep(0.001)
                assert not g.done()
                process.stdin.write(f"line {i}\n")
                assert g.result() == f"line {i}\n"
            g = go(process.stdout.readline)
            gort.sleep(0.001)
            g.cancel()
            g.join()
            process.stdin.close()
            assert process.stdout.read() == ""
        with (
            subprocess.Popen(["sh", "-c", "sleep 0.05; echo through"], stdout=subprocess.PIPE) as first,
            subprocess.Popen(["cat"], stdin=first.stdout, stdout=subprocess.PIPE) as second,
        ):
            first.stdout.close()
            assert second.communicate()[0] == b"through\n"
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
            data = bytes(range(256)) * 4000
            view = memoryview(data)
            g = go(process.stdout.readall)
            while view:
                view = view[process.stdin.write(view) :]
            process.stdin.close()
            assert g.result() == data
        with subprocess.Popen(["true"], stdin=subprocess.PIPE) as process:
            process.wait()
            with pytest.raises(BrokenPipeError):
                process.stdin.write(bytes(1_000_000))
                process.stdin.flush()

    run(main, procs=1)


def test_communicate_with_much_data(procs: int):
    """A megabyte in each direction, several at a time: no side waits for the other."""

    def main() -> None:
        def one(i: int) -> None:
            data = bytes([i]) * 1_000_000
            done = subprocess.run(
                [
                    *PYTHON,
                    "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d); sys.stderr.buffer.write(d)",
                ],
                input=data,
                capture_output=True,
            )
            assert done.stdout == data and done.stderr == data

        for g in [go(one, i) for i in range(3)]:
            g.result()

    run(main, procs=procs)


def test_a_cancelled_run_kills_the_process(tmp_path: Path):
    """The goroutine's cancellation, or a time limit, leaves no process behind."""

    def main() -> None:
        g = go(subprocess.run, ["sleep", "60"])
        gort.sleep(0.02)
        g.cancel()
        assert isinstance(g.exception(), gort.Cancelled)
        with pytest.raises(TimeoutError), gort.timeout(0.02):
            subprocess.check_output(["sleep", "60"])

    run(main)


def test_many_processes(procs: int):
    """A hundred at a time, each its own result; nothing is mixed up."""
    number = 100 if std.environ.get("GORT_STRESS") else 20

    def main() -> None:
        gs = [
            go(subprocess.check_output, f"sleep 0.0{i % 5}; echo {i}; exit 0", shell=True, text=True)
            for i in range(number)
        ]
        assert [int(g.result()) for g in gs] == list(range(number))

    run(main, procs=procs)


def test_an_end_that_is_told_long_before_the_child_can_be_reaped(monkeypatch):
    """The wait spins meanwhile.  (So it is where another process traces the child, and for a moment with kqueue.)"""
    read, write = std.pipe()  # always readable, in the place of a pidfd
    std.write(write, b"x")
    monkeypatch.setattr(std, "pidfd_open", lambda pid: std.dup(read), raising=False)
    looks = []
    original = std.waitpid
    monkeypatch.setattr(std, "waitpid", lambda *args: (looks.append(1), original(*args))[1])

    def main() -> None:
        begin = time.process_time()
        os.waitpid(spawn("sleep 0.3"), 0)
        assert 1 < len(looks) < 100
        subprocess.Popen(["sleep", "0.3"]).wait()
        assert time.process_time() - begin < 0.3

    try:
        run(main, procs=1)
    finally:
        std.close(read)
        std.close(write)


def test_without_a_pidfd(monkeypatch):
    """On a system that has none, the end of a process is not seen, or nobody can cancel the wait for it."""
    monkeypatch.delattr(std, "pidfd_open", raising=False)

    def main() -> None:
        process = subprocess.Popen(["sh", "-c", "sleep 0.05; exit 5"])
        g = go(process.wait)
        gort.sleep(0.001)
        assert not g.done() and g.result() == 5
        with subprocess.Popen(["sleep", "60"]) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.01)
            process.kill()
        pid = spawn("sleep 0.05; exit 6")
        assert std.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
        g = go(subprocess.run, ["sleep", "60"])
        gort.sleep(0.02)
        g.cancel()
        assert isinstance(g.exception(), gort.Cancelled)

    run(main, procs=1)


# --- os ---------------------------------------------------------------------------------------------------------------


def spawn(script: str, stdin: int = 0) -> int:
    actions = [(std.POSIX_SPAWN_DUP2, stdin, 0)]
    return std.posix_spawnp("sh", ["sh", "-c", script], std.environ, file_actions=actions)


@pytest.mark.parametrize("how", ["waitpid", "waitpid -1", "wait", "wait3", "wait4", "waitid"])
def test_the_waits_of_os(how: str):
    """None stops the goroutine that lets the process end; each gives what the standard one does."""

    def main() -> None:
        read, write = std.pipe()
        pid = spawn("read line; exit 7", read)
        std.close(read)
        calls: dict[str, Any] = {
            "waitpid": lambda: os.waitpid(pid, 0),
            "waitpid -1": lambda: os.waitpid(-1, 0),
            "wait": os.wait,
            "wait3": lambda: os.wait3(0)[:2],
            "wait4": lambda: os.wait4(pid, 0)[:2],
            "waitid": lambda: (lambda r: (r.si_pid, r.si_status << 8))(os.waitid(os.P_PID, pid, os.WEXITED)),
        }
        g = go(calls[how])
        gort.sleep(0.005)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0) and not g.done()
        std.write(write, b"x\n")
        std.close(write)
        assert g.result() == (pid, 7 << 8)
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
        with pytest.raises(ChildProcessError):
            os.waitpid(1, 0)  # lives, and is no child of ours

    run(main, procs=1)


def test_a_wait_for_a_process_with_the_last_descriptor():
    """It is over before the process is: there is none for the machine's poller, and the thread blocks in the system."""

    def main() -> None:
        read, write = std.pipe()
        pid = spawn("read line; exit 7", read)
        std.close(read)
        with few_descriptors(1):
            g = go(os.waitpid, pid, 0)
            gort.sleep(0.05)  # which does not come back if it blocks
            std.write(write, b"x\n")
            assert g.result() == (pid, 7 << 8)
        std.close(write)

    with gort.Runtime(1) as runtime:  # whose machine has no poller yet
        runtime.run(main)


def test_spawn_system_popen(tmp_path):
    """What os runs in a shell, in both directions and with the exit status."""

    def main() -> None:
        os.mkfifo(tmp_path / "gate")
        gate = open(tmp_path / "gate", "r+b", buffering=0)
        g = go(os.system, f"read line <'{tmp_path}/gate'; exit 3")  # until we write
        gort.sleep(0.001)
        assert not g.done()
        gate.write(b"go on\n")
        assert os.waitstatus_to_exitcode(g.result()) == 3
        gate.close()
        assert os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 4") == 4
        with os.popen("echo out; exit 2") as file:
            assert file.read() == "out\n"
        file = os.popen("exit 2")
        assert file.close() == 2 << 8
        file = os.popen("cat >/dev/null", "w")
        file.write("x" * 100_000)
        assert file.close() is None
        for bad, error in (
            (lambda: os.popen(1), TypeError),
            (lambda: os.popen("x", "q"), ValueError),
            (lambda: os.popen("x", "r", 0), ValueError),
        ):
            with pytest.raises(error):
                bad()

    run(main, procs=1)


def test_a_big_write_to_a_pipe(pipe: Any, procs: int):
    """As os.write: all of it if the pipe is blocking; what fits if it is not; what came before the reader's end."""
    read, write = pipe
    data = bytes(range(256)) * 4000

    def main() -> None:
        def take(size: int) -> bytes:
            parts = []
            while size:
                parts.append(os.read(read, size))
                size -= len(parts[-1])
            return b"".join(parts)

        g = go(take, len(data))
        assert os.write(write, data) == len(data) and g.result() == data
        assert os.write(write, b"") == 0
        std.set_blocking(write, False)
        n = os.write(write, data)
        assert 0 < n < len(data) and take(n) == data[:n]
        std.set_blocking(write, True)

        def take_some() -> None:
            take(100_000)
            std.close(read)

        g = go(take_some)
        assert 100_000 <= os.write(write, data) < len(data)
        g.result()
        with pytest.raises(BrokenPipeError):
            os.write(write, data)

    run(main, procs=procs)


@pytest.mark.parametrize("nowait", [True, False])
def test_read_and_write_of_a_pipe_park(pipe: Any, monkeypatch, nowait: bool):
    """Both directions, cancellable; what is read is what was written; a full pipe gives way to its reader."""
    read, write = pipe
    if not nowait:  # as on another system, or with an older kernel
        monkeypatch.setattr(soon, "_NOWAIT", None)

    def main() -> None:
        g = go(os.read, read, 100)
        gort.sleep(0.002)
        assert not g.done() and os.write(write, b"data") == 4 and g.result() == b"data"
        g = go(os.read, read, 100)
        gort.sleep(0.002)
        g.cancel()
        assert isinstance(g.exception(), gort.Cancelled)
        assert os.get_blocking(read) and os.get_blocking(write)

        data = bytes(range(256)) * 2000

        def send() -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(write, view) :]
            os.close(write)

        g = go(send)
        got = bytearray()
        while part := os.read(read, 5000):
            got += part
        g.result()
        assert got == data
        with pytest.raises(OSError) as info:
            os.read(write, 1)
        assert info.value.errno == errno.EBADF

    run(main, procs=1)


@pytest.mark.skipif(not hasattr(std, "readinto"), reason="os.readinto is of Python 3.14")
@pytest.mark.parametrize("nowait", [True, False])
def test_readinto_of_a_pipe_parks(pipe: Any, monkeypatch, tmp_path: Path, nowait: bool):
    """os.readinto, as os.read, lets the goroutine of the same thread run that sends what it waits for."""
    read, write = pipe
    if not nowait:
        monkeypatch.setattr(soon, "_NOWAIT", None)
    path = tmp_path / "file"
    path.write_bytes(b"content")

    def main() -> None:
        buffer = bytearray(8)
        g = go(os.readinto, read, buffer)
        gort.sleep(0.002)
        assert not g.done() and os.write(write, b"data") == 4 and g.result() == 4 and buffer == b"data" + bytes(4)
        g = go(os.readinto, read, buffer)
        gort.sleep(0.002)
        g.cancel()
        assert isinstance(g.exception(), gort.Cancelled)
        assert os.readinto(read, bytearray()) == 0
        with open(path, "rb", 0) as file:
            assert os.readinto(file.fileno(), buffer) == 7 and buffer == b"content\0"
            assert os.readinto(file.fileno(), buffer) == 0
        for wrong in (b"no room", "text", None):
            with pytest.raises(TypeError):
                os.readinto(read, wrong)
        with pytest.raises(OSError) as info:
            os.readinto(write, buffer)
        assert info.value.errno == errno.EBADF

    run(main, procs=1)


def test_many_readers_of_one_pipe(pipe: Any, procs: int, jitter):
    """One message wakes them all and one gets it: the others wait again, and block no thread that has the writer."""
    read, write = pipe
    total = 300

    def main() -> None:
        got: list[int] = []

        def receive() -> None:
            while True:
                got.append(int.from_bytes(os.read(read, 4), "big"))

        readers = [go(receive) for _ in range(6)]

        def send() -> None:
            for i in range(total):
                os.write(write, i.to_bytes(4, "big"))
                if i % 3 == 0:
                    gort.sleep(0.0001)

        go(send).result()
        while len(got) < total:
            gort.sleep(0.001)
        for g in readers:
            g.cancel()
        assert sorted(got) == list(range(total))

    run(main, procs=procs)


@pytest.mark.parametrize("nowait", [True, False])
def test_a_read_of_nothing_does_not_wait(pipe: Any, monkeypatch, nowait: bool):
    """A read into buffers without room, which the system answers at once, waits for data."""
    if not nowait:
        monkeypatch.setattr(soon, "_NOWAIT", None)

    def main() -> None:
        with gort.timeout(20):
            assert os.read(pipe[0], 0) == b""
            assert os.readv(pipe[0], []) == os.readv(pipe[0], [bytearray(0), bytearray(0)]) == 0
            with gort.open(pipe[0], "rb", 0, closefd=False) as file:
                assert file.readinto(bytearray(0)) == 0

    run(main)


@pytest.mark.parametrize("nowait", [True, False])
@pytest.mark.parametrize("where", ["goroutine", "thread"])
def test_the_number_of_a_green_socket(where: str, nowait: bool, monkeypatch, tmp_path: Path):
    """Its number is non-blocking underneath, so a read or write by it fails where its user wants it to wait."""
    if not nowait:
        monkeypatch.setattr(soon, "_NOWAIT", None)
    data = bytes(range(256)) * 4000
    (tmp_path / "f").write_bytes(data)

    def main() -> None:
        a, b = socket.socketpair()
        fd = a.fileno()
        with a, b, open(tmp_path / "f", "rb") as file, ThreadPoolExecutor() as threads:

            def start(fn: Any, *args: Any) -> Any:
                if where == "goroutine":
                    return settle(go(fn, *args)).result
                return partial(gort.blocking, threads.submit(fn, *args).result)

            def send_file() -> int:
                sent = 0
                while sent < len(data):
                    sent += os.sendfile(fd, file.fileno(), sent, len(data) - sent)
                return sent

            buffer = bytearray(9)
            for fn, arg, got in ((os.read, 9, b"data"), (os.readv, [buffer], 4)):
                result = start(fn, fd, arg)
                b.send(b"data")
                assert result(20) == got
            assert buffer == b"data" + bytes(5)
            for call in (
                partial(os.write, fd, data),
                partial(os.writev, fd, [data[:500_000], data[500_000:]]),
                send_file,
            ):
                result = start(call)
                received = bytearray()
                while len(received) < len(data):
                    received += b.recv(1 << 20)
                assert received == data and result(20) == len(data)
            a.settimeout(1000)  # non-blocking, as with a standard socket
            with pytest.raises(BlockingIOError):
                os.read(a.fileno(), 1)
            number = a.detach()
            std.set_blocking(number, False)
            with pytest.raises(BlockingIOError):  # and nobody's any more
                os.read(number, 1)
            os.close(number)

    run(main, procs=1)


@pytest.mark.skipif(not hasattr(std, "eventfd"), reason="this system has none")
def test_an_eventfd_s_own_calls():
    """A goroutine that waits for an eventfd's count, or for room in it, stops the others."""

    def main() -> None:
        fd = std.eventfd(0)
        g = settle(go(os.eventfd_read, fd))
        os.eventfd_write(fd, 5)
        assert g.result(20) == 5
        most = 2**64 - 2
        os.eventfd_write(fd, most)
        g = settle(go(os.eventfd_write, fd, 7))
        assert os.eventfd_read(fd) == most
        g.result(20)
        assert os.eventfd_read(fd) == 7
        g = settle(go(os.eventfd_read, fd))
        g.cancel()
        g.join(20)
        std.close(fd)

    run(main, procs=1)


@pytest.mark.parametrize("nowait", [True, False])
def test_a_number_that_is_closed_and_used_again_under_a_reader(pipe: Any, monkeypatch, nowait: bool, procs: int):
    """The reader takes what belongs to the number's new owner, or misses the end of its own pipe."""
    if not nowait:
        monkeypatch.setattr(soon, "_NOWAIT", None)
    other, write = pipe

    def main() -> None:
        read, end = std.pipe()
        keep = std.dup(end)
        readers = [settle(go(os.read, read, 1)) for _ in range(2)]
        std.dup2(other, read)  # closes it, and uses the number again, at once
        std.write(write, b"new")
        std.write(end, b"x")
        while not any(g.done() for g in readers):
            gort.sleep(0.001)
        std.close(end)
        std.close(keep)
        assert sorted(g.result(20) for g in readers) == [b"", b"x"]
        assert os.read(read, 10) == b"new"
        std.close(read)

    run(main, procs=procs)


def test_a_child_of_a_fork_keeps_no_end_of_a_pipe_for_those_who_wait(pipe: Any):
    """Somebody waited to write when another forked: the child has the pipe's end too, and its reader never meets the end."""
    read, write = pipe

    def main() -> None:
        g = settle(go(os.write, write, bytes(1 << 20)))
        out, end = std.pipe()
        pid = std.fork()
        if not pid:
            std.close(write)
            std.close(end)
            std.read(out, 1)  # until the parent has no more use for us
            std._exit(0)
        std.close(out)
        left = 1 << 20
        while left:
            left -= len(os.read(read, left))
        g.result(20)
        std.close(write)
        with gort.timeout(20):
            assert os.read(read, 1) == b""
        std.close(end)
        assert os.waitpid(pid, 0)[1] == 0

    run(main, procs=1)


def test_read_of_other_things(tmp_path: Path):
    """Files, sockets, terminals, eventfds, non-blocking descriptors, vectors."""
    (tmp_path / "f").write_bytes(b"content")

    def main() -> None:
        fd = os.open(tmp_path / "f", os.O_RDWR)
        assert os.read(fd, 3) == b"con" and os.write(fd, b"TENT") == 4
        assert os.pread(fd, 3, 0) == b"con" and os.pwrite(fd, b"C", 0) == 1
        assert os.read(fd, 10) == b""
        os.fsync(fd)
        os.fdatasync(fd)
        os.lseek(fd, 0, 0)
        buffers = [bytearray(3), bytearray(10)]
        assert os.readv(fd, buffers) == 7 and buffers[0] == b"Con"
        assert os.writev(fd, [b"a", b"bc"]) == 3
        os.ftruncate(fd, 2)
        with os.fdopen(fd, "rb") as file:
            file.seek(0)
            assert file.read() == b"Co"
        with pytest.raises(TypeError):
            os.fdopen("x")
        with pytest.raises(FileNotFoundError):
            os.open(tmp_path / "none", os.O_RDONLY)

        a, b = std_socket.socketpair()
        with a, b:
            g = go(os.read, a.fileno(), 10)
            gort.sleep(0.001)
            os.write(b.fileno(), b"x")
            assert g.result() == b"x"
            os.set_blocking(a.fileno(), False)
            with pytest.raises(BlockingIOError):
                os.read(a.fileno(), 10)

        fd = os.eventfd(0)
        g = go(os.read, fd, 8)
        gort.sleep(0.001)
        os.write(fd, (5).to_bytes(8, sys.byteorder))
        assert int.from_bytes(g.result(), sys.byteorder) == 5
        os.close(fd)

        master, slave = pty.openpty()
        g = go(os.read, slave, 100)
        gort.sleep(0.001)
        os.write(master, b"typed\n")
        assert g.result() == b"typed\n"
        os.close(master)
        os.close(slave)
        with pytest.raises(OSError):
            os.read(master, 1)

    run(main, procs=1)
    assert (tmp_path / "f").read_bytes() == b"Co"


def test_on_a_plain_thread(pipe: Any):
    """Without a goroutine each call is the standard one, which blocks the thread and no more."""
    read, write = pipe
    timer = threading.Timer(0.02, std.write, (write, b"x"))
    timer.start()
    assert os.read(read, 10) == b"x"
    timer.join()
    assert os.waitpid(spawn("exit 2"), 0)[1] == 2 << 8
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write("x\n")
        process.stdin.flush()
        assert process.stdout.readline() == "x\n"
        process.stdin.close()
        assert process.wait(30) == 0


def test_a_dropped_process_is_no_trouble():
    """Its end is collected later, as the standard module does it."""

    def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            process = subprocess.Popen(["sleep", "0.02"])
            del process
            gc.collect()
        until = time.monotonic() + 30
        while std_subprocess._active and time.monotonic() < until:
            gort.sleep(0.005)
            std_subprocess._cleanup()
        assert not std_subprocess._active

    run(main)


@pytest.mark.parametrize("nowait", [True, False])
def test_the_wrong_end_of_a_pipe(monkeypatch, nowait: bool) -> None:
    """Broken: reading where one can only write waits for ever."""
    if not nowait:
        monkeypatch.setattr(soon, "_NOWAIT", None)

    def main() -> None:
        r, w = os.pipe()
        for call in (lambda: os.read(w, 1), lambda: os.readv(w, [bytearray(1)]), lambda: os.write(r, b"x")):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.EBADF
        os.close(r)
        os.close(w)

    gort.run(main)
