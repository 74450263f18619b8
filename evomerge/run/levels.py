"""Levels: makes scores from different generations' items comparable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Scores

_PRIOR = 1.0
"""Results that a generation's first guess is worth: items differ about as much as candidates do."""


class Levels:
    """The usual scores on each generation's items, as results arrive (stateful)."""

    def __init__(self, population: int) -> None:
        """Candidates index // population share their items."""
        self._population = population
        self._scores: dict[int, Scores | None] = {}
        self._sums: dict[int, NDArray[np.float64]] = {}
        self._counts: dict[int, int] = {}

    def add(self, index: int, scores: Scores | None) -> None:
        """Take one result; a failure says nothing about the items."""
        self._scores[index] = scores
        if scores is not None:
            generation = index // self._population
            self._sums[generation] = self._sums.get(generation, 0.0) + np.asarray(scores)
            self._counts[generation] = self._counts.get(generation, 0) + 1

    def comparable(self, members: Sequence[int]) -> tuple[Scores | None, ...]:
        """The scores of `members`; if they come from several generations, above their levels.

        A level is the posterior mean of its generation's results under a normal prior around the
        middle of the generations concerned, so the few first results of a generation are not
        taken for its level.
        """
        generations = {member // self._population for member in members}
        values = tuple(self._scores[member] for member in members)
        known = generations & self._counts.keys()
        if len(generations) == 1 or not known:
            return values
        levels = self._levels(known)
        return tuple(
            None if value is None else _less(value, levels[member // self._population])
            for member, value in zip(members, values, strict=True)
        )

    def _levels(self, known: Iterable[int]) -> dict[int, NDArray[np.float64]]:
        means = [self._sums[g] / self._counts[g] for g in sorted(known)]
        middle = np.mean(means, axis=0)
        return {g: (self._sums[g] + _PRIOR * middle) / (self._counts[g] + _PRIOR) for g in known}


def _less(scores: Scores, level: NDArray[np.float64]) -> Scores:
    return tuple(float(value) for value in np.asarray(scores) - level)
