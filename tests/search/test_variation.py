from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Genotype
from evomerge.genes import CONTINUOUS, Axis
from evomerge.search.variation import Variation
from evomerge.seeding import generator

axes = st.lists(
    st.one_of(
        st.just(CONTINUOUS),
        st.integers(1, 9).map(Axis),
        st.integers(1, 9).map(lambda steps: Axis(steps, ordered=False)),
    ),
    min_size=1,
    max_size=6,
)


def in_place(axes: list[Axis], genotype: Genotype) -> bool:
    """Whether every number is in [0, 1], and every step in the middle of its share."""
    return all(
        0.0 <= u <= 1.0 and (axis.steps is None or axis.middle(axis.step(u)) == pytest.approx(u))
        for axis, u in zip(axes, genotype, strict=True)
    )


@given(axes, st.integers(0, 99))
def test_everything_drawn_is_a_genotype_of_the_space(axes: list[Axis], seed: int) -> None:
    variation = Variation(axes, generator(seed))
    one, two = variation.uniform(), variation.uniform()
    drawn = [one, variation.near(one), variation.crossed(one, two), variation.mutated(two)]
    assert all(in_place(axes, genotype) for genotype in drawn)
    assert all(variation.settled(genotype) == genotype for genotype in drawn)


@given(axes, st.integers(0, 99))
def test_a_step_or_choice_of_a_child_is_that_of_a_parent_or_between(
    axes: list[Axis], seed: int
) -> None:
    variation = Variation(axes, generator(seed))
    one, two = variation.uniform(), variation.uniform()
    child = variation.crossed(one, two)
    for axis, u, v, found in zip(axes, one, two, child, strict=True):
        if not axis.ordered:
            assert found in (u, v)


@pytest.mark.parametrize("steps", [2, 3, 12])
@pytest.mark.parametrize("at", ["first", "last"])
def test_a_mutated_step_moves_by_one_at_least(steps: int, at: str) -> None:
    axis = Axis(steps)
    variation = Variation([axis], generator(1))
    start = (axis.middle(0 if at == "first" else steps - 1),)
    moves = {axis.step(variation.mutated(start)[0]) - axis.step(start[0]) for _ in range(200)}
    assert 0 not in moves
    assert all(0 <= axis.step(start[0]) + move < steps for move in moves)


def test_a_choice_mutates_to_any_other_and_not_always() -> None:
    axis = Axis(4, ordered=False)
    variation = Variation([axis], generator(1))
    drawn = [axis.step(variation.mutated((axis.middle(2),))[0]) for _ in range(2000)]
    shares = np.bincount(drawn, minlength=4) / len(drawn)
    assert shares == pytest.approx([1 / 12, 1 / 12, 3 / 4, 1 / 12], abs=0.03)


def test_a_choice_of_one_stays() -> None:
    variation = Variation([Axis(1, ordered=False), Axis(1)], generator(1))
    assert variation.mutated((0.5, 0.5)) == variation.near((0.5, 0.5)) == (0.5, 0.5)
