"""Group: its end, its errors, its limit and map; cancellation through it, in every direction and several at once.

Behaviours 33 and 37.  Nothing here sleeps to let something happen: `settle` waits until a goroutine waits or has ended.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import traceback
from collections import Counter
from time import monotonic
from typing import Any

import pytest

import gort
from gort import Cancelled, Chan, GoroutineCancelled, GortError, context, go, run
from gort.cancel import shield, timeout
from gort.group import Group
from settling import LONG, settle, start

SEED = int(os.environ.get("GORT_SEED") or random.randrange(2**32))
STRESS = float(os.environ.get("GORT_STRESS") or 0)  # seconds, for each number of Ps


def forever() -> None:
    Chan().recv()


class Bad(Exception):
    """An error of a goroutine."""


def bad(*args: Any) -> None:
    raise Bad(*args)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What gort.excepthook is called with."""
    found: list[Any] = []
    monkeypatch.setattr(gort, "excepthook", found.append)
    return found


# -- the end ------------------------------------------------------------------------------------------------------


def test_the_block_is_left_when_all_have_ended(procs: int) -> None:
    """Breaks: a block that is left while one of its goroutines still works."""

    def main() -> None:
        ended: list[int] = []

        def work(g: Group, depth: int) -> int:
            gort.sleep(0.001)
            if depth:
                g.go(work, g, depth - 1)
                g.go(work, g, depth - 1)
            ended.append(depth)
            return depth

        with Group() as group:
            handle = group.go(work, group, 4)
        assert Counter(ended) == {4: 1, 3: 2, 2: 4, 1: 8, 0: 16}
        assert handle.result() == 4 and handle.done()
        with Group():
            pass
        with Group() as group:
            done = group.go(int, "5")
            assert done.result() == 5
        assert done.result(0) == 5

    run(main, procs=procs)


def test_from_outside_the_block_and_from_plain_threads(procs: int) -> None:
    """Breaks: a goroutine that somebody else puts into the group is not waited for, or one comes too late."""

    def main() -> None:
        ch: Chan[int] = Chan()
        with Group() as group:
            first = group.go(ch.recv)
            threads = [threading.Thread(target=lambda n=n: group.go(ch.recv)) for n in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            start(group.go, ch.recv).result()
            sender = go(lambda: [ch.send(n) for n in range(5)])
        assert first.done() and sender.result() == [None] * 5
        with pytest.raises(GortError, match="has ended"):
            group.go(forever)
        with pytest.raises(GortError, match="used already"):
            with group:
                pass
        with pytest.raises(GortError, match="begin its block"):
            Group().go(forever)

    run(main, procs=procs)


def test_on_a_plain_thread() -> None:
    """Breaks: a Group works in goroutines only."""
    with Group(limit=2) as group:
        assert list(group.map(lambda n: n * n, range(5))) == [0, 1, 4, 9, 16]
    with pytest.raises(ExceptionGroup) as info:
        with Group() as group:
            waiter = group.go(forever)
            group.go(bad, 1)
    assert len(info.value.exceptions) == 1 and isinstance(waiter.exception(), Cancelled)


# -- errors ---------------------------------------------------------------------------------------------------------


def test_the_first_error_cancels_the_rest(procs: int, reports: list[Any]) -> None:
    """Breaks: siblings, or the body, that go on when the work has failed; a lost error, or one reported twice.

    Behaviour 37.
    """

    def main() -> None:
        after: list[str] = []
        cleaned: list[int] = []

        def sibling(n: int) -> None:
            try:
                forever()
            finally:
                gort.sleep(0.001)
                cleaned.append(n)

        with pytest.raises(ExceptionGroup, match="1 error in a Group") as info:
            with Group() as group:
                siblings = [group.go(sibling, n) for n in range(5)]
                settle(*siblings)
                failed = group.go(bad, "boom")
                forever()
                after.append("body")
        assert not after and sorted(cleaned) == list(range(5))
        (error,) = info.value.exceptions
        assert type(error) is Bad and error is failed.exception()
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == ["bad"]
        assert any("bad" in note and "test_group" in note for note in error.__notes__)
        assert all(isinstance(g.exception(), Cancelled) for g in siblings)
        with pytest.raises(GoroutineCancelled):
            siblings[0].result()
        assert group.go.__self__ is group

    run(main, procs=procs)
    gc.collect()
    assert not reports


def test_all_errors_come_out_in_their_order() -> None:
    """Breaks: an error that is hidden behind another, or in a group of its own without need."""

    def failing_cleanup(n: int) -> None:
        try:
            forever()
        finally:
            raise Bad(n)

    def main() -> None:
        with pytest.raises(ExceptionGroup, match="4 errors in a Group") as info:
            with Group() as group:
                others = [group.go(failing_cleanup, n) for n in range(3)]
                settle(*others)
                group.go(bad, "first")
        assert [exc.args[0] for exc in info.value.exceptions] == ["first", 0, 1, 2]

        with pytest.raises(ExceptionGroup) as info:
            with Group() as outer:
                outer.go(nested)
        (inner,) = info.value.exceptions
        assert isinstance(inner, ExceptionGroup) and isinstance(inner.exceptions[0], Bad)

        with pytest.raises(BaseExceptionGroup) as base:
            with Group() as group:
                group.go(exit_now)
        assert not isinstance(base.value, ExceptionGroup) and isinstance(base.value.exceptions[0], SystemExit)

    def nested() -> None:
        with Group() as group:
            group.go(bad, "inner")

    def exit_now() -> None:
        raise SystemExit(3)

    run(main, procs=1)


def test_an_error_of_the_body_cancels_the_goroutines_and_both_come_out(procs: int) -> None:
    """Breaks: a body that fails and leaves its goroutines running, or an error of theirs that is lost by it."""

    def cleanup() -> None:
        try:
            forever()
        finally:
            raise Bad("clean-up")

    def main() -> None:
        with pytest.raises(ExceptionGroup) as info:
            with Group() as group:
                settle(group.go(cleanup))
                g = group.go(forever)
                raise KeyError("body")
        assert [type(exc) for exc in info.value.exceptions] == [KeyError, Bad]
        assert isinstance(g.exception(), Cancelled)

        with pytest.raises(ExceptionGroup) as info:
            with Group():
                raise KeyError("alone")
        assert len(info.value.exceptions) == 1, "one way to catch, however many there are"

    run(main, procs=procs)


def test_the_same_error_stands_there_once() -> None:
    """Breaks: an error that is listed twice because the body, or a sibling, had asked for the result."""

    def main() -> None:
        with pytest.raises(ExceptionGroup) as info:
            with Group() as group:
                first = group.go(bad, 1)
                second = group.go(first.result)
                with shield():
                    first.join()
                    second.join()
                first.result()
        assert [exc.args for exc in info.value.exceptions] == [(1,)]

    run(main, procs=1)


def test_a_cancelled_goroutine_is_no_error(procs: int, reports: list[Any]) -> None:
    """Breaks: a group that fails, or ends, because one of its goroutines was cancelled by somebody."""

    def main() -> None:
        ch: Chan[int] = Chan()
        with Group() as group:
            fresh = group.go(forever)
            fresh.cancel()  # on one P it has not even started
            other = group.go(forever)
            settle(other)
            other.cancel()
            third = group.go(ch.recv)
            other.join()
            fresh.join()
            ch.send(3)
        assert third.result() == 3

        with Group() as group:  # nothing but cancellations in an exception group
            g = group.go(eager)
            settle(g)
            g.cancel()

    def eager() -> None:
        try:
            forever()
        except Cancelled as exc:
            raise BaseExceptionGroup("", [exc]) from None

    run(main, procs=procs)
    gc.collect()
    assert not reports


def test_the_shadow_of_a_cancellation_is_no_error(procs: int) -> None:
    """Breaks: who waits for the result of a goroutine that the group cancelled counts as one more error, by chance."""

    def main() -> None:
        def ask(g: Any) -> None:
            with shield():  # so that the end of g comes first
                g.result()

        with pytest.raises(ExceptionGroup) as info:
            with Group() as group:
                first = group.go(forever)
                settle(first, group.go(ask, first))
                group.go(bad)
                ask(first)
        assert [type(exc) for exc in info.value.exceptions] == [Bad]

        with pytest.raises(ExceptionGroup) as info:  # in a group that was not cancelled it is an error as any other
            with Group() as group:
                g = start(forever)
                g.cancel()
                group.go(g.result)
        assert [type(exc) for exc in info.value.exceptions] == [GoroutineCancelled]

    run(main, procs=procs)


def test_cancel_ends_the_group_without_an_error(procs: int) -> None:
    """Breaks: no way to stop the helpers when the work is done; or one that cancels what comes after the block."""

    def main() -> None:
        with Group() as group:
            helpers = [group.go(forever) for _ in range(5)]
            group.cancel()
            with shield():  # the body has been cancelled, and might hear of it in `go`, if its slice is over
                late = group.go(forever)
            forever()
        assert all(isinstance(g.exception(), Cancelled) for g in [*helpers, late])
        gort.sleep(0.001)

        with Group() as group:
            g = group.go(forever)
            go(group.cancel)
        assert isinstance(g.exception(), Cancelled)
        group.cancel()

    run(main, procs=procs)


# -- cancellation from outside ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["body", "end"])
@pytest.mark.parametrize("how", ["goroutine", "limit", "context", "group"])
def test_a_cancelled_owner_cancels_waits_and_passes_it_on(procs: int, where: str, how: str) -> None:
    """Breaks: goroutines that outlive their owner, or an owner that goes on although it was cancelled."""

    def main() -> None:
        cleaned: list[int] = []
        cancels: Chan[Any] = Chan(1)

        def child() -> None:
            try:
                forever()
            finally:
                gort.sleep(0.002)
                cleaned.append(1)

        def block() -> None:
            with Group() as group:
                settle(*(group.go(child) for _ in range(3)))
                if where == "body":
                    forever()
            cleaned.append(100)

        def owner() -> None:
            if how == "limit":
                with timeout(LONG) as limit:
                    cancels.send(lambda: limit._scope.cancel("over"))
                    block()
            elif how == "context":
                with context.with_cancel(context.background()) as ctx:
                    cancels.send(ctx.cancel)
                    block()
            elif how == "group":
                with Group() as outer:
                    cancels.send(outer.cancel)
                    block()
            else:
                cancels.send(gort.current().cancel)
                block()

        g = start(owner)
        cancels.recv()()
        ended = context.ContextCancelled
        kinds = {"goroutine": Cancelled, "limit": TimeoutError, "context": ended, "group": type(None)}
        assert type(g.exception()) is kinds[how]
        assert cleaned == [1, 1, 1]

    run(main, procs=procs)


def test_errors_and_a_cancellation_from_outside_both_come_out(procs: int) -> None:
    """Breaks: a failing clean-up that hides that its owner is cancelled, or is hidden by it."""

    def child() -> None:
        try:
            forever()
        finally:
            raise Bad

    def owner() -> None:
        with Group() as outer:
            with Group() as group:
                settle(group.go(child))
            outer.go(forever)  # not reached

    def main() -> None:
        g = start(owner)
        g.cancel()
        error = g.exception()
        assert isinstance(error, BaseExceptionGroup) and not isinstance(error, ExceptionGroup)
        found = [type(exc) for exc in flat(error)]
        assert sorted(kind.__name__ for kind in found) == ["Bad", "Cancelled"]

    run(main, procs=procs)


def flat(exc: BaseException) -> list[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for one in exc.exceptions for leaf in flat(one)]
    return [exc]


@pytest.mark.parametrize("order", ["inner, outer", "outer, inner", "inner, goroutine", "inner, outer, goroutine"])
def test_layered_cancellations_of_a_waiting_owner(order: str) -> None:
    """Breaks: of several cancellations that reach an owner while it waits for its group's end, only one has an effect.

    The widest must win: it ends what the others would have ended.
    """

    def main() -> None:
        events: list[str] = []
        cancels: dict[str, Any] = {}
        in_cleanup: Chan[None] = Chan()
        proceed: Chan[None] = Chan()

        def child() -> None:
            try:
                forever()
            finally:
                in_cleanup.send(None)
                proceed.recv()

        def owner() -> None:
            cancels["goroutine"] = gort.current().cancel
            try:
                with timeout(LONG) as outer:
                    try:
                        with timeout(LONG) as inner:
                            cancels["outer"] = lambda: outer._scope.cancel("outer")
                            cancels["inner"] = lambda: inner._scope.cancel("inner")
                            with Group() as group:
                                settle(group.go(child))
                    except TimeoutError:
                        events.append("inner")
                    gort.sleep(0.001)
            except TimeoutError:
                events.append("outer")
            gort.sleep(0.001)
            events.append("went on")

        g = start(owner)
        names = order.split(", ")
        cancels[names[0]]()
        in_cleanup.recv()
        for name in names[1:]:
            settle(g)
            cancels[name]()
        settle(g)
        proceed.send(None)
        g.join()
        if "goroutine" in names:
            assert events == [] and isinstance(g.exception(), Cancelled)
        else:
            assert events == ["outer", "went on"] and g.result() is None

    run(main, procs=1)


def test_a_group_in_a_group_ends_from_the_outside_in(procs: int) -> None:
    """Breaks: an error in the outermost group that does not reach the innermost goroutine."""

    def main() -> None:
        depth = 20
        ended: list[int] = []
        deep: Chan[None] = Chan()

        def level(n: int) -> None:
            try:
                with Group() as group:
                    if n:
                        group.go(level, n - 1)
                    else:
                        deep.send(None)
                    forever()
            finally:
                ended.append(n)

        with pytest.raises(ExceptionGroup) as info:
            with Group() as group:
                group.go(level, depth)
                deep.recv()
                group.go(bad)
        assert [type(exc) for exc in flat(info.value)] == [Bad]
        assert ended == list(range(depth + 1))

    run(main, procs=procs)


def test_keyboard_interrupt_and_exit_in_the_body_pass_as_they_are() -> None:
    """Breaks: Ctrl-C, or sys.exit, that comes out of a Group as something that nobody expects."""

    for kind in (KeyboardInterrupt, SystemExit, GeneratorExit):

        def main(kind: Any = kind) -> None:
            with Group() as group:
                group.go(forever)
                raise kind

        with pytest.raises(kind) as info:
            run(main)
        assert type(info.value) is kind

    def interrupted() -> None:
        with Group() as group:
            settle(group.go(forever))
            gort.after_func(0.001, os.kill, os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(interrupted)


def test_a_deadlock_in_a_group_is_found() -> None:
    """Breaks: a group whose goroutines can never end waits for ever, though the runtime knows better.

    In a process of its own: as long as other threads live, there is no deadlock.
    """
    import subprocess
    import sys

    program = """
import gort
from gort.group import Group
from gort.cancel import shield
def forever():
    gort.Chan().recv()
def shielded():
    with shield():
        forever()
def main(fn, body, what):
    try:
        with Group() as g:
            g.go(fn)
            body()
    except gort.Deadlock as exc:
        print(what in str(exc))
try:
    for body, what in (int, "the end of a Group (1 goroutines)"), (forever, "main"):
        gort.run(main, forever, body, what)
        gort.run(main, shielded, body, what)
except gort.Deadlock as exc:
    print(type(exc))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True"] * 4, done.stderr


def test_a_runtime_that_closes_ends_its_groups(procs: int) -> None:
    """Breaks: close() waits for ever for an owner that waits for goroutines that were dropped before they started."""

    def owner() -> None:
        with Group(limit=50) as group:
            while True:
                group.go(forever)

    ended: list[Any] = []
    runtime = gort.Runtime(procs)
    owners = [runtime.go(owner) for _ in range(3)]
    runtime.close()
    for g in owners:
        ended.append(g.exception())
    assert all(isinstance(exc, Cancelled) for exc in ended)


# -- limit and map --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3])
def test_a_limit_bounds_the_goroutines(procs: int, limit: int) -> None:
    """Breaks: more at a time than allowed, or fewer than could be."""

    def main() -> None:
        now = most = 0
        lock = threading.Lock()

        def work() -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            gort.sleep(0.0005)
            with lock:
                now -= 1

        with Group(limit=limit) as group:
            for _ in range(10):
                group.go(work)
            submitters = [go(lambda: [group.go(work) for _ in range(5)]) for _ in range(3)]
            for g in submitters:
                g.result()
        assert most == limit

    run(main, procs=procs)


def test_places_are_given_in_order_and_none_is_lost() -> None:
    """Breaks: a place that goes to a waiter who has given up, and to nobody then; or out of turn."""

    def main() -> None:
        order: list[int] = []
        gate: Chan[None] = Chan()
        with Group(limit=1) as group:
            group.go(gate.recv)
            waiting = [start(group.go, order.append, n) for n in range(6)]
            waiting[0].cancel()
            waiting[3].cancel()
            settle(waiting[0], waiting[3])
            gate.send(None)
        assert order == [1, 2, 4, 5]
        assert [g.exception() is None for g in waiting] == [False, True, True, False, True, True]

        with pytest.raises(ExceptionGroup) as info:
            with Group(limit=1) as group:
                with timeout(0.001):
                    first = group.go(forever)
                    group.go(order.append, 9)
        assert [type(exc) for exc in info.value.exceptions] == [TimeoutError]
        assert isinstance(first.exception(), Cancelled) and 9 not in order

    run(main, procs=1)


def test_who_waits_for_a_place_in_a_group_that_fails() -> None:
    """Breaks: the body, a child or a stranger waits in `go` for a place, and nobody tells it that the group is over."""

    def main() -> None:
        started: list[str] = []
        gate: Chan[None] = Chan()

        def child(group: Group) -> None:
            group.go(started.append, "by a child")
            started.append("child went on")

        def first() -> None:
            gate.recv()
            raise Bad

        with pytest.raises(ExceptionGroup) as info:
            with Group(limit=2) as group:
                group.go(first)
                settle(group.go(child, group))
                stranger = start(group.go, started.append, "by a stranger")
                go(gate.send, None)
                group.go(started.append, "by the body")
                started.append("body went on")
        assert [type(exc) for exc in info.value.exceptions] == [Bad]
        # The first in the queue got the place of the one that failed; what it starts in it never runs.
        assert started == ["child went on"]
        handle = stranger.result()
        assert isinstance(handle.exception(), Cancelled), "the stranger was not cancelled, only what it wanted to start"

    run(main, procs=1)


def test_map(procs: int) -> None:
    """Breaks: results out of order, too many at a time, or an iterable that is read to its end at once."""

    def main() -> None:
        taken: list[int] = []
        now = most = 0
        lock = threading.Lock()

        def numbers() -> Any:
            n = 0
            while True:
                taken.append(n)
                yield n
                n += 1

        def square(n: int) -> int:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            gort.sleep(0.001 if n % 3 == 0 else 0)
            with lock:
                now -= 1
            return n * n

        with Group(limit=4) as group:
            results = group.map(square, numbers())
            assert taken == []
            for n, value in enumerate(results):
                assert value == n * n
                assert len(taken) <= n + 5
                if n == 30:
                    break
            results.close()
        assert most == 4

        with Group() as group:
            assert list(group.map(str, [])) == []
            assert list(group.map(str, range(100))) == [str(n) for n in range(100)]
            both = zip(group.map(str, range(5)), group.map(int, range(5)))
            assert list(both) == [(str(n), n) for n in range(5)]

    run(main, procs=procs)


def test_map_yields_what_it_has_when_others_have_the_places() -> None:
    """Breaks: results that are ready and held back, because `map` waits for a place that somebody else has."""

    def main() -> None:
        with Group(limit=2) as group:
            results = group.map(str, range(6))
            assert next(results) == "0"
            blockers = [group.go(forever), group.go(forever)]
            settle(*blockers)
            assert next(results) == "1"
            go(blockers[0].cancel)
            assert list(results) == ["2", "3", "4", "5"]
            blockers[1].cancel()

    run(main, procs=1)


def test_errors_in_map() -> None:
    """Breaks: an error of the function, or of the iterable, that is lost, or takes results with it that were there."""

    def numbers() -> Any:
        yield from range(3)
        raise KeyError("iterable")

    def picky(n: int) -> int:
        if n == 2:
            raise Bad(n)
        return n

    def main() -> None:
        got = []
        with pytest.raises(ExceptionGroup) as info:
            with Group(limit=10) as group:
                for value in group.map(str, numbers()):
                    got.append(value)
        assert got == ["0", "1", "2"] and [type(exc) for exc in info.value.exceptions] == [KeyError]
        with pytest.raises(ExceptionGroup) as info:
            with Group(limit=2) as group:
                for value in group.map(picky, range(10)):
                    got.append(value)
        assert [type(exc) for exc in info.value.exceptions] == [Bad]
        with Group() as group:
            with pytest.raises(TypeError):
                group.map(None, [])  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                group.map(str, 5)  # type: ignore[arg-type]

    run(main, procs=1)


def test_leaving_map_early_cancels_what_it_has_started() -> None:
    """Breaks: a loop over `map` that is left by ``break`` and whose goroutines keep the block open."""

    def main() -> None:
        ended: list[int] = []

        def work(n: int) -> int:
            try:
                if n:
                    forever()
                return n
            finally:
                ended.append(n)

        with Group(limit=5) as group:
            for value in group.map(work, range(100)):
                assert value == 0
                break
        assert set(ended) <= {0, 1, 2, 3, 4}

    run(main, procs=1)


def test_wrong_use() -> None:
    """Breaks: a mistake that shows up later, somewhere else."""
    for bad_limit in ("3", 2.0, True):
        with pytest.raises(TypeError, match="limit"):
            Group(limit=bad_limit)  # type: ignore[arg-type]
    for low in (0, -1):
        with pytest.raises(ValueError, match="limit"):
            Group(limit=low)

    def main() -> None:
        with Group(limit=3) as group:
            with pytest.raises(TypeError):
                group.go(None)  # type: ignore[arg-type]
            g = group.go(forever)
            settle(g)
            assert "open, 1 of at most 3" in repr(group)
            owner = gort.current()
            assert owner is not None
            reasons: list[str] = []
            go(lambda: (settle(owner), reasons.append(owner.wait_reason), g.cancel()))
        assert reasons == ["the end of a Group (1 goroutines)"] and "ended" in repr(group)
        assert "test_group.py" in g.started_at

    run(main, procs=1)


def test_context_is_inherited() -> None:
    """Breaks: a goroutine of a group that does not know under which context it works."""

    def main() -> None:
        with context.with_value(context.background(), "user", "ann"):
            with Group() as group:
                g = group.go(lambda: context.current().value("user"))
        assert g.result() == "ann"

    run(main)


# -- many at once ---------------------------------------------------------------------------------------------------


@pytest.mark.limit(120 + 3 * STRESS)
def test_simultaneous_and_layered_ends(procs: int, jitter: None) -> None:
    """Breaks: a deadlock, an orphan, a lost error, when a tree of groups ends for many reasons at once.  Behaviour 33.

    Random trees of groups, with limits, contexts, time limits and shields between them; goroutines of them fail, are
    cancelled, cancel their groups, end.  Every error raised must come out at the root, or where the tree catches it,
    once; every goroutine must have ended before the root's block has.  GORT_SEED replays the choices,
    GORT_STRESS=seconds goes on for so long.
    """
    print(f"GORT_SEED={SEED}")
    until = monotonic() + STRESS
    rounds = 0
    tally: Counter[str] = Counter()
    reasons = {"error", "time limit", "context", "goroutine", "group"}
    while rounds < 40 or monotonic() < until or not reasons <= set(tally):
        forest = Forest(SEED + rounds)
        run(forest.main, procs=procs)
        tally += forest.tally
        rounds += 1
    print(rounds, "rounds", dict(tally))


class Forest:
    """One random tree of groups."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.raised: list[BaseException] = []
        self.caught: list[BaseException] = []
        self.alive = 0
        self.lock = threading.Lock()
        self.victims: list[Any] = []
        self.tally: Counter[str] = Counter()

    def count(self, n: int) -> None:
        with self.lock:
            self.alive += n

    def leaf(self, seed: float, group: Group) -> None:
        rng = random.Random(seed)
        self.count(1)
        try:
            what = rng.randrange(10)
            if what == 0:
                gort.sleep(rng.random() * 2e-3)
                error = Bad(seed)
                self.raised.append(error)
                self.tally["error"] += 1
                raise error
            if what == 1:
                gort.sleep(rng.random() * 2e-3)
                self.tally["group"] += 1
                group.cancel()
            elif what == 2:
                forever()
            elif what == 3:
                with shield():
                    gort.sleep(rng.random() * 1e-3)
                forever()
            elif what == 4:
                try:
                    forever()
                finally:
                    error = Bad(seed)
                    self.raised.append(error)
                    raise error
            else:
                gort.sleep(rng.random() * 1e-3)
        finally:
            self.count(-1)

    def tree(self, seed: float, depth: int) -> None:
        rng = random.Random(seed)
        self.count(1)
        try:
            self.victims.append(gort.current().cancel)  # type: ignore[union-attr]
            around = rng.randrange(5)
            if around == 0:
                try:
                    with timeout(rng.random() * 4e-3):
                        self.block(rng, depth)
                except* TimeoutError:
                    self.tally["time limit"] += 1
            elif around == 1:
                ctx = context.with_cancel(context.current())
                self.victims.append(ctx.cancel)
                try:
                    with ctx:
                        self.block(rng, depth)
                except* context.ContextCancelled:
                    self.tally["context"] += 1
            elif around == 2:
                self.block(rng, depth)
            else:  # errors end here, so that the rest of the tree goes on
                try:
                    self.block(rng, depth)
                except* Bad as exc:
                    self.caught += flat(exc)
        finally:
            self.count(-1)

    def block(self, rng: random.Random, depth: int) -> None:
        with Group(limit=rng.choice([None, None, 2, 5])) as group:
            self.victims.append(group.cancel)
            for _ in range(rng.randrange(2, 6)):
                if depth and rng.random() < 0.6:
                    group.go(self.tree, rng.random(), depth - 1)
                else:
                    group.go(self.leaf, rng.random(), group)
            if rng.random() < 0.3:
                gort.sleep(rng.random() * 2e-3)
            if rng.random() < 0.05:
                error = Bad("body")
                self.raised.append(error)
                raise error

    def main(self) -> None:
        rng = random.Random(self.seed)
        root = go(self.tree, rng.random(), 4)
        stop = threading.Event()

        def meddle(rng: random.Random) -> None:
            while not stop.is_set():
                if self.victims:
                    rng.choice(self.victims[1:][-20:] or self.victims)()
                    self.tally["goroutine"] += 1
                stop.wait(rng.random() * 1e-3)

        thread = threading.Thread(target=meddle, args=(random.Random(self.seed),))
        thread.start()
        patience = go(lambda: (gort.sleep(0.02), root.cancel()))
        root.join()
        assert self.alive == 0, "somebody outlived the root"
        stop.set()
        thread.join()
        patience.cancel()
        error = root.exception()
        leaves = [] if error is None else flat(error)
        errors = self.caught + [leaf for leaf in leaves if isinstance(leaf, Bad)]
        assert sorted(map(id, errors)) == sorted(map(id, self.raised))
        others = [leaf for leaf in leaves if not isinstance(leaf, (Bad, Cancelled))]
        assert not others, others


@pytest.mark.parametrize("procs", [2])
def test_the_shadow_of_a_cancellation_comes_out_of_an_inner_group(procs: int) -> None:
    """Broken: a cancelled group reports an error, because in a shielded child another group met the cancellation."""

    def main() -> None:
        with Group() as g:
            other = g.go(Chan().recv)

            def inner() -> None:
                with gort.shield(), Group() as within:
                    within.go(other.result)

            settle(g.go(inner), other)
            g.cancel()

    run(main, procs=procs)


def test_a_stop_iteration_in_map_is_one_error() -> None:
    """Broken: Python's rule that a generator raises no StopIteration makes two errors of one, or none."""

    def stops(n: int) -> int:
        raise StopIteration(n)

    def main() -> None:
        with Group() as g:
            list(g.map(stops, [1]))

    with pytest.raises(ExceptionGroup) as caught:
        run(main)
    assert [repr(error) for error in caught.value.exceptions] == ["StopIteration(1)"]


def test_map_keeps_the_error_of_its_items_beside_a_childs(procs: int) -> None:
    """Broken: an iterable that raises after some items is not heard of when one of those fails as well."""

    def items():
        yield 1
        raise ValueError("items")

    def fails(_item: int) -> None:
        raise KeyError("child")

    def main() -> None:
        with Group(limit=4) as g:
            for _ in g.map(fails, items()):
                pass

    with pytest.raises(ExceptionGroup) as caught:
        run(main, procs=procs)
    assert sorted(type(e).__name__ for e in caught.value.exceptions) == ["KeyError", "ValueError"]
