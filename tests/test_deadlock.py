"""Deadlock, as far as more than one runtime, threads, calls and descriptors are concerned; and what its report says.

tests/test_run.py has the single runtime (behaviour 22).  Each test runs in a process of its own, because nothing is a
deadlock while another thread of the process lives, and pytest's may.
"""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PRELUDE = """
import os, random, signal, subprocess, sys, threading, time
import gort
from gort import Barrier, Chan, Cond, Deadlock, Event, Group, Mutex, RWMutex, Runtime, Semaphore, WaitGroup
from gort import blocking, context, go, recv, run, select, send, sleep, timeout
from gort.runtime.netpoll import Descriptor

def deadlocks(main, *args, procs=2):
    try:
        run(main, *args, procs=procs)
    except Deadlock as error:
        return str(error)
    sys.exit("no deadlock")
"""


def succeeds(body: str) -> str:
    """Run a program in a process of its own; give its output."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        timeout=50,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONFAULTHANDLER": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


REASONS = {
    # what main does, in a line of its own: what the report says of main, up to the place where the thing was made
    "Chan(); x.recv()": r"chan receive: <Chan 0/0 made at",
    "Chan(1); x.send(1); x.send(2)": r"chan send: <Chan 1/1 made at",
    "Chan(); select(recv(x), recv(None), send(x, 1))": r"select: receive <Chan 0/0 made at",
    "Mutex(); x.lock(); x.lock()": r"lock of <Mutex locked, 1 waiting, made at",
    "RWMutex(); x.rlock(); x.lock()": r"lock of <RWMutex held by 1 readers, 0 readers and 1 writers waiting, made at",
    "RWMutex(); x.lock(); x.rlock()": r"rlock of <RWMutex held by a writer, 1 readers and 0 writers waiting, made at",
    "Semaphore(2); x.acquire(); x.acquire(2)": r"acquire\(2\) of <Semaphore 1 of 2 free, 1 waiting, made at",
    "WaitGroup(); x.add(); x.wait()": r"wait for <WaitGroup at 1, 1 waiting, made at",
    "Cond(); x.lock(); x.wait()": r"wait for <Cond 1 waiting, made at",
    "Event(); x.wait()": r"wait for <Event not set, 1 waiting, made at",
    "Barrier(2); x.wait()": r"wait at <Barrier of 2, 1 waiting, made at",
    "Chan(); x.recv(float('inf'))": r"chan receive: <Chan 0/0 made at",
    "go(Chan().recv); x.join()": r"join of goroutine \d+",
    "context.background().done(); x.recv()": r"chan receive: <Chan 0/0 made at",
    "context.with_cancel(context.background()).done(); x.recv()": r"chan receive: <_?\w+ 0/0 made at",
}


def test_the_report_says_what_everybody_waits_for_and_where_it_was_made() -> None:
    """Broken: one sees that main waits, but not for what, or for which of a thousand channels."""
    lines = [f"def case_{i}():\n    x = {code}" for i, code in enumerate(REASONS)]
    program = "\n".join(lines) + f"\nfor i in range({len(REASONS)}): print('=====' + deadlocks(globals()[f'case_{{i}}']))"
    reports = succeeds(program).split("=====")[1:]
    start = PRELUDE.count("\n")
    for i, ((code, reason), report) in enumerate(zip(REASONS.items(), reports, strict=True)):
        assert report.startswith("all goroutines are asleep - deadlock!\n\n"), code
        line = start + 2 * i + 2
        made = rf" <string>:{line} in case_{i}.*" if reason.endswith("made at") and "done()" not in code else ".*"
        assert re.search(rf"goroutine \d+ 'case_{i}' \[waiting: {reason}{made}\] on M \d+, started at ", report), report
        assert f'File "<string>", line {line}, in case_{i}' in report  # its stack


def test_every_goroutine_is_shown() -> None:
    """Broken: the report leaves out a goroutine, and so perhaps the one that should have woken main."""
    out = succeeds(
        """
        def child(name, ch):
            gort.current().name = name
            ch.recv()
        def main():
            for i in range(50):
                go(child, f"child{i}", Chan())
            with Group() as g:
                g.go(child, "grouped", Chan())
                Mutex.lock(m := Mutex())
                m.lock()
        print(deadlocks(main))
        """
    )
    for name in [*(f"child{i}" for i in range(50)), "grouped", "main"]:
        assert len(re.findall(rf"goroutine \d+ '{name}' \[waiting: ", out)) == 1, name
    assert len(re.findall(r'File "<string>", line \d+, in child\n', out)) == 51


# -- what does not stand in the way ---------------------------------------------------------------------------------

FOUND = {
    "a blocking call before": "blocking(time.sleep, 0.001); Chan().recv()",
    "many blocking calls before": "[g.join() for g in [go(blocking, time.sleep, 0.01) for _ in range(20)]]; Chan().recv()",
    "an idle background runtime": "BACK.append(BACK and 1); Chan().recv()",
    "a goroutine stuck there": "STUCK.append(gort.runtime.instance._in_background()); "
    "gort.runtime.instance.launch(gort.Goroutine(Chan().recv, (), {}, None, None, 0), STUCK[-1]); Chan().recv()",
    "a runtime of its own": "Chan().recv()",
    "a thread that ends late": "threading.Thread(target=time.sleep, args=(0.4,)).start(); Chan().recv()",
    "a pipe that was waited for": "r, w = os.pipe(); d = Descriptor(r); go(os.write, w, b'x'); d.wait_read(); "
    "d.close(); os.close(r); os.close(w); Chan().recv()",
    "a wait for a pipe that was cancelled": "r, w = os.pipe(); d = Descriptor(r); g = go(d.wait_read); sleep(0.001); "
    "g.cancel(); g.join(); Chan().recv()",
    "a context with a deadline that nobody uses": "x = context.with_timeout(context.background(), 1000); Chan().recv()",
    "a limit that was left": "with timeout(1000): sleep(0.001)\n    Chan().recv()",
}


def cases(table: dict[str, str]) -> str:
    """A function for each case, and a list of them all."""
    text = "".join(f"def case_{re.sub('[^a-z]+', '_', name)}(c):\n    {code}\n" for name, code in table.items())
    return text + "CASES = [f for name, f in list(globals().items()) if name.startswith('case_')]\n"


def test_what_has_ended_or_is_idle_does_not_hide_a_deadlock(procs: int) -> None:
    """Broken: after a blocking call, beside an idle runtime, or once a thread has ended, a deadlock is a silent hang."""
    out = succeeds(
        f"BACK, STUCK, idle = [], [], Runtime(2)\ngo(int).join()\n{cases(FOUND)}\n"
        "idle.go(Chan().recv)\nidle.go(int).join()\n"
        "for case in CASES:\n    print(case.__name__, flush=True)\n"
        f"    assert case.__name__ in deadlocks(case, None, procs={procs})\n"
        "idle.close()\n"
    )
    assert len(out.splitlines()) == len(FOUND)


def test_two_runs_that_wait_for_each_other() -> None:
    """Broken: two runtimes whose goroutines wait for each other for ever hang, as each takes the other for busy."""
    out = succeeds(
        """
        a, b = Chan(), Chan()
        def first(ours, theirs):
            ours.recv()
            theirs.send(1)
        def second():
            try:
                run(first, b, a, procs=2)
            except Deadlock:
                pass
        t = threading.Thread(target=second)
        t.start()
        print(deadlocks(first, a, b).count("deadlock!"))
        # The other one has been told too, or it has us now, a plain thread, to wake it.
        while t.is_alive():
            b.try_send(1)
            a.try_recv()
            time.sleep(1e-3)
        """
    )
    assert out == "1\n"


# -- false alarms ---------------------------------------------------------------------------------------------------

ALARMS = {
    "a blocking call": "go(lambda: (blocking(time.sleep, 0.1), c.send(1)))",
    "a spare thread between its call and the wake-up": "READY[0] = slow_ready; go(lambda: (blocking(int), c.send(1)))",
    "a pipe": "r, w = os.pipe(); d = Descriptor(r); DESCRIPTORS.append((d, w)); "
    "threading.Thread(target=lambda: (time.sleep(0.1), os.write(w, b'x'))).start(); go(lambda: (d.wait_read(), c.send(1)))",
    "a pipe that only another process writes": "r, w = os.pipe(); d = Descriptor(r); DESCRIPTORS.append((d, w)); "
    "subprocess.Popen(['sh', '-c', 'sleep 0.1; echo x'], stdout=w); go(lambda: (d.wait_read(), c.send(1)))",
    "another runtime": "OTHER.go(lambda: (sleep(0.1), c.send(1)))",
    "another runtime that computes": "OTHER.go(lambda: (time.sleep(0.1), c.send(1)))",
    "another runtime's blocking call": "OTHER.go(lambda: (blocking(time.sleep, 0.1), c.send(1)))",
    "a limit": "def late():\n        try:\n            with timeout(0.1): Chan().recv()\n"
    "        except TimeoutError: c.send(1)\n    go(late)",
    "a context": "def late():\n        try:\n            with context.with_timeout(context.background(), 0.1): Chan().recv()\n"
    "        except TimeoutError: c.send(1)\n    go(late)",
    "a context's channel": "go(lambda: (context.with_timeout(context.background(), 0.1).done().recv_ok(), c.send(1)))",
    "a context's function": "context.after_func(context.with_timeout(context.background(), 0.1), c.send, 1)",
    "a sleep for ever": "go(sleep, float('inf')); HANDS.append(c); os.kill(os.getpid(), signal.SIGUSR1)",
}


def test_no_false_alarm(procs: int) -> None:
    """Broken: Deadlock is raised although a call, a descriptor, another runtime or a time limit would wake somebody."""
    out = succeeds(
        f"DESCRIPTORS, HANDS, OTHER = [], [], Runtime(2)\nOTHER.go(int).join()\n{cases(ALARMS)}"
        # Threads that the last case's signal handler, which is no longer there then, has left to wake main.
        f"""
READY = [gort.runtime.blocking.ready]
gort.runtime.blocking.ready = lambda w: READY[0](w)
def slow_ready(w):
    READY[0] = gort.runtime.wait.ready
    time.sleep(0.1)
    READY[0](w)
def handler(*_):
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    threading.Timer(0.1, HANDS.pop().send, (1,)).start()
def main(case):
    c = Chan()
    if case.__name__.endswith("ever"):
        signal.signal(signal.SIGUSR1, handler)
    case(c)
    return c.recv()
for case in CASES:
    print(case.__name__, flush=True)
    assert run(main, case, procs={procs}) == 1
OTHER.close()
"""
    )
    assert len(out.splitlines()) == len(ALARMS)


@pytest.mark.parametrize("by", ["call", "runtime", "pipe"])
def test_no_false_alarm_at_the_very_moment(procs: int, by: str) -> None:
    """Broken: whoever wakes main is overlooked just while it does so, after the last wait has ended.

    The waits are about as long as it takes sysmon to look for a deadlock, so it looks at every moment of them.
    """
    wait = {
        "call": "blocking(time.sleep, rng.uniform(0.005, 0.03))",
        "runtime": "OTHER.go(lambda: (sleep(rng.uniform(0.005, 0.03)), d.send(1))); d.recv()",
        "pipe": "threading.Timer(rng.uniform(0.005, 0.03), os.write, (w, b'x')).start(); p.wait_read(); os.read(r, 1)",
    }[by]
    succeeds(
        f"""
        OTHER = Runtime(1)
        sys.setswitchinterval(1e-6)
        def chain(n, c, rng):
            d = Chan()
            r, w = os.pipe()
            os.set_blocking(r, False)
            p = Descriptor(r)
            for _ in range(n):
                {wait}
            c.send(1)
            p.close(); os.close(r); os.close(w)
        def main():
            c = Chan()
            for seed in range(2):
                go(chain, 12, c, random.Random(seed))
            c.recv(); c.recv()
        run(main, procs={procs})
        OTHER.close()
        """
    )


def test_a_callback_that_runs_on_our_event_loop_may_wake_somebody() -> None:
    """Broken: a deadlock is seen while a plain callback, no task, is at work on gort's event loop and will wake main."""
    out = succeeds(
        """
        import asyncio
        def main():
            ch = Chan(1)
            def callback():
                time.sleep(0.3)
                ch.send("value")
            async def arm():
                asyncio.get_running_loop().call_later(0.01, callback)
            gort.aio.run(arm())
            print(ch.recv())
            return Chan().recv()
        assert "chan receive" in deadlocks(main)  # and when it is over, the loop hides nothing
        """
    )
    assert out == "value\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of threads that have not begun")
def test_a_thread_that_has_not_run_a_line_yet_may_wake_somebody() -> None:
    """Broken: a deadlock is seen while a thread that will wake main is known to the system, but not to the interpreter.

    Such a moment is too short to be met at will, so the test takes the thread out of what the interpreter tells.
    """
    succeeds(
        """
        import _thread, hashlib
        told = sys._current_frames
        hidden = []
        def hiding():
            frames = told()
            return {ident: frame for ident, frame in frames.items() if ident not in hidden}
        sys._current_frames = hiding
        def main():
            ch = Chan(1)
            def late():
                hidden.append(_thread.get_ident())
                for _ in range(3):  # without the GIL: for the system it runs, whoever else does
                    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000)
                ch.send(1)
            _thread.start_new_thread(late, ())
            return ch.recv()
        assert run(main) == 1
        hidden.clear()
        assert "chan receive" in deadlocks(lambda: Chan().recv())
        """
    )


def test_a_signal_that_nobody_asks_for_any_more() -> None:
    """Broken: after `stop` on another thread, which leaves gort's handler installed, no deadlock is found."""
    succeeds(
        """
        def main(handler):
            signal.signal(signal.SIGUSR2, handler)
            chan = Chan(1)
            gort.signal.notify(chan, signal.SIGUSR2)
            blocking(gort.signal.stop, chan)
            Chan().recv()
        deadlocks(main, signal.SIG_DFL)
        """
    )
