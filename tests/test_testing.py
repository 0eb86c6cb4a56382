"""gort.testing and the pytest plugin.

The plugin is tested from outside: pytest runs in a process of its own on a file of small tests, and what it says of
them is read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import gort
from gort import Chan, go, gosched, run
from gort.testing import GoroutineLeak, no_leaks

ROOT = str(Path(__file__).parents[1])

# -- no_leaks -------------------------------------------------------------------------------------------------------


def forgotten(gate: Chan[int]) -> None:
    gate.recv()


@pytest.mark.parametrize("where", ["goroutine", "plain thread"])
def test_a_goroutine_left_behind_is_shown(where: str) -> None:
    """Broken: a forgotten goroutine goes unnoticed, or one cannot tell where it comes from and what it waits for."""
    gate: Chan[int] = Chan()

    def main() -> None:
        with pytest.raises(GoroutineLeak) as info, no_leaks(grace=0.01):
            go(forgotten, gate)
        text = str(info.value)
        assert "a goroutine was left behind" in text and "after 0.01 s" in text
        assert re.search(r"goroutine \d+ 'forgotten' \[waiting: chan receive: <Chan 0/0 made at .*\] on M \d+", text)
        assert re.search(rf"started at {re.escape(__file__)}:\d+ in .*main", text)
        assert "gate.recv()" in text
        gate.send(1)

    if where == "goroutine":
        run(main, procs=1)
    else:
        main()


def test_goroutines_in_every_state_are_shown(procs: int) -> None:
    """Broken: a goroutine is overlooked because it has not started, or runs at the moment."""
    over = threading.Event()

    def main() -> None:
        begun: Chan[int] = Chan()
        many = []

        def runs() -> None:
            begun.send(1)
            while not over.is_set():
                gosched()

        def unstarted() -> None:
            pass

        with pytest.raises(GoroutineLeak) as info, no_leaks(grace=0):
            many.append(go(runs))
            begun.recv()
            many.append(go(Chan[int]().recv))
            while many[-1].state != "waiting":
                gosched()
            if procs == 1:
                many.append(go(unstarted))
        text = str(info.value)
        assert f"{len(many)} goroutines were left behind" in text
        assert re.search(r"runs' \[(running|runnable)\]", text)
        assert "over.is_set()" in text or "gosched()" in text
        assert "recv' [waiting: chan receive" in text
        assert procs > 1 or "unstarted' [runnable, not started], started at" in text
        over.set()

    run(main, procs=procs)


def test_goroutines_that_end_soon_are_no_leak(procs: int) -> None:
    """Broken: a goroutine that has just handed over its last value fails the test now and then."""

    def main() -> None:
        out: Chan[int] = Chan()

        def last(n: int) -> None:
            out.send(n)
            gort.sleep(0.01)
            go(gort.sleep, 0.01)  # and one that comes during the grace

        for _ in range(10):
            with no_leaks():
                for n in range(10):
                    go(last, n)
                assert sorted(out.recv() for _ in range(10)) == list(range(10))

    run(main, procs=procs)


def test_what_was_there_before_is_no_leak() -> None:
    """Broken: a test is blamed for what another one, or a fixture, has started."""

    def main() -> None:
        gate: Chan[int] = Chan()
        go(forgotten, gate)
        with no_leaks():
            pass
        with no_leaks():
            with no_leaks():
                go(int)
        gate.send(1)

    run(main, procs=1)


def test_no_leaks_of_a_runtime_of_ones_own() -> None:
    """Broken: what an embedded runtime leaves behind cannot be checked."""
    gate: Chan[int] = Chan()
    with gort.Runtime(2) as runtime:
        with no_leaks():
            runtime.go(forgotten, gate)  # the others are not looked at
        with pytest.raises(GoroutineLeak), no_leaks(runtime, grace=0.01):
            runtime.go(forgotten, gate)
        with no_leaks(runtime):
            gate.send(1)
            gate.send(2)
    with pytest.raises(TypeError, match="Runtime"):
        no_leaks(3)  # type: ignore[arg-type]


def test_no_leaks_as_a_decorator() -> None:
    """Broken: the second call of a decorated function is compared with what existed before the first."""
    gate: Chan[int] = Chan()

    @no_leaks(grace=0.01)
    def leaks(really: bool) -> str:
        if really:
            go(forgotten, gate)
        return "value"

    assert leaks(False) == "value"
    for _ in range(2):
        with pytest.raises(GoroutineLeak, match="a goroutine was"):  # one, and not two the second time
            leaks(True)
    assert leaks(False) == "value"
    gate.send(1)
    gate.send(1)


def test_an_error_in_the_block_is_what_is_seen() -> None:
    """Broken: the leak that an error causes hides the error."""
    gate: Chan[int] = Chan()
    with pytest.raises(KeyError), no_leaks(grace=0.01):
        go(forgotten, gate)
        raise KeyError
    gate.send(1)


@pytest.mark.parametrize("bad, error", [("1", TypeError), (float("nan"), ValueError)])
def test_no_leaks_with_a_bad_grace(bad: Any, error: type[Exception]) -> None:
    """Broken: a bad grace is noticed only when there is a leak."""
    with pytest.raises(error, match="grace"):
        no_leaks(grace=bad)


# -- the plugin -----------------------------------------------------------------------------------------------------


class Session:
    """What pytest said of a file of tests."""

    def __init__(self, directory: Path, tests: str, *arguments: str, ini: str = "") -> None:
        (directory / "test_them.py").write_text(
            "import threading, time\nimport pytest\nimport gort, gort._pytest_plugin\nfrom gort import Chan, go\n"
            "gort._pytest_plugin.AGAIN = 0.3\n" + textwrap.dedent(tests)  # so as not to wait for the second try
        )
        (directory / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
        env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": ROOT}
        env.pop("PYTEST_ADDOPTS", None)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "gort._pytest_plugin", "-p", "no:cacheprovider", "-rA", "--strict-markers", *arguments],
            cwd=directory, env=env, capture_output=True, text=True, timeout=50,
        )  # fmt: skip
        self.status = done.returncode
        self.output = done.stdout + done.stderr
        self.outcomes: dict[str, str] = {}
        for line in done.stdout.splitlines():
            found = re.match(r"(PASSED|FAILED|ERROR|SKIPPED|XFAIL) .*test_them.py(?:::|:\d+: )(\S+)", line)
            if found:
                self.outcomes[found[2]] = found[1]

    def section(self, test: str) -> str:
        """What was said of one test that did not pass."""
        found = re.search(rf"^_+ (?:ERROR at setup of )?{re.escape(test)} _+$\n(.*?)(?=^_+ \S|^=+)", self.output, re.M | re.S)
        assert found, f"nothing about {test} in:\n{self.output}"
        return found[1]


def test_a_marked_test_is_a_main_goroutine(tmp_path: Path) -> None:
    """Broken: marked tests run on the plain thread, with other Ps, without their fixtures, or not at all."""
    session = Session(
        tmp_path,
        """
        log = []

        @pytest.fixture
        def resource():
            assert gort.current() is None
            log.append("up")
            yield 7
            assert gort.current() is None
            log.append("down")

        @pytest.mark.gort(procs=3)
        def test_main(resource, tmp_path):
            assert gort.current().name == "test_main"
            assert gort.stats()["procs"] == 3
            assert threading.current_thread() is threading.main_thread()
            assert resource == 7 and tmp_path.is_dir()
            ch = Chan()
            go(ch.send, "from a goroutine")
            assert ch.recv() == "from a goroutine"

        def test_after(resource):
            assert gort.current() is None
            assert log == ["up", "down", "up"]

        @pytest.mark.gort
        @pytest.mark.parametrize("n", [1, 2])
        def test_parameters(n):
            assert gort.current() is not None and n in (1, 2)

        class TestClass:
            @pytest.mark.gort(procs=1)
            def test_method(self, resource):
                assert gort.current() is not None and isinstance(self, TestClass)

        @pytest.mark.gort
        def test_skips():
            pytest.skip("not today")

        @pytest.mark.gort
        @pytest.mark.xfail(raises=ZeroDivisionError, strict=True)
        def test_expected():
            1 / 0

        @pytest.mark.gort
        def test_fails():
            value = 3
            assert value == 4

        @pytest.mark.gort
        def test_others_are_cancelled_at_the_end():
            go(gort.sleep, 1000)
        """,
    )
    assert session.outcomes == {
        "test_main": "PASSED",
        "test_after": "PASSED",
        "test_parameters[1]": "PASSED",
        "test_parameters[2]": "PASSED",
        "TestClass::test_method": "PASSED",
        "not": "SKIPPED",
        "test_expected": "XFAIL",
        "test_fails": "FAILED",
        "test_others_are_cancelled_at_the_end": "PASSED",
    }, session.output
    assert "assert 3 == 4" in session.section("test_fails")


def test_the_time_limit_shows_all_goroutines_and_the_session_goes_on(tmp_path: Path) -> None:
    """Broken: a test that hangs hangs the session, ends it, or does not say who waits for what."""
    session = Session(
        tmp_path,
        """
        @pytest.mark.gort(timeout=0.2)
        def test_parked():
            def sleeper():
                gort.sleep(1000)
            go(sleeper)
            Chan().recv()

        @pytest.mark.gort(timeout=0.2)
        def test_computing():
            while True:
                pass

        @pytest.mark.gort(timeout=0.2)
        def test_in_a_blocking_call():
            time.sleep(1000)

        @pytest.mark.gort(timeout=0.2, procs=1)
        def test_behind_one_that_computes():
            def computes():
                while True:
                    pass
            go(computes)
            gort.sleep(0)

        @pytest.mark.gort(timeout=0.2, procs=1)
        def test_swallows():
            for _ in range(2):
                try:
                    gort.sleep(1000)
                except BaseException:
                    pass
            gort.sleep(1000)

        @pytest.mark.gort(timeout=0.2)
        def test_cleans_up(tmp_path):
            try:
                gort.sleep(1000)
            finally:
                gort.sleep(0.01)
                (tmp_path.parent / "cleaned").touch()

        @pytest.mark.gort(timeout=30)
        def test_in_time():
            gort.sleep(0.01)

        @pytest.mark.gort
        def test_the_default(tmp_path):
            assert (tmp_path.parent / "cleaned").exists()
            gort.sleep(1000)

        @pytest.mark.gort(timeout=0)
        def test_without():
            gort.sleep(0.7)

        @pytest.mark.gort(timeout=float("inf"))
        def test_for_ever():
            gort.sleep(0.7)

        @pytest.mark.gort(timeout=10**400)
        def test_for_longer():
            gort.sleep(0.01)
        """,
        ini="gort_timeout = 0.5",
    )
    late = ["parked", "computing", "in_a_blocking_call", "behind_one_that_computes", "swallows", "cleans_up", "the_default"]
    assert session.outcomes == {
        **{f"test_{name}": "FAILED" for name in late},
        "test_in_time": "PASSED",
        "test_without": "PASSED",
        "test_for_ever": "PASSED",
        "test_for_longer": "PASSED",
    }, session.output
    for name in late:
        text = session.section(f"test_{name}")
        assert f"was not over after {0.5 if name == 'the_default' else 0.2} s" in text
        assert re.search(rf"goroutine \d+ 'test_{name}' \[", text)
    text = session.section("test_parked")
    assert re.search(r"'test_parked' \[waiting: chan receive: <Chan 0/0 made at .*test_them.py", text)
    assert re.search(r"'test_parked.<locals>.sleeper' \[waiting: sleep\] on M \d+, started at .*test_them.py", text)
    assert "gort.sleep(1000)" in text and "Chan().recv()" in text


def test_the_time_limit_when_others_do_not_end(tmp_path: Path) -> None:
    """Broken: a goroutine that cannot be stopped takes the whole session with it."""
    session = Session(
        tmp_path,
        """
        @pytest.mark.gort(timeout=0.2, procs=1)
        def test_swallowed_by_another():
            def stubborn():
                while True:
                    try:
                        gort.sleep(1000)
                    except BaseException:
                        pass
            go(stubborn)
            gort.sleep(0.01)

        @pytest.mark.gort(timeout=0.2, procs=2)
        def test_on_another_thread():
            begun = threading.Event()
            def stubborn():
                begun.set()
                while True:
                    time.sleep(0.001)
            go(stubborn)
            begun.wait()

        @pytest.mark.gort
        def test_next():
            assert go(int).result() == 0
        """,
    )
    assert session.outcomes == {
        "test_swallowed_by_another": "FAILED",
        "test_on_another_thread": "FAILED",
        "test_next": "PASSED",
    }, session.output
    for name in ("swallowed_by_another", "on_another_thread"):
        assert "stubborn' [" in session.section(f"test_{name}")


def test_a_test_that_hangs_in_a_shield_fails_and_the_session_goes_on(tmp_path: Path) -> None:
    """Broken: a shield holds back the test's failure for ever, and the whole session ends with it."""
    session = Session(
        tmp_path,
        """
        import gort._pytest_plugin as plugin
        plugin.AGAIN = 0.02

        @pytest.mark.gort(timeout=0.1)
        def test_shielded():
            with gort.shield():
                Chan().recv()

        def test_next():
            pass
        """,
    )
    assert session.outcomes == {"test_shielded": "FAILED", "test_next": "PASSED"}, session.output


def test_the_last_resort_ends_the_process_and_says_why(tmp_path: Path) -> None:
    """Broken: a test that nothing can end hangs for ever, without a word."""
    session = Session(
        tmp_path,
        """
        import gort._pytest_plugin as plugin
        plugin.AGAIN = 0.02

        @pytest.mark.gort(timeout=0.1, procs=1)
        def test_that_nothing_ends():
            while True:
                try:
                    gort.sleep(1000)
                except BaseException:
                    pass
        """,
    )
    assert session.status == 70, session.output
    assert "test_that_nothing_ends' [waiting: sleep]" in session.output
    assert "could not be ended, so the process is" in session.output


def test_the_time_limit_beside_another_user_of_the_signal(tmp_path: Path) -> None:
    """Broken: the limit takes the signal away from the program under test, or from another plugin, or is not kept."""
    session = Session(
        tmp_path,
        """
        import signal

        def handler(*_):
            rung.append(1)

        rung = []

        @pytest.fixture
        def alarm():
            signal.signal(signal.SIGALRM, handler)
            yield
            assert signal.getsignal(signal.SIGALRM) is handler
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

        @pytest.mark.gort(timeout=0.2)
        def test_limit(alarm):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            Chan().recv()

        @pytest.mark.gort(timeout=30)
        def test_in_time(alarm):
            assert rung == [1]
            gort.sleep(0.01)

        def test_afterwards():
            assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
            assert not [t for t in threading.enumerate() if t.name == "gort-test-limit"]
        """,
    )
    assert session.outcomes == {"test_limit": "FAILED", "test_in_time": "PASSED", "test_afterwards": "PASSED"}, session.output
    assert "'test_limit' [waiting: chan receive" in session.section("test_limit")


def test_a_deadlock_is_seen_beside_the_time_limit(tmp_path: Path) -> None:
    """Broken: the limit itself looks like something that may wake a goroutine, so a deadlock waits for its end."""
    session = Session(
        tmp_path,
        """
        @pytest.mark.gort(timeout=40)
        def test_deadlock():
            with pytest.raises(gort.Deadlock):
                Chan().recv()
        """,
    )
    assert session.outcomes == {"test_deadlock": "PASSED"}, session.output


def test_the_fixture_no_leaks(tmp_path: Path) -> None:
    """Broken: a test that leaves goroutines behind passes, fails in its teardown, or does not say which."""
    session = Session(
        tmp_path,
        """
        def forgotten():
            Chan().recv()

        @pytest.fixture
        def started():
            return go(forgotten)

        @pytest.mark.gort
        def test_main_leaks(no_leaks):
            go(forgotten)

        def test_plain_leaks(no_leaks):
            go(forgotten)

        @pytest.mark.gort(procs=2)
        def test_main_is_clean(no_leaks):
            go(int)

        def test_plain_is_clean(started, no_leaks):
            go(int)

        @pytest.mark.gort
        def test_fails(no_leaks):
            go(forgotten)
            assert 1 == 2
        """,
    )
    assert session.outcomes == {
        "test_main_leaks": "FAILED",
        "test_plain_leaks": "FAILED",
        "test_main_is_clean": "PASSED",
        "test_plain_is_clean": "PASSED",
        "test_fails": "FAILED",
    }, session.output
    for name in ("test_main_leaks", "test_plain_leaks"):
        text = session.section(name)
        assert "a goroutine was left behind" in text
        assert re.search(rf"'forgotten' \[waiting: chan receive: .*started at .*test_them.py:\d+ in {name}", text)
    assert "assert 1 == 2" in session.section("test_fails")
    assert "left behind" not in session.section("test_fails")


def test_the_marker_with_bad_input(tmp_path: Path) -> None:
    """Broken: a misspelt option is ignored, or a test that cannot be a goroutine silently is none."""
    session = Session(
        tmp_path,
        """
        import unittest

        @pytest.mark.gort(prox=3)
        def test_misspelt():
            pass

        @pytest.mark.gort(3)
        def test_position():
            pass

        @pytest.mark.gort(procs=0)
        def test_procs():
            pass

        @pytest.mark.gort(timeout="1")
        def test_timeout():
            pass

        @pytest.mark.gort
        async def test_async():
            pass

        class TestCase(unittest.TestCase):
            @pytest.mark.gort
            def test_unittest(self):
                pass
        """,
    )
    names = ["test_misspelt", "test_position", "test_procs", "test_timeout", "test_async"]
    assert session.outcomes == {**dict.fromkeys(names, "FAILED"), "TestCase::test_unittest": "ERROR"}, session.output
    for name, text in (
        ("test_misspelt", "keywords procs and timeout, not prox"),
        ("test_position", "keywords procs and timeout, not 3"),
        ("test_procs", "procs must be at least 1"),
        ("test_timeout", "timeout must be a number of seconds"),
        ("test_async", "not async"),
        ("TestCase.test_unittest", "not of unittest.TestCase"),
    ):
        assert text in session.section(name)


def test_ctrl_c_in_a_marked_test(tmp_path: Path) -> None:
    """Broken: Ctrl-C does not end a session in whose test a main goroutine computes."""
    session = Session(
        tmp_path,
        """
        import os, signal

        @pytest.mark.gort
        def test_interrupted(no_leaks):
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                pass
        """,
    )
    assert session.status == 2, session.output  # pytest.ExitCode.INTERRUPTED
    assert "KeyboardInterrupt" in session.output
