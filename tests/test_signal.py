"""gort.signal: signals as values on a channel."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import gort
from gort import Chan, context, go, run
from settling import LONG, start

ROOT = Path(__file__).resolve().parent.parent
A, B = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def handlers_restored():
    """Whatever the test does, once every channel is stopped the handlers are what they were, and the thread is gone."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before
    assert not gort.signal._channels and not gort.signal._before and not gort.signal._relaying


class notified:
    """``with notified(chan, *signums):`` between notify and stop."""

    def __init__(self, chan: Chan[Any], *signums: int) -> None:
        self.chan = chan
        self.signums = signums

    def __enter__(self) -> Chan[Any]:
        gort.signal.notify(self.chan, *self.signums)
        return self.chan

    def __exit__(self, *_: object) -> None:
        gort.signal.stop(self.chan)


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_arrives(procs: int):
    """A goroutine that waits on the channel gets it, while every machine sleeps; as a signal.Signals."""

    def main() -> None:
        with notified(Chan(1), A) as chan:
            sender = subprocess.Popen(["sh", "-c", f"sleep 0.05; kill -USR1 {os.getpid()}"])
            number = chan.recv(timeout=30)
            assert number == A and type(number) is signal.Signals
            sender.wait()

    run(main, procs=procs)


@pytest.mark.parametrize("where", ["poller", "another machine", "plain thread", "busy"])
def test_wherever_the_main_thread_is(where: str):
    """The main thread sleeps in the poller, or on a lock, or is none of gort's, or computes: the signal arrives."""

    def waiter(chan: Chan[Any]) -> Any:
        return chan.recv(timeout=30)

    def main() -> None:
        from gort.green import socket

        with notified(Chan(1), A) as chan:
            if where == "another machine":
                threading.Timer(0.05, kill, (A,)).start()
                assert go(waiter, chan).result() == A
            elif where == "poller":
                a, b = socket.socketpair()
                with a, b:
                    g = go(waiter, chan)
                    reading = go(a.recv, 1)
                    threading.Timer(0.05, kill, (A,)).start()
                    assert g.result() == A
                    b.send(b"x")
                    assert reading.result() == b"x"
            else:
                threading.Timer(0.05, kill, (A,)).start()
                until = time.monotonic() + 30
                while not len(chan) and time.monotonic() < until:
                    pass
                assert chan.recv(timeout=0) == A

    if where == "plain thread":
        with notified(Chan(1), A) as chan:
            threading.Timer(0.05, kill, (A,)).start()
            assert chan.recv(timeout=30) == A
    else:
        run(main, procs=2)


def test_several_channels_and_signals():
    """Calls add up; each channel gets what it asked for, once, in order; `stop` ends one and not the other."""

    def main() -> None:
        first: Chan[Any] = Chan(10)
        second: Chan[Any] = Chan(10)
        with notified(first, A, B), notified(second, B):
            gort.signal.notify(first, A)  # twice does no harm
            for number in (A, B, A):
                kill(number)
            assert [first.recv(timeout=30) for _ in range(3)] == [A, B, A]
            assert second.recv(timeout=30) == B
            gort.signal.stop(first)
            kill(B)
            assert second.recv(timeout=30) == B
            assert len(first) == len(second) == 0
            assert signal.getsignal(A) is signal.SIG_DFL

    run(main)


def test_a_channel_without_room_misses_it():
    """As in Go: nothing waits for a receiver, neither the handler nor the other channels."""

    def main() -> None:
        slow: Chan[Any] = Chan(1)
        with notified(slow, A), notified(Chan(100), A) as quick:
            for _ in range(20):
                kill(A)
                assert quick.recv(timeout=30) == A
            assert slow.recv(timeout=30) == A
            assert len(slow) == 0

    run(main)


def test_a_closed_channel_is_forgotten():
    """It is not an error on a thread of gort's, and the others go on."""

    def main() -> None:
        closed: Chan[Any] = Chan(1)
        with notified(closed, A), notified(Chan(1), A) as other:
            closed.close()
            for _ in range(2):
                kill(A)
                assert other.recv(timeout=30) == A
            assert all(chan is other for chan in gort.signal._channels[A])

    run(main)


def test_the_handlers_found_are_put_back():
    """A handler of the program's own, and "ignore", come back; a handler installed over ours stays."""
    calls: list[int] = []

    def own(number: int, _frame: Any) -> None:
        calls.append(number)

    before = signal.signal(A, own), signal.signal(B, signal.SIG_IGN)
    try:
        with notified(Chan(1), A, B) as chan:
            kill(A)
            assert chan.recv(timeout=30) == A
            kill(B)
            assert chan.recv(timeout=30) == B
        assert signal.getsignal(A) is own and signal.getsignal(B) is signal.SIG_IGN
        kill(A)
        assert calls == [A]
        with notified(Chan(1), A):
            signal.signal(A, signal.SIG_IGN)
        assert signal.getsignal(A) is signal.SIG_IGN
        with notified(Chan(1), A) as first:
            signal.signal(A, own)  # over ours; and then once more ours
            with notified(Chan(1), A) as second:
                kill(A)
                assert first.recv(timeout=30) == second.recv(timeout=30) == A
        assert signal.getsignal(A) is own
    finally:
        signal.signal(A, before[0])
        signal.signal(B, before[1])


def test_stop_on_another_thread():
    """Off the main thread the handler cannot be put back at once: it is when the signal comes, which is not lost."""
    calls: list[int] = []
    before = signal.signal(A, lambda number, _frame: calls.append(number))
    try:
        chan: Chan[Any] = Chan(1)
        gort.signal.notify(chan, A)
        thread = threading.Thread(target=gort.signal.stop, args=(chan,))
        thread.start()
        thread.join()
        kill(A)
        assert calls == [A] and len(chan) == 0
        # Or when the main thread next has to do with it.
        gort.signal.notify(chan, A)
        thread = threading.Thread(target=gort.signal.stop, args=(chan,))
        thread.start()
        thread.join()
        gort.signal.notify(chan, A)
        kill(A)
        assert chan.recv(timeout=30) == A
        gort.signal.stop(chan)
        kill(A)
        assert calls == [A, A]
    finally:
        signal.signal(A, before)


def test_ctrl_c_can_be_had():
    """SIGINT on a channel, no KeyboardInterrupt; afterwards Ctrl-C is Ctrl-C again, also after `run` has ended."""

    def main() -> None:
        with notified(Chan(1), signal.SIGINT) as chan:
            kill(signal.SIGINT)
            assert chan.recv(timeout=30) == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            kill(signal.SIGINT)
            gort.sleep(30)

    run(main)
    chan: Chan[Any] = Chan(1)
    run(lambda: gort.signal.notify(chan, signal.SIGINT))  # and no stop
    kill(signal.SIGINT)
    assert chan.recv(timeout=30) == signal.SIGINT
    gort.signal.stop(chan)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        kill(signal.SIGINT)
        time.sleep(30)


@pytest.mark.parametrize("stopped", ["main", "thread"])
def test_ctrl_c_is_given_back_in_a_later_run(stopped: str):
    """Broken: `notify` in one run and `stop` in another leave Python's handler, which raises in any goroutine."""
    chan: Chan[Any] = Chan(1)
    run(lambda: gort.signal.notify(chan, signal.SIGINT))
    computes: list[str] = []

    def compute() -> None:
        kill(signal.SIGINT)
        for _ in range(1000):
            pass  # here an exception of the handler's would arrive
        computes.append("to its end")

    def main() -> None:
        if stopped == "main":
            gort.signal.stop(chan)
        else:
            gort.blocking(gort.signal.stop, chan)
        g = go(compute)
        with pytest.raises(KeyboardInterrupt):
            gort.sleep(30)
        g.join()
        assert computes == ["to its end"]

    run(main, procs=1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_handlers_of_runtimes_that_begin_and_end_meanwhile():
    """Broken: a handler of gort's is put back, and stays for good, though the runtime it was for has ended."""
    chan: Chan[Any] = Chan(1)
    run(lambda: gort.signal.notify(chan, signal.SIGQUIT))
    gort.signal.stop(chan)
    assert signal.getsignal(signal.SIGQUIT) is signal.SIG_DFL

    outer = gort.Runtime(1)
    deferred = signal.getsignal(signal.SIGINT)
    run(outer.close)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    inner = run(gort.Runtime, 1)
    assert signal.getsignal(signal.SIGINT) is deferred is not signal.default_int_handler
    inner.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_runtime_closed_by_another_thread(number: int):
    """Broken: the last runtime is closed off the main thread, and the signal goes on to be gort's."""
    code = f"""
        import gort, os, signal, threading
        rt = gort.Runtime(1)
        rt.go(int).join()
        thread = threading.Thread(target=rt.close)
        thread.start()
        thread.join()
        try:
            os.kill(os.getpid(), {int(number)})
        except KeyboardInterrupt:
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                raise SystemExit(7)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (7 if number == signal.SIGINT else -number, "")


def test_all_signals():
    """Without a signum: all that a program can be told of."""

    def main() -> None:
        with notified(Chan(10)) as chan:
            got = set()
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD, A, signal.SIGRTMAX):
                kill(number)
                got.add(chan.recv(timeout=30))
            assert got == {signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD, A, signal.SIGRTMAX}

    run(main)


def test_bad_arguments():
    """Each gets an error that says what is wrong and what to do, and changes nothing."""
    chan: Chan[Any] = Chan(1)
    for args, error, text in (
        ((None, A), TypeError, "gort.Chan"),
        ((chan, "SIGTERM"), TypeError, "signal.SIGTERM"),
        ((chan, True), TypeError, "number"),
        ((chan, 10_000), ValueError, "10000"),
        ((chan, 0), ValueError, "no signal"),
        ((chan, signal.SIGKILL), ValueError, "SIGKILL"),
        ((chan, A, signal.SIGSTOP), ValueError, "SIGSTOP"),
    ):
        with pytest.raises(error, match=text):
            gort.signal.notify(*args)
    with pytest.raises(TypeError, match="Chan"):
        gort.signal.stop(A)
    gort.signal.stop(chan)  # was not notified: no harm

    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            gort.signal.notify(chan, A)
        except gort.GortError as exc:
            errors.append(exc)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main goroutine" in str(errors[0]) and "SIGUSR1" in str(errors[0])


def test_a_storm(jitter):
    """Thousands of signals while goroutines use channels: nothing hangs, and a channel with room gets the last."""
    rounds = 20_000 if os.environ.get("GORT_STRESS") else 2_000

    def main() -> None:
        with notified(Chan(rounds), A) as chan:
            busy: Chan[int] = Chan(1)

            def pump() -> None:
                for i in range(rounds):
                    busy.send(i)
                busy.close()

            g = go(pump)
            for _ in busy:
                kill(A)
            g.result()
            seen = chan.recv(timeout=30)
            while len(chan):
                chan.recv()
            assert seen == A
            kill(A)
            assert chan.recv(timeout=30) == A

    run(main, procs=2)


@pytest.mark.parametrize("how", ["sleep", "blocking", "stuck"])
def test_a_handler_that_only_starts_goroutines(procs: int, how: str) -> None:
    """Broken: a handler that interrupts the scheduler has its `go` change what the scheduler has just looked at."""
    seconds = 10.0 if os.environ.get("GORT_STRESS") else 1.0
    told = 0
    ran: list[None] = []  # for several machines append to it: a number would lose some

    def handler(*_: object) -> None:
        nonlocal told
        told += 1
        go(ran.append, None)

    def main() -> None:
        signal.setitimer(signal.ITIMER_REAL, 3e-4, 3e-4)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                if how == "sleep":
                    gort.sleep(2e-4)
                elif how == "blocking":
                    gort.blocking(int)
                else:
                    time.sleep(0.015)  # its P is taken
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        while len(ran) < told:
            gort.sleep(0.001)

    before = signal.signal(signal.SIGALRM, handler)
    try:
        run(main, procs=procs)
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the last may be on its way to another thread: drop it
        signal.signal(signal.SIGALRM, before)
    assert told


@pytest.mark.parametrize("what", ["context", "main", "another", "group"])
def test_a_handler_cancels_while_nothing_runs(procs: int, what: str) -> None:
    """Broken: the usual handler of SIGTERM cancels something, and a program that is idle sleeps on for ever."""
    cancel: Any = None

    def main() -> None:
        nonlocal cancel
        sender = subprocess.Popen(["sh", "-c", f"sleep 0.1; kill -USR1 {os.getpid()}"])
        try:
            if what == "context":
                ctx = context.with_cancel(context.background())
                cancel = ctx.cancel
                with pytest.raises(context.ContextCancelled), ctx:
                    Chan().recv(timeout=LONG)
            elif what == "main":
                g = gort.current()
                assert g is not None
                cancel = g.cancel
                with pytest.raises(gort.Cancelled):
                    Chan().recv(timeout=LONG)
            elif what == "another":
                g = go(Chan().recv, timeout=LONG)
                cancel = g.cancel
                with pytest.raises(gort.GoroutineCancelled):
                    g.result()
            else:
                with gort.Group() as group:
                    cancel = group.cancel
                    g = group.go(Chan().recv, timeout=LONG)
                    Chan().recv(timeout=LONG)
                assert isinstance(g.exception(), gort.Cancelled)
        finally:
            sender.wait()

    before = signal.signal(A, lambda *_: cancel())
    try:
        run(main, procs=procs)
    finally:
        signal.signal(A, before)


def at_line(number: int, fn: Any) -> bool:
    """Raise signal A at this line (counted from the first that runs) of what gort does in fn(); False: there are fewer."""
    left = number
    package = os.path.dirname(gort.__file__)

    def trace(frame: Any, event: str, _arg: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            left -= 1
            if not left:
                sys.settrace(None)
                kill(A)
        return trace if left > 0 else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        fn()
    finally:
        sys.settrace(before)
    return left <= 0


@pytest.mark.parametrize("op", ["try_recv", "try_send", "select", "lock"])
def test_a_handler_cancels_in_the_middle_of_an_operation(op: str) -> None:
    """Broken: the handler waits for what the interrupted code holds, and who was to be cancelled never is."""
    victim: Any = None
    errors: list[BaseException] = []

    def handler(*_: object) -> None:
        try:
            victim.cancel()
        except BaseException as exc:
            errors.append(exc)

    def main() -> None:
        nonlocal victim
        for number in range(1, 1000):
            chan: Chan[int] = Chan()
            mutex = gort.Mutex()
            if op == "try_recv":
                wait, interrupted = chan.recv, chan.try_recv
            elif op == "try_send":
                wait, interrupted = (lambda: chan.send(1)), (lambda: chan.try_send(2))
            elif op == "select":
                wait, interrupted = chan.recv, (lambda: gort.select(gort.recv(chan), default=True))
            else:
                mutex.lock()
                wait, interrupted = mutex.lock, mutex.try_lock
            victim = start(wait)
            if not at_line(number, interrupted):
                victim.cancel()
                assert number > 3
                break
            assert not errors
            victim.join(timeout=30)
            assert isinstance(victim.exception(), gort.Cancelled)

    before = signal.signal(A, handler)
    try:
        run(main, procs=1)
    finally:
        signal.signal(A, before)


@pytest.mark.parametrize("op", ["send", "recv", "try_recv", "select", "close", "timer", "semaphore", "late"])
def test_a_handler_in_the_middle_of_an_operation_on_what_it_uses(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a handler that uses what the interrupted operation has taken waits for it for ever; it is to get an error."""
    monkeypatch.setattr(gort.runtime.latch, "PATIENCE", 0.01)
    seen: list[Any] = []
    errors: list[BaseException] = []
    use: Any = None

    def handler(*_: object) -> None:
        try:
            seen.append(use())
        except BaseException as exc:
            seen.append(exc)

    def slices() -> int:
        return sum(m["yielded"] for m in gort.stats()["ms"])

    def main() -> None:
        nonlocal use
        number = 1
        while True:
            chan: Chan[int] = Chan(2)
            timer = gort.Timer(LONG)
            semaphore = gort.Semaphore(2)
            uses, interrupted = {
                "send": (chan.try_recv, lambda: chan.send(1)),
                "recv": (lambda: chan.try_send(1), chan.recv),
                "try_recv": (chan.try_recv, chan.try_recv),
                "select": (chan.try_recv, lambda: gort.select(gort.recv(Chan()), gort.recv(chan), default=True)),
                "close": (chan.try_recv, chan.close),
                "timer": (timer.c.try_recv, timer.stop),
                "semaphore": (semaphore.try_acquire, semaphore.try_acquire),
                "late": (chan.try_recv, chan.try_recv),
            }[op]
            use = uses
            chan.send(1)
            if op == "late":
                gc.collect(0)  # whoever has paid for it gives way in its next operation, first of all
            so_far = slices()
            struck = at_line(number, interrupted)
            timer.stop()
            if not struck:
                if op == "late" and slices() == so_far:
                    continue  # it did not: sysmon, beside a busy system, had taken the request back
                break
            number += 1
            assert len(seen) == 1
            if isinstance(seen[0], BaseException):
                errors.append(seen[0])
            seen.clear()

    before = signal.signal(A, handler)
    try:
        run(main, procs=1)
    finally:
        signal.signal(A, before)
    assert errors
    for error in errors:
        assert type(error) is gort.GortError and "signal handler that uses the same object" in str(error), repr(error)


@pytest.mark.parametrize("ends", ["itself", "its parent"])
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside others"])
def test_a_handler_ends_a_context_whose_block_is_just_entered(ends: str, others: bool) -> None:
    """Broken: the block does not hear of the end, and its first wait is for ever."""

    def main() -> None:
        nonlocal cancel
        for number in range(1, 1000):
            parent = context.with_cancel(context.background())
            ctx = context.with_timeout(parent, LONG)
            cancel = ctx.cancel if ends == "itself" else parent.cancel
            told: Chan[bool] = Chan()
            if others:
                context.after_func(ctx, told.send, True)
            with pytest.raises(context.ContextCancelled), contextlib.ExitStack() as stack:
                if struck := at_line(number, lambda: stack.enter_context(ctx)):
                    Chan().recv(timeout=LONG)
                cancel()
                Chan().recv(timeout=LONG)
            assert not others or told.recv(timeout=30)
            if not struck:
                break

    cancel: Any = None
    before = signal.signal(A, lambda *_: cancel())
    try:
        run(main, procs=1)
    finally:
        signal.signal(A, before)


def program(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(text)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_program_that_stops_when_told():
    """The usual one: SIGTERM ends the main loop; a program that only waits for it is not taken for a deadlock."""
    done = program(
        """
        import os, signal, threading, time, gort

        def main():
            stop = gort.Chan(1)
            gort.signal.notify(stop, signal.SIGTERM)
            sender = "sleep 0.3; kill -TERM %d" % os.getpid()
            os.posix_spawn("/bin/sh", ["sh", "-c", sender], os.environ)
            number = stop.recv()
            print("told by", number.name)

        gort.run(main)
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("told by SIGTERM\n", "", 0)


@pytest.mark.parametrize("data", [b"", b"precious"])
def test_other_code_closes_the_pipe_that_signals_are_written_to(data: bytes):
    """Broken: what has its numbers by then, a pipe of the program's, is read by gort, which waits for data there, and closed."""
    done = program(
        f"""
        import os, gort

        ours = []

        def main():
            os.closerange(3, 100)
            ours.extend(os.pipe())
            os.write(ours[1], {data!r})
            for _ in range(2):
                gort.sleep(0.001)
            os.set_blocking(ours[0], False)
            try:
                return os.read(ours[0], 100)
            except BlockingIOError:
                return b""

        print(gort.run(main))
        for fd in ours:
            os.close(fd)
        """
    )
    assert (done.stdout, done.returncode) == (f"{data!r}\n", 0), done.stderr


@pytest.mark.parametrize("handler", ["leave", "functools.partial(leave)", "Leave()", "Leave().leave"])
def test_sys_exit_in_a_handler(handler: str):
    """Broken: it ends whichever goroutine runs at that moment, without a word, and the program goes on."""
    done = program(
        f"""
        import functools, os, signal, sys, gort

        def leave(*_):
            sys.exit(7)

        class Leave:
            def __call__(self, *_):
                sys.exit(7)
            def leave(self, *_):
                sys.exit(7)

        signal.signal(signal.SIGTERM, {handler})
        ended = []

        def works():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                for _ in range(10 ** 9):
                    pass
            finally:
                ended.append(True)

        def main():
            gort.go(works)
            try:
                gort.sleep(40)
            finally:
                print(ended)

        gort.run(main, procs=1)
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("[True]\n", "", 7)


def test_an_exception_of_a_handler_that_its_goroutine_catches():
    """Broken: main gets what has been dealt with."""

    def handler(*_: object) -> None:
        raise LookupError

    def works() -> None:
        try:
            kill(A)
            for _ in range(10**9):
                pass
        except LookupError:
            pass

    def fails() -> None:
        raise LookupError  # no handler's

    def main() -> None:
        go(works).result()
        with pytest.raises(LookupError):
            go(fails).result()
        gort.sleep(0.01)

    before = signal.signal(A, handler)
    try:
        run(main, procs=1)
    finally:
        signal.signal(A, before)


def test_after_a_fork():
    """The child is notified as well, and its end is quiet."""
    done = program(
        """
        import os, signal, gort, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        chan = gort.Chan(1)
        gort.signal.notify(chan, signal.SIGUSR1)
        pid = os.fork()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert chan.recv(timeout=30) == signal.SIGUSR1
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
            print("both")
        """
    )
    assert (done.stdout, done.stderr, done.returncode) == ("both\n", "", 0)
