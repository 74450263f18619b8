"""Trials: what a search tried and how it scored, as arrays that statistics work on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.genes import Axis

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Trials:
    """Scored candidates of one search, one row each.

    Attributes:
        names: of the genes, or of what else may have mattered; d of them.
        axes: what their numbers stand for.
        values: shape (n, d); equal for equal steps.
        fitness: shape (n,); maximised.
        generations: shape (n,); candidates with the same number answered the same items.
        items: shape (n,); how many items each answered.
    """

    names: tuple[str, ...]
    axes: tuple[Axis, ...]
    values: Floats
    fitness: Floats
    generations: NDArray[np.int64]
    items: Floats

    def __len__(self) -> int:
        return len(self.fitness)

    def chosen(self, rows: NDArray[np.bool_]) -> Trials:
        """The trials of some rows."""
        return Trials(
            self.names,
            self.axes,
            self.values[rows],
            self.fitness[rows],
            self.generations[rows],
            self.items[rows],
        )

    def comparable(self) -> Trials:
        """Without candidates that were alone in their generation: nothing shares their items."""
        _, places, counts = np.unique(self.generations, return_inverse=True, return_counts=True)
        return self.chosen(counts[places] > 1)


def within(columns: Floats, generations: NDArray[np.int64]) -> Floats:
    """Columns of shape (n, k) minus their means per generation.

    What the items of a generation add to everyone's score goes, and with it every difference
    between generations: what is left compares candidates that answered the same questions.
    """
    _, places, counts = np.unique(generations, return_inverse=True, return_counts=True)
    order = np.argsort(places, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    means = np.add.reduceat(columns[order], starts, axis=0) / counts[:, None]
    return np.asarray(columns - means[places], dtype=np.float64)
