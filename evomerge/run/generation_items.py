"""GenerationItems: what each generation is scored on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

from evomerge.candidate import ItemSelection
from evomerge.evaluate.splits import minibatch
from evomerge.run.plan import MOST_BY_COST, Batches


@final
class GenerationItems:
    """The items of the generations of one search (stateful: it remembers size and last draw).

    A size that follows from what merges cost is decided when the first candidate is proposed, and
    goes on record, so that a continued run need not decide again.
    """

    def __init__(
        self,
        items: ItemSelection,
        batches: Batches,
        seed: int,
        *,
        recorded: Callable[[], int | None],
        record: Callable[[int], None],
        merge_cost: Callable[[], float],
    ) -> None:
        """`recorded` and `record` know the size on record.

        `merge_cost` says how many items take as long as building a merge, once that is known.
        """
        self._items = items
        self._batches = batches
        self._seed = seed
        self._recorded = recorded
        self._record = record
        self._merge_cost = merge_cost
        self._decided = not batches.by_cost
        self._size = batches.fewest(items)
        self._drawn: tuple[int, ItemSelection] | None = None

    @property
    def fewest(self) -> int:
        """Items of each task, before the cost of merges is known."""
        return self._batches.fewest(self._items)

    def of(self, generation: int) -> ItemSelection:
        """The items of a generation, the same for all its candidates."""
        number = generation if self._batches.fresh else 0
        if self._drawn is None or self._drawn[0] != number:  # once for all of them
            drawn = minibatch(self._items, self._chosen(), generation=number, seed=self._seed)
            self._drawn = (number, drawn)
        return self._drawn[1]

    def _chosen(self) -> int:
        if not self._decided:
            known = self._recorded()
            self._size = self._by_cost() if known is None else known
            if known is None:
                self._record(self._size)
            self._decided = True
        return self._size

    def _by_cost(self) -> int:
        there = max((len(ids) for _, ids in self._items.tasks), default=0)
        most = max(self._size, min(MOST_BY_COST, there))
        return min(max(self._size, math.ceil(self._merge_cost())), most)
