from __future__ import annotations

from evomerge.candidate import ItemSelection
from evomerge.run.generation_items import GenerationItems
from evomerge.run.plan import Batches

ITEMS = ItemSelection((("task", tuple(f"i{index:03d}" for index in range(200))),))


def test_fresh_items_differ_and_fixed_ones_do_not() -> None:
    fresh = GenerationItems(ITEMS, Batches(20), 3)
    fixed = GenerationItems(ITEMS, Batches(20, fresh=False), 3)
    assert fresh.of(0) != fresh.of(1)
    assert fresh.of(0).count == fresh.of(1).count == 20
    assert fixed.of(0) == fixed.of(7) == fresh.of(0)


def test_all_items_are_the_search_items() -> None:
    assert GenerationItems(ITEMS, Batches(None), 3).of(4) == ITEMS
    assert Batches(5000).per_task(ITEMS) == 200
