from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.genes import CONTINUOUS, Axis
from evomerge.search.ga import Ga
from evomerge.search.operators import ETA_CROSSOVER, ETA_MUTATION, polynomial, sbx

unit = st.floats(0.0, 1.0)
draw = st.floats(0.0, 1.0, exclude_max=True)
BIT = Axis(2, ordered=False)


def ones(genotype: tuple[float, ...]) -> int:
    return sum(u > 0.5 for u in genotype)


@given(unit, unit, draw)
def test_crossover_stays_inside(one: float, two: float, u: float) -> None:
    lower, upper = sbx(np.array([one]), np.array([two]), np.array([u]))
    assert 0.0 <= lower[0] <= upper[0] + 1e-12
    assert upper[0] <= 1.0
    if one == two:
        assert lower[0] == upper[0] == one


def test_crossover_far_from_the_bounds_is_the_textbook_one() -> None:
    """Spread (2u)^(1/(eta+1)) within the parents, (1/(2(1-u)))^(1/(eta+1)) outside."""
    u = np.array([0.1, 0.4, 0.6, 0.9])
    lower, upper = sbx(np.full(4, 0.48), np.full(4, 0.52), u)
    spread = np.where(u <= 0.5, 2 * u, 1 / (2 * (1 - u))) ** (1 / (ETA_CROSSOVER + 1))
    assert lower == pytest.approx(0.5 - spread * 0.02)
    assert upper == pytest.approx(0.5 + spread * 0.02)


@given(unit, draw)
def test_mutation_stays_inside_and_its_middle_is_no_change(number: float, u: float) -> None:
    moved = polynomial(np.array([number]), np.array([u]))[0]
    assert 0.0 <= moved <= 1.0
    assert moved <= number + 1e-12 if u < 0.5 else moved >= number - 1e-12
    assert polynomial(np.array([number]), np.array([0.5]))[0] == pytest.approx(number)


def test_mutation_from_a_bound_can_reach_the_other() -> None:
    assert polynomial(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx([0.0, 1.0])


def test_mutation_far_from_the_bounds_is_the_textbook_one() -> None:
    u = np.array([0.2, 0.45, 0.7])
    moved = polynomial(np.full(3, 0.5), u)
    power = 1 / (ETA_MUTATION + 1)
    expected = np.where(u < 0.5, (2 * u) ** power - 1, 1 - (2 * (1 - u)) ** power)
    assert moved - 0.5 == pytest.approx(expected, abs=1e-6)


def test_the_first_generation_is_the_start_and_what_is_near() -> None:
    start = (*(0.75, 0.25) * 20, 0.2, 0.8)
    axes = [BIT] * 40 + [CONTINUOUS] * 2
    strategy = Ga(start, axes=axes, seed=1, population=40)
    first, *others = (strategy.ask() for _ in range(40))
    assert first == start
    flips = [sum(a != b for a, b in zip(one[:40], start, strict=False)) for one in others]
    assert 0.5 < np.mean(flips) < 1.5
    assert all(u in (0.25, 0.75) for one in others for u in one[:40])
    assert 0.05 < np.std([one[40] for one in others]) < 0.25


def test_bits_alone() -> None:
    """OneMax: 24 bits, no noise."""
    strategy = Ga((0.0,) * 24, axes=[BIT] * 24, seed=2, population=16)
    for _ in range(40):
        asked = [strategy.ask() for _ in range(16)]
        strategy.tell(asked, [(ones(one),) for one in asked])
    assert ones(strategy.estimates[0]) >= 22


def test_numbers_alone_under_noise() -> None:
    rng = np.random.default_rng(0)
    strategy = Ga((0.2,) * 5, axes=[CONTINUOUS] * 5, seed=3, population=16)

    def loss(genotype: tuple[float, ...]) -> float:
        return sum((u - 0.7) ** 2 for u in genotype)

    for _ in range(40):
        asked = [strategy.ask() for _ in range(16)]
        ease = rng.normal(0.0, 0.1)
        strategy.tell(asked, [(ease - loss(one) + rng.normal(0.0, 0.05),) for one in asked])
    assert max(map(loss, strategy.estimates)) < 0.15 < loss((0.2,) * 5) / 5


def test_a_number_that_nothing_else_varies() -> None:
    strategy = Ga((1.0,), axes=[CONTINUOUS], seed=4, population=4)
    for _ in range(15):
        asked = [strategy.ask() for _ in range(4)]
        strategy.tell(asked, [(-one[0],) for one in asked])
    assert strategy.estimates[0][0] < 0.5
