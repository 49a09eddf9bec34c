"""The engine under a model broker: seeds that keep every promise, and seeded bugs that each break one."""

from __future__ import annotations

import itertools

import pytest

from ops.chaos.engine.mutants import ID_PER_WORKER, MUTANTS, Mutant
from ops.chaos.engine.simulation import simulate

SEEDS = 150
SEEDS_PER_MUTANT = 300  # most are red at the first seed; what a race needs takes longer

FOUND = {
    "a lane kept while its commit was under the generation before stayed suspended": 44,
    "the same, with a timer lost": 6,
    "the first copy of an EndTxn that was sent twice ended a later transaction": 32,
}
"""Histories that were red once, by what they showed."""


def first_violation(seeds: range) -> tuple[int, str] | None:
    """The first seed that breaks a promise, and what it broke."""
    return next(((seed, found[0]) for seed in seeds if (found := simulate(seed))), None)


@pytest.mark.parametrize("block", range(3))
def test_no_history_breaks_a_promise(block: int) -> None:
    assert first_violation(range(block * SEEDS // 3, (block + 1) * SEEDS // 3)) is None


@pytest.mark.parametrize("name", FOUND)
def test_a_history_that_was_red_once_stays_green(name: str) -> None:
    assert simulate(FOUND[name]) == []


def test_a_seed_repeats_its_history() -> None:
    first, second = (simulate_with_first_mutant(3) for _ in range(2))
    assert first == second
    assert first, "the mutant must show, or equality shows nothing"


def simulate_with_first_mutant(seed: int) -> list[str]:
    with MUTANTS[0].applied():
        return simulate(seed)


def test_two_owners_stay_apart_when_nobody_fences_their_ids() -> None:
    with ID_PER_WORKER.applied():
        assert first_violation(range(60)) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_seeded_bug_turns_the_simulation_red(mutant: Mutant) -> None:
    with mutant.applied():
        for seed in itertools.count():
            assert seed < SEEDS_PER_MUTANT, f"{mutant.name} ({mutant.what}) stayed green"
            try:
                if simulate(seed):
                    return
            except Exception:
                return
