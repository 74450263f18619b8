"""Variation: new genotypes from known ones, by what each of their numbers stands for.

Continuous numbers and ordered steps are crossed and mutated as numbers; a step that is to change
changes by one at least, however small the number's move. Choices are taken from either parent, and
mutate to any other choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Genotype
from evomerge.genes import Axis
from evomerge.search.operators import Numbers, polynomial, sbx

JITTER = 1.0 / 6.0
"""Standard deviation of numbers near another."""
_FEWEST = 4
"""A choice mutates in one child of so many at most, or a space of one would inherit nothing."""

Mask = NDArray[np.bool_]


class Variation:
    """Draws with the axes of a space and a generator of its own (stateful by the generator).

    Steps and choices come out in the middle of their share of [0, 1].
    """

    def __init__(self, axes: Sequence[Axis], rng: np.random.Generator) -> None:
        """`axes`: one per number of a genotype."""
        self._rng = rng
        self._is_choice = np.asarray([not axis.ordered for axis in axes], dtype=np.bool_)
        # of continuous numbers 1, so that nothing divides by 0; it is not used
        self._steps = np.asarray([float(axis.steps or 1) for axis in axes])
        self._in_steps = np.asarray([axis.steps is not None for axis in axes], dtype=np.bool_)

    def settled(self, genotype: Sequence[float] | Numbers) -> Genotype:
        """The genotype with every step in the middle of its share."""
        numbers = np.asarray(genotype, dtype=np.float64)
        settled = np.where(self._in_steps, self._middle(self._step(numbers)), numbers)
        return tuple(settled.tolist())

    def near(self, genotype: Genotype, spread: float = JITTER) -> Genotype:
        """Every number moved a little, a choice now and then another."""
        numbers = np.asarray(genotype)
        moved = np.clip(numbers + self._rng.normal(0.0, spread, len(numbers)), 0.0, 1.0)
        return self.settled(self._chosen_otherwise(np.where(self._is_choice, numbers, moved)))

    def uniform(self) -> Genotype:
        """Any genotype."""
        return self.settled(self._rng.random(len(self._steps)))

    def crossed(self, one: Genotype, two: Genotype) -> Genotype:
        """One child: half its numbers crossed, the others those of `one`; choices of either."""
        first, second = np.asarray(one), np.asarray(two)
        lower, upper = sbx(first, second, self._rng.random(len(first)))
        coin, cross = (self._rng.random(len(first)) < 0.5 for _ in range(2))
        numbers = np.where(cross, np.where(coin, lower, upper), first)
        return self.settled(np.where(self._is_choice, np.where(coin, first, second), numbers))

    def mutated(self, genotype: Genotype) -> Genotype:
        """One of the numbers with an order moves, on average, and one choice at most."""
        numbers = np.asarray(genotype)
        u = self._rng.random(len(numbers))
        moved = polynomial(numbers, u)
        moved = np.where(self._in_steps, self._middle(self._another(numbers, moved, u)), moved)
        chosen = self._drawn(~self._is_choice, 1)
        return self.settled(self._chosen_otherwise(np.where(chosen, moved, numbers)))

    def _another(self, numbers: Numbers, moved: Numbers, u: Numbers) -> Numbers:
        """The step of `moved`; where that is the old one, the next in the direction of `u`."""
        here, there = self._step(numbers), self._step(moved)
        there = np.where(there == here, here + np.where(u < 0.5, -1.0, 1.0), there)
        outside = (there < 0.0) | (there >= self._steps)
        inside = np.where(outside, 2.0 * here - there, there)  # at an end the only way is back
        return np.asarray(np.clip(inside, 0.0, self._steps - 1.0))

    def _chosen_otherwise(self, numbers: Numbers) -> Numbers:
        drawn = self._drawn(self._is_choice, _FEWEST)
        away = 1.0 + np.floor(self._rng.random(len(numbers)) * (self._steps - 1.0))
        other = self._middle((self._step(numbers) + away) % self._steps)
        return np.asarray(np.where(drawn & (self._steps > 1.0), other, numbers))

    def _drawn(self, among: Mask, fewest: int) -> Mask:
        """Each of `among` with probability 1 / their number, or 1 / `fewest` if they are fewer."""
        drawn: Mask = self._rng.random(len(among)) * max(int(among.sum()), fewest) < 1.0
        return among & drawn

    def _step(self, numbers: Numbers) -> Numbers:
        return np.asarray(np.minimum(np.floor(numbers * self._steps), self._steps - 1.0))

    def _middle(self, steps: Numbers) -> Numbers:
        return np.asarray((steps + 0.5) / self._steps)
