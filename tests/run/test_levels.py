from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.run.levels import Levels

VALUES = st.lists(st.floats(-1.0, 1.0), min_size=8, max_size=8)


@given(values=VALUES)
def test_one_generation_is_told_as_it_was_measured(values: list[float]) -> None:
    levels = Levels(8)
    for index, value in enumerate(values):
        levels.add(index, None if value is None else (value,))
    assert levels.comparable(range(8)) == tuple((value,) for value in values)


@given(values=VALUES, ease=st.floats(-0.5, 0.5))
def test_whole_generations_are_compared_above_their_means(values: list[float], ease: float) -> None:
    levels = Levels(8)
    for index, value in enumerate((*values, *(value + ease for value in values))):
        levels.add(index, None if value is None else (value,))
    told = levels.comparable([2, 10])
    assert told[0] is not None
    assert told[1] is not None
    # the prior takes a ninth of the difference for one between candidates
    assert told[1][0] - told[0][0] == pytest.approx(ease / 9.0)


def test_failures_stay_failures_and_say_nothing_about_the_items() -> None:
    levels = Levels(2)
    for index, value in enumerate([None, 0.5, None, None]):
        levels.add(index, None if value is None else (value,))
    assert levels.comparable([0, 2]) == (None, None)
    assert levels.comparable([1, 3]) == ((0.0,), None)
    levels.add(4, None)
    assert Levels(2).comparable([]) == ()
