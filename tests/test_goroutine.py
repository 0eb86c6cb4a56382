"""What `go` returns: results, exceptions, join, cancel, names, states, contexts, reports of what nobody asked for.

An exception in a goroutine has no caller to go to.  It is kept for whoever asks, and if nobody can ask any more it is
reported, once.  These tests take the hook away for their time and wait until it is called.
"""

from __future__ import annotations

import contextvars
import functools
import gc
import itertools
import os
import threading
import time
import traceback
import weakref
from typing import Any

import greenlet
import pytest

import gort
from gort import Chan, Goroutine, GoroutineCancelled, Group, Runtime, aio, current, go, gosched, run, sleep
from gort.futures import Executor
from gort.runtime.goroutine import consists_of
from settling import LONG, settle


def fail(message: str = "on purpose") -> None:
    raise RuntimeError(message)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> Chan[Any]:
    """What gort.excepthook is called with, as a channel."""
    out: Chan[Any] = Chan(100)
    monkeypatch.setattr(gort, "excepthook", lambda args: out.send(args))
    return out


# -- results and exceptions -------------------------------------------------------------------------------------------


def test_go_passes_arguments_and_result_gives_the_value(procs: int) -> None:
    """Broken: a goroutine's arguments or value get lost."""

    def f(*args: Any, **kw: Any) -> Any:
        return args, kw

    def main() -> None:
        g = go(f, 1, 2, a=3, fn=4, self=5)
        assert g.result() == ((1, 2), {"a": 3, "fn": 4, "self": 5})
        assert g.result() == g.result()
        assert g.exception() is None and g.done() and g.join() is None
        assert go(f).result() == ((), {})
        tasks = [go(f, i) for i in range(500)]
        assert [g.result()[0][0] for g in tasks] == list(range(500))

    run(main, procs=procs)
    with Runtime(procs) as runtime:
        assert runtime.go(f, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})
        assert runtime.run(f, 1, fn=2, self=3) == ((1,), {"fn": 2, "self": 3})


def test_an_exception_is_kept_for_those_who_ask(procs: int, reports: Chan[Any]) -> None:
    """Broken: result does not raise what the function raised, or an exception that was asked for is reported too."""

    def main() -> None:
        for value in (True, False):
            g = go(fail)
            g.join()  # join does not raise
            assert g.done() and g.state == "dead"
            for _ in range(3):
                with pytest.raises(RuntimeError, match="on purpose"):
                    g.result()
            error = g.exception()
            assert type(error) is RuntimeError and g.exception() is error
            del g, error
            gc.collect()
        for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration):
            g = go(raise_this, kind())
            assert type(g.exception()) is kind
            del g
        gc.collect()
        go(int).join()

    def raise_this(error: BaseException) -> None:
        raise error

    run(main, procs=procs)
    assert len(reports) == 0


def test_a_traceback_shows_the_goroutines_frames_and_where_its_go_was() -> None:
    """Broken: from the traceback of a goroutine's exception one cannot see what it did, or who started it."""

    def inner() -> None:
        fail()

    def starter() -> gort.Goroutine[None]:
        return go(inner)

    def main() -> None:
        for _ in range(2):  # asked twice: the traceback does not grow
            g = starter()
            for _ in range(3):
                try:
                    g.result()
                except RuntimeError as error:
                    text = "".join(traceback.format_exception(error))
                    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
            assert names == ["main", "result", "inner", "fail"]
            assert "started at" in text and os.path.basename(__file__) in text and "starter" in text
            first = starter.__code__.co_firstlineno
            assert g.started_at == f"{__file__}:{first + 1} in {starter.__qualname__}"
            assert g.started_at in text and str(g.id) in text

    run(main, procs=1)


def test_an_unasked_exception_is_reported_once(procs: int, reports: Chan[Any]) -> None:
    """Broken: an exception that nobody can ask for any more vanishes, or is reported twice, or without its place."""

    def main() -> None:
        go(fail, "one")
        args = reports.recv(timeout=LONG)
        assert args.exc_type is RuntimeError and str(args.exc_value) == "one"
        assert args.exc_traceback is not None and "fail" in args.goroutine and __file__ in args.goroutine
        g = go(fail, "two")
        g.join()  # this only waits: it does not ask how it ended
        del g
        assert str(reports.recv(timeout=LONG).exc_value) == "two"
        for _ in range(20):
            go(fail, "many")
        for _ in range(20):
            assert str(reports.recv(timeout=LONG).exc_value) == "many"
        gc.collect()
        go(int).join()
        assert len(reports) == 0

    run(main, procs=procs)
    assert len(reports) == 0


@pytest.mark.parametrize("block", ["group", "limit", "over"])
def test_an_unasked_exception_out_of_a_block_is_reported_at_once(block: str, reports: Chan[Any], procs: int) -> None:
    """Broken: it is only when the garbage collector comes, for the block's object and the goroutine know each other."""

    def work() -> None:
        if block == "group":
            with Group() as group:
                group.go(fail)
                sleep(LONG)
        elif block == "limit":
            with gort.timeout(LONG) as limit:
                fail()
            del limit
        else:
            with gort.timeout(0.001):  # the error's cause is what has ended the block
                sleep(LONG)

    def main() -> None:
        go(work)
        args = reports.recv(timeout=20)
        assert args.exc_type is {"group": ExceptionGroup, "limit": RuntimeError, "over": TimeoutError}[block]

    gc.disable()
    try:
        run(main, procs=procs)
    finally:
        gc.enable()


def test_an_unasked_exception_is_reported_though_all_machines_sleep(reports: Chan[Any]) -> None:
    """Broken: without a GIL a report waits until the thread whose goroutine has failed wakes for something else."""

    def main() -> None:
        for _ in range(200):
            for _ in range(20):
                go(fail)
            for _ in range(20):
                reports.recv(timeout=LONG)

    run(main, procs=8)


def test_what_is_left_unasked_at_the_end_is_reported(reports: Chan[Any]) -> None:
    """Broken: an exception that is unasked when the runtime ends is lost."""

    def main() -> None:
        keep = go(fail, "at the end")
        keep.join()

    run(main, procs=1)
    gc.collect()
    assert str(reports.recv(timeout=LONG).exc_value) == "at the end"
    assert reports.try_recv() == (None, False)


def test_25_an_exceptions_str_may_use_the_runtime(procs: int, capsys: Any) -> None:
    """Broken: printing an exception whose own __str__ blocks, or starts goroutines, hangs or fails."""
    asked: Chan[int] = Chan(1)

    class Odd(Exception):
        def __str__(self) -> str:
            ch: Chan[str] = Chan()
            go(ch.send, "told by a goroutine")
            sleep(0)
            asked.try_send(1)
            return ch.recv()

    def odd() -> None:
        raise Odd

    def main() -> None:
        go(odd)
        asked.recv(timeout=LONG)
        told = ""
        while "told by a goroutine" not in told:  # the end of main would be that of the one who reports
            sleep(1e-3)
            told += capsys.readouterr().err

    run(main, procs=procs)


def test_a_hook_that_fails_is_no_harm(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Broken: an error in gort.excepthook itself stops the runtime or is lost."""
    called: Chan[int] = Chan(1)

    def hook(args: Any) -> None:
        called.send(1)
        raise ZeroDivisionError

    monkeypatch.setattr(gort, "excepthook", hook)

    def main() -> None:
        go(fail)
        called.recv(timeout=LONG)
        assert go(int).result() == 0

    run(main, procs=1)
    assert "ZeroDivisionError" in capsys.readouterr().err


# -- join -------------------------------------------------------------------------------------------------------------


def test_join_with_a_timeout(procs: int) -> None:
    """Broken: join, result or exception with a time-out come too early, too late or never, or disturb later ones."""
    ch: Chan[int] = Chan()

    def check(g: gort.Goroutine[int]) -> None:
        for ask in (g.join, g.result, g.exception):
            for seconds in (0, -1, 0.01):
                t0 = time.monotonic()
                with pytest.raises(TimeoutError):
                    ask(timeout=seconds)
                assert time.monotonic() - t0 >= seconds
            for bad in ("1", float("nan")):
                with pytest.raises((TypeError, ValueError), match="timeout"):
                    ask(timeout=bad)  # type: ignore[arg-type]

    with Runtime(procs) as runtime:
        g = runtime.go(ch.recv)
        check(g)
        runtime.run(check, g)
        ch.send(7)
        assert g.result(timeout=LONG) == 7 == g.result(timeout=0)


def test_many_join_one(procs: int, jitter: None) -> None:
    """Broken: of several goroutines and threads that wait for one goroutine, somebody is not woken at its end."""
    for _ in range(20):
        with Runtime(procs) as runtime:
            ch: Chan[int] = Chan()
            g = runtime.go(ch.recv)
            got: list[int] = []
            threads = [threading.Thread(target=lambda: got.append(g.result())) for _ in range(3)]
            for thread in threads:
                thread.start()
            joiners = [runtime.go(g.result) for _ in range(10)]
            impatient = [runtime.go(g.result, i * 1e-4) for i in range(5)]
            ch.send(5)
            assert [j.result() for j in joiners] == [5] * 10
            for thread in threads:
                thread.join()
            assert got == [5] * 3
            assert all(type(j.exception()) in (type(None), TimeoutError) for j in impatient)


def test_join_races_with_the_end(procs: int, jitter: None) -> None:
    """Broken: a join that comes at the very moment of the end is never woken."""

    def main() -> None:
        for i in range(1500):
            assert go(lambda i=i: i).result() == i
        for i in range(300):
            inner = go(gosched)
            outer = [go(inner.join), go(inner.join)]
            for g in outer:
                g.join()

    run(main, procs=procs)


def test_who_has_ended_is_not_counted() -> None:
    """Broken: right after a join, or the end of a Group, num_goroutine still counts a goroutine that has ended."""
    with Runtime(2) as rt:
        parked: Chan[int] = Chan()
        settle(rt.go(parked.recv), rt.go(parked.recv))
        counts = set()
        for _ in range(500):
            g = rt.go(int)
            while not g.done():  # not join: it takes so long to wake a plain thread that the goroutine's carrier is home by then
                time.sleep(0)
            counts.add(rt.num_goroutine())
        assert counts == {2}

    def main() -> set[int]:
        counts = set()
        for _ in range(100):
            with Group() as group:
                group.go(int)
                group.go(gosched)
            counts.add(gort.num_goroutine())
        return counts

    assert run(main, procs=4) == {1}


def test_who_lives_is_counted() -> None:
    """Broken: who waits by num_goroutine until nobody is left goes on too soon, while one is just being started or stolen."""
    length = 3000

    def chain(n: int) -> None:
        for _ in range(100):
            pass
        if n:
            rt.go(chain, n - 1)
        else:
            ended.append(1)

    for _ in range(3):
        ended: list[int] = []
        with Runtime(4) as rt:
            for _ in range(3):
                rt.go(chain, length)
            while rt.num_goroutine():
                pass
            assert len(ended) == 3


def test_who_waits_at_a_p_out_of_use_is_counted() -> None:
    """Broken: gomaxprocs takes a P out of use whose machine computes, and what waits there is not counted meanwhile."""
    over: list[int] = []
    gate = gort.Event()

    def spin() -> None:
        while not over:
            pass

    def child() -> int:
        gort.gomaxprocs(1)
        try:
            group = [go(gate.wait) for _ in range(5)]  # we may give way in `go`, and those that begin are to be there still
            n = gort.num_goroutine()
        finally:
            over.append(1)
            gate.set()
        for g in group:
            g.join()
        return n

    with Runtime(2) as rt:
        spinning = rt.go(spin)
        while spinning.state != "running":
            time.sleep(0.001)
        assert rt.go(child).result() == 7
        spinning.join()
        assert rt.num_goroutine() == 0


def test_join_of_oneself_is_an_error() -> None:
    """Broken: a goroutine that joins itself hangs."""

    def main() -> None:
        me = current()
        assert me is not None
        for ask in (me.join, me.result, me.exception, lambda: me.join(timeout=1)):
            with pytest.raises(gort.GortError, match="itself"):
                ask()
        with pytest.raises(gort.GortError, match="itself"):
            greenlet.greenlet(me.join).switch()

    run(main, procs=1)


# -- cancel -----------------------------------------------------------------------------------------------------------


def test_cancel_raises_once_at_the_wait(procs: int) -> None:
    """Broken: a cancelled goroutine is not interrupted where it waits, or twice, or its cleanup may not block."""

    def main() -> None:
        ch: Chan[int] = Chan()
        dead = go(int)
        dead.join()
        waits = [ch.recv, lambda: ch.send(1), lambda: sleep(LONG), lambda: gort.select(gort.recv(ch)),
                 lambda: ch.recv(timeout=LONG), lambda: go(sleep, LONG).join(), lambda: gort.after(LONG).recv(),
                 lambda: [gosched() for _ in itertools.count()]]  # fmt: skip

        def work(wait: Any, log: list[str]) -> None:
            try:
                log.append("in")
                wait()
            except gort.Cancelled:
                log.append("cancelled")
                sleep(1e-3)
                gosched()
                go(int).join()
                log.append("cleaned")
                raise
            finally:
                dead.join()

        for wait in waits:
            log: list[str] = []
            g = go(work, wait, log)
            while not log:
                gosched()
            if wait is not waits[-1]:
                settle(g)
            assert g.cancel() is True
            assert g.cancel() is True
            g.join()
            assert log == ["in", "cancelled", "cleaned"]
            with pytest.raises(gort.GoroutineCancelled):
                g.result()
            assert type(g.exception()) is gort.Cancelled
            assert g.cancel() is False
        assert gort.num_goroutine() == 2  # main, and the one that slept inside a join

    run(main, procs=procs)


def test_cancel_before_the_start() -> None:
    """Broken: a goroutine that is cancelled before it starts runs nevertheless."""

    def main() -> None:
        ran: list[int] = []
        tasks = []
        late = set()
        for i in range(100):
            tasks.append(go(ran.append, i))  # (When main's slice is over it lets others run in here, but not the new one.)
            if not i % 2 and not tasks[i].cancel():
                late.add(i)  # the system has kept main from its CPU for so long that its P was given to another machine
        for g in tasks:
            g.join()
        assert sorted(ran) == [i for i in range(100) if i % 2 or i in late]
        assert tasks[0].name == tasks[1].name

    run(main, procs=1)


def test_cancel_races_with_start_and_end(procs: int, jitter: None) -> None:
    """Broken: a cancellation from another thread at the moment of start or end hangs or hits another goroutine."""
    ch: Chan[int] = Chan()
    with Runtime(procs) as runtime:
        for i in range(600):
            g = runtime.go(ch.recv)
            bystander = runtime.go(gosched)
            for _ in range(i % 7):
                time.sleep(0)
            g.cancel()
            g.join()
            bystander.result()
            assert type(g.exception()) is gort.Cancelled


def test_cancel_of_oneself_and_ignored_cancel() -> None:
    """Broken: a goroutine that cancels itself is not cancelled at its next wait, or one that goes on is hit again."""

    def main() -> None:
        def stubborn() -> str:
            me = current()
            assert me is not None and me.cancel()
            try:
                sleep(1e-3)
            except gort.Cancelled:
                pass
            sleep(1e-3)
            return "went on"

        assert go(stubborn).result() == "went on"

    run(main, procs=1)


def test_plain_except_does_not_swallow_a_cancellation() -> None:
    """Broken: `except Exception` in the middle of a program swallows a cancellation."""
    assert not issubclass(gort.Cancelled, Exception)

    def main() -> None:
        def careless() -> None:
            while True:
                try:
                    sleep(LONG)
                except Exception:
                    pass

        g = settle(go(careless))
        g.cancel()
        g.join()

    run(main, procs=1)


# -- what it says of itself -----------------------------------------------------------------------------------------


def test_id_name_repr_and_current(procs: int) -> None:
    """Broken: id, name, repr or current of a goroutine."""
    assert current() is None

    def main() -> None:
        me = current()
        assert me is not None and me.name == main.__qualname__
        assert go(current).result() is not me
        g = go(current)
        assert g.result() is g
        assert greenlet.greenlet(current).switch() is me
        tasks = [go(fn) for fn in (int, functools.partial(int), current)]
        assert [t.name for t in tasks[:2]] == ["int", "int"]
        assert len({t.id for t in tasks}) == 3 and sorted(t.id for t in tasks) == [t.id for t in tasks]
        tasks[0].name = "worker"
        assert "worker" in repr(tasks[0]) and str(tasks[0].id) in repr(tasks[0])
        with pytest.raises(TypeError, match="name"):
            tasks[0].name = 1  # type: ignore[assignment]

    run(main, procs=procs)


def test_state() -> None:
    """Broken: the state of a goroutine is not what it does."""

    def main() -> None:
        ch: Chan[int] = Chan()
        me = current()
        assert me is not None and me.state == "running"
        seen: list[str] = []

        def work() -> None:
            seen.append(g.state)
            while ch.recv():
                pass
            gort.select(gort.recv(ch), gort.recv(None))

        g = go(work)
        assert (g.state, g.done()) == ("runnable", False)
        for _ in range(1000):
            while g.state != "waiting":  # its slice may be over when it comes to `recv`
                gosched()
            assert (seen, g.wait_reason[:12]) == (["running"], "chan receive")
            ch.send(1)
            if g.state == "runnable":  # else ours was over in `send`, and it has run already
                break
            assert g.state == "waiting"
        else:
            raise AssertionError("a goroutine that was woken is never runnable")
        ch.send(0)
        while g.wait_reason[:6] != "select":
            gosched()
        assert g.state == "waiting"
        ch.send(1)
        while not g.done():
            gosched()
        assert g.state == "dead"
        g = go(lambda: [gosched(), gosched()])
        gosched()
        assert g.state == "runnable"
        g.join()

    run(main, procs=1)


def test_stacks_tell_what_everybody_does() -> None:
    """Broken: stacks() leaves out a goroutine, its frames, what it waits for or where it was started."""

    def waits_here(ch: Chan[int]) -> None:
        ch.recv()

    def main() -> None:
        ch: Chan[int] = Chan()
        g = settle(go(waits_here, ch))
        while True:
            fresh = go(int)
            text = gort.stacks()
            if not fresh.done():
                break  # else the system has kept main from its CPU, its P was given to another machine, and that ran it
        for part in ("waits_here", "chan receive", "started at", "not started", "running", "main"):
            assert part in text
        assert all(f"goroutine {x.id} " in text for x in (g, fresh, current()) if x is not None)
        assert "machine.py" not in text  # not the runtime's own frames
        g.cancel()

    run(main, procs=1)


def test_contextvars(procs: int) -> None:
    """Broken: a goroutine does not start with a copy of its creator's context, or changes another's."""
    var: contextvars.ContextVar[Any] = contextvars.ContextVar("var", default="unset")

    def child(k: int) -> tuple[Any, Any]:
        first = var.get()
        var.set(k)
        gosched()
        sleep(1e-4)
        return first, var.get()

    def main() -> None:
        assert [go(child, k).result() for k in range(5)] == [("outer", k) for k in range(5)]
        var.set("mine")
        tasks = [go(child, k) for k in range(20)]
        var.set("later")
        assert [g.result() for g in tasks] == [("mine", k) for k in range(20)]
        assert var.get() == "later"

    def empty() -> None:
        # without any variable set, and with one carrier that runs all: nothing may stay from the one before
        assert [go(child, k).result() for k in range(5)] == [("unset", k) for k in range(5)]
        assert var.get() == "unset"

    contextvars.Context().run(run, empty, procs=procs)
    var.set("outer")
    run(main, procs=procs)
    assert var.get() == "outer"
    with Runtime(procs) as runtime:
        assert runtime.go(child, 1).result() == ("outer", 1)


def test_a_finished_goroutine_keeps_nothing_alive() -> None:
    """Broken: the handle of a finished goroutine, or the carrier that ran it, keeps its arguments or locals alive."""

    class Thing:
        pass

    def use(thing: Thing) -> None:
        other = thing
        gosched()
        assert other is thing

    def main() -> None:
        thing = Thing()
        gone = weakref.ref(thing)
        g = go(use, thing)
        g.join()
        del thing
        gosched()
        gc.collect()
        assert gone() is None and g.done()

    run(main, procs=1)


@pytest.mark.parametrize("bad", [None, 1, "f", [], Chan(1)])
def test_go_needs_a_function(bad: Any) -> None:
    """Broken: `go` of what cannot be called fails later, somewhere else, or not at all."""

    def check() -> None:
        with pytest.raises(TypeError, match="function"):
            go(bad)

    check()
    run(check, procs=1)
    with pytest.raises(TypeError, match="function"):
        run(bad)
    with Runtime(1) as runtime:
        for start in (runtime.go, runtime.run):
            with pytest.raises(TypeError, match="function"):
                start(bad)
    with pytest.raises(TypeError):
        go()  # type: ignore[call-arg]


def test_an_exception_that_hides_its_traceback() -> None:
    """Broken: an exception class with a property where its traceback should be leaves the goroutine without an end."""

    class Odd(Exception):
        @property
        def __traceback__(self) -> Any:  # type: ignore[override]
            raise ValueError("not for you")

    def fail() -> None:
        raise Odd

    def main() -> None:
        assert type(go(fail).exception()) is Odd

    run(main)


def _clean_up_fails(handled: bool, begun: Chan[None]) -> None:
    """Cancelled in a Group whose child fails as it cleans up; handled: it sees to that error itself."""

    def child() -> None:
        begun.send(None)
        try:
            sleep(1000)
        finally:
            raise ValueError("clean-up")

    try:
        with Group() as g:
            g.go(child)
            sleep(1000)
    except* ValueError:
        if not handled:
            raise


@pytest.mark.parametrize("handled", [True, False])
@pytest.mark.parametrize("how", ["result", "group", "executor", "asyncio"])
def test_a_cancellation_in_an_exception_group_is_not_the_askers(procs: int, handled: bool, how: str) -> None:
    """Broken: who asks for the result of a cancelled goroutine with a Group is taken for cancelled, too."""

    def ask() -> Any:
        begun: Chan[None] = Chan()
        if how == "executor":
            own = Executor()
            started: Chan[Goroutine[Any]] = Chan()
            future = own.submit(lambda: (started.send(current()), _clean_up_fails(handled, begun)))  # type: ignore[func-returns-value]
            g = started.recv()
        else:
            g = go(_clean_up_fails, handled, begun)
        begun.recv()
        settle(g)
        g.cancel()
        if how == "executor":
            return future.result()
        if how == "asyncio":
            return aio.run(aio.wait(g))
        if how == "result":
            return g.result()
        with Group() as group:
            sibling = group.go(sleep, 0)
            sibling.join()
            return g.result()

    def main() -> BaseException:
        try:
            ask()
        except Exception as exc:
            return exc
        raise AssertionError("it has no result")

    error = run(main, procs=procs)
    if how == "group":
        assert isinstance(error, ExceptionGroup)
        (error,) = error.exceptions
    if handled:
        assert isinstance(error, GoroutineCancelled)
    else:
        assert isinstance(error, ExceptionGroup) and consists_of(error, ValueError)
