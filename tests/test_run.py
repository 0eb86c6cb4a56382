"""run, Runtime and their ends: main's value, cancellation of the rest, closing, deadlock, limits, Ctrl-C.

What needs a process of its own runs in one: a deadlock is only seen when no other thread of the process could end it
(the tests' process has some), and Ctrl-C and the end of the interpreter concern the whole process.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from typing import Any

import pytest

import gort
from gort import Chan, Runtime, current, go, gosched, run, sleep
from gort.runtime import closing

LONG = 50.0
PRELUDE = "import gort, os, signal, sys, threading, time\nfrom gort import *\n"


def script(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, in a process of its own."""
    args = [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]
    return subprocess.run(args, env={**os.environ, **env}, capture_output=True, text=True, timeout=50)


def succeeds(code: str, **env: str) -> str:
    done = script(code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- run --------------------------------------------------------------------------------------------------------------


def test_run_returns_or_raises_what_main_does(procs: int) -> None:
    """Broken: run does not give main's value, or its exception with its frames, or runs it on another thread."""

    def main(*args: Any, **kw: Any) -> Any:
        assert threading.get_ident() == ident
        return args, kw

    def fails(kind: type[BaseException]) -> None:
        sleep(1e-4)
        raise kind("in main")

    ident = threading.get_ident()
    assert run(main, 1, procs=procs, fn=2) == ((1,), {"fn": 2})
    for kind in (ValueError, SystemExit, KeyboardInterrupt, StopIteration, GeneratorExit):
        with pytest.raises(kind, match="in main") as info:
            run(fails, kind, procs=procs)
        assert "fails" in [entry.name for entry in info.traceback]
    with pytest.raises(gort.GortError):
        run(lambda: current().cancel() and sleep(LONG), procs=procs)  # type: ignore[union-attr]


def test_run_inside_a_goroutine_is_an_error() -> None:
    """Broken: run inside a goroutine hangs instead of saying what to do."""
    with pytest.raises(gort.GortError, match="inside a goroutine"):
        run(lambda: run(int))


def test_runs_and_runtimes_side_by_side(procs: int) -> None:
    """Broken: two runtimes in one process disturb each other, or `go` in one goes to the other."""
    ch: Chan[int] = Chan()

    def main(k: int) -> int:
        assert gort.gomaxprocs() == procs + k
        helper = go(lambda: gort.stats()["procs"])
        assert helper.result() == procs + k
        for i in range(200):
            if k:
                ch.send(i)
            else:
                assert ch.recv() == i
        return k

    out: list[int] = []
    thread = threading.Thread(target=lambda: out.append(run(main, 1, procs=procs + 1)))
    thread.start()
    assert run(main, 0, procs=procs) == 0
    thread.join()
    assert out == [1]
    with Runtime(procs) as one, Runtime(procs + 1) as two:
        tasks = [one.go(main, 0), two.go(main, 1)]
        assert [g.result() for g in tasks] == [0, 1]
        assert one.run(lambda: two.run(lambda: gort.gomaxprocs())) == procs + 1  # and they may wait for each other


def test_procs_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: GORT_PROCS is not heeded, or wins over the argument, or nonsense in it passes."""
    monkeypatch.delenv("GORT_PROCS", raising=False)
    assert run(gort.gomaxprocs) == gort.num_cpu()
    monkeypatch.setenv("GORT_PROCS", "3")
    assert run(gort.gomaxprocs) == 3 and run(gort.gomaxprocs, procs=2) == 2
    for bad in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("GORT_PROCS", bad)
        with pytest.raises(ValueError, match="GORT_PROCS"):
            run(int)


# -- behaviour 23: the end of main, the close of a Runtime --------------------------------------------------------


def waiting_in_every_way(log: list[Any], started: Chan[int]) -> int:
    """Start goroutines that wait in every way there is, with cleanups that block; how many there are.

    In no way that another's cancellation could end (a join, a meeting): then their own might come when they are in the
    cleanup already, and rightly end that.
    """

    group = gort.WaitGroup()
    group.add(1)
    ways = [lambda: Chan().recv(), lambda: Chan().send(1), lambda: sleep(LONG), lambda: gort.select(gort.recv(Chan())),
            lambda: Chan().recv(timeout=LONG), group.wait, lambda: gort.after(LONG).recv(),
            lambda: forever(gosched), lambda: forever(lambda: sleep(1e-4))]  # fmt: skip

    def work(k: int) -> None:
        try:
            started.send(k)
            ways[k]()
        finally:
            sleep(1e-3)
            assert go(lambda: k).result() == k
            log.append(k)

    for k in range(len(ways)):
        go(work, k)
    return len(ways)


def forever(fn: Any) -> None:
    while True:
        fn()


@pytest.mark.parametrize("how", ["run", "close", "error"])
def test_23_the_others_are_cancelled_and_clean_up(procs: int, how: str) -> None:
    """Broken: when main ends a goroutine goes on, hangs, or its finally block does not run to its end."""
    log: list[int] = []
    started: Chan[int] = Chan()

    def main() -> int:
        n = waiting_in_every_way(log, started)
        for _ in range(n):
            started.recv()
        go(log.append, -1)  # never started, so never run
        if how == "error":
            raise ZeroDivisionError
        return n

    if how == "run":
        n = run(main, procs=procs)
    elif how == "error":
        n = 9
        with pytest.raises(ZeroDivisionError):
            run(main, procs=procs)
    else:
        with Runtime(procs) as runtime:
            n = runtime.run(main)
    assert sorted(k for k in log if k >= 0) == list(range(n))


def test_23_goroutines_that_a_cleanup_starts_end_too(procs: int) -> None:
    """Broken: closing hangs when a finally block starts goroutines that block for good, on this machine or another."""
    log: list[int] = []
    started: Chan[int] = Chan(1)

    def child(runs: threading.Event, depth: int) -> None:
        runs.set()
        try:
            Chan().recv()
        finally:
            log.append(depth)
            if depth:
                go(child, threading.Event(), depth - 1)

    def work() -> None:
        started.send(1)
        runs = threading.Event()
        try:
            Chan().recv()
        finally:
            go(child, runs, 3)
            if procs > 1:
                runs.wait()  # blocks this machine, so that the child starts on another

    for _ in range(3):
        with Runtime(procs) as runtime:
            runtime.go(work)
            started.recv()
    assert log == [3, 2, 1, 0] * 3


def test_23_goroutines_that_a_cleanup_starts_at_once_are_not_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: what a finally block starts never runs if its machine sees that the runtime closes before others are dropped."""
    cleaning, dropped = threading.Event(), threading.Event()
    log: list[int] = []
    drop = closing._drop

    def late(*args: Any) -> None:
        cleaning.wait()
        drop(*args)
        dropped.set()

    monkeypatch.setattr(closing, "_drop", late)

    def work() -> None:
        waits.send(1)
        try:
            while True:
                sleep(1e-3)  # so that its machine looks
        finally:
            go(log.append, 1)
            cleaning.set()
            while not dropped.is_set():
                pass

    waits: Chan[int] = Chan(1)
    with Runtime(1) as runtime:
        runtime.go(work)
        waits.recv()
    assert log == [1]


def test_close_and_after() -> None:
    """Broken: a closed Runtime takes work and never runs it, closing twice fails, or a goroutine closes its own."""
    runtime = Runtime(2)
    g = runtime.go(sleep, LONG)
    with pytest.raises(gort.GortError, match="closed by one of its own"):
        runtime.run(runtime.close)
    runtime.close()
    runtime.close()
    assert type(g.exception()) is gort.Cancelled and "closed" in repr(runtime)
    for use in (lambda: runtime.go(int), lambda: runtime.run(int), runtime.__enter__):
        with pytest.raises(gort.RuntimeClosed, match="closed"):
            use()
    Runtime().close()  # one that was never used


def test_close_races_with_go(procs: int, jitter: None) -> None:
    """Broken: a goroutine that a thread starts while the Runtime closes neither ends nor is refused."""
    for _ in range(60):
        runtime = Runtime(procs)
        tasks: list[Any] = []

        def submit(runtime: Runtime = runtime, tasks: list[Any] = tasks) -> None:
            try:
                while True:
                    tasks.append(runtime.go(sleep, 1e-5))
            except gort.RuntimeClosed:
                pass

        thread = threading.Thread(target=submit)
        thread.start()
        while not tasks:
            time.sleep(0)
        runtime.close()
        thread.join()
        for g in tasks:
            g.join()


def test_a_thousand_runtimes_leak_nothing() -> None:
    """Broken: a closed Runtime leaves a thread, a file descriptor, a greenlet or other objects behind."""

    made: list[Any] = []

    def note() -> None:
        carrier: Any = gort.current().carrier  # type: ignore[union-attr]
        made.extend(map(weakref.ref, (carrier, carrier.m.hub, carrier.m.maker)))

    def things() -> tuple[int, int, int, int]:
        gc.collect()
        fds = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        ours = 0
        if getattr(sys, "_is_gil_enabled", lambda: True)():
            # Not without a GIL: `get_objects` may then give us a thread's own greenlet that is being freed.
            ours = sum(type(x).__module__.startswith("gort.") for x in gc.get_objects())
        return threading.active_count(), fds, sum(made_one() is not None for made_one in made), ours

    def use(k: int) -> None:
        ch: Chan[int] = Chan(k % 2)
        with Runtime(1 + k % 3) as runtime:
            tasks = [runtime.go(ch.recv) for _ in range(3)]
            runtime.run(ch.send, 5)
            runtime.run(sleep, 1e-5)
            runtime.run(note)
            runtime.go(ch.recv, timeout=LONG)
        assert sorted(g.exception() is None for g in tasks) in ([False, False, True], [False, False, False])
        run(lambda: go(note).join(), procs=1 + k % 2)

    use(0)
    before = things()
    for k in range(500):  # two runtimes in each
        use(k)
    assert things() == before and len(made) == 501 * 2 * 3


# -- go from plain threads ----------------------------------------------------------------------------------------------


def test_go_from_a_plain_thread_joins_the_run_that_is_on() -> None:
    """Broken: `go` on a plain thread, while a run is going on, does not go to that run."""

    def main() -> None:
        out: Chan[Any] = Chan()
        threading.Thread(target=lambda: go(lambda: out.send(threading.get_ident()))).start()
        assert out.recv() in [m["ident"] for m in gort.stats()["ms"]]

    run(main, procs=1)


def test_the_background_runtime() -> None:
    """Broken: `go` without a run starts no runtime, or one that keeps the program from ending, or ends it unclean."""
    out = succeeds(
        """
        def work():
            try:
                Chan().recv()
            finally:
                sleep(0.001)
                print("cleaned up", flush=True)
        g = go(work)
        print(go(lambda: 42).result(), g.done())
        print(after(0.001).recv() > 0, gomaxprocs(3) > 0, gomaxprocs())
        print(run(lambda: gomaxprocs(), procs=2))
        """
    )
    assert out.splitlines() == ["42 False", "True True 3", "2", "cleaned up"]


# -- behaviour 22: deadlock ---------------------------------------------------------------------------------------------

DEADLOCKS = {
    "recv": "Chan().recv()",
    "send": "Chan().send(1)",
    "select": "select(recv(None))",
    "join": "go(lambda: Chan().recv()).join()",
    "after others": "go(sleep, 0.01); go(lambda: [gosched() for _ in range(100)]); Chan().recv()",
    "a timer gone": "after(0.01).recv(); t = Timer(1000); t.stop(); c = Chan(); g = go(c.recv, 1000); gosched(); "
    "g.cancel(); g.join(); Chan().recv()",
    "a time-out overtaken": "c = Chan(); g = go(c.recv_ok, 1000); sleep(0.001); c.close(); g.join(); Chan().recv()",
    "a thread gone": "t = threading.Thread(target=int); t.start(); t.join(); Chan().recv()",
    "on many threads": "b = threading.Barrier(gomaxprocs()); c = Chan(); d = Chan(9); "
    "f = lambda: (b.wait(), d.send(1), c.recv()); "
    "t = threading.Thread(target=lambda: [go(f) for _ in range(b.parties)]); t.start(); t.join(); "
    "[d.recv() for _ in range(gomaxprocs())]; c.recv()",
}


def cases(table: dict[str, str]) -> str:
    """A function for each case, and a list of them all."""
    text = "".join(f"def {'case_' + name.replace(' ', '_').replace('-', '_')}(c):\n    {code}\n" for name, code in table.items())
    return text + f"CASES = [f for name, f in list(globals().items()) if name.startswith('case_')]\n"


def test_22_a_deadlock_is_an_error(procs: int) -> None:
    """Broken: when nothing can ever run again the program hangs instead of saying so, with every goroutine's stack."""
    code = cases(DEADLOCKS) + f"""
def bystander():
    Chan().recv()
def main(case):
    go(bystander)
    case(Chan())
for case in CASES:
    print(case.__name__, flush=True)
    try:
        run(main, case, procs={procs})
    except Deadlock as error:
        text = str(error)
        assert text.startswith("all goroutines are asleep - deadlock!"), text
        assert all(part in text for part in ("bystander", case.__name__, "chan receive", "main")), text
    else:
        sys.exit("no deadlock")
"""
    assert len(succeeds(code).splitlines()) == len(DEADLOCKS)


def test_22_again_and_again(procs: int) -> None:
    """Broken: whether a deadlock is seen depends on chance."""
    code = f"""
        sys.setswitchinterval(1e-6)
        def main():
            try:
                go(lambda: Chan().recv()).join()
            except Deadlock:
                pass
            go(Chan().recv)
            Chan().recv()  # caught once, main goes on, and once more
        for i in range(150):
            try:
                run(main, procs={procs})
            except Deadlock:
                continue
            raise SystemExit("no deadlock")
        """
    succeeds(code)


def test_22_a_cleanup_that_waits_for_ever_is_one_too() -> None:
    """Broken: a finally block that waits for nothing keeps run from ending."""
    out = succeeds(
        """
        def work():
            try:
                Chan().recv()
            finally:
                try:
                    Chan().recv()
                except Deadlock:
                    print("told")
        run(lambda: [go(work), gosched(), gosched()] and None, procs=1)
        """
    )
    assert out == "told\n"


NO_DEADLOCKS = {
    "sleep": "go(lambda: (sleep(0.1), c.send(1)))",
    "a time-out": "go(lambda: go(Chan().recv, 0.1).exception() and c.send(1))",
    "after_func": "after_func(0.1, c.send, 1)",
    "a ticker": "t = Ticker(0.05); go(lambda: (t.c.recv(), t.c.recv(), c.send(1)))",
    "a thread": "threading.Thread(target=lambda: (time.sleep(0.1), c.send(1))).start()",
    "a thread that starts one": "threading.Thread(target=lambda: (time.sleep(0.1), go(c.send, 1))).start()",
    "a machine in a call": "go(lambda: (time.sleep(0.1), c.send(1)))",
    "a signal": "signal.signal(signal.SIGALRM, lambda *_: go(c.send, 1)); signal.setitimer(signal.ITIMER_REAL, 0.1)",
}


def test_22_no_false_alarm(procs: int) -> None:
    """Broken: Deadlock is raised although a timer, a thread, a signal or a busy goroutine would have woken main."""
    code = cases(NO_DEADLOCKS) + f"""
def main(case):
    c = Chan()
    case(c)
    return c.recv()
for case in CASES:
    print(case.__name__, flush=True)
    assert run(main, case, procs={procs}) == 1
"""
    assert len(succeeds(code).splitlines()) == len(NO_DEADLOCKS)


# -- behaviour 24 and Ctrl-C ----------------------------------------------------------------------------------------------


def test_24_the_thread_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: more threads than allowed are started, or the error does not name the limit."""
    with pytest.raises(gort.ThreadLimit, match="limit is 3"):
        Runtime(4, max_threads=3)
    with Runtime(3, max_threads=3) as runtime:
        with pytest.raises(gort.ThreadLimit, match="limit of 3"):
            runtime.gomaxprocs(4)
        assert runtime.gomaxprocs() == 3
    monkeypatch.setenv("GORT_MAXTHREADS", "2")
    with pytest.raises(gort.ThreadLimit, match="GORT_MAXTHREADS"):
        run(int, procs=3)
    monkeypatch.setenv("GORT_MAXTHREADS", "few")
    with pytest.raises(ValueError, match="GORT_MAXTHREADS"):
        run(int, procs=1)


PRESSED = """
def tell_presses():
    def watch(handler, last=None):
        while True:
            if handler.last is not last:
                last = handler.last
                print("seen")
            time.sleep(0.001)
    threading.Thread(target=watch, args=[signal.getsignal(signal.SIGINT)], daemon=True).start()
def never_ends():
    time.sleep(0.05)  # a limit of its caller's is over by then, and waits for us
    print("ready")
    threading.Event().wait()
"""  # the first prints a line for each Ctrl-C that the run's handler has recorded


def interrupted(body: str, *cues: str) -> subprocess.CompletedProcess[str]:
    """Run a program, and press Ctrl-C each time when it has printed the next of these lines."""
    args = [sys.executable, "-u", "-c", PRELUDE + PRESSED + textwrap.dedent(body)]
    child = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stderr is not None
    out = ""
    for cue in cues:
        while (line := child.stdout.readline()) and line.strip() != cue:
            out += line
        out += line
        child.send_signal(signal.SIGINT)
    with child:
        return subprocess.CompletedProcess(args, child.wait(), out + child.stdout.read(), child.stderr.read())


@pytest.mark.parametrize("what", ["Chan().recv()", "while True: pass", "sleep(50)", "go(loop).join()", "loop()"])
def test_ctrl_c_ends_the_program(procs: int, what: str) -> None:
    """Broken: Ctrl-C does not stop a program, wherever main is, or leaves out finally blocks, or prints a storm."""
    done = interrupted(
        f"""
        def loop():
            while True: gosched()
        def other():
            try: Chan().recv()
            finally: print("other cleaned")
        def main():
            for _ in range(20): go(other)
            go(sleep, 40)  # else it is a deadlock
            gosched()
            try:
                print("ready")
                {what}
            finally:
                print("main cleaned")
        run(main, procs={procs})
        """,
        "ready",
    )
    assert done.returncode == -signal.SIGINT
    lines = done.stdout.split("\n")
    assert lines.count("main cleaned") == 1 and lines.count("other cleaned") == 20
    assert done.stderr.count("Traceback") == 1 and "in main" in done.stderr


def test_a_run_that_finds_no_descriptor_leaves_nothing() -> None:
    """Broken: a run that cannot begin (EMFILE) leaves its SIGINT handler, descriptors, or a runtime that never ends."""

    def fds() -> int:
        return len(os.listdir("/proc/self/fd"))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wakeup = signal.set_wakeup_fd(-1)
    before = fds(), threading.active_count()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        for room in range(6):
            fillers = []
            try:
                while True:
                    fillers.append(os.dup(0))
            except OSError:
                pass
            for _ in range(room):
                os.close(fillers.pop())
            try:
                assert run(lambda: 5) == 5
            except OSError as exc:
                assert exc.errno == errno.EMFILE
            finally:
                for fd in fillers:
                    os.close(fd)
            assert (fds(), threading.active_count()) == before
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert signal.set_wakeup_fd(-1) == -1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        signal.set_wakeup_fd(wakeup)
    done = script(
        """
        import resource
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, limits[1]))
        try: run(lambda: None)
        except OSError: pass
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_may_be_handled_and_a_second_one_stops_a_loop() -> None:
    """Broken: main cannot handle a KeyboardInterrupt and go on, or a goroutine's endless loop cannot be stopped."""
    done = interrupted(
        """
        def loop():
            seen, write = os.pipe()
            os.set_blocking(seen, False)
            os.set_blocking(write, False)
            signal.set_wakeup_fd(write)
            print("looping")
            while True:
                try: os.read(seen, 1)
                except BlockingIOError: continue
                print("seen")  # the signal has been handled, and did not end this loop
        def main():
            go(sleep, 40)
            try:
                print("ready")
                Chan().recv()
            except KeyboardInterrupt:
                print("handled")
            try:
                g = go(loop)
                g.join()
            finally:
                print(type(g.exception()))
        run(main, procs=1)
        """,
        "ready",
        "looping",  # this one is for main, which cannot run
        "seen",  # this one is for whatever keeps it from that
    )
    assert done.stdout.startswith("ready\nhandled\nlooping\nseen\n") and done.returncode == -signal.SIGINT
    assert done.stdout.endswith("<class 'KeyboardInterrupt'>\n")


@pytest.mark.parametrize("block", ["shielded", "relocks"])
def test_repeated_ctrl_c_goes_through_a_shield(block: str) -> None:
    """Broken: a clean-up that hangs in a shield, or in a Cond whose lock another keeps, cannot be ended at all."""
    done = interrupted(
        f"""
        def shielded():
            with gort.shield():
                print("ready")
                Chan().recv()
        def keeps(cond):
            cond.lock()
            print("ready")
            Chan().recv()
        def relocks():
            cond = gort.Cond()
            cond.lock()
            go(keeps, cond)
            cond.wait()
        def presses():
            while True:
                try:
                    sleep(0.05)
                    print("again")
                except KeyboardInterrupt:
                    pass  # it came in the middle of this goroutine's own code
        def main():
            go(presses)
            {block}()
        run(main, procs=1)
        """,
        "ready",
        *["again"] * 10,
    )
    assert done.returncode == -signal.SIGINT, done.stderr
    assert f"in {block}" in done.stderr


@pytest.mark.parametrize("shielded", [False, True])
def test_repeated_ctrl_c_leaves_a_blocking_call_behind(shielded: bool) -> None:
    """Broken: a program whose main is in a call that never ends can only be killed; or main cannot clean up then."""
    block = "gort.shield()" if shielded else "gort.Group()"
    done = interrupted(
        f"""
        def call():
            print("ready")
            threading.Event().wait()
        def main():
            tell_presses()
            try:
                with {block}:
                    gort.blocking(call)
            finally:
                sleep(0.001)
                print("cleaned", gort.blocking(abs, -5))
        run(main, procs=1)
        """,
        "ready",
        "seen",
    )
    assert done.returncode == -signal.SIGINT, done.stderr
    assert "cleaned 5" in done.stdout and "in main" in done.stderr


@pytest.mark.parametrize("limit", [1000, 0.001])
def test_a_call_that_was_left_behind_is_over_for_main(limit: float) -> None:
    """Broken: main handles the Ctrl-C for which it left a call behind, and is told of it once more; or is not told at all,
    because a time limit's end waited before it."""
    done = interrupted(
        f"""
        def main():
            tell_presses()
            try:
                try:
                    with gort.timeout({limit}):
                        gort.blocking(never_ends)
                except TimeoutError:
                    pass
                Chan().recv()
            except KeyboardInterrupt:
                print("told")
            sleep(0.001)
            return "over"
        print(run(main, procs=1))
        """,
        "ready",
        "seen",
    )
    told = [line for line in done.stdout.splitlines() if line != "seen"]
    assert (done.returncode, told) == (0, ["ready", "told", "over"]), done


def test_two_presses_are_told_though_main_waits_no_more() -> None:
    """Broken: main leaves a call behind for a second Ctrl-C, meets its time limit there and ends, and nobody is told of either."""
    done = interrupted(
        """
        def main():
            tell_presses()
            try:
                with gort.timeout(0.001):
                    gort.blocking(never_ends)
            except TimeoutError:
                print("over")
        run(main, procs=1)
        """,
        "ready",
        "seen",
    )
    assert "over" in done.stdout
    assert done.returncode == -signal.SIGINT, done.stderr


def test_a_shield_that_begins_does_not_hold_back_the_second_press() -> None:
    """Broken: two presses that came while main was about to go on are put away by the next shield, and the next."""
    done = interrupted(
        """
        def main():
            tell_presses()
            ch = Chan(1)
            def other():
                ch.send(1)  # main is ready now
                print("ready")
                handler = signal.getsignal(signal.SIGINT)
                while not hasattr(handler.last, "insists"):
                    time.sleep(0.001)
            with gort.shield():
                go(other)
                ch.recv()
            for _ in range(1000):
                with gort.shield():
                    sleep(0.05)
        run(main, procs=1)
        """,
        "ready",
        "seen",
    )
    assert done.returncode == -signal.SIGINT, done.stderr
    assert "in main" in done.stderr


@pytest.mark.parametrize("waits", ["sleep(1000)", "gort.blocking(time.sleep, 1000)", "gort.Event().wait()"])
def test_ctrl_c_on_a_plain_thread_beside_a_runtime(waits: str) -> None:
    """Broken: the main thread, a plain one beside the background runtime, cannot be interrupted in a wait of gort's."""
    done = interrupted(
        f"""
        go(int).join()
        go(lambda: (sleep(0.05), print("ready"), sleep(1000)))
        {waits}
        """,
        "ready",
    )
    assert done.returncode == -signal.SIGINT, done.stderr


def test_a_signal_handler_that_raises_reaches_main(procs: int) -> None:
    """Broken: an exception raised by the program's own signal handler ends the scheduler instead of main's wait."""
    code = f"""
        def handler(*_): raise ValueError("from the handler")
        signal.signal(signal.SIGALRM, handler)
        def main():
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            try:
                Chan().recv()
            finally:
                print("cleaned")
        try:
            run(main, procs={procs})
        except ValueError as error:
            print(error, threading.active_count())
        """
    assert succeeds(code) == "cleaned\nfrom the handler 1\n"


def test_main_starts_on_the_thread_that_called_run(jitter: None) -> None:
    """Broken: while other threads start goroutines too, another machine takes main, and Ctrl-C does not find it."""
    over: list[int] = []

    def starts() -> None:
        while not over:
            try:
                gort.go(int)
            except gort.RuntimeClosed:
                pass

    threads = [threading.Thread(target=starts) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(60):
            assert gort.run(threading.get_ident, procs=4) == threading.get_ident()
    finally:
        over.append(1)
        for thread in threads:
            thread.join()


def test_a_goroutine_closes_another_runtime(procs: int) -> None:
    """Broken: while a goroutine waits for another runtime's end its machine stands still, and whoever that end needs."""

    def main() -> None:
        hold, begin = Chan(), Chan(1)
        helper = go(lambda: (begin.recv(), hold.send(None)))

        def clean_up() -> None:
            try:
                Chan().recv()
            finally:
                hold.recv()  # from a goroutine of the machine that closes

        with gort.Runtime(1) as other:
            g = other.go(clean_up)
            while g.state != "waiting" or helper.state != "waiting":
                sleep(0.001)
            begin.send(None)
        assert g.done()

    run(main, procs=procs)


def _ends_late(runtime: gort.Runtime, hold: Chan[None]) -> gort.Goroutine[None]:
    """Start a goroutine there whose clean-up waits for hold; it has begun to wait to be cancelled."""
    begun = Chan(1)

    def clean_up() -> None:
        try:
            begun.send(None)
            Chan().recv()
        finally:
            hold.recv()

    g = runtime.go(clean_up)
    begun.recv()
    return g


def test_a_cancelled_goroutine_does_not_wait_for_another_runtimes_end() -> None:
    """Broken: who closes a runtime from a goroutine cannot be cancelled while a clean-up there takes its time."""
    a, b = gort.Runtime(1), gort.Runtime(1)
    hold = Chan()
    late = _ends_late(b, hold)
    closer = a.go(b.close)
    while closer.state != "waiting":
        assert not closer.done()
        time.sleep(0.001)
    a.close()
    assert type(closer.exception()) is gort.Cancelled
    assert not late.done()  # and b goes on ending: a cancellation has not broken its clean-up off
    hold.send(None)
    b.close()
    assert late.done()


def test_the_wait_for_a_runtimes_end_has_a_limit() -> None:
    """Broken: a time limit does not reach a goroutine that closes another runtime."""
    hold = Chan()

    def main() -> None:
        with gort.Runtime(1) as other:
            _ends_late(other, hold)
            with pytest.raises(TimeoutError), gort.timeout(0.02):
                other.close()
            hold.send(None)

    run(main)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("when", ["clean-up", "shield"])
def test_a_circle_of_runtimes_that_close_each_other(n: int, when: str) -> None:
    """Broken: goroutines that no cancellation reaches any more wait for the end of each other's runtimes for ever."""
    some = [gort.Runtime(1) for _ in range(n)]
    begun = gort.Barrier(n + 1)

    def clean_up(other: gort.Runtime) -> None:
        try:
            begun.wait()
            Chan().recv()
        finally:
            other.close()

    def shielded(other: gort.Runtime) -> None:
        with gort.shield():
            begun.wait()
            other.close()

    fn = clean_up if when == "clean-up" else shielded
    closers = [mine.go(fn, other) for mine, other in zip(some, [*some[1:], some[0]])]
    begun.wait()
    for runtime in some:
        runtime.close()
    errors = [g.exception() for g in closers]
    told = [e for e in errors if type(e) is gort.GortError]
    assert len(told) == 1, errors
    assert "waits for the end of this one's" in str(told[0])


@pytest.mark.parametrize("n", [1, 2])
def test_a_runtime_that_can_never_end_is_told_of_it(n: int) -> None:
    """Broken: main closes a runtime one of whose clean-ups waits for nobody, perhaps in a third one, and all hangs."""
    some = [gort.Runtime(1) for _ in range(n)]
    begun = Chan()

    def closes(other: gort.Runtime) -> None:
        with gort.shield():
            begun.send(None)
            other.close()

    def main() -> None:
        some[0].close()

    last = _ends_late(some[-1], Chan())  # for which nobody sends anything
    if n == 2:
        some[0].go(closes, some[1])
        begun.recv()
    run(main)
    assert type(last.exception()) is gort.Deadlock


def test_runtimes_close_each_other() -> None:
    """Broken: goroutines of two runtimes that close each other's wait for each other for ever."""
    for _ in range(50):
        a, b = gort.Runtime(1), gort.Runtime(1)
        begun = gort.Barrier(3)
        both = [a.go(lambda: (begun.wait(), b.close())), b.go(lambda: (begun.wait(), a.close()))]
        begun.wait()
        a.close()
        b.close()
        assert all(g.done() for g in both)
        for g in both:
            g.exception()


def test_a_call_that_goes_on_is_of_the_first_wave() -> None:
    """Broken: what a finally block starts is cancelled though one of those cancelled before is still in a call."""
    done = []

    def child() -> None:
        sleep(0.1)
        done.append(1)

    def parent() -> None:
        try:
            Chan().recv()
        finally:
            go(child)

    inside = threading.Event()
    with gort.Runtime(2) as runtime:
        runtime.go(lambda: (inside.set(), time.sleep(1)))
        inside.wait()
        started = runtime.go(parent)
        while started.state != "waiting":
            time.sleep(1e-3)
    assert done == [1]


def test_who_comes_late_is_cancelled_before_others_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: beside a call that does not end, what a finally block has started is left behind without having been told."""
    from gort.runtime import instance

    monkeypatch.setattr(instance, "GRACE", 0.1)
    gate = threading.Event()
    cleaned = []

    def child() -> None:
        try:
            Chan().recv()
        finally:
            cleaned.append(1)

    def parent() -> None:
        try:
            Chan().recv()
        finally:
            go(child)

    def main() -> None:
        inside = threading.Event()
        thread = threading.Thread(target=lambda: go(lambda: (inside.set(), gate.wait(20))))
        thread.start()
        gort.blocking(inside.wait)
        started = go(parent)
        while started.state != "waiting":
            sleep(1e-3)

    run(main, procs=2)
    gate.set()
    assert cleaned == [1]
