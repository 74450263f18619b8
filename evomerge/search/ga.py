"""Ga: the plain genetic algorithm, for any genotype of numbers and of bits.

Numbers: simulated binary crossover (Deb & Agrawal 1995, Complex Systems 9) and polynomial mutation
(Deb & Goyal 1996), both bounded as in the code of NSGA-II (Deb et al. 2002). Bits: uniform
crossover and flips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Genotype, Scores
from evomerge.search.generations import Generations
from evomerge.search.strategy import only
from evomerge.seeding import generator

CROSSOVER = 0.9
"""How many children have two parents."""
ETA_CROSSOVER = 15.0
ETA_MUTATION = 20.0
JITTER = 1.0 / 6.0
"""Standard deviation of the numbers of the first generation around the start."""

Numbers = NDArray[np.float64]


class Ga:
    """Genetic search in the unit cube (stateful)."""

    def __init__(self, start: Genotype, *, bits: range, seed: int, population: int) -> None:
        """Begin at `start`; the positions in `bits` say yes (above 0.5) or no."""
        self._start = np.asarray(start, dtype=np.float64)
        self._is_bit = np.isin(np.arange(len(start)), bits)
        self._generations = Generations([start], population)
        self._rng = generator(seed, "ga")
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
        self._generations.tell(genotypes, only(scores))

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """The best that were scored again and again."""
        return self._generations.estimates

    def _near_start(self) -> Genotype:
        moved = self._start + self._rng.normal(0.0, JITTER, len(self._start))
        moved = np.where(self._is_bit, self._start, np.clip(moved, 0.0, 1.0))
        return _genotype(self._flipped(moved))

    def _child(self) -> Genotype:
        one, two = (np.asarray(self._generations.tournament(self._rng)) for _ in range(2))
        crossed = self._crossed(one, two) if self._rng.random() < CROSSOVER else one
        return _genotype(self._flipped(self._mutated(crossed)))

    def _crossed(self, one: Numbers, two: Numbers) -> Numbers:
        """One child of two parents: half its numbers crossed, the others those of `one`."""
        lower, upper = sbx(one, two, self._rng.random(len(one)))
        coin, cross = (self._rng.random(len(one)) < 0.5 for _ in range(2))
        numbers = np.where(cross, np.where(coin, lower, upper), one)
        child: Numbers = np.where(self._is_bit, np.where(coin, one, two), numbers)
        return child

    def _mutated(self, numbers: Numbers) -> Numbers:
        """Polynomial mutation of one number in D, on average; bits stay."""
        chosen = self._chosen(~self._is_bit)
        moved = polynomial(numbers, self._rng.random(len(numbers)))
        mutated: Numbers = np.where(chosen, moved, numbers)
        return mutated

    def _flipped(self, numbers: Numbers) -> Numbers:
        """One bit in T flips, on average."""
        flipped: Numbers = np.where(
            self._chosen(self._is_bit), np.where(numbers > 0.5, 0.0, 1.0), numbers
        )
        return flipped

    def _chosen(self, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Each of `among` with probability 1 / their number."""
        drawn: NDArray[np.bool_] = self._rng.random(len(among)) * max(int(among.sum()), 1) < 1.0
        return among & drawn


def sbx(one: Numbers, two: Numbers, u: Numbers) -> tuple[Numbers, Numbers]:
    """Lower and upper child of each pair of numbers in [0, 1]; `u` in [0, 1) is the spread's draw.

    Deb & Agrawal 1995; without bounds the children's mean is that of the parents.
    """
    low, high = np.minimum(one, two), np.maximum(one, two)
    lower, upper = _lower_child(low, high, u), 1.0 - _lower_child(1.0 - high, 1.0 - low, u)
    # to the last bit, so that a child without news is known as one that was there
    return np.where(low == high, low, lower), np.where(low == high, low, upper)


def _lower_child(low: Numbers, high: Numbers, u: Numbers) -> Numbers:
    gap = np.maximum(high - low, 1e-14)
    power = ETA_CROSSOVER + 1.0
    inside = 2.0 - (1.0 + 2.0 * low / gap) ** -power  # of a spread that leaves no child below 0
    scaled = u * inside
    spread = np.where(scaled <= 1.0, scaled, 1.0 / np.maximum(2.0 - scaled, 1e-14)) ** (1.0 / power)
    child: Numbers = np.clip(0.5 * (low + high - spread * (high - low)), 0.0, 1.0)
    return child


def polynomial(numbers: Numbers, u: Numbers) -> Numbers:
    """Numbers in [0, 1] moved within their bounds; `u` in [0, 1): below 0.5 down, else up."""
    power = ETA_MUTATION + 1.0
    down = (2.0 * u + (1.0 - 2.0 * u) * (1.0 - numbers) ** power) ** (1.0 / power) - 1.0
    up = 1.0 - (2.0 * (1.0 - u) + (2.0 * u - 1.0) * numbers**power) ** (1.0 / power)
    moved: Numbers = np.clip(numbers + np.where(u < 0.5, down, up), 0.0, 1.0)
    return moved


def _genotype(numbers: Numbers) -> Genotype:
    return tuple(float(number) for number in numbers)
