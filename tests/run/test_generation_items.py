from __future__ import annotations

import pytest

from evomerge.candidate import ItemSelection
from evomerge.run.generation_items import GenerationItems
from evomerge.run.plan import Batches

ITEMS = ItemSelection((("task", tuple(f"i{index:03d}" for index in range(200))),))


def generations(
    batches: Batches, record: list[int] | None = None, merge_cost: float = 0.0
) -> GenerationItems:
    record = [] if record is None else record
    return GenerationItems(
        ITEMS,
        batches,
        3,
        recorded=lambda: record[0] if record else None,
        record=record.append,
        merge_cost=lambda: merge_cost,
    )


def test_fresh_items_differ_and_fixed_ones_do_not() -> None:
    fresh, fixed = generations(Batches(20)), generations(Batches(20, fresh=False))
    assert fresh.of(0) != fresh.of(1)
    assert fresh.of(0).count == fresh.of(1).count == 20
    assert fixed.of(0) == fixed.of(7) == fresh.of(0)


def test_all_items_are_the_search_items() -> None:
    assert generations(Batches(None)).of(4) == ITEMS
    assert generations(Batches(5000)).fewest == 200


@pytest.mark.parametrize(("cost", "size"), [(0.3, 20), (47.2, 48), (5000.0, 100)])
def test_dear_merges_are_asked_more(cost: float, size: int) -> None:
    record: list[int] = []
    by_cost = generations(Batches(20, by_cost=True), record, cost)
    assert [by_cost.of(number).count for number in range(3)] == [size] * 3
    again = generations(Batches(20, by_cost=True), record, 1.0)
    assert again.of(0).count == size


def test_the_cost_of_merges_does_not_lower_what_was_asked_for() -> None:
    assert generations(Batches(150, by_cost=True), None, 1.0).of(0).count == 150
