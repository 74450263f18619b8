from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import Genotype
from evomerge.genes import CONTINUOUS, Axis
from evomerge.search.cma_es import CmaEs
from evomerge.search.coarse_to_fine import Blocks, CoarseToFine
from evomerge.search.strategy import Strategy

LAYERS = 24
BLOCKS = Blocks(tuple(index * 4 // LAYERS for index in range(LAYERS)))
INNER = st.lists(st.floats(0.3, 0.7), min_size=4, max_size=4).map(tuple)


@given(positions=INNER, around=st.lists(st.floats(0.4, 0.6), min_size=24, max_size=24).map(tuple))
def test_a_block_goes_where_it_is_put_and_keeps_its_shape(
    positions: Genotype, around: Genotype
) -> None:
    moved = BLOCKS.spread(positions, around)
    assert BLOCKS.means(moved) == pytest.approx(positions)
    steps = np.subtract(moved, around).reshape(4, 6)
    assert np.allclose(steps, steps[:, :1])


@given(positions=st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).map(tuple))
def test_blocks_stay_in_the_cube(positions: Genotype) -> None:
    assert all(0.0 <= u <= 1.0 for u in BLOCKS.spread(positions, (0.1, 0.9) * 12))


AXES = (CONTINUOUS,) * LAYERS


def make(start: Genotype, axes: Sequence[Axis]) -> Strategy:
    return CmaEs(start, axes=axes, seed=1, population=12, sigma=1 / 6)


def loss(genotype: Genotype, rng: np.random.Generator | None = None) -> float:
    """A smooth optimum over depth, and what each layer adds."""
    depth = np.linspace(0.0, 1.0, LAYERS)
    goal = 0.75 - 0.4 * depth + 0.04 * np.cos(40.0 * depth)
    noise = 0.0 if rng is None else float(rng.normal(0.0, 0.02))
    return float(((np.asarray(genotype) - goal) ** 2).mean()) + noise


def searched(strategy: Strategy, generations: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    for _ in range(generations):
        asked = [strategy.ask() for _ in range(strategy.population)]
        strategy.tell(asked, [(-loss(one, rng),) for one in asked])
    return min(map(loss, strategy.estimates))


def test_it_finds_a_smooth_optimum_sooner_than_all_genes_at_once() -> None:
    start = (0.5,) * LAYERS
    ours = [
        searched(CoarseToFine(start, BLOCKS, AXES, make, generations=8), 25, s) for s in range(8)
    ]
    alone = [searched(make(start, AXES), 25, s) for s in range(8)]
    assert np.mean(ours) < 0.8 * np.mean(alone)


def test_the_coarse_mean_remains_an_estimate() -> None:
    strategy = CoarseToFine((0.5,) * LAYERS, BLOCKS, AXES, make, generations=6)
    searched(strategy, 6, 0)
    (coarse,) = strategy.estimates
    assert len({round(u, 12) for u in coarse}) == 4
    searched(strategy, 4, 0)
    assert coarse in strategy.estimates
    assert len(strategy.estimates) == 4


def test_what_was_asked_before_the_refinement_is_told_in_time() -> None:
    strategy = CoarseToFine((0.5,) * LAYERS, BLOCKS, AXES, make, generations=2)
    asked = [strategy.ask() for _ in range(30)]
    coarse = [len({round(u, 12) for u in one}) == 4 for one in asked]
    assert coarse == [True] * 24 + [False] * 6
    for begin in (0, 12):
        part = asked[begin : begin + 12]
        strategy.tell(part, [(-loss(one),) for one in part])
    mixed = [*asked[20:26], *(strategy.ask() for _ in range(6))]
    strategy.tell(mixed, [(-loss(one),) for one in mixed])
    assert all(0.0 <= u <= 1.0 for u in strategy.ask())
