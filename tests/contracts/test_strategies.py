"""The contract of every Strategy; an implementation joins by a row in STRATEGIES."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch

from evomerge.candidate import Genotype, Scores
from evomerge.genes import CONTINUOUS, Axis
from evomerge.search.chebyshev import Chebyshev
from evomerge.search.cma_es import CmaEs
from evomerge.search.coarse_to_fine import Blocks, CoarseToFine
from evomerge.search.first_paths import first_paths
from evomerge.search.ga import Ga
from evomerge.search.optuna_sampler import OptunaSampler
from evomerge.search.random import Random
from evomerge.search.stack_ga import StackGa
from evomerge.search.strategy import Strategy
from evomerge.stack import Segment, hops
from evomerge.stack_space import Slots, StackSpace


def alone(fitness: Callable[[Genotype], float], genotype: Genotype) -> Scores:
    return (fitness(genotype),)


@dataclass(frozen=True)
class Case:
    """A strategy by its seed, where it starts, and what it climbs: at most 0.

    `left` is the share of the start's distance that may remain after `generations`.
    """

    make: Callable[[int], Strategy]
    start: Genotype
    fitness: Callable[[Genotype], float]
    generations: int = 20
    left: float = 0.125
    learns: bool = True
    objectives: Callable[[Genotype], Scores] | None = None

    def scores(self, genotype: Genotype) -> Scores:
        return (self.objectives or partial(alone, self.fitness))(genotype)


def sphere(genotype: Genotype) -> float:
    return -sum((u - 0.6) ** 2 for u in genotype)


def mixed(genotype: Genotype) -> float:
    """Two numbers, two in steps of which the fourth and the second are best, and some choices."""
    steps = sum((axis.step(u) - 3) ** 2 for axis, u in zip(MIXED[2:4], genotype[2:4], strict=True))
    chosen = [axis.step(u) for axis, u in zip(MIXED[4:], genotype[4:], strict=True)]
    return sphere(genotype[:2]) - 0.02 * steps - 0.1 * sum(step != 1 for step in chosen)


def few_of_each(genotype: Genotype) -> float:
    number, step, choice = genotype
    wrong = 0.1 * (FEW[2].step(choice) != 1)
    return sphere((number,)) - 0.02 * (FEW[1].step(step) - 3) ** 2 - wrong


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


ENDS = np.asarray([0.7] * 4), np.asarray([0.7, 0.7, 0.7, 0.3])


def two_goals(genotype: Genotype) -> Scores:
    return tuple(-float(np.sum((np.asarray(genotype) - end) ** 2)) for end in ENDS)


def to_the_front(genotype: Genotype) -> float:
    """The squared distance to the line between the two goals, negative."""
    along = min(max(genotype[3], 0.3), 0.7)
    return -float(np.sum((np.asarray(genotype) - [0.7, 0.7, 0.7, along]) ** 2))


START = (0.2, 0.8, 0.1, 0.2)
MIXED = (CONTINUOUS, CONTINUOUS, Axis(7), Axis(4), Axis(3, ordered=False), Axis(2, ordered=False))
MIXED_START = (0.1, 0.9, 0.5 / 7, 0.125, 0.5 / 3, 0.25)
FEW = (CONTINUOUS, Axis(4), Axis(3, ordered=False))
FEW_START = (0.1, 0.125, 0.5 / 3)
FLAGS = (*MIXED[:4], Axis(2, ordered=False), Axis(2, ordered=False))
FLAGS_START = (*MIXED_START[:4], 0.25, 0.25)
BITS = (CONTINUOUS, CONTINUOUS, *[Axis(2, ordered=False)] * 6)
BITS_START = (*START[:2], *(0.25, 0.25, 0.25, 0.75, 0.75, 0.75))
NUMBERS = (CONTINUOUS,) * 4
STACKS = StackSpace(Slots((("a", 8), ("b", 8)), 2), "a", 4, 12)
TARGET = (Segment("a", 0, 3), Segment("b", 3, 5), Segment("a", 4, 8, 1.1))


def cma_es(axes: tuple[Axis, ...], start: Genotype, seed: int) -> Strategy:
    return CmaEs(start, axes=axes, seed=seed, population=10, sigma=1 / 6)


def coarse_to_fine(seed: int) -> Strategy:
    def make(start: Genotype, axes: Sequence[Axis]) -> Strategy:
        return cma_es(tuple(axes), start, seed)

    return CoarseToFine(START, Blocks((0, 0, 1, 1)), NUMBERS, make, generations=3)


def chebyshev(axes: tuple[Axis, ...], start: Genotype, seed: int) -> Strategy:
    def search(direction: int, size: int) -> Strategy:
        own = 100 * seed + direction
        return CmaEs(start, axes=axes, seed=own, population=size, sigma=1 / 6)

    return Chebyshev(search, objectives=2, population=20)


def ga(axes: tuple[Axis, ...], start: Genotype, seed: int) -> Strategy:
    return Ga(start, axes=axes, seed=seed, population=10)


def uniform(axes: tuple[Axis, ...], start: Genotype, seed: int) -> Strategy:
    return Random(start, axes=axes, seed=seed, population=10)


def optuna(name: str, size: int, axes: tuple[Axis, ...], start: Genotype, seed: int) -> Strategy:
    return OptunaSampler(name, start, axes=axes, seed=seed, population=size)


def stack_ga(seed: int) -> Strategy:
    return StackGa(STACKS, first_paths(STACKS), seed=seed, population=10)


tpe, nsga2 = partial(optuna, "tpe", 10), partial(optuna, "nsga2", 10)
gp = partial(optuna, "gp", 4)
STRATEGIES: dict[str, Case] = {
    "cma_es": Case(partial(cma_es, NUMBERS, START), START, sphere),
    "cma_es with steps and flags": Case(partial(cma_es, FLAGS, FLAGS_START), FLAGS_START, mixed),
    "cma_es with two objectives": Case(
        partial(chebyshev, NUMBERS, START), START, to_the_front, objectives=two_goals
    ),
    "coarse to fine": Case(coarse_to_fine, START, sphere),
    "ga": Case(partial(ga, NUMBERS, START), START, sphere),
    "ga with bits": Case(partial(ga, BITS, BITS_START), BITS_START, bits_and_sphere),
    "ga with steps and choices": Case(partial(ga, MIXED, MIXED_START), MIXED_START, mixed),
    "ga with two objectives": Case(
        partial(ga, NUMBERS, START), START, to_the_front, objectives=two_goals
    ),
    "random": Case(
        partial(uniform, MIXED, MIXED_START), MIXED_START, mixed, left=0.25, learns=False
    ),
    "tpe": Case(partial(tpe, NUMBERS, START), START, sphere, 8, 0.25),
    "tpe with steps and choices": Case(
        partial(tpe, MIXED, MIXED_START), MIXED_START, mixed, 8, 0.25
    ),
    # a proposal of the Gaussian process takes a quarter of a second
    "gp with steps and choices": Case(partial(gp, FEW, FEW_START), FEW_START, few_of_each, 3, 0.5),
    "nsga2": Case(partial(nsga2, MIXED, MIXED_START), MIXED_START, mixed),
    "nsga2 with two objectives": Case(
        partial(nsga2, NUMBERS, START), START, to_the_front, objectives=two_goals
    ),
    "stack_ga": Case(stack_ga, STACKS.start, to_the_target),
}


@pytest.fixture(params=STRATEGIES)
def case(request: pytest.FixtureRequest) -> Case:
    return STRATEGIES[request.param]


def trajectory(strategy: Strategy, case: Case, generations: int) -> list[Genotype]:
    seen: list[Genotype] = []
    for _ in range(generations):
        asked = [strategy.ask() for _ in range(strategy.population)]
        strategy.tell(asked, [case.scores(g) for g in asked])
        seen += asked
    return seen


def global_random_state() -> list[object]:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [random.getstate(), name, list(keys), rest, torch.random.get_rng_state().tolist()]


def test_a_seed_is_a_trajectory_and_the_global_random_state_has_no_part_in_it(case: Case) -> None:
    few = max(case.generations // 3, 2)
    found: list[list[Genotype]] = []
    for state in (0, 99):
        np.random.seed(state)  # noqa: NPY002
        random.seed(state)
        torch.manual_seed(state)
        before = global_random_state()
        found.append(trajectory(case.make(5), case, few))
        assert global_random_state() == before
    assert found[0] == found[1]
    assert found[0][: case.make(6).population] != trajectory(case.make(6), case, 1)


def test_it_climbs_within_the_unit_cube(case: Case) -> None:
    strategy = case.make(3)
    assert strategy.estimates == ()
    seen = trajectory(strategy, case, case.generations)
    assert all(len(one) == len(case.start) for one in seen)
    assert all(0.0 <= u <= 1.0 for one in seen for u in one)
    reached = max(map(case.fitness, strategy.estimates if case.learns else seen))
    assert reached > case.fitness(case.start) * case.left
    assert case.learns == bool(strategy.estimates)


def test_failures_rank_last(case: Case) -> None:
    one, other = case.make(4), case.make(4)
    asked = [one.ask() for _ in range(one.population)]
    assert asked == [other.ask() for _ in range(other.population)]
    scores = [case.scores(g) for g in asked]
    lowest = tuple(min(column) - 1.0 for column in zip(*scores, strict=True))
    worst = scores.index(min(scores))
    one.tell(asked, [None if i == worst else s for i, s in enumerate(scores)])
    other.tell(asked, [lowest if i == worst else s for i, s in enumerate(scores)])
    few = 1 if case.generations < 8 else 6
    assert [one.ask() for _ in range(few)] == [other.ask() for _ in range(few)]


def test_all_failed_is_survived(case: Case) -> None:
    strategy = case.make(4)
    asked = [strategy.ask() for _ in range(strategy.population)]
    strategy.tell(asked, [None] * len(asked))
    again = [strategy.ask() for _ in range(strategy.population)]
    assert all(len(one) == len(case.start) for one in again)
    strategy.tell(again, [case.scores(one) for one in again])
    assert len(strategy.ask()) == len(case.start)


def test_asking_ahead_by_half_a_generation(case: Case) -> None:
    strategy = case.make(4)
    ahead = strategy.population // 2
    asked = [strategy.ask() for _ in range(strategy.population + ahead)]
    seen = list(asked)
    for _ in range(max(case.generations // 2, 2)):
        told, asked = asked[: strategy.population], asked[strategy.population :]
        strategy.tell(told, [case.scores(g) for g in told])
        asked += [strategy.ask() for _ in range(strategy.population)]
        seen += asked
    reached = max(map(case.fitness, strategy.estimates if case.learns else seen))
    assert reached > case.fitness(case.start)
