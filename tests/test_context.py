"""Contexts: the tree and its books (behaviours 32 and 33), blocks under a context, deadlines, values, after_func.

Nothing here sleeps to let something happen: `settle` waits until a goroutine waits (or has ended), by its state, and a
deadline is waited for by its own event.
"""

from __future__ import annotations

import contextvars
import copy
import gc
import os
import pickle
import random
import subprocess
import sys
import threading
import weakref
from time import monotonic
from typing import Any

import pytest

import gort
from gort import Chan, context, go, gosched, run, select
from gort.context import (
    ContextCancelled,
    DeadlineExceeded,
    after_func,
    background,
    cause,
    current,
    with_cancel,
    with_deadline,
    with_timeout,
    with_value,
    without_cancel,
)
from settling import LONG, start

SEED = int(os.environ.get("GORT_SEED") or random.randrange(2**32))
STRESS = float(os.environ.get("GORT_STRESS") or 0)  # seconds


class Reason(Exception):
    """A cause."""


def under(ctx: Any, fn: Any, *args: Any) -> Any:
    """What comes of fn under the context."""
    try:
        with ctx:
            return fn(*args)
    except ContextCancelled as exc:
        return exc


# -- the tree -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listened", [False, True], ids=["silent", "listened"])
def test_an_end_goes_down_the_tree_and_never_up(procs: int, listened: bool) -> None:
    """Breaks: a child that outlives its parent, or a parent that its child's cancel ends.  Behaviour 32."""

    def main() -> None:
        root = with_cancel(background())
        left, right = with_cancel(root), with_value(with_timeout(root, LONG), "key", 1)
        leaf = with_cancel(with_value(left, "key", 2))
        everybody = [root, left, right, leaf]
        channels = [ctx.done() for ctx in everybody] if listened else []
        why = Reason("left")
        assert left.cancel(why) and not left.cancel(Reason("again"))
        assert [ctx.err() is not None for ctx in everybody] == [False, True, False, True]
        assert cause(leaf) is why and leaf.err().cause is why and "Reason: left" in str(leaf.err())
        assert root.cancel()
        assert all(type(ctx.err()) is ContextCancelled for ctx in everybody)
        assert cause(left) is why and cause(leaf) is why, "the first reason counts"
        assert type(cause(right)) is ContextCancelled and right.err().cause is None
        for channel in channels:
            assert channel.closed and channel.recv_ok() == (None, False)

    run(main, procs=procs)


def test_what_has_ended_makes_children_that_have_ended() -> None:
    """Breaks: work that is started under an ended context and never told.  Behaviour 32."""

    def main() -> None:
        ran: Chan[str] = Chan(1)
        for ctx in (with_cancel(background()), with_timeout(background(), 0)):
            if ctx.err() is None:
                ctx.cancel(Reason())
            child = with_value(with_cancel(with_timeout(ctx, LONG)), 1, 2)
            assert type(child.err()) is type(ctx.err())
            assert child.done().closed
            after_func(child, ran.send, "ran")
            assert ran.recv() == "ran"
            assert isinstance(under(child, Chan().recv), type(ctx.err()))

    run(main)


def test_the_books_hold_only_who_listens() -> None:
    """Breaks: a long-lived parent grows with every request, timers outlive what they were for.  Behaviour 32.

    A child is in its parent's books while somebody listens to it, and not after it has ended; a context that is held
    by nobody is not held by its parent either.
    """

    def main() -> None:
        timers = lambda: sum(p["timers"] for p in gort.stats()["ps"])
        root = with_cancel(background())
        silent = with_timeout(with_cancel(root), LONG)
        assert not root._listeners and timers() == 0
        children = [with_timeout(root, LONG) for _ in range(100)]
        for child in children:
            child.done()
        assert len(root._listeners) == 100 and timers() == 100
        for child in children:
            child.cancel()
        assert not root._listeners and timers() == 0
        assert all(not child._listeners for child in children)

        stop = after_func(silent, print)
        assert root._listeners and timers() == 1
        with silent:
            assert stop() and not stop()
            assert root._listeners and timers() == 1, "the block still listens"
        assert not root._listeners and not silent._listeners and timers() == 0

        gone = [weakref.ref(with_timeout(root, LONG)) for _ in range(3)]
        gc.collect()
        assert [ref() for ref in gone] == [None] * 3

        grandchild = with_cancel(with_cancel(root))
        closed = grandchild.done()
        del grandchild  # only its channel is held: it must not be forgotten
        gc.collect()
        root.cancel()
        assert closed.closed

    run(main, procs=1)


def test_a_tree_of_any_depth() -> None:
    """Breaks: a recursion over the ancestors or descendants, which ends at a thousand of them."""

    def main() -> None:
        ctx = root = with_timeout(background(), LONG)
        for _ in range(5000):
            ctx = with_value(with_cancel(ctx), "key", 1)
        assert ctx.err() is None and ctx.value("other") is None
        done = ctx.done()
        root.cancel(Reason("deep"))
        assert done.closed and str(cause(ctx)) == "deep"

    run(main)


# -- blocks under a context ---------------------------------------------------------------------------------------


def test_a_block_ends_when_its_context_does(procs: int) -> None:
    """Breaks: an operation under a context that waits on after the context has ended, or an error without its cause."""

    def main() -> None:
        ctx = with_cancel(background())
        ch: Chan[int] = Chan()
        waits = [
            lambda: ch.recv(),
            lambda: ch.recv(timeout=LONG),
            lambda: select(gort.recv(ch), gort.recv(None)),
            lambda: gort.sleep(LONG),
            lambda: go(ch.recv).join(),
        ]
        for child in (ctx, with_value(ctx, 1, 2), with_timeout(ctx, LONG)):
            waits += [lambda child=child: under(child, ch.recv)]
        goroutines = [start(under, ctx, wait) for wait in waits]
        why = Reason("enough")
        ctx.cancel(why)
        for g in goroutines:
            error = g.result()
            assert type(error) is ContextCancelled and error.cause is why and error.__cause__ is why
            assert str(error) == "the context was cancelled: Reason: enough"
        errors = {id(g.result()) for g in goroutines}
        assert len(errors) == len(goroutines), "each goroutine gets an exception of its own"
        assert not ctx._listeners

    run(main, procs=procs)


def test_without_a_cause_the_error_shows_where_it_waited() -> None:
    """Breaks: an error that says neither why nor where."""

    def wait_here() -> None:
        Chan().recv()

    def main() -> None:
        ctx = with_cancel(background())
        gort.after_func(0.01, ctx.cancel)
        error = under(ctx, wait_here)
        names = []
        tb = error.__cause__.__traceback__
        while tb is not None:
            names.append(tb.tb_frame.f_code.co_name)
            tb = tb.tb_next
        assert isinstance(error.__cause__, gort.Cancelled) and "wait_here" in names

    run(main)


def test_a_deadline_is_a_timeout_error(procs: int) -> None:
    """Breaks: ``except TimeoutError`` that misses a context's deadline, or one that ends too early."""

    def main() -> None:
        why = Reason("slow")
        for make in (with_timeout, with_deadline):
            ctx = make(background(), 0.02 + (monotonic() if make is with_deadline else 0), why)
            with pytest.raises(TimeoutError) as info:
                with with_cancel(ctx):
                    Chan().recv()
            assert monotonic() >= ctx.deadline()
            assert type(info.value) is DeadlineExceeded and info.value.cause is why
            assert type(ctx.err()) is DeadlineExceeded and cause(ctx) is why
            assert not ctx.cancel(Reason("too late")) and cause(ctx) is why
        assert sum(p["timers"] for p in gort.stats()["ps"]) == 0

    run(main, procs=procs)


def test_the_nearest_deadline_counts_also_if_nobody_looked() -> None:
    """Breaks: a reason that depends on when one asks.  Between two reasons the earlier in time counts."""

    def main() -> None:
        now = monotonic()
        late, early = Reason("late"), Reason("early")
        parent = with_deadline(background(), now - 1, late)
        child = with_deadline(parent, now - 2, early)
        heir = with_deadline(parent, now - 0.5, early)
        assert child.deadline() == now - 2 and heir.deadline() == now - 1
        assert cause(child) is early and cause(parent) is late and cause(heir) is late

        parent = with_deadline(background(), now - 1, late)
        child = with_deadline(parent, now - 2, early)
        assert cause(parent) is late and cause(child) is early, "asked in the other order"

        parent = with_cancel(background())
        child = with_deadline(parent, monotonic() + LONG, early)
        parent.cancel(late)
        assert cause(child) is late and type(child.err()) is ContextCancelled
        assert with_timeout(background(), float("inf")).deadline() is None

    run(main)


def test_a_block_that_does_not_wait_is_not_disturbed() -> None:
    """Breaks: a cancellation that arrives after its block, or takes away what has happened already."""

    def main() -> None:
        ctx = with_cancel(background())
        ch: Chan[int] = Chan(1)
        with ctx:
            ctx.cancel()
            ch.send(1)
            got = ch.recv()
        assert got == 1
        gosched()  # would raise it, if it were still on its way
        gort.sleep(0.001)

        assert isinstance(under(ctx, Chan().recv), ContextCancelled), "an ended context ends the first wait"
        assert under(background(), lambda: 7) == 7

    run(main)


def test_an_error_of_the_block_is_not_hidden() -> None:
    """Breaks: the program's own exception, or somebody else's cancellation, replaced by the context's."""

    def main() -> None:
        ctx = with_cancel(background())
        with pytest.raises(KeyError):
            with ctx:
                ctx.cancel()
                try:
                    Chan().recv()
                finally:
                    raise KeyError("mine")

        def body() -> None:
            with with_cancel(background()):
                Chan().recv()

        g = start(body)
        g.cancel()
        assert isinstance(g.exception(), gort.Cancelled)

    run(main)


def test_many_goroutines_in_one_context_and_leaving_it_does_not_end_it(procs: int) -> None:
    """Breaks: a context that can be used once, or by one goroutine, or that ends because one user is done with it."""

    def main() -> None:
        ctx = with_cancel(background())
        ch: Chan[int] = Chan()
        for _ in range(3):
            assert under(ctx, lambda: 1) == 1
        assert ctx.err() is None
        goroutines = [start(under, ctx, ch.recv) for _ in range(20)]
        ch.send(5)
        while not any(g.done() for g in goroutines):
            gosched()
        with ctx, ctx:  # nested in itself, too
            assert len(ctx._listeners) == 21
        ctx.cancel()
        results = [g.result() for g in goroutines]
        assert results.count(5) == 1 and sum(isinstance(one, ContextCancelled) for one in results) == 19

    run(main, procs=procs)


def test_nested_blocks_end_outside_first() -> None:
    """Breaks: an inner block's handler that takes a cancellation that was meant for the outer block."""

    def main() -> None:
        outer = with_cancel(background())
        inner = with_cancel(outer)
        caught = []
        with pytest.raises(ContextCancelled):
            with outer:
                try:
                    with inner:
                        outer.cancel()
                        Chan().recv()
                except ContextCancelled as exc:
                    caught.append(exc)
        assert not caught

        outer = with_cancel(background())
        inner = with_cancel(outer)
        with outer:
            try:
                with inner:
                    inner.cancel()
                    Chan().recv()
            except ContextCancelled as exc:
                caught.append(exc)
            gort.sleep(0.001)  # the outer block goes on
        assert len(caught) == 1 and outer.err() is None

    run(main)


def test_current_is_the_context_of_the_block_and_is_inherited() -> None:
    """Breaks: nested code, or a goroutine started in the block, that cannot find the context it works under."""

    def main() -> None:
        assert current() is background()
        ctx = with_value(with_cancel(background()), "user", "ann")
        with ctx as entered:
            assert entered is ctx and current() is ctx
            with with_value(current(), "user", "bob"):
                assert current().value("user") == "bob"
            assert go(lambda: current().value("user")).result() == "ann"
            g = start(lambda: under(current(), Chan().recv))
        assert current() is background()
        ctx._source.cancel()
        assert isinstance(g.result(), ContextCancelled)

    run(main)


def test_a_generator_that_is_suspended_inside_its_block() -> None:
    """Breaks: the blocks of a generator and of its consumer, which do not nest, taken for each other."""

    def main() -> None:
        first, second = with_cancel(background()), with_cancel(background())

        def numbers() -> Any:
            with first:
                yield 1

        it = numbers()
        next(it)
        with second:
            it.close()
            assert not first._listeners and second._listeners
        assert not second._listeners and current() is not second

    run(main)


# -- done, values, after_func ---------------------------------------------------------------------------------------


def test_done_is_a_channel_for_select() -> None:
    """Breaks: a select that cannot listen to a context, or one on a context that never ends that comes back."""

    def main() -> None:
        ctx = with_timeout(background(), 0.01)
        assert ctx.done() is ctx.done() is with_value(ctx, 1, 2).done()
        index, value, ok = select(gort.recv(background().done()), gort.recv(ctx.done()))
        assert (index, value, ok) == (1, None, False) and type(ctx.err()) is DeadlineExceeded
        assert select(gort.recv(without_cancel(ctx).done()), default=True)[0] == -1
        other = with_cancel(background())
        other.done().close()  # by mistake
        assert other.cancel()

    run(main)


def test_values() -> None:
    """Breaks: a value that is found under another key, or not in the nearest context that has it."""
    one = with_value(background(), "a", 1)
    two = with_value(with_cancel(with_value(one, "b", 2)), "a", None)
    assert (one.value("a"), one.value("b"), one.value("b", 3)) == (1, None, 3)
    assert (two.value("a", 3), two.value("b")) == (None, 2)
    free = without_cancel(two)
    assert free.value("b") == 2
    assert two._source is not None and two._source.cancel()
    assert two.err() is not None and free.err() is None and free.deadline() is None
    assert with_cancel(free).err() is None


def test_after_func(procs: int) -> None:
    """Breaks: a function that runs before the end, twice, not at all, or after it was stopped in time."""

    def main() -> None:
        ctx = with_cancel(background())
        ch: Chan[Any] = Chan(10)
        name = contextvars.ContextVar("name", default="nobody")
        name.set("ann")
        stops = [after_func(ctx, lambda n: ch.send((n, name.get(), current())), n) for n in range(3)]
        assert stops[1]() and not stops[1]()
        assert len(ch) == 0
        name.set("bob")
        ctx.cancel()
        assert sorted([ch.recv()[:2], ch.recv()[:2]]) == [(0, "ann"), (2, "ann")]
        assert not any(stop() for stop in stops)
        never = after_func(background(), ch.send, None)
        assert never() and not never()
        after_func(ctx, ch.send, "late")
        assert ch.recv() == "late"
        late = with_timeout(background(), 0.01)
        after_func(with_cancel(late), ch.send, "deadline")
        assert ch.recv() == "deadline" and late.err() is not None

    run(main, procs=procs)


@pytest.mark.parametrize("made_in", ["a run", "a runtime", "a plain thread"])
def test_a_deadline_outlives_the_runtime_that_listened_first(made_in: str) -> None:
    """Breaks: a context that is used in one run and then in the next never ends, for its timer went with the first."""

    def under(ctx: context.Context) -> str:
        try:
            with ctx:
                Chan().recv(timeout=LONG)
        except context.DeadlineExceeded:
            return "ended"
        return "not ended"

    def waits(ctx: context.Context) -> str:
        return "ended" if ctx.done().recv_ok(timeout=LONG) == (None, False) else "not ended"

    def told(ctx: context.Context) -> str:
        ch: Chan[str] = Chan(1)
        context.after_func(ctx, ch.send, "ended")
        return ch.recv(timeout=LONG)

    for use in (under, waits, told):
        ctx = context.with_cancel(context.with_timeout(context.background(), 0.05))
        if made_in == "a run":
            run(ctx.done, procs=1)
        elif made_in == "a plain thread":
            ctx.done()
        else:
            with gort.Runtime(1) as runtime:
                runtime.run(ctx.done)
        assert run(use, ctx, procs=1) == "ended"
        assert not ctx._timers and not ctx._above._timers


def test_from_plain_threads() -> None:
    """Breaks: a context that a thread outside the runtime cannot cancel, wait for or listen to."""
    ctx = with_timeout(background(), LONG)
    done = ctx.done()
    answers: list[Any] = []
    ran = threading.Event()
    after_func(ctx, ran.set)
    thread = threading.Thread(target=lambda: answers.append(done.recv_ok()))
    thread.start()
    inside = threading.Event()

    def main() -> Any:
        threading.Thread(target=lambda: inside.wait() and ctx.cancel(Reason("thread"))).start()

        def body() -> None:
            inside.set()
            Chan().recv()

        return under(ctx, body)

    error = run(main)
    assert type(error) is ContextCancelled and isinstance(error.cause, Reason)
    thread.join()
    assert answers == [(None, False)] and ran.wait()
    late = with_timeout(background(), 0.01)
    assert late.done().recv_ok() == (None, False)  # the background runtime rings


def test_wrong_use_is_an_error_that_says_what_to_do() -> None:
    """Breaks: a mistake that shows up later, somewhere else."""
    ctx: Any
    makes: list[Any] = [with_cancel, without_cancel, cause, lambda ctx: with_timeout(ctx, 1)]
    for make in [*makes, lambda ctx: after_func(ctx, print)]:
        for bad in (None, 5, Chan()):
            with pytest.raises(TypeError, match="background"):
                make(bad)
    with pytest.raises(TypeError):
        with_timeout(background(), "soon")  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        with_deadline(background(), float("nan"))
    with pytest.raises(TypeError, match="exception"):
        with_cancel(background()).cancel("because")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        after_func(background(), None)  # type: ignore[arg-type]
    assert not hasattr(background(), "cancel") and not hasattr(with_value(with_cancel(background()), 1, 2), "cancel")
    assert repr(with_value(with_cancel(background()), 1, 2)) == "<Context background.with_cancel.with_value>"


def test_errors_travel() -> None:
    """Breaks: errors of a context that cannot be copied, or sent to another process."""
    for kind in (ContextCancelled, DeadlineExceeded):
        error = kind("over", Reason("why"))
        for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(twin) is kind and str(twin) == "over" and str(twin.cause) == "why"
    assert issubclass(DeadlineExceeded, TimeoutError) and issubclass(ContextCancelled, gort.GortError)


def test_a_cause_whose_str_fails_or_uses_the_runtime() -> None:
    """Breaks: a cancel that depends on the program's own exception class.  Behaviour 25."""

    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    class Busy(Exception):
        def __str__(self) -> str:
            ch: Chan[str] = Chan()
            go(ch.send, "said by another goroutine")
            return ch.recv()

    def main() -> None:
        ctx = with_cancel(background())
        ctx.cancel(Bad())
        assert str(ctx.err()).endswith(": Bad")
        ctx = with_cancel(background())
        ctx.cancel(Busy())
        assert "said by another goroutine" in str(ctx.err())

    run(main)


def test_a_context_does_not_hide_a_deadlock() -> None:
    """Breaks: the timer of a block that is over keeps a dead program alive until its deadline.

    In a process of its own: as long as other threads live, there is no deadlock.
    """
    program = """
import gort
from gort.cancel import timeout
from gort.context import background, with_timeout
def main():
    with with_timeout(background(), 1000), timeout(1000):
        pass
    with_timeout(background(), 1000)
    with timeout(None), timeout(float("inf")), with_timeout(background(), float("inf")):
        gort.Chan().recv()
try:
    gort.run(main)
except gort.Deadlock:
    print("found")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "found\n", done.stderr


# -- races ----------------------------------------------------------------------------------------------------------


def test_one_of_many_cancels_wins(procs: int, jitter: None) -> None:
    """Breaks: a context that ends twice, with two reasons, or tells its listeners twice."""

    def main() -> None:
        for _ in range(20):
            ctx = with_cancel(background())
            told: Chan[int] = Chan(100)
            for n in range(10):
                after_func(with_cancel(ctx), told.send, n)
            reasons = [Reason(n) for n in range(8)]
            winners = [go(ctx.cancel, reason) for reason in reasons]
            won = [g.result() for g in winners]
            assert won.count(True) == 1 and cause(ctx) is reasons[won.index(True)]
            assert sorted(told.recv() for _ in range(10)) == list(range(10))
            gosched()
            assert len(told) == 0

    run(main, procs=procs)


@pytest.mark.limit(120 + 5 * STRESS)
def test_simultaneous_and_layered_cancels(procs: int, jitter: None) -> None:
    """Breaks: a deadlock, a lost or a second end, when trees end at many places at once.  Behaviour 33.

    Goroutines live under random contexts of a random tree, enter and leave, start and stop listening, while others,
    plain threads and deadlines end it node by node.  In the end everything has ended, everybody who waited was told,
    and the books are empty.  GORT_SEED replays the choices, GORT_STRESS=seconds goes on for so long.
    """
    print(f"GORT_SEED={SEED}")
    rng = random.Random(SEED)
    until = monotonic() + STRESS / 3

    def live(seed: int, nodes: list[Any], told: list[int]) -> int:
        rng = random.Random(seed)
        ended = 0
        for _ in range(100):
            ctx = rng.choice(nodes)
            kind = rng.randrange(4)
            if kind == 0:
                error = under(ctx, lambda: under(rng.choice(nodes), Chan().recv))
                assert isinstance(error, ContextCancelled)
                ended += 1
            elif kind == 1:
                assert under(ctx, lambda: 5) == 5
            elif kind == 2:
                stop = after_func(ctx, lambda: told.append(1))
                if not stop():
                    ended += 1
                    told.append(-1)
            else:
                select(gort.recv(ctx.done()), timeout=rng.random() * 1e-3) if rng.random() < 0.5 else ctx.err()
        return ended

    def ignoring(*args: Any) -> int:
        while True:
            try:
                return live(*args)
            except TimeoutError:
                args = (args[0] + 1, *args[1:])

    def one_round(seed: int) -> None:
        rng = random.Random(seed)
        nodes: list[Any] = [with_cancel(background()), with_cancel(background())]
        for _ in range(30):
            parent = rng.choice(nodes)
            make = rng.randrange(3)
            if make == 0:
                nodes.append(with_cancel(parent))
            elif make == 1:
                nodes.append(with_timeout(parent, rng.random() * 0.02))
            else:
                nodes.append(with_value(parent, "key", make))
        told: list[int] = []
        goroutines = [go(ignoring, rng.random(), nodes, told) for _ in range(10)]
        order = [ctx for ctx in nodes if hasattr(ctx, "cancel")]
        rng.shuffle(order)
        half = len(order) // 2
        thread = threading.Thread(target=lambda: [ctx.cancel(Reason("thread")) for ctx in order[half:]])
        thread.start()
        for ctx in order[:half]:
            ctx.cancel()
            if rng.random() < 0.3:
                gort.sleep(rng.random() * 1e-3)
        nodes[0].cancel()
        nodes[1].cancel()
        for g in goroutines:
            g.join()
            g.result()
        thread.join()
        while sum(told):  # each that was not stopped in time is on its way
            gosched()
        for ctx in nodes:
            assert ctx.err() is not None
            if hasattr(ctx, "cancel"):
                assert not ctx._listeners and not ctx._timers

    rounds = 0
    while rounds < 5 or monotonic() < until:
        run(one_round, rng.randrange(2**32), procs=procs)
        rounds += 1


@pytest.mark.parametrize("how", ["recv", "select", "default", "thread", "try_recv", "closed", "kept"])
def test_the_done_channel_of_a_runtime_that_has_ended(how: str) -> None:
    """Broken: who waits at a done channel that was asked for in an earlier run waits for ever, or is told of a deadlock."""
    ctx = with_timeout(background(), 0.05)
    done = run(ctx.done)
    if how == "recv":
        assert run(done.recv_ok) == (None, False)
    elif how == "select":
        assert run(select, gort.recv(Chan()), gort.recv(done)) == (1, None, False)
    elif how == "thread":
        assert done.recv_ok(LONG) == (None, False)
    elif how == "default":

        def polls() -> None:
            while gort.select(gort.recv(done), default=True) != (0, None, False):
                gort.sleep(0.001)

        run(polls)
    elif how == "kept":
        while not done.closed:
            pass
    elif how == "try_recv":
        while not done.closed:
            assert done.try_recv() == (None, False)
    else:

        def main() -> None:
            while not ctx.done().closed:
                gort.sleep(0.001)

        run(main)
    assert isinstance(ctx.err(), DeadlineExceeded)
