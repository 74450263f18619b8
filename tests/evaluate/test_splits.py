from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.candidate import ItemSelection
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.evaluate.copies import Copies
from evomerge.evaluate.evaluator import ItemInfo
from evomerge.evaluate.items import content_part, item_ids
from evomerge.evaluate.splits import Shares, Splits, minibatch, split_items

HALVES = Shares(0.6, 0.25, 0.15)
seeds = st.integers(0, 2**32)
distinct = st.integers(20, 80).map(lambda n: item_ids({"n": i} for i in range(n)))


def parts(splits: Splits) -> list[tuple[str, ...]]:
    selections = (splits.search, splits.selection, splits.holdout)
    return [dict(selection.tasks)["t"] for selection in selections]


@given(distinct, seeds)
def test_splits_are_a_partition_with_exact_shares(items: tuple[str, ...], seed: int) -> None:
    found = parts(split_items({"t": items}, HALVES, seed))
    assert sorted(itertools.chain(*found)) == sorted(items)
    n = len(items)
    assert [len(part) for part in found] == [
        round(0.6 * n),
        round(0.85 * n) - round(0.6 * n),
        n - round(0.85 * n),
    ]
    assert all(list(part) == sorted(part) for part in found)


@given(distinct, seeds, st.randoms(use_true_random=False))
def test_order_and_task_name_do_not_matter(
    items: tuple[str, ...], seed: int, rng: random.Random
) -> None:
    shuffled = list(items)
    rng.shuffle(shuffled)
    both = {"a": items, "b": tuple(shuffled)}
    splits = split_items(both, HALVES, seed)
    for selection in (splits.search, splits.selection, splits.holdout):
        first, second = (ids for _, ids in selection.tasks)
        assert first == second


@given(distinct, seeds)
def test_one_more_item_moves_at_most_one_item_per_cut(items: tuple[str, ...], seed: int) -> None:
    before = parts(split_items({"t": items[:-1]}, HALVES, seed))
    after = parts(split_items({"t": items}, HALVES, seed))
    sides_before = {item: side for side, part in enumerate(before) for item in part}
    sides_after = {item: side for side, part in enumerate(after) for item in part}
    assert sum(sides_before[item] != sides_after[item] for item in sides_before) <= 2


@given(st.lists(st.integers(1, 3), min_size=20, max_size=40), seeds)
def test_copies_fall_on_one_side(copies: list[int], seed: int) -> None:
    items = item_ids({"n": n} for n, count in enumerate(copies) for _ in range(count))
    found = parts(split_items({"t": items}, Shares(0.8, 0.0, 0.2), seed))
    sides = [{content_part(item) for item in part} for part in found]
    assert not sides[0] & sides[2]
    assert sum(len(part) for part in found) == len(items)


@given(seeds)
def test_equal_questions_and_documents_fall_on_one_side_in_all_tasks(seed: int) -> None:
    rng = random.Random(seed)
    # a pair is a question and another column of the item
    rows = {
        task: [(rng.randrange(40), rng.randrange(9)) for _ in range(rng.randrange(30, 60))]
        for task in ("one", "two")
    }
    items = {task: item_ids({"n": list(pair)} for pair in rows[task]) for task in rows}
    infos = {
        task: {
            i: ItemInfo("", str(pair[0])) for i, pair in zip(items[task], rows[task], strict=True)
        }
        for task in rows
    }
    try:
        splits = split_items(items, HALVES, seed, infos=infos)
    except PreflightFailed as error:
        assert "different (copies stay on one side of the splits), are too few" in str(error)  # noqa: PT017
        return
    sides: dict[str, set[int]] = {}
    for side, selection in enumerate((splits.search, splits.selection, splits.holdout)):
        for task, ids in selection.tasks:
            for item in ids:
                sides.setdefault(infos[task][item].text_digest, set()).add(side)
    assert all(len(found) == 1 for found in sides.values())
    placed = [len(dict(s.tasks)["one"]) for s in (splits.search, splits.selection, splits.holdout)]
    assert sum(placed) == len(rows["one"])


def test_copies_of_copies_are_copies() -> None:
    items = {"a": ("1", "2", "2-2"), "b": ("2", "3"), "c": ("4",)}
    infos = {
        "a": {"1": ItemInfo("", "x"), "2": ItemInfo("", "x"), "2-2": ItemInfo("", "x")},
        "b": {"2": ItemInfo("", "y"), "3": ItemInfo("", "y")},
        "c": {"4": ItemInfo("", "z")},
    }
    copies = Copies(items, infos)
    assert [copies.first(item) for item in ("1", "2", "2-2", "3", "4")] == ["1", "1", "1", "1", "4"]


def test_without_copies_what_is_asked_does_not_matter() -> None:
    items = {"t": item_ids({"n": i} for i in range(60))}
    infos = {"t": {item: ItemInfo(item, item) for item in items["t"]}}
    assert split_items(items, HALVES, 3, infos=infos) == split_items(items, HALVES, 3)


def test_too_many_copies_to_divide() -> None:
    items = {"t": item_ids({"n": i} for i in range(60))}
    infos = {"t": {item: ItemInfo("the same", "same") for item in items["t"]}}
    with pytest.raises(PreflightFailed, match=r"60 items, 1 of them different .copies stay on one"):
        split_items(items, HALVES, 3, infos=infos)


@given(distinct, seeds)
def test_a_limit_takes_a_prefix_of_the_order_by_hash(items: tuple[str, ...], seed: int) -> None:
    everything = Shares(1.0, 0.0, 0.0)
    sets = [
        set(parts(split_items({"t": items}, everything, seed, limits={"t": n}))[0])
        for n in range(1, len(items) + 1)
    ]
    assert [len(chosen) for chosen in sets] == list(range(1, len(items) + 1))
    assert all(small < large for small, large in itertools.pairwise(sets))


def test_another_seed_is_another_partition() -> None:
    items = item_ids({"n": i} for i in range(50))
    assert split_items({"t": items}, HALVES, 1) != split_items({"t": items}, HALVES, 2)


def test_no_holdout_is_allowed_but_an_empty_one_is_not() -> None:
    items = item_ids({"n": i} for i in range(3))
    assert parts(split_items({"t": items}, Shares(0.7, 0.3, 0.0), 0))[2] == ()
    with pytest.raises(PreflightFailed, match=r"task 't': 3 items are too few for splits.holdout"):
        split_items({"t": items}, HALVES, 0)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ((0.5, 0.2, 0.2), r"splits: expected shares that sum to 1, got 0.9"),
        ((0.0, 0.5, 0.5), r"splits.search: expected more than 0"),
        ((1.2, -0.2, 0.0), r"splits.search: .* got 1.2\nsplits.selection: .* got -0.2"),
    ],
)
def test_impossible_shares(shares: tuple[float, float, float], expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected):
        Shares(*shares)


@given(distinct, st.integers(1, 90), seeds)
def test_every_item_once_per_epoch_and_never_twice_in_a_chunk(
    items: tuple[str, ...], size: int, seed: int
) -> None:
    split = ItemSelection((("t", items),))
    epochs = 3
    size = min(size, len(items))
    chunks = [
        dict(minibatch(split, size, generation=g, seed=seed).tasks)["t"]
        for g in range(epochs * len(items) // size)
    ]
    assert all(len(set(chunk)) == len(chunk) == size for chunk in chunks)
    assert all(list(chunk) == sorted(chunk) for chunk in chunks)
    counts = Counter(itertools.chain(*chunks))
    complete = len(chunks) * size // len(items)
    assert all(complete <= counts[item] <= complete + 1 for item in items)


@given(distinct, seeds, st.integers(0, 40))
def test_minibatches_depend_on_their_arguments_only(
    items: tuple[str, ...], seed: int, generation: int
) -> None:
    forward, backward = (
        minibatch(ItemSelection((("t", order),)), 7, generation=generation, seed=seed)
        for order in (items, items[::-1])
    )
    assert forward == backward
    assert minibatch(forward, 99, generation=3, seed=seed) == forward


def test_epochs_are_different_permutations() -> None:
    split = ItemSelection((("t", item_ids({"n": i} for i in range(40))),))
    first, second = (minibatch(split, 20, generation=g, seed=0) for g in (0, 2))
    assert first != second
