"""The contract of every Strategy; an implementation joins by a row in STRATEGIES."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evomerge.candidate import Genotype
from evomerge.search.cma_es import CmaEs
from evomerge.search.strategy import Strategy

STRATEGIES: dict[str, Callable[[Genotype, int], Strategy]] = {
    "cma_es": lambda start, seed: CmaEs(start, seed=seed, population=10, sigma=1 / 6),
}
START = (0.2, 0.8, 0.5, 0.5)


@pytest.fixture(params=STRATEGIES)
def make(request: pytest.FixtureRequest) -> Callable[[Genotype, int], Strategy]:
    return STRATEGIES[request.param]


def sphere(genotype: Genotype) -> float:
    return -sum((u - 0.6) ** 2 for u in genotype)


def trajectory(strategy: Strategy, generations: int) -> list[Genotype]:
    seen: list[Genotype] = []
    for _ in range(generations):
        asked = [strategy.ask() for _ in range(strategy.population)]
        strategy.tell(asked, [sphere(g) for g in asked])
        seen += asked
    return seen


def test_genotypes_lie_in_the_unit_cube(make: Callable[[Genotype, int], Strategy]) -> None:
    for genotype in trajectory(make(START, 1), 10):
        assert len(genotype) == len(START)
        assert all(0.0 <= u <= 1.0 for u in genotype)


def test_same_seed_same_trajectory(make: Callable[[Genotype, int], Strategy]) -> None:
    assert trajectory(make(START, 5), 8) == trajectory(make(START, 5), 8)
    assert trajectory(make(START, 5), 2) != trajectory(make(START, 6), 2)


def test_global_random_state_is_neither_read_nor_changed(
    make: Callable[[Genotype, int], Strategy],
) -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    first = trajectory(make(START, 5), 5)
    after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    assert (before == after).all()
    np.random.seed(99)  # noqa: NPY002
    assert trajectory(make(START, 5), 5) == first


def test_it_climbs(make: Callable[[Genotype, int], Strategy]) -> None:
    strategy = make(START, 3)
    trajectory(strategy, 30)
    assert max(map(sphere, strategy.estimates)) > sphere(START) / 20


def test_failures_rank_last(make: Callable[[Genotype, int], Strategy]) -> None:
    one, other = make(START, 4), make(START, 4)
    asked = [one.ask() for _ in range(one.population)]
    assert asked == [other.ask() for _ in range(other.population)]
    fitness = [sphere(g) for g in asked]
    worst = fitness.index(min(fitness))
    one.tell(asked, [None if i == worst else f for i, f in enumerate(fitness)])
    other.tell(asked, fitness)
    assert one.ask() == other.ask()


def test_all_failed_is_survived(make: Callable[[Genotype, int], Strategy]) -> None:
    strategy = make(START, 4)
    asked = [strategy.ask() for _ in range(strategy.population)]
    strategy.tell(asked, [None] * len(asked))
    assert len(strategy.ask()) == len(START)


def test_asking_ahead_by_half_a_generation(make: Callable[[Genotype, int], Strategy]) -> None:
    strategy = make(START, 4)
    ahead = strategy.population // 2
    asked = [strategy.ask() for _ in range(strategy.population + ahead)]
    for _ in range(20):
        told, asked = asked[: strategy.population], asked[strategy.population :]
        strategy.tell(told, [sphere(g) for g in told])
        asked += [strategy.ask() for _ in range(strategy.population)]
    assert max(map(sphere, strategy.estimates)) > sphere(START)
