from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from evomerge.candidate import ItemSelection
from evomerge.run.generation_items import WINDOW, GenerationItems, agreement
from evomerge.run.plan import Batches
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes

ITEMS = ItemSelection((("task", tuple(f"i{index:03d}" for index in range(200))),))
OBJECTIVE = Objective((TaskGoal("task", "acc,none"),))


def generations(
    batches: Batches, record: dict[int, int] | None = None, merge_cost: float = 0.0
) -> GenerationItems:
    record = {} if record is None else record
    return GenerationItems(
        ITEMS,
        batches,
        3,
        recorded=record.get,
        record=lambda g, size: record.update({g: size}),
        merge_cost=lambda: merge_cost,
    )


def test_fresh_items_differ_and_fixed_ones_do_not() -> None:
    fresh, fixed = generations(Batches(20)), generations(Batches(20, fresh=False))
    assert fresh.of(0) != fresh.of(1)
    assert fresh.of(0).count == fresh.of(1).count == 20
    assert fixed.of(0) == fixed.of(7) == fresh.of(0)


def test_all_items_are_the_search_items() -> None:
    assert generations(Batches(None)).of(4) == ITEMS
    assert generations(Batches(5000)).first == 200


def always(value: float | None) -> Callable[[], float | None]:
    return lambda: value


def sizes(agreements: list[float | None], record: dict[int, int] | None = None) -> list[int]:
    growing = generations(Batches(20, growing=True), record)
    found = []
    for number, value in enumerate(agreements):
        found.append(growing.of(number).count)
        growing.learn(number, always(value))
    return found


def test_halves_that_disagree_make_it_grow_once_per_window() -> None:
    found = sizes([0.1] * (2 * WINDOW + 1))
    assert found == [20] * WINDOW + [30] * WINDOW + [45]


def test_halves_that_agree_keep_the_size() -> None:
    assert set(sizes([0.6] * 20)) == {20}
    assert set(sizes([None] * 20)) == {20}


def test_it_never_grows_beyond_the_items_there_are() -> None:
    assert max(sizes([-1.0] * 100)) == 200


def test_a_continued_run_takes_the_sizes_on_record_and_computes_nothing() -> None:
    record: dict[int, int] = {}
    before = sizes([0.1] * 12, record)
    again = generations(Batches(20, growing=True), record)

    def unexpected() -> float:
        pytest.fail("everything is on record")

    after = []
    for number in range(12):
        after.append(again.of(number).count)
        again.learn(number, unexpected)
    assert after == before


def outcomes(quality: float, luck: float, seed: int) -> tuple[TaskOutcomes, ...]:
    own = np.random.default_rng(seed).normal(0.0, luck, 200)
    hard = np.random.default_rng(0).normal(0.0, 1.0, 200)
    right = (quality + own > hard).astype(float)
    return (
        TaskOutcomes(
            "task",
            tuple(ItemOutcome(i, float(r)) for i, r in zip(ITEMS.tasks[0][1], right, strict=True)),
        ),
    )


def test_agreement_is_high_for_true_differences_and_low_for_luck() -> None:
    real = [outcomes(q, 0.1, seed) for seed, q in enumerate(np.linspace(-1.5, 1.5, 12))]
    luck = [[outcomes(0.0, 3.0, seed + 100 * k) for seed in range(12)] for k in range(20)]
    assert (agreement(OBJECTIVE, real) or 0.0) > 0.9
    assert abs(float(np.mean([agreement(OBJECTIVE, group) for group in luck]))) < 0.2


def test_agreement_needs_candidates_that_can_be_ranked() -> None:
    same = outcomes(0.0, 0.0, 1)
    assert agreement(OBJECTIVE, [same] * 3) is None
    assert agreement(OBJECTIVE, [same] * 4) == 0.0


@pytest.mark.parametrize(("cost", "size"), [(0.3, 20), (47.2, 48), (5000.0, 100)])
def test_dear_merges_are_asked_more(cost: float, size: int) -> None:
    record: dict[int, int] = {}
    by_cost = generations(Batches(20, by_cost=True), record, cost)
    assert [by_cost.of(number).count for number in range(3)] == [size] * 3
    again = generations(Batches(20, by_cost=True), record, 1.0)
    assert again.of(0).count == size


def test_the_cost_of_merges_does_not_lower_what_was_asked_for() -> None:
    assert generations(Batches(150, by_cost=True), None, 1.0).of(0).count == 150
