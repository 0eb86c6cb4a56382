"""Calls that gort cannot see: the P of a stuck machine is handed off, and functions that block start apart.

`time.sleep` stands for any such call.  What must not happen is told from `stats()` and from what still gets done while
the call lasts; the calls themselves are ended by an event wherever possible, not by a time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import gort
from gort import Chan, Runtime, WaitGroup, after, go, gosched, run, sleep
from gort.runtime import blocking as blocking_module

from spreading import go_all


def program(body: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "import gort, os, signal, sys, threading, time\nfrom gort import *\n" + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=50,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), **env},
    )


def test_a_blocked_machine_s_fresh_goroutines_go_on(procs: int) -> None:
    """Broken: goroutines that have not started wait for a call that blocks the machine they were queued at."""

    def main() -> None:
        released = threading.Event()
        done: Chan[int] = Chan(20)

        def block() -> None:
            assert released.wait(50)

        def work(i: int) -> None:
            done.send(i)
            if len(done) == 20:
                released.set()

        # First every P's machine.
        for g in go_all(*[(block,)] * procs, *[(work, i) for i in range(20)]):
            g.join()
        assert sorted(done.recv() for _ in range(20)) == list(range(20))
        assert procs > 1 or gort.stats()["handed_off"] >= 1  # with more, others may have stolen them before

    run(main, procs=procs)


def test_timers_of_a_blocked_machine_ring(procs: int) -> None:
    """Broken: a timer waits for the call that blocks the machine that held its P."""

    def main() -> None:
        rung = threading.Event()
        gort.after_func(0.02, rung.set)
        started = time.monotonic()
        assert rung.wait(50)  # blocks main's machine, as a driver would
        assert time.monotonic() - started < 40

    run(main, procs=procs)


def test_other_machines_goroutines_go_on_beside_a_blocked_one() -> None:
    """Broken: with one P, a goroutine of another machine never gets it while the P's holder is blocked."""

    def main() -> None:
        inner: Chan[Any] = Chan()

        def first(entered: threading.Event) -> None:  # makes the P go to another machine, where `elsewhere` starts
            assert entered.wait(50)

        def elsewhere(entered: threading.Event, enough: threading.Event) -> None:
            entered.set()
            inner.send(threading.get_ident())
            for _ in range(50):
                sleep(1e-3)
            enough.set()

        while True:
            entered, enough = threading.Event(), threading.Event()
            g, other = go_all((first, entered), (elsewhere, entered, enough))
            if inner.recv() != threading.get_ident():
                break
            other.join()  # main had lost its P before, and `first` began on the other machine
        g.join()
        assert enough.wait(50)

    run(main, procs=1)


def test_a_goroutine_that_computes_does_not_stop_the_others(procs: int) -> None:
    """Broken: a loop without a runtime call keeps fresh goroutines and timers from running."""
    over: list[int] = []

    def compute() -> None:
        while not over:
            pass

    # Not started by a goroutine, which may give way in `go` to the first of them (its slice is over, or a garbage
    # collection has run), and is stranded by it then.
    with Runtime(procs) as runtime:
        tasks = [runtime.go(compute) for _ in range(procs)]
        runtime.go(lambda: gort.after_func(0.01, lambda: over.append(1)))
        for g in tasks:
            g.join()


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="there is no GIL to share here")
def test_the_gil_is_shared_more_finely_only_while_somebody_computes() -> None:
    """Broken: beside a computation every system call of the others waits 5 ms; or the process keeps the short turns."""
    default = sys.getswitchinterval()
    assert default == 5e-3

    def compute(until: Any) -> None:
        while not until():
            pass

    def main() -> None:
        go(compute, lambda: sys.getswitchinterval() < default).join()
        while sys.getswitchinterval() != default:
            sleep(1e-3)
        sys.setswitchinterval(4e-3)  # the program's own choice
        try:
            rung = threading.Event()
            gort.after_func(0.1, rung.set)
            go(compute, rung.is_set).join()
            assert sys.getswitchinterval() == pytest.approx(4e-3)
        finally:
            sys.setswitchinterval(default)
        go(compute, lambda: sys.getswitchinterval() < default).join()

    run(main, procs=2)
    assert sys.getswitchinterval() == default


def test_a_machine_that_comes_back_queues_for_a_p(procs: int) -> None:
    """Broken: after blocking calls more goroutines run, or hold a P, than there are Ps; or one never gets its P back."""

    def main() -> None:
        def work(k: int) -> int:
            for _ in range(5):
                time.sleep(2e-3)
                for _ in range(20):
                    gosched()
            return k

        tasks = [go(work, k) for k in range(20)]
        assert [g.result() for g in tasks] == list(range(20))
        stats = gort.stats()
        held = [m["p"] for m in stats["ms"] if m["p"] is not None]
        assert len(held) == len(set(held)) <= procs

    run(main, procs=procs)


def test_many_unknown_blocking_calls_do_not_wait_for_each_other() -> None:
    """Broken: calls that block run one after another, or strand a goroutine once their function is known to block."""

    def main() -> None:
        n = 50

        def apart() -> int:
            barrier = threading.Barrier(n)  # passed only if all are in it at once
            gate = threading.Event()
            passed: list[int] = []

            def block() -> None:
                passed.append(barrier.wait(50))
                gate.wait()

            def open_gate() -> None:  # by a plain thread, for a goroutine may be stranded by one of them
                while len(passed) < n:
                    time.sleep(0.001)
                looks = gort.stats()["sysmon_looks"]
                while gort.stats()["sysmon_looks"] < looks + 20:  # now it has seen that they block
                    time.sleep(0.001)
                gate.set()

            opener = threading.Thread(target=open_gate)
            opener.start()
            before = gort.stats()["started_apart"]
            for g in go_all(*[(block,)] * n):
                g.result()
            opener.join()
            return gort.stats()["started_apart"] - before

        assert apart() + apart() >= n  # of the first wave most, and then all but those whose machine has lost its P just then

    run(main, procs=2)


def test_a_function_that_no_longer_blocks_is_forgotten() -> None:
    """Broken: a function that blocked once gets a thread for each call for ever."""

    def main() -> None:
        gate = threading.Event()
        gort.after_func(0.1, gate.set)

        def maybe(block: bool) -> None:
            if block:
                gate.wait(50)

        go(maybe, True).join()
        for _ in range(20):
            go(maybe, False).join()
        before = gort.stats()["started_apart"]
        for _ in range(20):
            go(maybe, False).join()
        assert gort.stats()["started_apart"] == before

    run(main, procs=2)


def test_a_function_that_waits_and_no_longer_blocks_is_forgotten_while_it_runs() -> None:
    """Broken: a server whose handler was once taken for blocking has a thread for each connection, as long as they last."""

    def main() -> None:
        asked: Chan[Chan[None]] = Chan()
        lively: list[int] = []

        def handler(block: bool) -> None:
            if block:
                time.sleep(0.05)
                return
            answer: Chan[None] = Chan()
            for _ in range(40):
                asked.send(answer)
                answer.recv()
            lively.append(1)
            over.recv_ok()  # it lives on

        def answers() -> None:
            for answer in asked:
                answer.send(None)

        over: Chan[None] = Chan()
        go(answers)
        before = gort.stats()["started_apart"]
        while gort.stats()["started_apart"] == before:  # on a busy machine sysmon may need another one to learn it
            go(handler, True).join()
        before = gort.stats()["started_apart"]
        living: list[gort.Goroutine[None]] = []
        while gort.stats()["started_apart"] - before == len(living):
            assert len(living) < 1000
            living.append(go(handler, False))
            while len(lively) < len(living):
                sleep(0.001)
        over.close()
        for g in living:
            g.result()
        asked.close()

    run(main, procs=2)


def test_many_that_block_are_learnt_at_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: for each of them sysmon looks at the stacks of all threads, which costs each of those 8 KB without a GIL."""
    looks = []
    original = sys._current_frames
    sysmon: list[int] = []
    monkeypatch.setattr(sys, "_current_frames", lambda: (threading.get_ident() in sysmon and looks.append(1), original())[1])

    def main() -> None:
        sysmon.append(gort.current().carrier.m.sched.sysmon.thread.ident)  # type: ignore[union-attr]
        nobody = threading.Event()
        gs = [go(lambda: nobody.wait(0.3)) for _ in range(40)]
        for g in gs:
            g.join()

    run(main, procs=2)
    assert 0 < len(looks) < 10


def test_a_goroutine_apart_may_use_everything(procs: int) -> None:
    """Broken: a goroutine that runs apart loses a value, a wake-up, a child, a time-out, its result or its exception."""

    def main() -> None:
        there: Chan[int] = Chan()
        back: Chan[int] = Chan()

        def block(k: int) -> int:
            time.sleep(0.03)  # seen also where threads have no CPU clock
            there.send(k)
            assert back.recv() == k
            sleep(1e-3)
            with pytest.raises(TimeoutError):
                Chan().recv(timeout=1e-3)
            assert go(lambda: k).result() == k
            gosched()
            time.sleep(1e-3)
            if k % 5 == 0:
                raise KeyError(k)
            return k

        def echo() -> None:
            for k in there:
                go(back.send, k) if k < 0 else back.send(k)

        # One at a time, so that the answer goes to whom it is for.
        go(echo)
        for wave in range(3):
            for k in range(12):
                g = go(block, k)
                if k % 5 == 0:
                    assert isinstance(g.exception(), KeyError)
                else:
                    assert g.result() == k
        there.close()
        assert gort.stats()["started_apart"] > 0

    run(main, procs=procs)


def test_cancelling_goroutines_apart() -> None:
    """Broken: a goroutine that runs apart cannot be cancelled where it waits, or before it starts."""

    def main() -> None:
        never: Chan[int] = Chan()
        ended: Chan[int] = Chan(10)

        def block() -> None:
            time.sleep(0.02)
            try:
                never.recv()
            finally:
                ended.send(1)

        def started(gs: list[Any]) -> None:
            while any(g.state != "waiting" for g in gs):
                sleep(1e-3)

        for _ in range(2):
            gs = [go(block) for _ in range(5)]
            started(gs)
            for g in gs:
                g.cancel()
            for g in gs:
                g.join()
        assert sum(ended.recv() for _ in range(10)) == 10

    run(main, procs=2)


def test_idle_machines_end() -> None:
    """Broken: the threads that a wave of blocking calls needed stay for ever."""

    with Runtime(2) as runtime:

        def main() -> None:
            n = 100
            barrier = threading.Barrier(n)
            for g in go_all(*[(barrier.wait,)] * n):
                g.join()

        runtime.run(main)
        while runtime.stats()["threads"] > 2:
            time.sleep(0.05)
        assert runtime.run(lambda: go(lambda: 41).result()) == 41


def test_the_thread_limit_does_not_lose_goroutines() -> None:
    """Broken: where no thread is left to run it apart, a goroutine is lost or fails."""

    with Runtime(2, max_threads=4) as runtime:

        def main() -> int:
            def block(k: int) -> int:
                time.sleep(0.02)
                return k

            return sum(g.result() for g in [go(block, k) for k in range(30)])

        assert runtime.run(main) == sum(range(30))
        assert runtime.stats()["threads"] <= 4


def test_changing_procs_beside_blocking_calls(procs: int, jitter: None) -> None:
    """Broken: a P that is taken out of use while its machine is in a call is lost, or two machines have it."""

    def main() -> None:
        wg = WaitGroup()
        done: list[int] = []

        def work(k: int) -> None:
            for _ in range(4):
                time.sleep(1e-3 * (k % 4))
                gosched()
                sleep(1e-4)
            done.append(k)

        for k in range(40):
            wg.go(work, k)
        for n in [1, 8, 2, 5, 1, 3] * 8:
            gort.gomaxprocs(n)
            sleep(1e-3)
        wg.wait()
        assert sorted(done) == list(range(40))

    run(main, procs=procs)


def test_stuck_calls_are_counted_and_reported_once_for_each_place() -> None:
    """Broken: nobody learns which call has stopped a thread, where, for how long and what to do."""
    done = program(
        """
        def block():
            time.sleep(0.3)  # the place
        def main():
            ch = Chan()
            waiting = [go(ch.recv) for _ in range(3)]
            while any(g.state != "waiting" for g in waiting):
                sleep(1e-3)
            for name in "ab":
                # A new function each time, so that it is not started apart.
                exec(f"def {name}(f): f()", globals())
                go(globals()[name], block).join()
            s = gort.stats()
            print(s["stuck"], s["stranded"])
        run(main, procs=2)
        """,
        GORT_DEBUG="stuck",
    )
    assert done.returncode == 0, done.stderr
    stuck, stranded = map(int, done.stdout.split())
    assert stuck == 2 and stranded >= 1  # those that have begun on the same machine: all of them, mostly
    assert done.stderr.count("has been blocked in a call for 0.") == 1
    assert "# the place" in done.stderr or "in block" in done.stderr
    assert "gort.blocking" in done.stderr and "other goroutines of this thread wait" in done.stderr


def test_sigquit_prints_all_goroutines_also_while_a_machine_is_stuck() -> None:
    """Broken: a program that hangs cannot be asked what its goroutines do, or dies of the question."""
    done = program(
        """
        def stuck():
            end = time.monotonic() + 50
            while not told: pass
        told = []
        def main():
            ch = Chan()
            go(ch.recv)
            go(stuck)
            threading.Timer(1.2, os.kill, (os.getpid(), signal.SIGQUIT)).start()
            time.sleep(1.5)   # main's own machine is stuck as well
            told.append(1)
            sleep(0.01)
            print("alive")
        run(main, procs=2)
        """
    )
    assert done.returncode == 0 and done.stdout == "alive\n", done.stderr
    assert "goroutine 1 'main' [running] on M 0, started at " in done.stderr
    assert "[waiting: chan receive: <Chan 0/0 made at " in done.stderr
    assert "'stuck' [" in done.stderr and "while not told" in done.stderr or "in stuck" in done.stderr


def test_a_wait_has_an_age() -> None:
    """Broken: a dump does not tell for how long a goroutine has waited."""

    def main() -> str:
        go(Chan().recv)
        gosched()
        sleep(1.6)
        return gort.stacks()

    text = run(main, procs=2)
    waits = [line for line in text.splitlines() if "chan receive" in line]
    assert len(waits) == 1
    seconds = int(waits[0].split("]")[0].rsplit(", ", 1)[1].split()[0])
    assert 1 <= seconds <= 30


@pytest.mark.parametrize("call", ["go(block, True)", "go(blocking, threading.Event().wait)"])
def test_a_runtime_ends_without_goroutines_that_never_hear_of_it(call: str) -> None:
    """Broken: `run` hangs because a goroutine is in a call that does not return; or leaves one that could still end."""
    done = program(
        f"""
        ended = []
        def cleans_up():
            try:
                Chan().recv()
            finally:
                sleep(4)
                ended.append(1)
        def block(for_ever):
            time.sleep(0.05)
            if for_ever:
                threading.Event().wait()
        def main():
            while not gort.stats()["started_apart"]:  # block is known: else it might stand on this thread, for ever
                go(block, False).join()
            go(cleans_up)
            gosched()
            {call}
            sleep(0.1)
            return 42
        print(run(main, procs=2), ended)
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "42 [1]\n"
    assert "left behind at the end" in done.stderr and "'block" in done.stderr


@pytest.mark.parametrize("debug", ["schedtrace=5", "stuck"])
def test_sysmon_survives_a_stderr_that_is_gone(debug: str) -> None:
    """Broken: when nobody reads its traces sysmon dies, and with it slices, hand-off and the deadlock's detection."""
    with open(os.devnull) as reading_only:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import gort, time, threading\n"
                "def main():\n"
                "    ran = threading.Event()\n"
                "    time.sleep(0.3)\n"
                "    gort.go(ran.set)\n"
                "    assert ran.wait(40)\n"  # blocks the machine it stands in line for
                "    print('ran')\n"
                "gort.run(main, procs=1)",
            ],
            stdout=subprocess.PIPE,
            stderr=reading_only,  # to write there fails
            timeout=50,
            env={"PYTHONPATH": str(Path(__file__).parents[1]), "GORT_DEBUG": debug},
        )
    assert done.stdout == b"ran\n"  # (Python itself ends with 120 when it cannot flush stderr)


@pytest.mark.parametrize("what", ["go", "timer"])
def test_work_of_a_p_that_finds_no_thread_is_taken_over(what: str) -> None:
    """Broken: at the thread limit, what a stuck machine left behind waits until its call returns."""
    with Runtime(2, max_threads=2) as runtime:
        ran = threading.Event()
        both = threading.Barrier(2)

        def stuck() -> None:
            both.wait(50)
            if what == "go":
                go(ran.set)
            else:
                gort.after_func(0.05, ran.set)
            assert ran.wait(40)

        def busy() -> None:
            both.wait(50)
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                pass

        for g in [runtime.go(stuck), runtime.go(busy)]:
            g.result()


def test_a_thread_that_is_slow_to_start_is_no_call_that_blocks() -> None:
    """Broken: on a busy computer gort's own calls are taken for functions that block, and get a second thread each."""

    def main() -> None:
        for g in [go(time.sleep, 0.05) for _ in range(3)]:
            g.result()  # from now on there is a machine to take the P of one that is stuck
        before = gort.stats()["started_apart"]
        thread.start()
        for n in range(1, 9):  # each time one needs a new thread
            for g in [go(gort.blocking, time.sleep, 0.05) for _ in range(n)]:
                g.result()
        assert gort.stats()["started_apart"] == before

    lock = threading._active_limbo_lock  # type: ignore[attr-defined]
    over = threading.Event()

    def delay() -> None:
        while not over.wait(0.001):
            with lock:
                time.sleep(0.03)

    thread = threading.Thread(target=delay)
    try:
        run(main, procs=2)
    finally:
        over.set()
        thread.join()


def test_idle_threads_do_not_count_against_the_limit() -> None:
    """Broken: threads that wait for something to do keep others from being started, at the limit."""
    with Runtime(2, max_threads=8) as runtime:
        for _ in range(4):
            for args in ((), (gort.blocking,)):
                # Passed only if all are in it at once.  Four, for a machine whose goroutine waits for its blocking
                # call is not idle, a few may have got one, and one may look for work just then.  Not started by a goroutine,
                # which may give way in `go` to the first of them, and be stranded by it.
                barrier = threading.Barrier(4)
                for g in [runtime.go(*args, lambda: barrier.wait(40)) for _ in range(barrier.parties)]:
                    g.result()
        assert runtime.stats()["threads"] + runtime.stats()["spare_threads"] <= 8


def test_spare_threads_end_one_after_the_other(monkeypatch: pytest.MonkeyPatch, procs: int) -> None:
    """Broken: of threads that have made blocking calls, and idle, some never end, for the one before has not told them."""
    monkeypatch.setattr(blocking_module, "IDLE", 0.05)

    def main() -> None:
        gate = threading.Lock()  # each lets the next one pass: three hundred that all want the GIL at once take long on a busy machine
        gate.acquire()

        def call() -> None:
            with gate:
                pass

        calls = [go(gort.blocking, call) for _ in range(300)]
        while gort.stats()["spare_threads"] < len(calls):
            sleep(0.01)
        gate.release()
        for g in calls:
            g.result()
        while gort.stats()["spare_threads"]:
            sleep(0.01)

    run(main, procs=procs)


def test_spare_threads_that_end_while_they_are_needed(monkeypatch: pytest.MonkeyPatch, procs: int, jitter: None) -> None:
    """Broken: a blocking call is lost if its thread was about to end, and at the limit a thread is dismissed twice, or not at all."""
    monkeypatch.setattr(blocking_module, "IDLE", 1e-4)

    def call(k: int) -> int:
        time.sleep(k % 4 * 1e-4)
        return k

    def work(first: int) -> None:
        for k in range(first, first + 100):
            assert gort.blocking(call, k) == k
            if not k % 7:
                sleep(k % 3 * 1e-4)

    with Runtime(procs, max_threads=procs + 8) as runtime:
        for g in [runtime.go(work, 1000 * n) for n in range(6)]:
            g.result()
        while runtime.stats()["spare_threads"]:
            time.sleep(1e-3)


def test_everything_at_once(procs: int, jitter: None) -> None:
    """Broken: somewhere between blocking, parking, spawning and stealing a goroutine is lost."""

    def main() -> None:
        results: Chan[int] = Chan(16)

        def leaf(k: int) -> None:
            if k % 3 == 0:
                time.sleep(1.5e-3)
            elif k % 3 == 1:
                sleep(1e-3)
            results.send(k)

        def branch(k: int) -> None:
            for i in range(10):
                go(leaf, k * 10 + i)
                if i == k % 10:
                    time.sleep(1e-3)

        for k in range(60):
            go(branch, k)
        deadline = after(50)
        got = []
        for _ in range(600):
            index, value, _ok = gort.select(gort.recv(results), gort.recv(deadline))
            assert index == 0, f"only {len(got)} arrived"
            got.append(value)
        assert sorted(got) == list(range(600))

    for _ in range(20 if os.environ.get("GORT_STRESS") else 1):
        run(main, procs=procs)
