"""Finalizers (`__del__`): they run wherever an object happens to die, and the runtime must bear what they do there."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from greenlet import getcurrent

import gort
import gort.chan
from gort import Chan, Group, GortError, context, go, gosched, run, sleep
from settling import settle

FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()
SEEN: list[Any] = []


class Dies:
    """Calls a function when it dies; what that raised is kept, as are other things that it saw."""

    def __init__(self, fn: Any, cycle: bool = False) -> None:
        self.fn = fn
        self.me = self if cycle else None

    quiet = False

    def __del__(self) -> None:
        if self.quiet:
            return
        try:
            SEEN.append(self.fn())
        except BaseException as exc:
            SEEN.append(exc)


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()
    yield
    Dies.quiet = True  # what has not been collected yet is not for the next test
    gc.collect()
    Dies.quiet = False


def _limited() -> str:
    with gort.timeout(0.001):
        sleep(1000)
    return "slept"


def _grouped() -> int:
    with context.with_cancel(context.background()), Group() as g:
        return g.go(len, "abc").result()


@pytest.mark.parametrize("fn", [_limited, _grouped], ids=["limit", "context and group"])
def test_between_two_goroutines_blocks_work(procs: int, fn: Any) -> None:
    """Broken: a result that nobody keeps cannot use a block with a limit when it dies, where it can wait otherwise."""

    def main() -> int:
        go(lambda: Dies(fn))
        while not SEEN:
            sleep(0.001)
        go(int).join()
        return gort.num_goroutine()

    assert run(main, procs=procs) == 1
    (seen,) = SEEN
    assert isinstance(seen, TimeoutError) if fn is _limited else seen == 3, repr(seen)


def test_between_two_goroutines_it_is_not_taken_for_a_greenlet_of_somebody_else() -> None:
    """Broken: its carrier is hung under another goroutine's, which later receives a value that nobody has sent."""

    def parents() -> tuple[Any, Any]:
        before = getcurrent().parent
        with gort.timeout(1):
            pass
        return before, getcurrent().parent

    def main() -> None:
        def victim() -> None:
            try:
                sleep(1000)
            except gort.Cancelled:
                gosched()

        g = settle(go(victim))
        go(int).join()
        go(lambda: Dies(parents))
        g.cancel()  # an exception is on its way to it when the finalizer runs
        g.join()

    run(main, procs=1)
    ((before, after),) = SEEN
    assert before is after


@pytest.mark.parametrize(
    "fn",
    [lambda: go(int).join(), lambda: sleep(1e-6), lambda: Chan().recv(1e-3), _limited, _grouped, gort.shield().__enter__],
    ids=["join", "sleep", "recv", "limit", "context and group", "shield"],
)
def test_one_that_waits_in_the_middle_of_an_operation_breaks_nothing(procs: int, fn: Any, jitter: None) -> None:
    """Broken: the operation that the garbage collector interrupted wakes up for nothing, or never."""
    before = gc.get_threshold()

    def works(n: int) -> int:
        ch: Chan[int] = Chan()
        total = 0
        for i in range(n):
            Dies(fn, cycle=True)
            g = go(ch.send, i)
            total += ch.recv(1000)
            g.join(1000)
            with Group() as group:
                group.go(int)
        return total

    def main() -> None:
        gs = [go(works, 150) for _ in range(4)]
        assert [g.result() for g in gs] == [sum(range(150))] * 4

    gc.set_threshold(50, 2, 2)
    try:
        run(main, procs=procs)
    finally:
        gc.set_threshold(*before)
    # An error that says what to do, where it cannot wait; elsewhere it can, until the run ends.
    assert SEEN or FREE_THREADED  # which may not need to collect so little
    for seen in SEEN:
        while isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        good = isinstance(seen, (TimeoutError, gort.Cancelled, gort.GoroutineCancelled)) or seen in (None, 3)
        assert good or (isinstance(seen, GortError) and "gort.go()" in str(seen)), repr(seen)


def test_what_comes_for_a_goroutine_during_a_collection_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a cancellation that arrives while the collector keeps the goroutine from waiting never does."""

    def collects(*args: Any) -> Any:
        exec("import gc; gc.collect()", {"__name__": "gort.as_if"})  # as if one of gort's own operations had had to
        return ticket(*args)

    ticket = gort.chan.waiter
    monkeypatch.setattr(gort.chan, "waiter", collects)

    def victim() -> None:
        me = gort.current()
        assert me is not None
        Dies(me.cancel, cycle=True)
        with pytest.raises(gort.Cancelled):
            Chan().recv(1000)
        SEEN.append("cancelled")

    run(lambda: go(victim).result(), procs=1)
    assert SEEN == [True, "cancelled"]


@pytest.mark.limit(180)  # a hundred thousand collections, of all threads' objects without a GIL
@pytest.mark.parametrize("procs", [1, 2])
def test_go_while_a_runtime_starts(procs: int) -> None:
    """Broken: a finalizer's `go` that interrupts the scheduler takes the same P again: work is lost, close() hangs."""
    started = 0

    def start() -> None:
        nonlocal started
        runtime.go(len, "")
        started += 1

    threshold = gc.get_threshold()
    gc.disable()
    try:
        for i in range(120):
            with gort.Runtime(procs) as runtime:
                for _ in range(2):
                    Dies(start, cycle=True)
                gc.set_threshold(1 + i % 60, 1, 1)
                gc.enable()
                g = runtime.go(len, "abc")
                gc.disable()
                gc.set_threshold(0)
                assert g.result(timeout=30) == 3
                gc.collect()
    finally:
        gc.set_threshold(*threshold)
        gc.enable()
    assert started and all(seen is None or type(seen) is gort.RuntimeClosed for seen in SEEN), SEEN


@pytest.mark.limit(20)
@pytest.mark.parametrize("given_up", ["timeout", "cancel", "select", "lost select", "group"])
def test_what_was_not_sent_is_dropped_outside_the_channels_latch(given_up: str) -> None:
    """Broken: a value whose send was given up lives on in the channel's queue, and when it dies there, it hangs.

    What is dropped later is dropped in the middle of an operation, whose channel the finalizer then cannot use.
    """
    ch: Chan[Any] = Chan()
    group = Group(limit=1)

    def gives_up() -> None:
        if given_up == "timeout":
            with pytest.raises(TimeoutError):
                ch.send(Dies(lambda: ch.try_send(1)), timeout=0.001)
        elif given_up == "cancel":
            g = settle(go(lambda: ch.send(Dies(lambda: ch.try_send(1)))))
            g.cancel()
            g.join()
        elif given_up == "select":
            with pytest.raises(TimeoutError):
                gort.select(gort.send(ch, Dies(lambda: ch.try_send(1))), timeout=0.001)
        elif given_up == "lost select":
            other: Chan[int] = Chan()
            g = settle(go(lambda: gort.select(gort.send(ch, Dies(lambda: ch.try_send(1))), gort.recv(other))))
            other.send(1)
            assert g.result()[0] == 1
        else:
            with pytest.raises(TimeoutError), gort.timeout(0.001):
                group.go(id, Dies(lambda: len(repr(group)) > 0 and ch.try_send(1)))

    def dropped() -> bool:
        gort.sleep(0.001)  # so that nobody still has the error, whose traceback has the value
        gc.collect()
        return bool(SEEN)

    def main() -> None:
        with group:
            if given_up == "group":
                place = group.go(Chan().recv)
            gives_up()
            while not dropped():
                pass
            assert ch.try_recv() == (None, False)
            assert gort.select(gort.recv(ch), default=True)[0] == -1
            ch.close()
            if given_up == "group":
                place.cancel()

    run(main, procs=1)
    assert SEEN == [False]
