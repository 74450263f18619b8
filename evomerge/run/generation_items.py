"""GenerationItems: what each generation is scored on."""

from __future__ import annotations

from typing import final

from evomerge.candidate import ItemSelection
from evomerge.evaluate.splits import minibatch
from evomerge.run.plan import Batches


@final
class GenerationItems:
    """The items of the generations of one search (stateful: it remembers the last draw)."""

    def __init__(self, items: ItemSelection, batches: Batches, seed: int) -> None:
        """`items` are those of the search."""
        self._items = items
        self._fresh = batches.fresh
        self._per_task = batches.per_task(items)
        self._seed = seed
        self._drawn: tuple[int, ItemSelection] | None = None

    def of(self, generation: int) -> ItemSelection:
        """The items of a generation, the same for all its candidates."""
        number = generation if self._fresh else 0
        if self._drawn is None or self._drawn[0] != number:  # once for all of them
            drawn = minibatch(self._items, self._per_task, generation=number, seed=self._seed)
            self._drawn = (number, drawn)
        return self._drawn[1]
