from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.search import standing as standing_module
from evomerge.search.fronts import by_fronts
from evomerge.search.standing import Standing

A, B, C, D = ((value,) for value in (0.1, 0.2, 0.3, 0.4))


def test_proven_are_those_with_repeated_evaluations_before_better_ones() -> None:
    standing = Standing()
    standing.add((A, B, C), ((0.9,), (0.5,), (0.4,)))
    standing.add((C, B), ((0.4,), (0.5,)))
    assert standing.ranked()[0] == A
    assert standing.proven(2) == (B, C)
    assert standing.proven(9) == (B, C, A)


def test_several_objectives_are_estimated_apart() -> None:
    standing = Standing()
    standing.add((A, B, C), ((0.9, 0.1), (0.5, 0.5), (0.4, 0.3)))
    assert standing.scores(A) == pytest.approx((0.7, 0.2))
    assert standing.ranked() == (A, B, C)
    standing.add((B, C, D), (None, (0.4, 0.3), (0.8, 0.9)))
    assert set(standing.ranked()) == {A, C, D}
    assert standing.ranked()[0] == D


def test_a_generation_that_failed_leaves_the_number_of_objectives_open() -> None:
    standing = Standing()
    standing.add((A, B), (None, None))
    assert standing.ranked() == ()
    standing.add((C, D), ((0.1, 0.9), (0.9, 0.1)))
    assert len(standing.scores(C)) == 2


def test_a_long_search_keeps_everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_module, "KEPT", 3)
    standing = Standing()
    rng = np.random.default_rng(0)
    for generation in range(6):
        asked = [(float(generation), float(k)) for k in range(4)]
        standing.add(asked, [tuple(rng.random(2)) for _ in asked])
    assert len(set(standing.ranked())) == len(standing.ranked()) == 24


def test_fronts_then_the_less_crowded() -> None:
    values = np.asarray([[0.5, 0.5], [1.0, 0.0], [0.45, 0.6], [0.0, 1.0], [0.4, 0.4], [0.1, 0.1]])
    # the ends first, then 0, which is a little farther from its neighbours than 2
    assert by_fronts(values) == [1, 3, 0, 2, 4, 5]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), max_size=12))
def test_nobody_comes_before_who_dominates_it(points: list[tuple[int, int]]) -> None:
    values = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    order = by_fronts(values)
    assert sorted(order) == list(range(len(points)))
    for place, one in enumerate(order):
        for later in order[place + 1 :]:
            better = np.all(values[later] >= values[one]) and np.any(values[later] > values[one])
            assert not better
