"""The contract of every Strategy; an implementation joins by a row in STRATEGIES."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from evomerge.candidate import Genotype
from evomerge.genes import CONTINUOUS, Axis
from evomerge.search.cma_es import CmaEs
from evomerge.search.coarse_to_fine import Blocks, CoarseToFine
from evomerge.search.first_paths import first_paths
from evomerge.search.ga import Ga
from evomerge.search.stack_ga import StackGa
from evomerge.search.strategy import Strategy
from evomerge.stack import Segment, hops
from evomerge.stack_space import Slots, StackSpace


@dataclass(frozen=True)
class Case:
    """A strategy by its seed, where it starts, and what it climbs: at most 0."""

    make: Callable[[int], Strategy]
    start: Genotype
    fitness: Callable[[Genotype], float]


def sphere(genotype: Genotype) -> float:
    return -sum((u - 0.6) ** 2 for u in genotype)


def bits_and_sphere(genotype: Genotype) -> float:
    """Two numbers, then six bits of which the even ones should be on."""
    wrong = sum((u > 0.5) == place % 2 for place, u in enumerate(genotype[2:]))
    return sphere(genotype[:2]) - 0.1 * wrong


def to_the_target(genotype: Genotype) -> float:
    """How many layers are missing or too many, and how far the gains are off."""
    found, wanted = hops(STACKS.path(genotype)), hops(TARGET)
    ours, theirs = (Counter((hop.model, hop.layer) for hop in path) for path in (found, wanted))
    wrong = sum(((ours - theirs) + (theirs - ours)).values())
    gains = (sum(np.log(hop.gain) for hop in path) for path in (found, wanted))
    return -wrong - abs(float(np.subtract(*gains)))


START = (0.2, 0.8, 0.5, 0.5)
AXES = (CONTINUOUS,) * 4
BITS = (CONTINUOUS,) * 2 + (Axis(2, ordered=False),) * 6
STACKS = StackSpace(Slots((("a", 8), ("b", 8)), 2), "a", 4, 12)
TARGET = (Segment("a", 0, 3), Segment("b", 3, 5), Segment("a", 4, 8, 1.1))
STRATEGIES: dict[str, Case] = {
    "cma_es": Case(
        lambda seed: CmaEs(START, axes=AXES, seed=seed, population=10, sigma=1 / 6), START, sphere
    ),
    "coarse to fine": Case(
        lambda seed: CoarseToFine(
            START,
            Blocks((0, 0, 1, 1)),
            AXES,
            lambda start, axes: CmaEs(start, axes=axes, seed=seed, population=10, sigma=1 / 6),
            generations=3,
        ),
        START,
        sphere,
    ),
    "ga": Case(lambda seed: Ga(START, axes=AXES, seed=seed, population=10), START, sphere),
    "ga with bits": Case(
        lambda seed: Ga((*START, *START), axes=BITS, seed=seed, population=10),
        (*START, *START),
        bits_and_sphere,
    ),
    "stack_ga": Case(
        lambda seed: StackGa(STACKS, first_paths(STACKS), seed=seed, population=10),
        STACKS.start,
        to_the_target,
    ),
}


@pytest.fixture(params=STRATEGIES)
def case(request: pytest.FixtureRequest) -> Case:
    return STRATEGIES[request.param]


def trajectory(strategy: Strategy, case: Case, generations: int) -> list[Genotype]:
    seen: list[Genotype] = []
    for _ in range(generations):
        asked = [strategy.ask() for _ in range(strategy.population)]
        strategy.tell(asked, [(case.fitness(g),) for g in asked])
        seen += asked
    return seen


def test_genotypes_lie_in_the_unit_cube(case: Case) -> None:
    for genotype in trajectory(case.make(1), case, 10):
        assert len(genotype) == len(case.start)
        assert all(0.0 <= u <= 1.0 for u in genotype)


def test_same_seed_same_trajectory(case: Case) -> None:
    assert trajectory(case.make(5), case, 8) == trajectory(case.make(5), case, 8)
    assert trajectory(case.make(5), case, 2) != trajectory(case.make(6), case, 2)


def test_global_random_state_is_neither_read_nor_changed(
    case: Case,
) -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    first = trajectory(case.make(5), case, 5)
    after = np.random.get_state()[1]  # type: ignore[index]  # noqa: NPY002
    assert (before == after).all()
    np.random.seed(99)  # noqa: NPY002
    assert trajectory(case.make(5), case, 5) == first


def test_it_climbs(case: Case) -> None:
    strategy = case.make(3)
    trajectory(strategy, case, 30)
    assert max(map(case.fitness, strategy.estimates)) > case.fitness(case.start) / 20


def test_failures_rank_last(case: Case) -> None:
    one, other = case.make(4), case.make(4)
    asked = [one.ask() for _ in range(one.population)]
    assert asked == [other.ask() for _ in range(other.population)]
    fitness = [case.fitness(g) for g in asked]
    worst = fitness.index(min(fitness))
    one.tell(asked, [None if i == worst else (f,) for i, f in enumerate(fitness)])
    other.tell(asked, [(f,) for f in fitness])
    assert [one.ask() for _ in asked] == [other.ask() for _ in asked]


def test_all_failed_is_survived(case: Case) -> None:
    strategy = case.make(4)
    asked = [strategy.ask() for _ in range(strategy.population)]
    strategy.tell(asked, [None] * len(asked))
    assert len(strategy.ask()) == len(case.start)


def test_asking_ahead_by_half_a_generation(case: Case) -> None:
    strategy = case.make(4)
    ahead = strategy.population // 2
    asked = [strategy.ask() for _ in range(strategy.population + ahead)]
    for _ in range(20):
        told, asked = asked[: strategy.population], asked[strategy.population :]
        strategy.tell(told, [(case.fitness(g),) for g in told])
        asked += [strategy.ask() for _ in range(strategy.population)]
    assert max(map(case.fitness, strategy.estimates)) > case.fitness(case.start)
