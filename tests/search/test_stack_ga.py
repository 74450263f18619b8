from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np
import pytest

from evomerge.candidate import Genotype
from evomerge.genes import CONTINUOUS
from evomerge.search.cma_es import CmaEs
from evomerge.search.first_paths import first_paths
from evomerge.search.ga import Ga
from evomerge.search.stack_ga import StackGa
from evomerge.search.strategy import Strategy
from evomerge.stack import Path, Segment, hops
from evomerge.stack_space import Slots, StackSpace, paper_start
from tests.search.landscape import Found, World, search

DEPTH, SEEDS, GENERATIONS = 12, range(8), 12


@pytest.fixture(scope="module")
def space() -> StackSpace:
    return StackSpace(Slots((("a", DEPTH), ("b", DEPTH)), 2), "a", DEPTH // 2, DEPTH * 3 // 2)


@pytest.fixture(scope="module")
def found(space: StackSpace) -> dict[str, list[Found]]:
    strategies: dict[str, Callable[[int], Strategy]] = {
        "stack_ga": lambda seed: StackGa(space, first_paths(space), seed=seed, population=16),
        "from the start": lambda seed: StackGa(space, (), seed=seed, population=16),
        "ga": lambda seed: Ga(space.start, axes=space.axes, seed=seed, population=16),
        "cma_es": lambda seed: CmaEs(
            paper_start(space, 1 / 6),
            axes=[CONTINUOUS] * space.dimension,
            seed=seed,
            population=16,
            sigma=1 / 6,
        ),
    }
    worlds = {seed: World.drawn(DEPTH, np.random.default_rng(seed)) for seed in SEEDS}
    return {
        name: [
            search(make(seed), space, worlds[seed], generations=GENERATIONS, seed=100 + seed)
            for seed in SEEDS
        ]
        for name, make in strategies.items()
    }


@pytest.mark.parametrize("rival", ["ga", "cma_es"])
def test_it_beats_the_others_at_equal_candidates(found: dict[str, list[Found]], rival: str) -> None:
    theirs = median(one.accuracy for one in found[rival])
    for ours in ("stack_ga", "from the start"):
        assert median(one.accuracy for one in found[ours]) > theirs + 0.02


def test_it_beats_what_it_began_with(found: dict[str, list[Found]], space: StackSpace) -> None:
    gains = []
    for seed, one in zip(SEEDS, found["stack_ga"], strict=True):
        world = World.drawn(DEPTH, np.random.default_rng(seed))
        gains.append(one.accuracy - max(map(world.accuracy, first_paths(space))))
    assert median(gains) > 0.02


def test_most_proposals_are_usable(found: dict[str, list[Found]]) -> None:
    assert min(one.usable for one in found["stack_ga"]) >= 0.7
    assert median(one.usable for one in found["cma_es"]) < 0.3


def test_the_given_paths_come_first_and_once(space: StackSpace) -> None:
    own = (Segment("a", 0, DEPTH),)
    halves = (Segment("a", 0, 5), Segment("a", 5, DEPTH))
    longer = (Segment("a", 0, 8), Segment("a", 4, DEPTH))
    impossible = (Segment("b", 0, DEPTH),)
    strategy = StackGa(space, (own, impossible, halves, longer), seed=1, population=8)
    assert [space.path(strategy.ask()) for _ in range(2)] == [own, longer]
    assert space.path(strategy.ask()) not in (own, longer)


def test_without_a_path_that_fits_it_begins_with_the_start(space: StackSpace) -> None:
    strategy = StackGa(space, ((Segment("b", 0, 3),),), seed=1, population=8)
    assert strategy.ask() == space.start


def distance(path: Path) -> float:
    return -abs(len(hops(path)) - DEPTH - 2) - 0.01 * len(path)


def test_only_elites_come_twice_and_at_the_end(space: StackSpace) -> None:
    strategy = StackGa(space, first_paths(space), seed=3, population=16)
    seen: dict[Genotype, float] = {}
    for generation in range(8):
        asked = [strategy.ask() for _ in range(16)]
        assert len(set(asked)) == 16
        new, again = (asked, []) if generation == 0 else (asked[:14], asked[14:])
        assert not seen.keys() & set(new)
        assert all(seen[one] >= median(seen.values()) for one in again)
        seen |= {one: distance(space.path(one)) for one in asked}
        strategy.tell(asked, [(seen[one],) for one in asked])


def test_failures_are_no_parents(space: StackSpace) -> None:
    """All stacks with a layer of b fail: soon there are none with many of them."""
    strategy = StackGa(space, first_paths(space), seed=5, population=16)
    paths: list[Path] = []
    for _ in range(10):
        asked = [strategy.ask() for _ in range(16)]
        paths = [space.path(genotype) for genotype in asked]
        bad = [any(part.model == "b" for part in path) for path in paths]
        strategy.tell(
            asked, [None if no else (distance(p),) for no, p in zip(bad, paths, strict=True)]
        )
    # what is left are single switches, never two generations of them
    assert max(sum(part.model == "b" for part in path) for path in paths) <= 2
    assert all(part.model == "a" for one in strategy.estimates for part in space.path(one))


def test_a_space_of_few_paths_is_exhausted_and_asked_again() -> None:
    small = StackSpace(Slots((("a", 3),), 1), "a", 2, 3, gains=(1.0, 1.0))
    strategy = StackGa(small, first_paths(small), seed=1, population=4)
    seen: list[Genotype] = []
    for _ in range(5):
        asked = [strategy.ask() for _ in range(4)]
        strategy.tell(asked, [(float(len(hops(small.path(genotype)))),) for genotype in asked])
        seen += asked
    assert {small.path(genotype) for genotype in seen} == {
        (Segment("a", 0, 3),),
        (Segment("a", 0, 1), Segment("a", 2, 3)),
    }
    assert small.path(strategy.estimates[0]) == (Segment("a", 0, 3),)


def test_asked_ahead_by_generations_it_goes_on(space: StackSpace) -> None:
    strategy = StackGa(space, first_paths(space), seed=2, population=8)
    asked = [strategy.ask() for _ in range(24)]
    assert len(set(asked)) == 24
    for _ in range(5):
        told, asked = asked[:8], asked[8:]
        strategy.tell(told, [(distance(space.path(genotype)),) for genotype in told])
        asked += [strategy.ask() for _ in range(8)]
    assert len(strategy.estimates) == 4
