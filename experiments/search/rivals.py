"""Strategies of other systems, as their papers and documents describe them; none of their code."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cma
import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Genotype, Scores
from evomerge.search.operators import polynomial, sbx
from evomerge.search.strategy import Strategy, only
from evomerge.seeding import generator
from evomerge.space import SearchSpace

Floats = NDArray[np.float64]
GRID = 10
"""Mergenetic's genes are whole numbers from 0 to this."""
CROSSOVER = 0.9
_NEVER = 10**9


class MergekitCma:
    """CMA-ES as mergekit-evolve sets it up: in the values themselves, without bounds (stateful).

    Start: weight 1 / models, density 1. First step 1/6 in units of the values. A value's absolute
    amount is taken, a density's at most 1. pycma's defaults otherwise, but for its stopping rules.
    """

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space = space
        self._rng = generator(seed, "mergekit")
        start = [
            1.0 / len(space.parents) if place.parameter == "weight" else 1.0
            for place in space.places
        ]
        options: dict[str, Any] = {
            "randn": lambda *shape: self._rng.standard_normal(shape),
            "seed": np.nan,
            "signals_filename": None,
            "verbose": -9,
            "tolfun": 0,
            "tolfunhist": 0,
            "tolfunrel": 0,
            "tolx": 0,
            "tolflatfitness": _NEVER,
            "tolstagnation": _NEVER,
            "tolconditioncov": None,
            "maxiter": _NEVER,
            "maxfevals": _NEVER,
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._es = cma.CMAEvolutionStrategy(start, 1.0 / 6.0, options)
        self._waiting: deque[Floats] = deque()
        self._asked: deque[Floats] = deque()

    @property
    def population(self) -> int:
        return int(self._es.popsize)

    def ask(self) -> Genotype:
        if not self._waiting:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._waiting.extend(self._es.ask())
        values = self._waiting.popleft()
        self._asked.append(values)
        found = [
            gene.encode(min(abs(float(x)), 1.0) if place.parameter == "density" else abs(float(x)))
            for gene, place, x in zip(self._space.genes, self._space.places, values, strict=True)
        ]
        assert None not in found, "weights and densities are numbers"
        return tuple(position for position in found if position is not None)

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        values = [self._asked.popleft() for _ in genotypes]
        fitness = only(scores)
        worst = max((-value for value in fitness if value is not None), default=0.0) + 1.0
        losses = [worst if value is None else -value for value in fitness]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._es.tell(values, losses)

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        return ()


@dataclass(frozen=True)
class _Known:
    """An individual and its fitness, the worst number there is if it failed."""

    numbers: Floats
    fitness: float


class MergeneticGa:
    """The genetic algorithm of Mergenetic's configurations: SBX and polynomial mutation (stateful).

    Genes on a grid of whole numbers, a random first generation, tournaments of two, and the best of
    parents and children survive with the score they once got, as is usual where fitness is exact.
    """

    def __init__(self, dimension: int, *, population: int, seed: int) -> None:
        self._dimension = dimension
        self._population = population
        self._rng = generator(seed, "mergenetic")
        self._alive: list[_Known] = []

    @property
    def population(self) -> int:
        return self._population

    def ask(self) -> Genotype:
        if not self._alive:
            numbers = self._rng.integers(0, GRID + 1, self._dimension) / GRID
        else:
            numbers = self._child()
        return tuple(float(number) for number in numbers)

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        for genotype, fitness in zip(genotypes, only(scores), strict=True):
            value = -np.inf if fitness is None else fitness
            self._alive.append(_Known(np.asarray(genotype), value))
        self._alive.sort(key=lambda known: -known.fitness)
        del self._alive[self._population :]

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        return ()

    def _child(self) -> Floats:
        one, two = self._winner(), self._winner()
        rng, count = self._rng, self._dimension
        child = one
        if rng.random() < CROSSOVER:
            lower, upper = sbx(one, two, rng.random(count))
            crossed = np.where(rng.random(count) < 0.5, lower, upper)
            child = np.where(rng.random(count) < 0.5, crossed, one)
        mutated = polynomial(child, rng.random(count))
        child = np.where(rng.random(count) * count < 1.0, mutated, child)
        rounded: Floats = np.round(child * GRID) / GRID
        return rounded

    def _winner(self) -> Floats:
        places = self._rng.integers(0, len(self._alive), 2)
        return max((self._alive[int(place)] for place in places), key=lambda k: k.fitness).numbers


_strategies: tuple[type[Strategy], ...] = (MergekitCma, MergeneticGa)
