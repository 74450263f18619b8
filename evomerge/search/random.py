"""Random: the start, then any genotype; what every other strategy has to beat.

Bergstra & Bengio 2012, Journal of Machine Learning Research 13.
"""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.candidate import Genotype, Scores
from evomerge.genes import Axis
from evomerge.search.variation import Variation
from evomerge.seeding import generator


class Random:
    """Uniform draws from the unit cube (stateful by its generator); learns nothing."""

    def __init__(
        self, start: Genotype, *, axes: Sequence[Axis], seed: int, population: int
    ) -> None:
        """Propose `start` first; `axes` say what its numbers stand for."""
        self._variation = Variation(axes, generator(seed, "random"))
        self._first: Genotype | None = self._variation.settled(start)
        self._population = population

    @property
    def population(self) -> int:
        """Genotypes per generation."""
        return self._population

    def ask(self) -> Genotype:
        """The start, then uniform draws."""
        first, self._first = self._first, None
        return self._variation.uniform() if first is None else first

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Nothing follows from a generation."""

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """None: a draw that was lucky is all there is, and the final knows the best scores."""
        return ()
