"""Pool, SingleFlight and local; and what gort.sync says about itself.

Nothing here sleeps to let something happen: `settle` waits until a goroutine waits (or has ended).
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest

from gort import Chan, go, gosched, run
from gort.sync import Event, Pool, SingleFlight, SyncError, local
from settling import LONG, start, thread
from greenlet import greenlet

# -- Pool ---------------------------------------------------------------------------------------------------------


def test_pool() -> None:
    """Broken: a pool makes new things although it has idle ones, or keeps more than its limit."""
    made: list[bytearray] = []

    def new() -> bytearray:
        made.append(bytearray())
        return made[-1]

    pool = Pool(new, limit=2)
    a, b, c = pool.get(), pool.get(), pool.get()
    assert made == [a, b, c] and len(pool) == 0 and pool
    pool.put(a)
    pool.put(b)
    pool.put(c)
    assert len(pool) == 2
    assert pool.get() is c and pool.get() is b  # the last one first; a was dropped
    pool.put(b)
    pool.clear()
    assert len(pool) == 0
    empty: Pool[int] = Pool()
    assert empty.get() is None
    empty.put(5)
    assert empty.get() == 5
    for wrong in (dict(new=5), dict(limit="2"), dict(limit=1.5)):
        with pytest.raises(TypeError):
            Pool(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        Pool(limit=-1)


def test_pool_use() -> None:
    """Broken: a thing whose user failed in the middle is given to the next one."""
    pool: Pool[list[int]] = Pool(list)
    with pool.use() as thing:
        thing.append(1)
    with pool.use() as again:
        assert again is thing
    with pytest.raises(OSError):
        with pool.use():
            raise OSError
    assert len(pool) == 0


def test_pool_gives_to_one_at_a_time(procs: int, jitter: None) -> None:
    """Broken: two have the same thing at the same time."""
    pool: Pool[list[int]] = Pool(list)

    def work() -> None:
        for _ in range(200):
            with pool.use() as thing:
                assert not thing
                thing.append(1)
                gosched()
                thing.clear()

    def main() -> None:
        tasks = [go(work) for _ in range(8)]
        threads = [thread(work) for _ in range(2)]
        for task in tasks:
            task.result()
        for t in threads:
            t.join()

    run(main, procs=procs)


# -- SingleFlight -------------------------------------------------------------------------------------------------


def test_singleflight_shares(procs: int) -> None:
    """Broken: the function is called more than once for callers at the same time, or is not called again later."""

    def main() -> None:
        flight = SingleFlight()
        go_on = Event()
        calls: list[str] = []

        def call() -> object:
            calls.append("call")
            go_on.wait()
            return made

        made = object()
        leader = start(flight.do, "key", call)
        others = [start(flight.do, "key", call) for _ in range(4)]
        assert flight.do("other", lambda: 1) == (1, False)
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError):
                flight.do("key", call, timeout)
        others[0].cancel()
        others[0].join()
        assert len(flight) == 1
        go_on.set()
        assert leader.result() == (made, True)
        assert all(other.result() == (made, True) for other in others[1:])
        assert calls == ["call"]
        assert flight.do("key", call) == (made, False)
        assert calls == ["call"] * 2
        assert len(flight) == 0 and flight

    run(main, procs=procs)


def test_singleflight_raises_to_all(procs: int) -> None:
    """Broken: somebody who shares a call that fails waits for ever, or gets no error; or the failure is remembered."""

    def main() -> None:
        flight = SingleFlight()
        go_on = Event()

        def fail() -> None:
            go_on.wait()
            raise OSError("no")

        tasks = [start(flight.do, 1, fail) for _ in range(3)]
        go_on.set()
        assert all(isinstance(task.exception(), OSError) for task in tasks)
        assert flight.do(1, lambda: 2) == (2, False)

    run(main, procs=procs)


def test_singleflight_cancelled_leader(procs: int) -> None:
    """Broken: the cancellation of the one that makes the call reaches those who share it, or leaves them asleep."""

    def main() -> None:
        flight = SingleFlight()
        go_on = Event()
        calls: list[int] = []

        def call() -> int:
            calls.append(1)
            go_on.wait()
            return len(calls)

        leader = start(flight.do, 1, call)
        others = [start(flight.do, 1, call, LONG) for _ in range(3)]
        leader.cancel()
        leader.join()
        while len(calls) < 2:
            gosched()
        go_on.set()
        assert [other.result() for other in others] == [(2, True)] * 3
        assert calls == [1, 1]

    run(main, procs=procs)


def test_singleflight_forget(procs: int) -> None:
    """Broken: after `forget` a caller gets the outcome of the old call, or the old call's end removes the new one."""

    def main() -> None:
        flight = SingleFlight()
        first_on, second_on = Event(), Event()
        first = start(flight.do, 1, lambda: first_on.wait() and "first")
        flight.forget(1)
        flight.forget("unknown")
        second = start(flight.do, 1, lambda: second_on.wait() and "second")
        first_on.set()
        assert first.result() == ("first", False)
        third = start(flight.do, 1, lambda: "third")
        second_on.set()
        assert second.result()[0] == third.result()[0] == "second"

    run(main, procs=procs)


def test_singleflight_that_waits_for_itself() -> None:
    """Broken: a call that asks for its own key hangs without a word."""
    flight = SingleFlight()
    with pytest.raises(SyncError, match="wait for ever"):
        flight.do(1, lambda: flight.do(1, lambda: 1))
    assert flight.do(1, lambda: flight.do(2, lambda: 3)) == ((3, False), False)
    with pytest.raises(TypeError):
        flight.do([], lambda: 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        flight.do(1, None)  # type: ignore[arg-type]
    assert len(flight) == 0


# -- local --------------------------------------------------------------------------------------------------------


def test_local_is_each_ones_own(procs: int) -> None:
    """Broken: a goroutine sees another's attributes: its parent's, its machine's, or those of one that ended before."""
    own = local()

    def use(i: int) -> None:
        assert not hasattr(own, "x") and own.__dict__ == {}
        own.x = i
        gosched()
        assert own.x == i and own.__dict__ == {"x": i}
        if i % 2:
            del own.x
            with pytest.raises(AttributeError):
                own.x  # noqa: B018
            with pytest.raises(AttributeError, match="goroutine"):
                del own.x

    def main() -> None:
        own.x = "main's"
        for _ in range(3):
            tasks = [go(use, i) for i in range(20)]
            failed: list[BaseException] = []

            def on_thread() -> None:
                try:
                    use(1000)
                except BaseException as exc:
                    failed.append(exc)

            t = thread(on_thread)
            for task in tasks:
                task.result()
            t.join()
            assert not failed
        assert own.x == "main's"
        # A greenlet that the goroutine made itself is the same goroutine.
        assert greenlet(lambda: own.x).switch() == "main's"

    own.x = "the thread's"
    run(main, procs=procs)
    assert own.x == "the thread's"


def test_local_is_dropped_at_the_end(procs: int) -> None:
    """Broken: a goroutine's values live on after its end: with its handle, its children or the local object."""

    class Value:
        pass

    own = local()

    def main() -> None:
        out: Chan[Any] = Chan(1)
        go_on = Event()

        def use() -> Any:
            own.value = Value()
            out.send(weakref.ref(own.value))
            return go(go_on.wait)

        g = go(use)
        child = g.result()
        ref = out.recv()
        gc.collect()
        assert ref() is None
        go_on.set()
        child.result()
        assert g.done()

        # And the other way round: the local goes before the goroutine ends.
        def hold() -> None:
            other = local()
            other.value = value = Value()
            out.send(weakref.ref(value))
            del other, value
            go_on.wait()
            gc.collect()
            out.send(None)
            again.wait()

        again = Event()
        h = go(hold)
        ref = out.recv()
        out.recv()
        assert ref() is None
        again.set()
        h.result()

    run(main, procs=procs)


def test_local_subclass(procs: int) -> None:
    """Broken: a subclass's __init__ is not called for each goroutine, or class attributes are not common to all."""
    inits: list[Any] = []

    class Own(local):
        common = "class"
        __slots__ = ("shared",)

        def __init__(self, x: int, *, y: int) -> None:
            inits.append((x, y))
            self.x = x
            self.y = y

        @property
        def total(self) -> int:
            return self.x + self.y

        @total.setter
        def total(self, value: int) -> None:
            self.x, self.y = value, 0

        def method(self) -> int:
            return self.total

        def __getattr__(self, name: str) -> str:
            if name.startswith("__"):
                raise AttributeError(name)
            return f"no {name}"

    own = Own(1, y=2)

    def use(i: int) -> int:
        assert (own.x, own.y, own.total, own.method()) == (1, 2, 3, 3)
        own.total = i
        gosched()
        assert (own.x, own.total, own.common, own.nothing) == (i, i, "class", "no nothing")
        own.common = "mine"
        assert own.common == "mine" and Own.common == "class"
        assert isinstance(own, Own) and "x" in dir(own) and "method" in dir(own)
        assert own.shared == "slot"
        return own.total

    def main() -> None:
        assert [go(use, i).result() for i in range(5)] == list(range(5))

    own.shared = "slot"
    run(main, procs=procs)
    assert inits == [(1, 2)] * 6
    assert own.total == 3 and own.common == "class"
    with pytest.raises(TypeError, match="__init__"):
        local(1)
    with pytest.raises(AttributeError):
        own.__dict__ = {}
    with pytest.raises(AttributeError):
        del own.__dict__
