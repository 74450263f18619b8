from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evomerge.candidate import Genotype, Scores
from evomerge.front import front, hypervolume
from evomerge.genes import CONTINUOUS
from evomerge.search.chebyshev import Chebyshev, directions, usual_population
from evomerge.search.cma_es import CmaEs

START = (0.5,) * 6
ENDS = (0.25, 0.75)


def make(
    objectives: int = 2, seed: int = 1, population: int | None = None, sigma: float = 1 / 6
) -> Chebyshev:
    def search(direction: int, size: int) -> CmaEs:
        axes = [CONTINUOUS] * len(START)
        own = 100 * seed + direction
        return CmaEs(START, axes=axes, seed=own, population=size, sigma=sigma)

    count = population or usual_population(objectives)
    return Chebyshev(search, objectives=objectives, population=count)


def distances(genotype: Genotype) -> Scores:
    """Nearness to two places that differ in half of the genes: the front is the line between."""
    half = len(genotype) // 2
    ends = ([end] * half + [0.8] * half for end in ENDS)
    return tuple(-float(np.square(np.subtract(genotype, end)).sum()) for end in ends)


def climb(
    strategy: Chebyshev,
    generations: int,
    score: Callable[[Genotype], Scores | None] = distances,
) -> list[Genotype]:
    seen: list[Genotype] = []
    for _ in range(generations):
        asked = [strategy.ask() for _ in range(strategy.population)]
        strategy.tell(asked, [score(genotype) for genotype in asked])
        seen += asked
    return seen


@pytest.mark.parametrize(("objectives", "count"), [(2, 5), (3, 7), (4, 11)])
def test_directions_cover_the_corners_and_the_middle(objectives: int, count: int) -> None:
    weights = directions(objectives)
    assert weights.shape == (count, objectives)
    assert np.allclose(weights.sum(axis=1), 1.0)
    assert weights.min() > 0.0
    for objective in range(objectives):
        assert weights[:, objective].max() > 0.85
    assert np.isclose(weights, 1.0 / objectives).all(axis=1).any()


def test_estimates_spread_along_the_front() -> None:
    strategy = make()
    climb(strategy, 30)
    found = [distances(genotype) for genotype in strategy.estimates]
    assert len(found) == 10
    # between the ends the whole front covers five sixths of the square
    far = distances((ENDS[0],) * 3 + (0.8,) * 3)[1]
    assert hypervolume(found, (far, far)) > 0.55 * far * far
    assert len(front(found)) >= 4
    firsts = [genotype[0] for genotype in strategy.estimates]
    assert min(firsts) < 0.4
    assert max(firsts) > 0.6


def test_the_same_seed_gives_the_same_search() -> None:
    assert climb(make(seed=4), 4) == climb(make(seed=4), 4)
    assert climb(make(seed=4), 1) != climb(make(seed=5), 1)


def test_levels_of_the_items_do_not_matter() -> None:
    one, other = make(seed=2), make(seed=2)
    for generation in range(6):
        asked = [one.ask() for _ in range(one.population)]
        assert asked == [other.ask() for _ in asked]
        scores = [distances(genotype) for genotype in asked]
        one.tell(asked, scores)
        # powers of two: shifting by them costs no precision
        other.tell(asked, [(a + 0.25 * generation, b - 0.5) for a, b in scores])
    assert np.allclose(one.ask(), other.ask(), atol=1e-6)


def test_results_may_arrive_in_any_order_from_any_direction() -> None:
    strategy = make()
    asked = [strategy.ask() for _ in range(3 * strategy.population)]
    late = asked[::2]
    told = late[: strategy.population]
    strategy.tell(told, [distances(genotype) for genotype in told])
    assert len(strategy.ask()) == len(START)


def test_failures_are_survived() -> None:
    strategy = make()
    climb(strategy, 1, lambda _: None)
    failing = iter(range(10**6))
    climb(strategy, 12, lambda g: None if next(failing) % 3 == 0 else distances(g))
    found = [distances(genotype) for genotype in strategy.estimates]
    assert max(min(pair) for pair in found) > min(distances(START)) * 0.6


@pytest.mark.parametrize("population", [4, 7, 23])
def test_any_population_works(population: int) -> None:
    strategy = make(population=population)
    climb(strategy, 40)
    assert len(strategy.estimates) == 10


def test_a_long_search_without_noise_does_not_run_away() -> None:
    strategy = make()
    climb(strategy, 150)
    late = climb(strategy, 1)
    assert max(abs(genotype[5] - 0.8) for genotype in late) < 0.25
