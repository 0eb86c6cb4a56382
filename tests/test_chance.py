"""The random choices of select and the scheduler, and GORT_SEED, which replays them."""

from __future__ import annotations

import random
from typing import Any

import pytest

import gort
from gort import Chan, run, select


def choices() -> list[int]:
    """Which of four ready cases a hundred selects take."""
    chans = [Chan[int](100) for _ in range(4)]
    for ch in chans:
        for n in range(100):
            ch.send(n)
    return [select(*map(gort.recv, chans))[0] for _ in range(100)]


def test_a_seed_replays_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken: a failure that depends on what select chose cannot be had again; or the choices are always the same."""
    monkeypatch.setenv("GORT_SEED", "42")
    first = run(choices, procs=1)
    assert run(choices, procs=1) == first
    monkeypatch.setenv("GORT_SEED", "43")
    assert run(choices, procs=1) != first
    monkeypatch.delenv("GORT_SEED")
    assert len({tuple(run(choices, procs=1)) for _ in range(3)}) == 3


def test_the_programs_own_random_numbers_are_its_own() -> None:
    """Broken: a program that seeds `random` gets other numbers because it uses select, or steers select by it."""

    def main() -> tuple[list[int], float]:
        random.seed(1)
        return choices(), random.random()

    (a, x), (b, y) = run(main, procs=1), run(main, procs=1)
    random.seed(1)
    assert a != b and x == y == random.random()


@pytest.mark.parametrize("bad", ["x", "1.5"])
def test_a_seed_that_is_none(monkeypatch: pytest.MonkeyPatch, bad: Any) -> None:
    """Broken: a wrong GORT_SEED is an error that does not say what is wrong."""
    monkeypatch.setenv("GORT_SEED", bad)
    with pytest.raises(ValueError, match="GORT_SEED must be a whole number"):
        run(int)
