from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import ItemSelection
from evomerge.run.final import HALF, cost, rungs

FINALISTS = 9


def selection(*sizes: int) -> ItemSelection:
    """Items whose ids are in an order that means something, as data sets often have one."""
    tasks = ((f"t{k}", tuple(f"i{i:04d}" for i in range(size))) for k, size in enumerate(sizes))
    return ItemSelection(tuple(tasks))


def items_of(parts: tuple[ItemSelection, ...], task: int) -> list[str]:
    return [item for part in parts for item in part.tasks[task][1]]


@given(st.lists(st.integers(1, 200), min_size=1, max_size=3), st.integers(0, 99))
def test_whole_rungs_use_each_item_once(sizes: list[int], seed: int) -> None:
    parts = rungs(selection(*sizes), seed)
    for task, (_, ids) in enumerate(selection(*sizes).tasks):
        assert sorted(items_of(parts, task)) == list(ids)


@given(
    st.lists(st.integers(20, 400), min_size=1, max_size=3),
    st.integers(0, 99),
    st.floats(0.1, 0.99),
)
def test_shortened_rungs_cost_their_part_and_no_item_comes_twice(
    sizes: list[int], seed: int, part: float
) -> None:
    items = selection(*sizes)
    whole, parts = rungs(items, seed), rungs(items, seed, part)
    if len(parts) == len(whole):  # with fewer rungs less is saved between them
        assert cost(FINALISTS, parts, HALF) <= math.ceil(part * cost(FINALISTS, whole, HALF))
    for task in range(len(sizes)):
        found = items_of(parts, task)
        assert len(set(found)) == len(found)
        assert len(found) == int(part * sizes[task])
        assert set(found) <= set(items_of(whole, task))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.floats(0.001, 1.0))
def test_every_rung_asks_every_task(sizes: list[int], part: float) -> None:
    for rung in rungs(selection(*sizes), 1, part):
        assert all(ids for _, ids in rung.tasks)


def test_shortened_rungs_are_drawn_from_the_whole_range() -> None:
    """The first items of a sorted data set are one kind of question, or one answer."""
    places = [
        int(item[1:])
        for seed in range(40)
        for item in items_of(rungs(selection(400), seed, 0.2), 0)
    ]
    mean = sum(places) / len(places)
    # 3200 draws from 0 to 399: a standard error of about 2
    assert abs(mean - 199.5) < 8.0


def test_however_little_is_left_every_task_is_asked() -> None:
    (only,) = rungs(selection(50, 3), 1, 0.001)
    assert [len(ids) for _, ids in only.tasks] == [1, 1]
