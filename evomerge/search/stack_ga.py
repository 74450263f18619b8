"""StackGa: genetic search over paths, with edits that most stacks survive and no random stacks.

Of 12 samples of the distribution that Akiba et al. 2024 (arXiv:2403.13187) begin with, none was a
usable model; of 12 repeated middle blocks, 9 were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.candidate import Genotype, Scores
from evomerge.search.generations import Generations
from evomerge.search.stack_edits import EDITS, crossover
from evomerge.seeding import generator
from evomerge.stack import Path
from evomerge.stack_space import StackSpace

MORE_EDITS = 0.5
"""How many edits a child has besides the first, on average."""


class StackGa:
    """Genetic search over the paths of a space (stateful)."""

    def __init__(
        self, space: StackSpace, first: Sequence[Path], *, seed: int, population: int
    ) -> None:
        """Begin with those of `first` that the space holds; with its start when there is none."""
        self._space = space
        encoded = (space.encode(path) for path in first)
        known = [genotype for genotype in encoded if genotype is not None]
        self._generations = Generations(known or [space.start], population)
        self._rng = generator(seed, "stack_ga")
        self._weights = np.asarray([weight for _, weight in EDITS])

    @property
    def population(self) -> int:
        """Genotypes per generation."""
        return self._generations.population

    def ask(self) -> Genotype:
        """A new path as the space encodes it, or one of the best once more."""
        return self._generations.ask(self._child)

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Learn from one generation."""
        self._generations.tell(genotypes, scores)

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """The best that were scored again and again."""
        return self._generations.estimates

    def _child(self) -> Genotype | None:
        """A parent after 1 + Poisson edits; None when one came to nothing or the result is none."""
        path = self._parent()
        for _ in range(1 + int(self._rng.poisson(MORE_EDITS))):
            edited = self._edited(path)
            if not edited:
                return None
            path = edited
        return self._space.encode(path)

    def _edited(self, path: Path) -> Path | None:
        drawn = int(np.searchsorted(np.cumsum(self._weights), self._rng.random(), side="right"))
        if drawn == len(EDITS):
            return crossover(path, self._parent(), self._space, self._rng)
        return EDITS[drawn][0](path, self._space, self._rng)

    def _parent(self) -> Path:
        return self._space.path(self._generations.tournament(self._rng))
