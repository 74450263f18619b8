"""Generations: who is asked when, in a genetic search whose fitness is noisy.

New individuals first, each once in a search; at the end of a generation the best known are asked
again, on its items (by then the generation before is told, even if half a one is asked ahead).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from evomerge.candidate import Genotype, Scores
from evomerge.search.standing import Standing

ESTIMATES = 4
"""Genotypes, at most, that a strategy holds for the optimum."""
TRIES = 100
"""How often a child is drawn again that is impossible or was there before."""


def elites(population: int) -> int:
    """How many of a generation were there before: an eighth, and a pair where it can be."""
    return max(2 if population >= 8 else 1, population // 8)


class Generations:
    """What was proposed and told, and what comes next (stateful)."""

    def __init__(self, first: Sequence[Genotype], population: int) -> None:
        """Propose `first` before anything else; there is at least one."""
        self._first = tuple(dict.fromkeys(first))
        assert self._first, "a genetic search begins somewhere"
        self._waiting = list(self._first)
        self._proposed: set[Genotype] = set()
        self.standing = Standing()
        self._asked = 0
        self._again = 0
        self.population = population

    @property
    def parents(self) -> tuple[Genotype, ...]:
        """The best half a generation of all individuals; what the search began with, before."""
        return self.standing.ranked()[: max(self.population // 2, 2)] or self._first

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """The best with repeated evaluations, then others."""
        return self.standing.proven(ESTIMATES)

    def tournament(self, rng: np.random.Generator) -> Genotype:
        """The better of two random parents."""
        parents = self.parents
        return parents[min(int(place) for place in rng.integers(0, len(parents), 2))]

    def ask(self, child: Callable[[], Genotype | None]) -> Genotype:
        """The next genotype; `child` draws one, None when the draw came to nothing."""
        place = self._asked % self.population
        self._asked += 1
        if place == 0:
            self._again = 0
        if place >= self.population - elites(self.population) and self.standing.ranked():
            return self._next_elite()
        if self._waiting:
            found: Genotype | None = self._waiting.pop(0)
        else:
            drawn = (child() for _ in range(TRIES))
            found = next((one for one in drawn if one and one not in self._proposed), None)
        if found is None:
            return self._next_elite()
        self._proposed.add(found)
        return found

    def _next_elite(self) -> Genotype:
        """The best that this generation has not asked again; of the first when none is known."""
        known = self.standing.ranked() or self._first
        self._again += 1
        return known[(self._again - 1) % len(known)]

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Learn from one generation."""
        self.standing.add(genotypes, scores)
