"""CoarseToFine: genes that belong together move together first, then each on its own.

Akiba et al. 2024 (arXiv:2403.13187) found their best weights with whole models as one group; what
layers add is found faster from there. The coarse search's mean stays an estimate of its own, so the
final decides, in a paired test, whether the refinement is worth anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Genotype, Scores
from evomerge.genes import Axis
from evomerge.search.generations import ESTIMATES
from evomerge.search.strategy import Strategy


@dataclass(frozen=True)
class Blocks:
    """Which genes move together: the block of each, numbered from 0."""

    of: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return max(self.of) + 1

    def means(self, genotype: Genotype) -> Genotype:
        """The mean position of each block."""
        sums = np.bincount(self.of, weights=genotype) / np.bincount(self.of)
        return tuple(float(value) for value in sums)

    def axes(self, axes: Sequence[Axis]) -> tuple[Axis, ...]:
        """What the position of each block stands for: what that of its first gene does."""
        return tuple(axes[self.of.index(block)] for block in range(self.count))

    def spread(self, positions: Genotype, around: Genotype) -> Genotype:
        """`around` with each block moved, as far as it can, so that its mean is at its position."""
        moves: NDArray[np.float64] = np.asarray(positions) - np.asarray(self.means(around))
        moved = np.clip(np.asarray(around) + moves[list(self.of)], 0.0, 1.0)
        return tuple(float(value) for value in moved)


Make = Callable[[Genotype, Sequence[Axis]], Strategy]
"""Begins a search at a genotype whose numbers stand for what the axes say."""


class CoarseToFine:
    """Two searches of the same kind, one after the other (stateful)."""

    def __init__(
        self,
        start: Genotype,
        blocks: Blocks,
        axes: Sequence[Axis],
        make: Make,
        *,
        generations: int,
    ) -> None:
        """Begin at `start`; the coarse search lasts `generations`."""
        self._start = start
        self._blocks = blocks
        self._axes = axes
        self._make = make
        self._coarse = make(blocks.means(start), blocks.axes(axes))
        self._fine: Strategy | None = None
        self._left = generations * self._coarse.population
        self._asked: dict[Genotype, Genotype] = {}

    @property
    def population(self) -> int:
        """Genotypes per generation."""
        return self._coarse.population

    def ask(self) -> Genotype:
        """A move of all genes of each block; after the coarse generations, of single genes."""
        if self._left == 0:
            return self._refined().ask()
        self._left -= 1
        positions = self._coarse.ask()
        genotype = self._blocks.spread(positions, self._start)
        self._asked[genotype] = positions
        return genotype

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Learn from one generation; the fine search also from the last of the coarse one."""
        positions = [self._asked.get(genotype) for genotype in genotypes]
        coarse = [found for found in positions if found is not None]
        if len(coarse) == len(genotypes):
            self._coarse.tell(coarse, scores)
        else:
            self._refined().tell(genotypes, scores)

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """Those of the fine search, and the steadiest of the coarse one."""
        coarse = self._coarse.estimates[-1:]
        kept = tuple(self._blocks.spread(positions, self._start) for positions in coarse)
        return kept if self._fine is None else (*self._fine.estimates[-ESTIMATES + 1 :], *kept)

    def _refined(self) -> Strategy:
        """The fine search, which begins where the coarse one is."""
        if self._fine is None:
            best = self._coarse.estimates
            start = self._blocks.spread(best[-1], self._start) if best else self._start
            self._fine = self._make(start, self._axes)
        return self._fine
