from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.front import dominates, front, hypervolume, spread, worst

numbers = st.integers(0, 6).map(lambda n: n / 4.0)


def points(objectives: int) -> st.SearchStrategy[list[tuple[float, ...]]]:
    return st.lists(st.tuples(*[numbers] * objectives), min_size=1, max_size=9)


several = st.integers(1, 4).flatmap(points)


def test_what_dominates() -> None:
    assert dominates((1.0, 2.0), (1.0, 1.0))
    assert not dominates((1.0, 1.0), (1.0, 1.0))
    assert not dominates((2.0, 0.0), (1.0, 1.0))


@given(several)
def test_everybody_else_is_dominated_by_the_front(found: list[tuple[float, ...]]) -> None:
    members = front(found)
    for place, point in enumerate(found):
        assert (place in members) == (not any(dominates(found[m], point) for m in members))


def test_volume_of_a_staircase() -> None:
    stairs = [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (0.5, 0.5)]
    assert hypervolume(stairs, (0.0, 0.0)) == pytest.approx(6.0)
    assert hypervolume(stairs, (1.0, 1.0)) == pytest.approx(1.0)
    assert hypervolume([(2.0, 3.0, 4.0)], (1.0, 1.0, 1.0)) == pytest.approx(6.0)
    assert hypervolume([(0.0, 9.0)], (0.0, 0.0)) == 0.0


@given(several)
def test_volume_is_the_share_of_dominated_cells(found: list[tuple[float, ...]]) -> None:
    axes = np.meshgrid(*[np.arange(6) / 4.0 + 0.125] * len(found[0]), indexing="ij")
    cells = np.stack([axis.ravel() for axis in axes], axis=1)
    below = np.zeros(len(cells), dtype=bool)
    for point in found:
        below |= (cells < np.asarray(point)).all(axis=1)
    volume = below.sum() * 0.25 ** len(found[0])
    assert hypervolume(found, (0.0,) * len(found[0])) == pytest.approx(volume)


@given(several, st.integers(0, 9))
def test_a_spread_takes_front_after_front(found: list[tuple[float, ...]], count: int) -> None:
    chosen = spread(found, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(found))
    left = [place for place in range(len(found)) if place not in chosen]
    for place in chosen:
        assert not any(dominates(found[other], found[place]) for other in left)


def test_a_thinned_front_keeps_its_ends() -> None:
    line = [(x / 10.0, 1.0 - x / 10.0) for x in range(11)]
    chosen = [line[place] for place in spread(line, 3)]
    assert (0.0, 1.0) in chosen
    assert (1.0, 0.0) in chosen
    assert (0.5, 0.5) in chosen


def test_the_worst_of_everything() -> None:
    assert worst([(1.0, 5.0), (2.0, 0.0)]) == (1.0, 0.0)
