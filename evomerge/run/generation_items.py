"""GenerationItems: what each generation is scored on, and when it is scored on more."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import ItemSelection
from evomerge.evaluate.splits import minibatch
from evomerge.run.plan import MOST_BY_COST, Batches
from evomerge.score import Objective, TaskOutcomes, signals

WINDOW = 5
"""Generations whose mean agreement decides."""
AGREEMENT = 0.3
"""Rank correlation of two half-batches below which a ranking is mostly luck."""
GROWTH = 1.5
_FEWEST = 4
"""Candidates that can be ranked at all."""

Results = tuple[TaskOutcomes, ...]


@final
class GenerationItems:
    """The items of the generations of one search (stateful: it learns and remembers sizes).

    The size for a generation is decided when its first candidate is proposed, from the generations
    told by then, and goes on record, so that a continued run need not decide again.
    """

    def __init__(
        self,
        items: ItemSelection,
        batches: Batches,
        seed: int,
        *,
        recorded: Callable[[int], int | None],
        record: Callable[[int, int], None],
        merge_cost: Callable[[], float],
    ) -> None:
        """`recorded` and `record` know the size of a generation on record.

        `merge_cost` says how many items take as long as building a merge, once that is known.
        """
        self._items = items
        self._batches = batches
        self._seed = seed
        self._recorded = recorded
        self._record = record
        self._merge_cost = merge_cost
        self._told: deque[tuple[int, Callable[[], float | None]]] = deque(maxlen=WINDOW)
        self._sizes: dict[int, int] = {}
        self._drawn: tuple[int, int, ItemSelection] | None = None
        self._most = max((len(ids) for _, ids in items.tasks), default=0)
        self._size = batches.first(items)
        self._most_by_cost = max(self._size, min(MOST_BY_COST, self._most))

    @property
    def first(self) -> int:
        """Items of each task in the first generation."""
        return self._size

    def of(self, generation: int) -> ItemSelection:
        """The items of a generation, the same for all its candidates."""
        number = generation if self._batches.fresh else 0
        size = self._size_of(generation)
        if self._drawn is None or self._drawn[:2] != (number, size):  # once for all of them
            drawn = minibatch(self._items, size, generation=number, seed=self._seed)
            self._drawn = (number, size, drawn)
        return self._drawn[2]

    def learn(self, generation: int, agreement: Callable[[], float | None]) -> None:
        """A generation was told; `agreement` is computed only if a decision needs it."""
        if self._batches.growing:
            self._told.append((generation, agreement))

    def _size_of(self, generation: int) -> int:
        if not (self._batches.growing or self._batches.by_cost):
            return self._size
        if generation not in self._sizes:
            known = self._recorded(generation)
            self._sizes[generation] = self._decided() if known is None else known
            self._size = self._sizes[generation]
            if known is None:
                self._record(generation, self._size)
        return self._sizes[generation]

    def _decided(self) -> int:
        """The size from now on."""
        if self._batches.by_cost and not self._sizes:
            return min(max(self._size, math.ceil(self._merge_cost())), self._most_by_cost)
        if not self._batches.growing:
            return self._size
        of_this_size = all(self._sizes[told] == self._size for told, _ in self._told)
        if len(self._told) < WINDOW or not of_this_size or self._size == self._most:
            return self._size
        found = [value for _, agreement in self._told if (value := agreement()) is not None]
        if not found or sum(found) / len(found) >= AGREEMENT:
            return self._size
        return min(math.ceil(GROWTH * self._size), self._most)


def agreement(objective: Objective, results: Sequence[Results]) -> float | None:
    """Rank correlation (Spearman's) of candidates by one half of their common items and the other.

    None with too few candidates; 0 when one half cannot tell them apart.
    """
    if len(results) < _FEWEST:
        return None
    parts = np.stack([signals(objective, result) for result in results])
    one, other = _ranks(parts[:, ::2].sum(axis=1)), _ranks(parts[:, 1::2].sum(axis=1))
    if one.std() == 0.0 or other.std() == 0.0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share their mean rank."""
    below = (values[:, None] > values[None, :] + 1e-12).sum(axis=1)
    equal = (np.abs(values[:, None] - values[None, :]) <= 1e-12).sum(axis=1)
    ranks: NDArray[np.float64] = below + (equal - 1) / 2.0
    return ranks
