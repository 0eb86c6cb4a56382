"""Goroutines that start apart, on their thread's own stack, because their function is known to block.

They are goroutines like all others: whatever one may do, they may, before their first wait in gort, in it and after it.
`apart` starts one whose function has blocked, and sees that it does run apart.
"""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from greenlet import greenlet

import gort
from gort.runtime import departure, handoff, instance, surplus
from gort.runtime.goroutine import FREE_THREADED
from gort import Cancelled, Chan, GortError, Runtime, go, gosched, run, sleep

from test_handoff import program


@pytest.fixture(autouse=True)
def none_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that has run apart three times without blocking is started as others are again: not here."""
    monkeypatch.setattr(handoff, "STRIKES", sys.maxsize)


class Blocker:
    """A function that blocks in a call that gort does not know, until it is let go; then it calls what it is given."""

    def __init__(self) -> None:
        # A code object of its own, for that is what gort remembers.
        scope: dict[str, Any] = {"threading": threading}
        exec("def block(inside, gate, then, *args, patience=50):\n    inside.set()\n    gate.wait(patience)\n    return then(*args)\n", scope)
        self.block = scope["block"]
        self.learn()

    def learn(self) -> None:
        """Block until gort has noticed.  (Shortly, for it is main's own machine that may be blocked.)"""
        before = gort.stats()["started_apart"]
        while gort.stats()["started_apart"] == before:
            go(self.block, threading.Event(), threading.Event(), int, patience=0.05).join()

    def start(self, then: Callable[..., Any], *args: Any) -> tuple[gort.Goroutine[Any], threading.Event]:
        """Start one that is in its call, and the event that ends the call; then it goes on with then(*args)."""
        inside, gate = threading.Event(), threading.Event()
        g = go(self.block, inside, gate, then, *args)
        while not inside.is_set():
            sleep(1e-4)
        return g, gate


def apart(test: Callable[[Blocker], Any], procs: int = 2) -> Any:
    """Run test(blocker) as main; all that its blocker starts runs apart."""

    def main() -> Any:
        blocker = Blocker()
        before = gort.stats()["started_apart"]
        value = test(blocker)
        assert gort.stats()["started_apart"] > before
        return value

    return run(main, procs=procs)


def test_what_it_is_while_it_blocks(procs: int) -> None:
    """Broken: it is missing among the goroutines, or has no stack, while it has not waited yet."""

    def test(blocker: Blocker) -> None:
        many = gort.num_goroutine()
        g, gate = blocker.start(gort.current)
        assert gort.num_goroutine() == many + 1
        assert (g.state, g.wait_reason, g.done()) == ("running", "", False)
        told = gort.stacks()
        mine = told[told.index(f"goroutine {g.id} ") :].split("\n\n")[0]
        assert "[running]" in mine and "in block" in mine and "gate.wait(50)" not in mine.splitlines()[0]
        assert "begin" not in mine
        gate.set()
        assert g.result() is g
        while gort.num_goroutine() != many:
            gosched()

    apart(test, procs)


def test_what_it_is_while_it_waits() -> None:
    """Broken: one that waits in gort after its call seems to run, or to wait for nothing."""

    def test(blocker: Blocker) -> None:
        never: Chan[int] = Chan()
        g, gate = blocker.start(never.recv)
        gate.set()
        while g.state != "waiting":
            sleep(1e-3)
        assert "receive" in g.wait_reason
        told = gort.stacks()
        assert "waiting: " in told[told.index(f"goroutine {g.id} ") :].splitlines()[0]
        never.send(3)
        assert g.result() == 3

    apart(test)


def test_an_error_is_kept_with_its_own_frames_alone() -> None:
    """Broken: what it raises is lost, or its traceback shows the runtime's frames."""

    def test(blocker: Blocker) -> None:
        def fail() -> None:
            raise KeyError(1)

        def fail_later() -> None:
            sleep(1e-4)
            raise KeyError(2)

        for n, then in ((1, fail), (2, fail_later)):
            g, gate = blocker.start(then)
            gate.set()
            error = g.exception()
            assert isinstance(error, KeyError) and error.args == (n,)
            assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["block", then.__name__]

    apart(test)


def test_keywords_arrive() -> None:
    """Broken: it is called without its keyword arguments."""

    def test(blocker: Blocker) -> None:
        inside, gate = threading.Event(), threading.Event()
        gate.set()
        assert go(blocker.block, inside, gate=gate, then=lambda: 5).result() == 5

    apart(test)


def test_cancelled_while_it_blocks() -> None:
    """Broken: a cancellation that comes during its call is lost, though it waits in gort afterwards."""

    def test(blocker: Blocker) -> None:
        met = []

        def then() -> None:
            try:
                Chan().recv()
            except Cancelled as exc:
                met.append(exc)
                sleep(1e-4)  # what waits after the cancellation is not disturbed
                raise

        g, gate = blocker.start(then)
        assert g.cancel() and g.cancel()
        gate.set()
        g.join()
        assert len(met) == 1 and g.exception() is met[0]

    apart(test)


@pytest.mark.parametrize("n", [1, 50])
def test_cancelled_before_it_begins(n: int) -> None:
    """Broken: a goroutine that was cancelled before its thread began does run."""

    def test(blocker: Blocker) -> None:
        ran = []
        for turn in range(20):
            gate = threading.Event()
            gate.set()
            gs = [go(blocker.block, threading.Event(), gate, ran.append, k) for k in range(n)]
            if turn % 2:
                gosched()  # their threads are started, and may have begun
            for g in gs:
                if not g.cancel():
                    assert g.result() is None
            for g in gs:
                g.join()
            # One that began before it was cancelled has no wait in gort, and so ends as it would have.
            assert {k for k, g in enumerate(gs) if g.exception() is None} == set(ran)
            ran.clear()

    apart(test)


def test_a_limit_that_passes_while_it_blocks() -> None:
    """Broken: a block whose time was over during the call does not end at the next wait."""

    def test(blocker: Blocker) -> None:
        def outside() -> str:
            with pytest.raises(TimeoutError), gort.timeout(1e-3):
                inner = threading.Event()
                inner.wait(0.05)
                Chan().recv()
            sleep(1e-4)
            return "after"

        g, gate = blocker.start(outside)
        gate.set()
        assert g.result() == "after"

    apart(test)


def test_contexts() -> None:
    """Broken: it does not see its creator's context variables, or leaves its own to the next one."""
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="nothing")

    def test(blocker: Blocker) -> None:
        def change(wait: bool) -> list[str]:
            seen = [var.get()]
            var.set("mine")
            if wait:
                sleep(1e-4)
            return [*seen, var.get()]

        for start in ("nothing", "creator's"):
            if start != "nothing":
                var.set(start)
            for wait in (False, True, False, True):
                g, gate = blocker.start(change, wait)
                gate.set()
                assert g.result() == [start, "mine"]
                assert go(var.get).result() == start

    apart(test)


def test_greenlets_of_its_own() -> None:
    """Broken: it cannot wait inside a greenlet that it has made, first of all or later."""

    def test(blocker: Blocker) -> None:
        values: Chan[int] = Chan()

        def first_inside() -> list[Any]:
            me = gort.current()
            inner = greenlet(lambda: (values.recv(), gort.current() is me))
            got = list(inner.switch())
            got.append(values.recv())
            again = greenlet(values.recv)
            got.append(again.switch())
            got.append(values.recv())
            return got

        for _ in range(3):
            g, gate = blocker.start(first_inside)
            gate.set()
            for k in range(4):
                values.send(k)
            assert g.result() == [0, True, 1, 2, 3]

        def cancelled_inside() -> Any:
            return greenlet(Chan().recv).switch()

        g, gate = blocker.start(cancelled_inside)
        gate.set()
        while g.state != "waiting":
            sleep(1e-4)
        g.cancel()
        g.join()
        assert isinstance(g.exception(), Cancelled)

    apart(test)


def test_a_stranger_s_greenlet_is_told() -> None:
    """Broken: a greenlet that one running apart has made waits in another goroutine, and both are lost."""

    def test(blocker: Blocker) -> None:
        def wait() -> None:
            with pytest.raises(GortError, match="another goroutine has switched to it"):
                sleep(1e-3)

        def make(then: Callable[[], None]) -> greenlet:
            then()
            return greenlet(wait)

        g, gate = blocker.start(make, gosched)
        gate.set()
        made = g.result()

        def use() -> None:
            try:
                made.switch()
            except Exception as exc:  # greenlet's own: it is another thread's
                assert "different thread" in str(exc)

        go(use).result()

    apart(test)


def test_depth() -> None:
    """Broken: goroutines that later run on its machine have only the stack that it had left at its first wait."""

    def test(blocker: Blocker) -> None:
        limit = sys.getrecursionlimit()

        def down(n: int, then: Callable[[], Any]) -> Any:
            return down(n - 1, then) if n else then()

        for _ in range(3):
            started = [blocker.start(down, limit - 150, lambda: sleep(1e-3)) for _ in range(8)]
            for g, gate in started:
                gate.set()
            for g, gate in started:
                g.result()

    apart(test)


def test_children_and_giving_way() -> None:
    """Broken: a goroutine that it starts, or that it makes way for, is lost."""

    def test(blocker: Blocker) -> None:
        def parent() -> int:
            children = [go(lambda k=k: k) for k in range(20)]
            for _ in range(5):
                gosched()
            return sum(child.result() for child in children)

        started = [blocker.start(parent) for _ in range(10)]
        for g, gate in started:
            gate.set()
        assert [g.result() for g, _ in started] == [190] * 10

    apart(test)


def test_a_crowd(procs: int) -> None:
    """Broken: of very many, whose threads end at once, some are lost, or the runtime does not end."""

    def test(blocker: Blocker) -> None:
        n = 400
        barrier = threading.Barrier(n)
        gate = threading.Event()
        gate.set()
        for _ in range(3):
            gs = [go(blocker.block, threading.Event(), gate, lambda k: (barrier.wait(50), k)[1], k) for k in range(n)]
            assert [g.result() for g in gs] == list(range(n))
        while gort.num_goroutine() != 1:
            gosched()

    for _ in range(3):
        apart(test, procs)


def threads() -> int:
    """How many the system knows of."""
    return len(os.listdir("/proc/self/task"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="this system does not tell its threads")
def test_a_crowd_keeps_to_the_limit_and_leaves_no_thread() -> None:
    """Broken: threads that wait for their turn to end are not counted as threads, or stay."""
    limit = 150
    before = threads()

    def main() -> None:
        blocker = Blocker()
        gate = threading.Event()
        gate.set()
        most = []
        gs = [go(blocker.block, threading.Event(), gate, lambda: most.append(threads())) for _ in range(2000)]
        for g in gs:
            g.result()
            most.append(threads())
        # Sysmon has one, too; and the system may still see some that have ended.
        assert max(most) <= before + limit + 1 + departure.AT_ONCE < before + 2 * limit
        while gort.stats()["threads"] > 2 * surplus.MANY:
            sleep(1e-3)

    with Runtime(2, max_threads=limit) as runtime:
        runtime.run(main)
    while threads() > before:
        time.sleep(1e-3)  # joined, but the system has not taken note


@pytest.mark.skipif(not FREE_THREADED, reason="with a GIL its machine is as all others, and ends as they do")
def test_one_that_comes_too_late_for_sysmon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a thread that is about to wait for its turn to end when sysmon is over waits for ever, its goroutine with it."""
    monkeypatch.setattr(surplus, "MANY", 0)
    monkeypatch.setattr(instance, "GRACE", 0.05)

    class Late(deque[Any]):
        def append(self, stand: Any) -> None:
            arrived.set()
            while stand.m.sched.sysmon.thread.is_alive():
                time.sleep(1e-3)
            super().append(stand)

    arrived = threading.Event()
    late = []

    def main() -> None:
        blocker = Blocker()
        g, gate = blocker.start(int)
        late.append(g)
        g.carrier.m.sched.buried = Late()
        gate.set()
        arrived.wait()

    before = threads()
    run(main)
    assert late[0].result() == 0
    while threads() > before:
        time.sleep(1e-3)


def test_many_take_their_turn(monkeypatch: pytest.MonkeyPatch, procs: int) -> None:
    """Broken: those that end while others wait for their turn, or are cancelled, or fail, or fork, are lost."""
    monkeypatch.setattr(surplus, "MANY", 0)

    def test(blocker: Blocker) -> None:
        def fail() -> None:
            raise KeyError

        for _ in range(10):
            gs = [blocker.start(then) for then in (int, fail, lambda: sleep(1e-4), lambda: go(int).result()) for _ in range(3)]
            cancelled, gate = blocker.start(lambda: sleep(50))
            cancelled.cancel()
            for _, gate_of_one in [*gs, (cancelled, gate)]:
                gate_of_one.set()
            assert [type(g.exception()) for g, _ in gs] == [type(None)] * 3 + [KeyError] * 3 + [type(None)] * 6
            assert type(cancelled.exception()) is Cancelled
        while gort.stats()["threads"] > procs + 1:
            sleep(1e-3)

    apart(test, procs)


def test_its_thread_can_be_had_when_it_has_ended(jitter: None) -> None:
    """Broken: who has joined it is told that its thread is in use, if that has not come to its end yet."""

    def main() -> None:
        blocker = Blocker()
        gate = threading.Event()
        gate.set()
        for k in range(1000):
            go(blocker.block, threading.Event(), gate, int).join()
            assert gort.blocking(abs, -k) == k

    with Runtime(1, max_threads=2) as runtime:
        runtime.run(main)


def test_what_a_crowd_leaves_suspended_goes_on() -> None:
    """Broken: a generator that began in one of many whose threads have ended crashes the process when it goes on."""
    done = program(
        """
        def numbers():
            k = 0
            while True:
                yield k
                k += 1

        def block(gate, patience):
            gate.wait(patience)
            it = numbers()
            try:
                next(it)
                raise KeyError
            except KeyError as exc:
                return it, exc.__traceback__.tb_frame

        def main():
            gate = threading.Event()
            before = gort.stats()["started_apart"]
            while gort.stats()["started_apart"] == before:
                go(block, gate, 0.05).join()
            gs = [go(block, gate, 50) for _ in range(500)]
            while gort.stats()["threads"] < 400:
                sleep(1e-3)
            gate.set()
            left = [g.result() for g in gs]
            while gort.stats()["threads"] > 100:
                sleep(1e-3)
            sleep(0.1)
            print({next(it) for it, _ in left}, len({frame.f_lineno for _, frame in left}))

        run(main, procs=2)
        """
    )
    assert (done.stdout, done.returncode) == ("{1} 1\n", 0), done.stderr


def test_one_that_takes_long_to_end_holds_up_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a thread that stays in a finalizer at its end keeps those behind it from ending."""
    monkeypatch.setattr(surplus, "MANY", 0)
    monkeypatch.setattr(departure, "AT_ONCE", 2)
    kept = threading.local()
    inside, gate = threading.Event(), threading.Event()

    class Slow:
        def __del__(self) -> None:
            inside.set()
            gate.wait(50)

    def keep() -> None:
        kept.slow = Slow()

    def test(blocker: Blocker) -> None:
        g, go_on = blocker.start(keep)
        go_on.set()
        g.join()
        while FREE_THREADED and not inside.is_set():
            sleep(1e-3)
        for _ in range(5):
            gs = [blocker.start(int) for _ in range(4)]
            for g, go_on in gs:
                go_on.set()
            for g, _ in gs:
                g.join()
        while gort.stats()["threads"] > 4:
            sleep(1e-3)
        gate.set()

    apart(test)


def test_the_end_of_the_runtime_beside_a_crowd() -> None:
    """Broken: main returns while many of them end at that moment, and `run` hangs, or leaves one of their threads."""
    for _ in range(10):

        def test(blocker: Blocker) -> None:
            gate = threading.Event()
            for _ in range(200):
                go(blocker.block, threading.Event(), gate, int)
            last = blocker.start(int)[1]
            gate.set()
            for _ in range(20):
                gosched()
            last.set()

        before = threading.active_count()
        apart(test)
        assert threading.active_count() <= before


def test_its_thread_is_another_s_when_it_has_ended() -> None:
    """Broken: a goroutine that found no thread waits for ever, though one that ran apart has ended."""
    ran = threading.Event()

    def main() -> None:
        blocker = Blocker()
        gates = [blocker.start(lambda: (go(ran.set), time.sleep(0.1)))[1] for _ in range(2)]
        threading.Timer(0.1, lambda: [gate.set() for gate in gates]).start()
        # In a call that gort does not know; its P is taken.
        assert ran.wait(20)

    with Runtime(1, max_threads=3) as runtime:
        runtime.run(main)


def test_the_next_begins_when_one_ends_that_has_waited() -> None:
    """Broken: one that waits for a thread is forgotten if the one that ends has waited in gort before, and nobody else runs."""
    go_on: Chan[int] = Chan()

    def main() -> None:
        blocker = Blocker()
        first, gate = blocker.start(lambda: (go_on.recv(), time.sleep(0.3)))
        gate.set()
        while first.state != "waiting":
            sleep(1e-3)
        second = go(blocker.block, threading.Event(), gate, lambda: 7)
        while not runtime._sched.backlog:
            sleep(1e-3)
        sleep(0.1)
        go_on.send(1)
        assert second.result() == 7

    with Runtime(1, max_threads=2) as runtime:
        runtime.run(main)


def test_a_runtime_without_threads_is_open() -> None:
    """Broken: a Runtime whose last thread is one that ran a goroutine apart closes itself when that has ended."""
    blockers = []
    gate = threading.Event()
    gate.set()
    with Runtime(1, max_threads=2) as runtime:
        runtime.run(lambda: blockers.append(Blocker()))
        for _ in range(3):
            # The call has the thread of the machine that is idle.
            assert runtime.go(blockers[0].block, threading.Event(), gate, lambda: gort.blocking(abs, -3)).result() == 3
        while runtime.stats()["threads"] > 1:
            time.sleep(1e-3)
        assert runtime.go(abs, -4).result() == 4


def test_the_end_while_many_wait_for_a_thread(capfd: pytest.CaptureFixture[str]) -> None:
    """Broken: one that sysmon is about to start at that moment never ends, and sysmon dies of it."""
    gs: list[gort.Goroutine[int]] = []
    gate = threading.Event()

    def main() -> None:
        blocker = Blocker()
        gs.extend(go(blocker.block, threading.Event(), gate, int) for _ in range(5000))
        while gort.stats()["threads"] < 9:
            sleep(1e-3)

    for _ in range(5):
        with Runtime(2, max_threads=10) as runtime:
            runtime.run(main)
            threading.Timer(0.05, gate.set).start()
        assert all(g.done() for g in gs)
        gs.clear()
        gate.clear()
    assert capfd.readouterr().err == ""


def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: if the system gives no thread, the goroutine is lost, runs twice, or a cancellation of it is."""
    from gort.runtime import manning

    def none(target: Any, name: str) -> Any:
        raise RuntimeError("can't start new thread")

    def test(blocker: Blocker) -> None:
        blocker.start(int)[1].set()
        ran = []
        gate = threading.Event()
        gate.set()

        def call(k: int) -> int:
            ran.append(k)
            return k

        with monkeypatch.context() as patch:
            patch.setattr(manning, "start_light", none)
            for _ in range(5):
                gs = [go(blocker.block, threading.Event(), gate, call, k) for k in range(200)]
                cancelled = gs[150].cancel()
                for g in gs:
                    g.join()
                assert cancelled or 150 in ran
                assert sorted(ran) == [k for k, g in enumerate(gs) if g.exception() is None]
                assert all(g.exception() is None for g in gs if g is not gs[150])
                ran.clear()

    apart(test, procs=1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("first", ["", "sleep(1e-4); "])
def test_a_fork(first: str) -> None:
    """Broken: the child of a fork in such a goroutine does not go on as plain code, or does not end with it."""
    done = program(
        f"""
        import contextlib
        gate = threading.Event()

        def block(fork):
            if not fork:
                gate.wait(0.1)
                return
            {first}pid = os.fork()
            if pid:
                return os.waitpid(pid, 0)[1]
            assert current() is None, current()
            assert run(lambda: go(lambda: 5).result()) == 5
            c = Chan(1); c.send(1); assert c.recv() == 1
            if fork == 2:
                raise KeyError("of the child")
            if fork == 3:
                sys.exit(7)

        def main():
            before = gort.stats()["started_apart"]
            while gort.stats()["started_apart"] == before:
                go(block, 0).join()
            for fork, status in ((1, 0), (2, 1), (3, 7)):
                got = go(block, fork).result()
                assert os.waitstatus_to_exitcode(got) == status, (fork, got)
            print("done")

        run(main, procs=2)
        """
    )
    assert done.stdout == "done\n" and done.returncode == 0, done.stderr
    assert done.stderr.count("KeyError: 'of the child'") == 1 and "AssertionError" not in done.stderr


def test_closing_while_it_blocks() -> None:
    """Broken: a Runtime that is closed does not wait for it, or its clean-up does not run."""
    cleaned = []
    gate = threading.Event()
    with Runtime(2) as runtime:

        def main() -> None:
            blocker = Blocker()

            def then() -> None:
                try:
                    Chan().recv()
                finally:
                    sleep(1e-4)
                    cleaned.append(1)

            inside = [threading.Event() for _ in range(3)]
            for event in inside:
                go(blocker.block, event, gate, then)
            for event in inside:
                gort.blocking(event.wait)

        runtime.go(main).result()
        threading.Timer(0.05, gate.set).start()
    assert cleaned == [1, 1, 1]


def test_memory() -> None:
    """Broken: a thread that only sleeps takes more than a few pages of gort's (CPython's own take 45 KB without a GIL)."""
    done = program(
        """
        def resident():
            return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))

        fd, other = os.pipe()

        def block():
            os.read(fd, 1)

        def main():
            n = 1000
            before = gort.stats()["started_apart"]
            while gort.stats()["started_apart"] == before:
                threading.Timer(0.05, os.write, (other, b"x")).start()
                go(block).join()
            start = resident()
            gs = [go(block) for _ in range(n)]
            while gort.stats()["threads"] < n:
                sleep(0.01)
            print((resident() - start) / n)
            os.close(other)
            for g in gs:
                g.join()

        run(main, procs=2)
        """
    )
    assert done.returncode == 0, done.stderr
    if sys.platform == "linux":
        assert float(done.stdout) < 100


def test_time_is_up_for_many(procs: int) -> None:
    """Broken: waits with a time-out in goroutines that run apart are lost, or end too early."""

    def test(blocker: Blocker) -> None:
        def wait(k: int) -> int:
            begin = time.monotonic()
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    Chan().recv(timeout=2e-3)
            assert time.monotonic() - begin >= 6e-3
            return k

        started = [blocker.start(wait, k) for k in range(20)]
        for _, gate in started:
            gate.set()
        assert [g.result() for g, _ in started] == list(range(20))

    apart(test, procs)
