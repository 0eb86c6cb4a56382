"""The life of a process: how programs that use gort end, and how they fork.

Each scenario is a program of its own, run to its end: nothing may hang, nothing may crash, the exit status, the output
and what is said on stderr must be right.  GORT_STRESS=1 runs each of them 200 times (two cores: 20 minutes).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# GORT_STRESS=number below 1: so many times 200, for a look at the whole of it in little time.
TIMES = max(2, round(200 * min(1.0, float(os.environ["GORT_STRESS"])))) if os.environ.get("GORT_STRESS") else 1
EVERY = TIMES > 1  # every combination of parameters, or those that differ most
LIMIT = 120 if TIMES == 1 else 3600

pytestmark = [pytest.mark.limit(LIMIT), pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX")]

ROOT = Path(__file__).parent.parent

PRELUDE = """
import atexit, os, signal, sys, threading, time
import gort
from gort import *

def spin():
    while True: pass

def parked(name="parked"):
    try: Chan().recv()
    finally: say(name)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def settled(*gs):
    # They have begun, and wait (or have ended).
    while any(g.state not in ("waiting", "dead") for g in gs): sleep(0.001)
    return gs[0]

def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def works():
    # A whole new runtime, here: goroutines on several machines, timers, channels, the background one too.
    def main():
        ch = Chan()
        gs = [go(lambda n=n: (sleep(0.001), ch.send(n))) for n in range(10)]
        assert sorted(ch.recv() for _ in gs) == list(range(10))
        select(gort.recv(after(0.001)))
        return current().name
    assert run(main, procs=2) == "works.<locals>.main"
    assert go(main).result() == "works.<locals>.main"
    assert run(blocking, int, "7") == 7
"""


def once(args: list[str]) -> tuple[int, str, str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", "PYTHONFAULTHANDLER": "1"}
    env.pop("GORT_STRESS", None)
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        args, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    try:
        out, err = child.communicate(timeout=50)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGABRT)  # it and its children; faulthandler shows where they hang
        out, err = child.communicate()
        err = "it hung\n" + err
    return child.returncode, out, err


def check(program: str, status: int = 0, out: str = "", err: str | Callable[[str], bool] = "") -> None:
    """Run the program, TIMES times: exit status, the set of its lines, and stderr (the whole of it, or a test of it)."""
    args = [sys.executable, "-c", PRELUDE + textwrap.dedent(program)]
    check_args(args, status, out, err)


def check_args(args: list[str], status: int = 0, out: str = "", err: str | Callable[[str], bool] = "") -> None:
    # Many of them sleep or wait for most of their time: so more at a time than there are cores.
    with ThreadPoolExecutor(1 if TIMES == 1 else 2 * (os.cpu_count() or 1)) as pool:
        for code, output, errors in pool.map(once, [args] * TIMES):
            said = f"\nexit status {code}\n-- stdout\n{output}\n-- stderr\n{errors}"
            assert code == status, said
            assert sorted(output.split("\n")[:-1]) == sorted(out.split()), said
            assert err(errors) if callable(err) else errors == err, said


def traceback_of(*texts: str) -> Callable[[str], bool]:
    return lambda err: err.count("Traceback (most recent") == 1 and all(text in err for text in texts)


def left_behind(*names: str) -> Callable[[str], bool]:
    return lambda err: "left behind" in err and "Traceback" not in err and all(f"'{name}'" in err for name in names)


# -- the end of main ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("procs", [1, 8] if EVERY else [8])
@pytest.mark.parametrize(
    "end, status, err",
    [
        ("return", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('a text')", 1, "a text\n"),
        ("raise KeyError('lost')", 1, traceback_of("KeyError: 'lost'")),
    ],
    ids=["return", "exit", "exit-3", "exit-text", "error"],
)
def test_main_ends_while_others_go_on(end: str, status: int, err: str | Callable[[str], bool], procs: int) -> None:
    """Broken: a program hangs or crashes at its end, leaves out clean-up, or ends with a wrong status."""
    check(
        f"""
        def sleeper():
            try: sleep(1000)
            finally:
                sleep(0.001)  # clean-up may wait
                say("slept")
        begun = Event()
        def busy():
            try:
                while True: gosched(); begun.set()
            finally: say("busy")
        def pair(ch):
            while True: ch.send(ch.recv())
        def main():
            go(busy)
            ch = Chan()
            for _ in range(4): go(pair, ch)
            go(ch.send, 1)
            settled(go(parked), go(sleeper))
            begun.wait()
            go(int)  # as main ends it may not have started, or another machine may just be about to
            {end}
        run(main, procs={procs})
        """,
        status,
        "parked slept busy",
        err,
    )


ENDLESS = ["spin()", "time.sleep(1000)", "blocking(time.sleep, 1000)", "threading.Event().wait()"]
WHERE = ["run", "background", "runtime"]


@pytest.mark.parametrize(
    "where, what",
    [(where, what) for n, where in enumerate(WHERE) for what in (ENDLESS if EVERY or not n else ENDLESS[n - 1 : n])],
)
def test_the_end_does_not_wait_for_what_cannot_notice(where: str, what: str) -> None:
    """Broken: a computation or a call without end keeps the program from ending, or takes others' clean-up with it."""
    start = {
        "run": "run(main, procs=3)",
        "background": "go(main).result(); say('main')",
        "runtime": "r = gort.Runtime(3); r.run(main); say('main')",
    }[where]
    check(
        f"""
        gort.runtime.instance.GRACE = 0.2
        begun = threading.Event()
        def endless():
            begun.set()
            {what}
        def slow():
            try: Chan().recv()
            finally:
                for _ in range(5): sleep(0.06)  # longer than the others are waited for
                say("slow")
        def main():
            go(endless)
            begun.wait()  # not gort's: so it starts on another machine
            settled(go(slow))  # after it, so that slow does not stand on the machine that will be stuck
        {start}
        """,
        0,
        "slow" if where == "run" else "slow main",
        left_behind("endless"),
    )


def test_many_goroutines_at_the_end() -> None:
    """Broken: the end of a program that has very many goroutines is taken for goroutines that do not notice it."""
    check(
        """
        gort.runtime.instance.GRACE = 0.05
        ended = []
        begun = []
        def waits():
            try:
                begun.append(1)
                Chan().recv()
            finally: ended.append(1)
        def main():
            for _ in range(10_000): go(waits)
            while len(begun) < 10_000: sleep(0.001)
        run(main, procs=2)
        say(len(ended))
        """,
        0,
        "10000",
    )


def test_clean_up_takes_as_long_as_it_takes() -> None:
    """Broken: a clean-up that computes for long, or is shielded, is cut off as if it had not noticed the end."""
    check(
        """
        gort.runtime.instance.GRACE = 0.1
        def computes(name):
            until = time.monotonic() + 0.5
            while time.monotonic() < until: pass
            say(name)
        def one():
            try: Chan().recv()
            finally: computes("finally")
        def two():
            begun.set()
            with shield(): blocking(time.sleep, 0.5)
            say("shield")
        begun = threading.Event()
        def main():
            settled(go(one))
            go(two)
            begun.wait()
        run(main, procs=3)
        """,
        0,
        "finally shield",
    )


def test_errors_and_exits_of_other_goroutines() -> None:
    """Broken: an error of another goroutine is lost, shown twice, or changes the exit status; or an exit ends the process."""
    check(
        """
        def fails(): raise LookupError("nobody asked")
        def main():
            settled(*[go(fn, *args) for fn, *args in [(fails,), (sys.exit, 5)]])
            say("main")
        run(main)
        """,
        0,
        "main",
        traceback_of("LookupError: nobody asked", "'fails'"),
    )


def test_who_waits_for_others_at_the_end_says_nothing() -> None:
    """Broken: a program that ends with goroutines that wait for each other's results prints an error for each of them."""
    check(
        """
        def main():
            one = settled(go(sleep, 1000))
            for _ in range(20): settled(go(one.result))
        run(main, procs=2)
        """
    )


@pytest.mark.parametrize("where", ["run(main)", "go(main).join()"], ids=["run", "background"])
def test_errors_at_the_end(where: str) -> None:
    """Broken: what is raised while the program ends hangs it, crashes it, or is lost."""
    check(
        f"""
        def bad_finally():
            try: Chan().recv()
            finally: raise LookupError("in the clean-up")
        def exits():
            try: Chan().recv()
            finally: sys.exit(9)
        class Bad:
            def __del__(self): go(say, "died")
        def holds(bad):
            Chan().recv()
        def main():
            settled(go(bad_finally), go(exits), go(holds, Bad()))
        {where}
        """,
        0,
        "died",
        lambda err: err.count("LookupError: in the clean-up") == 1,
    )


def test_an_error_that_nobody_asked_for_by_the_very_end() -> None:
    """Broken: a failed goroutine whose handle lives in a module is reported never, or crashes the interpreter's end."""
    check(
        """
        def fails(): raise LookupError("kept")
        g = go(fails)
        g.join()
        """,
        0,
        "",
        lambda err: "LookupError: kept" in err,
    )


def test_an_excepthook_that_fails_and_no_stderr() -> None:
    """Broken: a hook that raises, or a program without stderr, takes the runtime's end with it."""
    check(
        """
        def hook(args): raise ValueError("the hook")
        gort.excepthook = hook
        def fails(): raise LookupError
        run(lambda: go(fails) and sleep(0.01))
        sys.stderr = None
        run(lambda: go(fails) and sleep(0.01))
        go(fails)
        say("end")
        """,
        0,
        "end",
        lambda err: "ValueError: the hook" in err,
    )


# -- the end of a program with a background runtime -------------------------------------------------------------------


@pytest.mark.parametrize("end, status", [("", 0), ("sys.exit(4)", 4), ("raise KeyError", 1)], ids=["end", "exit", "error"])
def test_the_program_ends_beside_a_background_runtime(end: str, status: int) -> None:
    """Broken: goroutines in the background keep the program from ending, or do not clean up, or change the status."""
    check(
        f"""
        def chain(n):
            ch = Chan()
            if n: go(chain, n - 1)
            else: begun.set()
            try:
                while True:
                    sleep(0.0001); gosched()
            finally:
                if not n: say("chain")
        begun = Event()
        go(chain, 50)
        gort.after_func(1000, spin)
        executor = gort.futures.Executor(2)
        futures = [executor.submit(sleep, 1000) for _ in range(5)]
        settled(go(parked))
        begun.wait()
        {end}
        """,
        status,
        "parked chain",
        lambda err: err.count("Traceback") == (status == 1),
    )


def test_an_unclosed_runtime_is_closed() -> None:
    """Broken: a Runtime that the program forgot to close loses its goroutines' clean-up."""
    check("r = gort.Runtime(2); settled(r.go(parked))", 0, "parked")


@pytest.mark.parametrize("use", ["", "settled(go(parked))", "run(int)"], ids=["unused", "background", "run"])
def test_atexit_functions_can_use_gort(use: str) -> None:
    """Broken: `run`, or `go` beside a background runtime, fails or hangs in an atexit function."""
    check(
        f"""
        def last():
            def main():
                ch = Chan()
                gs = [go(ch.send, n) for n in range(5)]
                sleep(0.001)
                assert sorted(ch.recv() for _ in gs) == [0, 1, 2, 3, 4]
                say("run")
            run(main, procs=4)
            try: assert go(lambda: 41).result() == 41
            except ThreadLimit: assert {"parked" not in use}  # no thread can be started any more
            say("go")
        atexit.register(last)
        {use}
        """,
        0,
        "run go parked" if "parked" in use else "run go",
    )


@pytest.mark.parametrize("daemon", [True, False])
def test_run_on_another_thread(daemon: bool) -> None:
    """Broken: the program does not wait for a thread that is in `run`, or waits for a daemon, or crashes under it."""
    check(
        f"""
        def main():
            settled(*[go(parked, "x") for _ in range(20)])
            begun.set()
            sleep(1000 if {daemon} else 0.05)
            say("main")
        begun = threading.Event()
        threading.Thread(target=run, args=(main,), kwargs=dict(procs=4), daemon={daemon}).start()
        begun.wait()
        """,
        0,
        "" if daemon else "main" + 20 * " x",
    )


def test_daemon_threads_that_use_gort() -> None:
    """Broken: a daemon thread in the middle of a channel operation crashes or hangs the interpreter's end."""
    check(
        """
        ch = Chan()
        def talk():
            while True: ch.send(ch.recv())
        for _ in range(3): threading.Thread(target=talk, daemon=True).start()
        for _ in range(3): go(talk)
        threading.Thread(target=Chan().recv, daemon=True).start()
        ch.send(1); ch.send(2)
        time.sleep(0.02)
        say("end")
        """,
        0,
        "end",
    )


def test_a_coroutine_is_on_its_way_at_the_end() -> None:
    """Broken: goroutines and coroutines that wait for each other do not end, or end without their clean-up."""
    check(
        """
        import asyncio
        from gort import aio
        begun = threading.Event()
        def work():
            try:
                begun.set()
                Chan().recv()
            finally: say("work")
        async def inner():
            try: await aio.wait(go(work))
            finally: say("inner")
        g = go(lambda: aio.run(inner()))
        begun.wait()
        """,
        0,
        "work inner",
    )


@pytest.mark.parametrize(
    "end, status", [("os._exit(6)", 6), ("os.kill(os.getpid(), signal.SIGTERM); sleep(50)", -signal.SIGTERM)], ids=["_exit", "kill"]
)
def test_abrupt_ends(end: str, status: int) -> None:
    """Broken: a goroutine cannot end the process at once."""
    check(f"def main():\n    go(parked); sleep(0.001)\n    {end}\nrun(lambda: go(main).join(), procs=2)", status)


def test_threads_with_greenlets_end_beside_others() -> None:
    """Broken: without a GIL the process crashes when a thread's own greenlet is dropped by another while the thread ends."""
    check(
        """
        import collections, greenlet
        left = collections.deque()
        def drops():
            while True:
                try: left.popleft()
                except IndexError: time.sleep(0)
        threading.Thread(target=drops, daemon=True).start()
        for _ in range(300):
            threads = [threading.Thread(target=lambda: left.append(greenlet.getcurrent())) for _ in range(4)]
            for t in threads: t.start()
            for t in threads: t.join()
        """
    )


# -- fork -------------------------------------------------------------------------------------------------------------


def test_main_forks() -> None:
    """Broken: the child does not go on as plain code, or meets the parent's goroutines, or ends otherwise than the parent."""
    check(
        """
        def main():
            waiting = settled(*[go(parked) for _ in range(4)])
            pid = os.fork()
            if not pid:
                assert current() is None and gort.num_goroutine() == 0
                works()
                try: waiting.result()
                except GortError as exc: assert "parent" in str(exc)
                works()
                return "child"
            assert status_of(pid) == 3
            return "parent"
        name = run(main, procs=2)
        works()
        @atexit.register
        def last():
            works() if name == "parent" else run(int)
            say(name)
        if name == "child": sys.exit(3)
        """,
        0,
        "child parked parked parked parked parent",
    )


@pytest.mark.parametrize("where", ["run(main, procs=3)", "go(main).join()", "gort.Runtime(3).run(main)"], ids=["run", "go", "rt"])
@pytest.mark.parametrize("starter", ["go(fn)", "after_func(0.001, fn)"] if EVERY else ["go(fn)"])
def test_other_goroutines_fork(where: str, starter: str) -> None:
    """Broken: a child that is forked by a goroutine goes on with the parent's work, or ends with a wrong status."""
    check(
        f"""
        def forks(end, ch):
            pid = os.fork()
            if pid:
                ch.send(status_of(pid))
                return
            g = go(lambda: 3)
            assert g.result() == 3
            settled(go(parked, "child's"))
            print("flushed")
            end()
        def main():
            begun = threading.Event()
            settled(go(parked, "parent's"))
            go(lambda: begun.wait(0.3))  # so that there is another machine
            for end, status in [(int, 0), (lambda: sys.exit(7), 7), (lambda: sys.exit("text"), 1), (lambda: 1 / 0, 1)]:
                ch = Chan()
                fn = lambda: forks(end, ch)
                {starter}
                assert ch.recv() == status
            begun.set()
            say("main")
        {where}
        """,
        0,
        "main parent's" + 4 * " child's flushed",
        lambda err: err.count("Traceback") == 1 and "ZeroDivisionError" in err and "text\n" in err,
    )


@pytest.mark.parametrize("thread", [False, True], ids=["main-thread", "thread"])
def test_a_plain_thread_forks_beside_live_runtimes(thread: bool) -> None:
    """Broken: in a child that a plain thread forked, gort does not work, or the parent's runtimes are closed once more."""
    check(
        f"""
        embedded = gort.Runtime(2)
        def busy(ch):
            while True: ch.send(ch.recv())
        for start in (go, embedded.go):
            settled(start(parked))
            ch = Chan()
            start(busy, ch); start(busy, ch); start(ch.send, 1)
        def forks():
            with gort.Runtime(2) as inner:
                inner.go(sleep, 1000)
                pid = os.fork()
            if pid:
                assert status_of(pid) == 0
            else:
                try: embedded.go(int)
                except RuntimeClosed as exc: assert "parent" in str(exc)
                works()
                with gort.Runtime(2) as mine: mine.run(works_inside)
                if {thread}: os._exit(0)
        def works_inside():
            assert go(lambda: 5).result() == 5
        if {thread}:
            t = threading.Thread(target=forks); t.start(); t.join()
        else:
            me = os.getpid()
            forks()
            if os.getpid() != me: sys.exit(0)
        """,
        0,
        "parked parked",
    )


def test_many_forks_beside_busy_machines() -> None:
    """Broken: without a GIL a child hangs at once, now and then: at a queue whose lock a thread of the parent's had just got."""
    check(
        """
        def busy(ch):
            while True: ch.send(ch.recv())
        for _ in range(3):
            embedded = gort.Runtime(2)
            for _ in range(3):
                ch = Chan()
                for _ in range(3): embedded.go(busy, ch)
                for _ in range(2): embedded.go(ch.send, 1)
        for _ in range(50):
            pid = os.fork()
            if not pid: os._exit(0)
            assert status_of(pid) == 0
        os._exit(0)
        """
    )


def test_a_fork_beside_work_that_stays_behind() -> None:
    """Broken: in the child a context, SingleFlight or Executor waits for a lock, a leader or work that is the parent's."""
    check(
        """
        from gort import context
        from gort.futures import Executor
        class Key:
            def __hash__(self): return 1
            def __eq__(self, other):
                if threading.current_thread() is holder:  # the look-up, with the lock of the SingleFlight held
                    held.set()
                    go_on.wait()
                return self is other
        held, go_on, begun = threading.Event(), threading.Event(), threading.Event()
        flight, tree, key = SingleFlight(), context.with_cancel(context.background()), Key()
        def leads():
            begun.set()
            Chan().recv()
        def hold():
            with tree._lock:
                flight.do(Key(), int)
        def main():
            child = context.with_timeout(tree, 100)
            settled(go(flight.do, key, leads))
            begun.wait()
            holder.start()
            held.wait()
            with Executor(max_workers=2) as own:
                stopped = Chan()
                called = []
                works = [own.submit(stopped.recv_ok) for _ in range(3)]  # two at work, one in the queue
                for work in works: work.add_done_callback(called.append)
                own.submit(int).cancel()
                while own._busy < 2 or any(work.running() for work in works[2:]): sleep(0.001)
                pid = os.fork()
                if not pid:
                    assert child.err() is None and tree.cancel() and child.err() is not None
                    assert flight.do(key, lambda: 5) == (5, False) and flight.do(Key(), lambda: 6) == (6, False)
                    for work in works:
                        assert "parent" in str(work.exception(0)) and work.done() and not called
                    assert own.submit(lambda: 7).result() == 7
                    assert list(own.map(abs, range(10))) == list(range(10))
                    return "child"
                stopped.close()
            go_on.set()
            assert status_of(pid) == 3 and [work.result() for work in works] == [(None, False)] * 3
            return "parent"
        holder = threading.Thread(target=hold)
        name = run(main, procs=2)
        say(name)
        if name == "child": os._exit(3)
        holder.join()
        """,
        0,
        "child parent",
    )


def test_work_of_an_executor_forks() -> None:
    """Broken: the work that forks goes on in the child, but its future, or the block around it, never ends there."""
    check(
        """
        from gort.futures import Executor
        def forks(own):
            pid = os.fork()
            if pid: return status_of(pid)
            assert own.submit(int).running() is False  # it waits for our place
            own.shutdown(wait=False, cancel_futures=True)
            works()
            say("child")
        def main():
            with Executor(max_workers=1) as own: return own.submit(forks, own).result()
        say(run(main, procs=2))
        """,
        0,
        "child 0",
    )


def test_goroutines_that_wait_for_what_the_end_cancels_are_no_news() -> None:
    """Broken: a program that ends in order reports "errors" of goroutines that only met its end by way of others."""
    check(
        """
        import asyncio
        from gort import aio
        from gort.futures import Executor
        freed = threading.Event()
        def ends_by(fn):
            with Group() as g:
                g.go(fn)
                g.go(Chan().recv)
        def holds(queued, other):
            gs = [go(fn) for fn in (queued.result, lambda: gort.wait(queued), other.result, lambda: ends_by(queued.result),
                                    lambda: ends_by(other.result), lambda: aio.run(asyncio.sleep(100)))]
            settled(*gs)
            told.close()
            freed.wait()  # not gort's: those on this machine meet their own cancellation only after it
        def main():
            own = Executor(max_workers=1)
            first = own.submit(Chan().recv)
            queued = own.submit(int)
            other = go(Chan().recv)
            settled(other)
            go(holds, queued, other)
            while not told.closed: time.sleep(0.001)  # so that holds starts on another machine
            queued.add_done_callback(lambda _: freed.set())
        told = Chan()
        run(main, procs=2)
        """
    )


def test_forks_in_the_middle_of_everything() -> None:
    """Broken: a fork while other machines are in the middle of channels, timers and locks leaves either side broken."""
    check(
        """
        sys.setswitchinterval(1e-6)
        ch, tally = Chan(3), []
        lock = Mutex()
        over = []
        def sender(k):
            for n in range(300):
                ch.send((k, n))
                if n % 10 == 0: sleep(1e-5)
                with lock: pass
        def receiver():
            for value in ch: tally.append(value)
        def forker():
            for n in range(10):
                pid = os.fork()
                if not pid:
                    own = Chan()
                    assert run(lambda: (go(own.send, 1), own.recv())[1], procs=2) == 1
                    os._exit(0)
                assert status_of(pid) == 0
                sleep(1e-4)
        def main():
            receivers = [go(receiver) for _ in range(4)]
            senders = [go(sender, k) for k in range(4)]
            forkers = [go(forker) for _ in range(2)]
            for g in senders + forkers: g.result()
            ch.close()
            for g in receivers: g.result()
            assert len(tally) == len(set(tally)) == 1200
        run(main, procs=8)
        """
    )


def test_the_childs_descriptors_are_not_the_parents() -> None:
    """Broken: the child keeps the parent's pollers open, or takes the parent's descriptors out of them."""
    check(
        """
        from gort import net
        def kinds():
            links = []
            for fd in os.listdir("/proc/self/fd"):
                try: links.append(os.readlink(f"/proc/self/fd/{fd}"))
                except OSError: pass
            return [link for link in links if "eventpoll" in link or "eventfd" in link]
        def echo(conn):
            while data := conn.read(100): conn.write(data)
        def main():
            listener = net.listen("127.0.0.1:0")
            def serve():
                for conn in listener: go(echo, conn)
            go(serve)
            conn = net.dial(listener.addr)
            conn.write(b"one"); assert conn.read_exactly(3) == b"one"
            reader = settled(go(conn.read_exactly, 3))
            pid = os.fork()
            if not pid:
                if os.path.exists("/proc/self/fd"): assert kinds() == [], kinds()
                conn.close(); listener.close()
                r, w = os.pipe()
                def pipes():
                    l = net.listen("127.0.0.1:0")
                    def serve():
                        for c in l: go(echo, c)
                    go(serve)
                    c = net.dial(l.addr); c.write(b"two"); assert c.read_exactly(3) == b"two"
                run(pipes, procs=2)
                os._exit(0)
            assert status_of(pid) == 0
            conn.write(b"abc")
            assert reader.result() == b"abc"
            other = net.dial(listener.addr)
            other.write(b"new"); assert other.read_exactly(3) == b"new"
        run(main, procs=2)
        """
    )


def test_channels_of_the_parent_in_the_child() -> None:
    """Broken: in the child a value goes to somebody who waits in the parent, and so is lost."""
    check(
        """
        ch, other = Chan(), Chan()
        def both():
            select(gort.recv(ch), gort.recv(other))
        def main():
            gs = [go(ch.recv), go(both), go(both), go(ch.recv), go(ch.recv, 1000)]
            threading.Thread(target=ch.recv, daemon=True).start()
            settled(*gs)
            while len(gort.runtime.wait.parked_threads) < 1: sleep(0.001)
            pid = os.fork()
            if not pid:
                def child():
                    g = go(ch.recv)
                    h = go(other.recv)
                    ch.send("mine"); other.send("mine")
                    assert g.result() == h.result() == "mine"
                run(child)
                run(child, procs=1)
                os._exit(0)
            assert status_of(pid) == 0
        run(main, procs=2)
        """
    )


def test_a_latch_whose_holder_stayed_behind() -> None:
    """Broken: a channel that another thread was about to change when the process was forked hangs the child for ever."""
    check(
        """
        import socket
        from gort import net
        ch, other = Chan(5), Chan(5)
        ch._latch.pop(); other._latch.pop()  # as a thread does in the middle of an operation
        pid = os.fork()
        if not pid:
            quiet, peer = map(net.Conn, socket.socketpair())
            for wait in (quiet.read, lambda: gort.sleep(1000), lambda: gort.blocking(time.sleep, 1000)):
                threading.Thread(target=wait, daemon=True).start()  # in gort, but no holder of a latch
            def main():
                gs = [go(c.send, 1) for c in (ch, other) for _ in range(2)]
                for g in gs: g.join()
            ts = [threading.Thread(target=ch.send, args=(n,)) for n in range(2)]
            for t in ts: t.start()
            run(main, procs=3)
            for t in ts: t.join()
            assert len(ch) == 4 and len(other) == 2
            os._exit(0)
        assert status_of(pid) == 0
        """
    )


@pytest.mark.parametrize("how", ["greenlet", "finalizer", "signal", "blocking", "nested", "shielded"])
def test_forks_from_strange_places(how: str) -> None:
    """Broken: a fork in a greenlet, finalizer, handler, spare thread, forked child or shield leaves a broken child."""
    body = {
        "greenlet": """
            def main():
                def inner():
                    sleep(0.001)
                    fork_once()
                greenlet.greenlet(inner).switch()
            """,
        "finalizer": """
            class Dies:
                def __del__(self): fork_once()
            def main():
                d = Dies(); del d
                sleep(0.001)
            """,
        "signal": """
            signal.signal(signal.SIGUSR1, lambda *_: fork_once(do=int, exits=False))  # it returns in the child, too
            def main():
                go(lambda: blocking(lambda: (time.sleep(0.05), os.kill(os.getpid(), signal.SIGUSR1))))
                sleep(0.2)  # so that it comes while the hub sleeps
            """,
        "blocking": """
            def main():
                blocking(fork_once)
            """,
        "nested": """
            def again():
                fork_once(works)
            def main():
                fork_once(lambda: run(again, procs=2))
            """,
        "shielded": """
            def main():
                with shield(), timeout(5), gort.context.with_timeout(gort.context.background(), 5):
                    if fork_once(exits=False): return
            """,
    }[how]
    check(
        f"""
        import greenlet
        def fork_once(do=works, exits=True):
            pid = os.fork()
            if pid:
                assert status_of(pid) == 0
                say("forked")
                return
            do()
            if exits: os._exit(0)
            return True
        {textwrap.indent(textwrap.dedent(body), "        ").strip()}
        run(main, procs=2)
        """,
        0,
        "forked forked" if how == "nested" else "forked",
    )


def test_ctrl_c_in_the_child_and_in_the_parent() -> None:
    """Broken: after a fork Ctrl-C goes to a runtime that does not exist, or wakes the other process."""
    check(
        """
        def main():
            pid = os.fork()
            if not pid:
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(50)
                except KeyboardInterrupt: pass
                try: run(lambda: (os.kill(os.getpid(), signal.SIGINT), sleep(50)))
                except KeyboardInterrupt: os._exit(0)
                os._exit(1)
            assert status_of(pid) == 0
            try:
                os.kill(os.getpid(), signal.SIGINT)
                sleep(50)
            except KeyboardInterrupt: say("interrupted")
        run(main, procs=2)
        """,
        0,
        "interrupted",
    )


def test_a_group_of_the_parent_in_the_child() -> None:
    """Broken: a block that waits for the parent's goroutines hangs the child that leaves it."""
    check(
        """
        def main():
            with Group() as group:
                settled(group.go(sleep, 0.05))
                pid = os.fork()
                if pid: assert status_of(pid) == 0
            if not pid:
                works()
                os._exit(0)
        run(main, procs=2)
        """
    )


@pytest.mark.parametrize("begin", ["next(it)", "run(lambda: next(it))"], ids=["thread", "run"])
@pytest.mark.parametrize("block", ["timeout(50)", "context.with_timeout(context.background(), 50)", "shield()", "Mutex()", "Group()"])
def test_a_generator_left_in_a_block_at_exit(block: str, begin: str) -> None:
    """Broken: the interpreter's end closes it, and prints an error about greenlets that nobody has made."""
    check(
        f"""
        from gort import context
        def numbers():
            with {block}:
                try: yield 1
                finally: say("closed")
        it = numbers()
        {begin}
        """,
        0,
        "closed",
    )


def test_subprocess_from_goroutines() -> None:
    """Broken: child programs that goroutines start, with code before their exec too, do not start or do not end."""
    check(
        """
        import subprocess
        def child(n):
            args = [sys.executable, "-S", "-c", f"raise SystemExit({n})"]
            return subprocess.run(args, preexec_fn=(lambda: None) if n % 2 else None).returncode
        def main():
            settled(go(parked))
            assert [g.result() for g in [go(child, n) for n in range(4)]] == [0, 1, 2, 3]
        run(main, procs=2)
        """,
        0,
        "parked",
    )


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(method: str, tmp_path: Path) -> None:
    """Broken: processes and pools do not work from goroutines or beside a live runtime, or their children lack gort."""
    script = tmp_path / "program.py"
    script.write_text(
        PRELUDE
        + textwrap.dedent(
            f"""
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor

            def child(queue, n):
                works()
                queue.put(n * n)

            def square(n):
                return run(lambda: go(lambda: n * n).result())

            def start(context, queue, n):
                process = context.Process(target=child, args=(queue, n))
                process.start()
                process.join()
                assert process.exitcode == 0, process.exitcode
                return queue.get()

            def main(context):
                queue = context.SimpleQueue()
                assert start(context, queue, 2) == 4
                assert go(start, context, queue, 3).result() == 9
                with ProcessPoolExecutor(2, mp_context=context) as pool:
                    futures = [pool.submit(square, n) for n in range(5)]
                    assert [gort.wait(future) for future in futures] == [0, 1, 4, 9, 16]

            if __name__ == "__main__":
                context = multiprocessing.get_context("{method}")
                settled(go(parked))
                main(context)  # on a plain thread, beside a background runtime
                run(main, context, procs=2)
                with context.Pool(2) as pool: assert pool.map(square, range(3)) == [0, 1, 4]
                say("done")
            """
        )
    )
    check_args([sys.executable, str(script)], 0, "done parked")


# -- ends that somebody wants sooner ------------------------------------------------------------------------------------

SLOW = """
def slow():
    try: Chan().recv()
    finally: sleep(1000)
def interrupt(after):
    def send():
        for _ in range(50):
            time.sleep(after)
            os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=send, daemon=True).start()
"""


@pytest.mark.parametrize(
    "program",
    [
        "settled(go(slow)); interrupt(0.2)",
        "rt = Runtime(2); settled(rt.go(slow)); interrupt(0.2); rt.close()",
        "def main():\n with Group() as g: settled(g.go(slow)); interrupt(0.2)\nrun(main)",
        "with Group() as g: settled(g.go(slow)); interrupt(0.2)",
    ],
    ids=["exit", "close", "group", "group-on-a-thread"],
)
def test_ctrl_c_ends_every_wait_for_a_slow_clean_up(program: str) -> None:
    """Broken: a program cannot be ended by Ctrl-C while it waits for goroutines that take their time."""
    _code, _out, err = once([sys.executable, "-c", PRELUDE + SLOW + program])
    assert "it hung" not in err, err


@pytest.mark.parametrize("start", ["go(bad)", "Runtime(2).go(bad)"], ids=["background", "runtime"])
def test_a_clean_up_that_can_never_end_is_a_deadlock_at_the_end(start: str) -> None:
    """Broken: a `finally` that waits for nobody hangs the end of the program, and nothing says why."""
    check(
        f"""
        def bad():
            try: sleep(1000)
            finally: Chan().recv()
        settled({start})
        """,
        err=lambda err: "all goroutines are asleep - deadlock!" in err,
    )


def test_a_deadlock_is_found_beside_the_event_loop() -> None:
    """Broken: after the first `gort.aio.run` no deadlock is ever found, for the loop's idle thread might wake somebody."""
    check(
        """
        async def nothing(): pass
        def main():
            gort.aio.run(nothing())
            Chan().recv()
        try: run(main)
        except Deadlock: say("deadlock")
        """,
        out="deadlock",
    )
