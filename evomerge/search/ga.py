"""Ga: the plain genetic algorithm, for genotypes of any kind.

Simulated binary crossover and polynomial mutation of numbers, uniform crossover and random other
choices; see `variation` and `operators`.
"""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.candidate import Genotype, Scores
from evomerge.genes import Axis
from evomerge.search.generations import Generations
from evomerge.search.variation import Variation
from evomerge.seeding import generator

CROSSOVER = 0.9
"""How many children have two parents."""


class Ga:
    """Genetic search in the unit cube, for one objective or several (stateful)."""

    def __init__(
        self, start: Genotype, *, axes: Sequence[Axis], seed: int, population: int
    ) -> None:
        """Begin at `start`; `axes` say what its numbers stand for."""
        self._rng = generator(seed, "ga")
        self._variation = Variation(axes, self._rng)
        self._start = self._variation.settled(start)
        self._generations = Generations([self._start], population)
        self._asked = 0

    @property
    def population(self) -> int:
        """Genotypes per generation."""
        return self._generations.population

    def ask(self) -> Genotype:
        """The start, in the first generation changed copies of it, then children."""
        self._asked += 1
        first = self._asked <= self.population
        return self._generations.ask(self._near_start if first else self._child)

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Learn from one generation."""
        self._generations.tell(genotypes, scores)

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """The best that were scored again and again."""
        return self._generations.estimates

    def _near_start(self) -> Genotype:
        return self._variation.near(self._start)

    def _child(self) -> Genotype:
        one, two = (self._generations.tournament(self._rng) for _ in range(2))
        crossed = self._variation.crossed(one, two) if self._rng.random() < CROSSOVER else one
        return self._variation.mutated(crossed)
