"""Levels: makes fitness from different generations' items comparable."""

from __future__ import annotations

from collections.abc import Sequence

_PRIOR = 1.0
"""Results that a generation's first guess is worth: items differ about as much as candidates do."""


class Levels:
    """The usual fitness on each generation's items, as results arrive (stateful)."""

    def __init__(self, population: int) -> None:
        """Candidates index // population share their items."""
        self._population = population
        self._fitness: dict[int, float | None] = {}
        self._sums: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    def add(self, index: int, fitness: float | None) -> None:
        """Take one result; a failure says nothing about the items."""
        self._fitness[index] = fitness
        if fitness is not None:
            generation = index // self._population
            self._sums[generation] = self._sums.get(generation, 0.0) + fitness
            self._counts[generation] = self._counts.get(generation, 0) + 1

    def comparable(self, members: Sequence[int]) -> tuple[float | None, ...]:
        """The fitness of `members`; if they come from several generations, above their levels.

        A level is the posterior mean of its generation's results under a normal prior around the
        middle of the generations concerned, so the few first results of a generation are not
        taken for its level.
        """
        generations = {member // self._population for member in members}
        values = tuple(self._fitness[member] for member in members)
        if len(generations) == 1:
            return values
        known = {g: self._sums[g] / self._counts[g] for g in generations if g in self._counts}
        if not known:
            return values
        middle = sum(known.values()) / len(known)
        levels = {
            g: (self._sums.get(g, 0.0) + _PRIOR * middle) / (self._counts.get(g, 0) + _PRIOR)
            for g in generations
        }
        return tuple(
            None if value is None else value - levels[member // self._population]
            for member, value in zip(members, values, strict=True)
        )
