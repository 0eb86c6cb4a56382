"""Greenlets that a program makes itself inside a goroutine: they wait in its place, and belong to it alone."""

from __future__ import annotations

from typing import Any

import greenlet
import pytest

from gort import Chan, GortError, Mutex, go, gosched, run, sleep
from settling import settle


def test_they_wait_for_anything(procs: int) -> None:
    """Broken: an operation that waits fails, or loses its value, in a greenlet of the goroutine's own."""

    def main() -> None:
        ch: Chan[int] = Chan()
        mutex = Mutex()

        def inner() -> int:
            with mutex:
                sleep(0.0001)
            return greenlet.greenlet(ch.recv).switch()  # a greenlet in a greenlet

        def works() -> int:
            own = [greenlet.greenlet(inner) for _ in range(3)]
            return sum(g.switch() for g in own)

        gs = [go(works) for _ in range(4)]
        for n in range(12):
            ch.send(n)
        assert sum(g.result() for g in gs) == sum(range(12))

    run(main, procs=procs)


def test_they_may_give_each_other_way() -> None:
    """Broken: a goroutine that has a scheduler of its own, of greenlets that switch to each other, is refused."""

    def main() -> None:
        ch: Chan[int] = Chan()

        def owner() -> list[int]:
            got: list[int] = []
            hub = greenlet.getcurrent()

            def task() -> None:
                for _ in range(5):
                    got.append(ch.recv())
                    hub.switch()

            tasks = [greenlet.greenlet(task) for _ in range(3)]
            for _ in range(5):
                for one in tasks:
                    one.switch()
            return got

        g = go(owner)
        others = [go(gosched) for _ in range(5)]
        for n in range(15):
            ch.send(n)
        assert g.result() == list(range(15))
        for other in others:
            other.result()

    run(main, procs=1)


@pytest.mark.parametrize("state", ["waits", "waits in another", "gave way", "ended", "ended, and another began"])
def test_another_goroutine_that_switches_to_one_gets_an_error(state: str) -> None:
    """Broken: a greenlet is run by a goroutine that has not made it, and another one is resumed in its place, with
    nothing: it returns None from `recv`, or its turn never comes."""

    def main() -> None:
        gate: Chan[str] = Chan()
        begin: Chan[None] = Chan()
        never: Chan[None] = Chan()
        made: list[Any] = []

        def stray() -> None:
            sleep(0.0001)
            greenlet.getcurrent().parent.switch()  # type: ignore[union-attr]
            never.recv()

        def maker() -> str:
            made.append(greenlet.greenlet(stray))
            made[0].switch()
            if state.startswith("ended"):
                return "kept"
            if state == "gave way":
                while len(made) == 1:
                    gosched()
            if state == "waits in another":
                return greenlet.greenlet(gate.recv).switch()
            return gate.recv()

        def user() -> str:
            begin.recv()
            with pytest.raises(GortError, match="another goroutine has switched to it"):
                made[0].switch()
            return "caught"

        u = settle(go(user))  # so that it has a carrier of its own
        g = go(maker)
        if state != "gave way":
            settle(g)
        while not made:
            gosched()
        others = []
        if state == "ended, and another began":
            others.append(settle(go(never.recv)))
        begin.send(None)
        assert u.result() == "caught"
        made.append(None)
        if not state.startswith("ended"):
            settle(g)
            gate.send("kept")
        assert g.result() == "kept"
        for other in others:
            other.cancel()
            other.join()

    run(main, procs=1)
