from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Genotype
from evomerge.search.evidence import EASE, Evidence

A, B, C, D = ((value,) for value in (0.1, 0.2, 0.3, 0.4))


def test_one_evaluation_is_half_believed_and_more_are_believed_more() -> None:
    evidence = Evidence()
    evidence.add((A, B, C), (0.9, 0.5, 0.4))
    assert [evidence.estimate(one) for one in (A, B, C)] == pytest.approx([0.7, 0.5, 0.45])
    # as expected of both, so the items are as easy as before
    evidence.add((A, B), (0.7, 0.5))
    assert evidence.estimate(A) == pytest.approx((0.5 + 0.9 + 0.7) / 3)
    assert (evidence.evaluations(A), evidence.evaluations(C)) == (2, 1)


def test_items_that_are_easier_are_not_skill() -> None:
    evidence = Evidence()
    evidence.add((A, B, C), (0.6, 0.5, 0.4))
    evidence.add((B, D), (0.8, 0.7))
    trust = 2 / 3  # of B: one evaluation and the first guess against the noise of the next
    ease = trust * (0.8 - 0.5) / (trust + 1 / EASE)
    assert evidence.estimate(B) == pytest.approx((0.5 + 0.5 + 0.8 - ease) / 3)
    assert evidence.estimate(D) == pytest.approx(0.7 - ease)
    assert evidence.ranked().index(B) < evidence.ranked().index(D)


def test_the_ease_is_weighted_by_what_is_known() -> None:
    evidence = Evidence()
    evidence.add((A, B, C), (0.5, 0.5, 0.5))
    for _ in range(3):
        evidence.add((A,), (0.5,))
    evidence.add((A, B, D), (0.5, 0.9, 0.5))
    weights = np.asarray([5 / 6, 2 / 3])
    ease = float(weights @ [0.0, 0.4] / (weights.sum() + 1 / EASE))
    assert evidence.estimate(D) == pytest.approx(0.5 - ease)


def test_when_nobody_came_back_the_middles_are_alike() -> None:
    evidence = Evidence()
    evidence.add((A, B), (0.2, 0.4))
    evidence.add((C, D), (0.7, 0.9))
    assert evidence.estimate(C) == pytest.approx(evidence.estimate(A))
    assert evidence.estimate(D) == pytest.approx(evidence.estimate(B))


def test_failing_once_is_final() -> None:
    evidence = Evidence()
    evidence.add((A, B, C), (0.9, None, 0.5))
    evidence.add((A, B, C), (None, 1.0, 0.5))
    assert evidence.ranked() == (C,)
    evidence.add((C,), (None,))
    assert evidence.ranked() == ()
    evidence.add((D,), (0.3,))
    assert evidence.ranked() == (D,)


def test_twice_in_a_generation_is_one_evaluation() -> None:
    evidence = Evidence()
    evidence.add((A, A, B), (0.9, 0.9, 0.1))
    assert evidence.evaluations(A) == 1


fitness = st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4)


@given(st.lists(fitness, min_size=1, max_size=6), st.floats(0.1, 10), st.floats(-5, 5))
def test_units_of_fitness_do_not_matter(
    generations: list[list[float]], scale: float, zero: float
) -> None:
    plain, other = Evidence(), Evidence()
    for g, values in enumerate(generations):
        asked = (A, B, (float(g), 0.0), (float(g), 1.0))
        plain.add(asked, values)
        other.add(asked, [scale * value + zero for value in values])
    for one in plain.ranked():
        assert other.estimate(one) == pytest.approx(scale * plain.estimate(one) + zero, abs=1e-9)


def test_lost_luck_is_not_taken_for_hard_items() -> None:
    """Nobody gets better, but the lucky come back: estimates of late ones must not grow."""
    growth = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        evidence = Evidence()
        levels: list[float] = []
        skills: dict[Genotype, float] = {}
        for generation in range(20):
            new: list[Genotype] = [(float(generation), float(k)) for k in range(14)]
            skills |= dict(zip(new, rng.normal(0.5, 0.05, 14), strict=True))
            asked = [*new, *evidence.ranked()[:2]]
            ease = rng.normal(0.0, 0.06)
            noise = rng.normal(0.0, 0.05, len(asked))
            evidence.add(
                asked, [float(skills[o] + ease + e) for o, e in zip(asked, noise, strict=True)]
            )
            levels.append(float(np.mean([evidence.estimate(one) - skills[one] for one in new])))
        growth.append(np.mean(levels[-5:]) - np.mean(levels[:5]))
    # with ease not shrunk it is more than the noise of a fitness, and grows with the generations
    assert abs(np.mean(growth)) < 0.05
