"""Standing: how individuals compare when each of several objectives is known by evidence only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.candidate import Genotype, Scores
from evomerge.search.evidence import Evidence
from evomerge.search.fronts import by_fronts

KEPT = 1000
"""Of several objectives, how many are compared again with every new generation; the others of a
long search stay behind them."""


class Standing:
    """Evidence of every objective, and one order over all of them (stateful)."""

    def __init__(self) -> None:
        self._evidence: tuple[Evidence, ...] = (Evidence(),)
        self._ranked: tuple[Genotype, ...] = ()

    def add(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Take one generation; who failed once (None) is out for good."""
        count = next((len(one) for one in scores if one is not None), len(self._evidence))
        if count > len(self._evidence):
            assert not self._ranked, "the number of objectives changed"
            self._evidence = tuple(Evidence() for _ in range(count))
        for objective, evidence in enumerate(self._evidence):
            evidence.add(genotypes, [None if one is None else one[objective] for one in scores])
        known = self._evidence[0].ranked()
        self._ranked = known if len(self._evidence) == 1 else self._by_fronts(known)

    def _by_fronts(self, known: Sequence[Genotype]) -> tuple[Genotype, ...]:
        if not known:
            return ()
        ahead, before = set(self._ranked[:KEPT]), set(self._ranked)
        fresh = [one for one in known if one in ahead or one not in before]
        order = by_fronts(np.asarray([self.scores(one) for one in fresh]))
        alive = set(known)
        behind = [one for one in self._ranked[KEPT:] if one in alive]
        return (*(fresh[place] for place in order), *behind)

    def ranked(self) -> tuple[Genotype, ...]:
        """Everyone who never failed, best first; of several objectives front by front."""
        return self._ranked

    def scores(self, one: Genotype) -> Scores:
        """What is expected of an individual on usual items."""
        return tuple(evidence.estimate(one) for evidence in self._evidence)

    def evaluations(self, one: Genotype) -> int:
        """In how many generations an individual was scored."""
        return self._evidence[0].evaluations(one)

    def proven(self, most: int) -> tuple[Genotype, ...]:
        """Up to `most`, best first: those scored more than once, then the others."""
        return tuple(sorted(self._ranked, key=lambda one: self.evaluations(one) == 1)[:most])
