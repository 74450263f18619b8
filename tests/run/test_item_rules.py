"""What a search demands of its items, and says of them before it starts."""

from __future__ import annotations

import pytest

from evomerge.candidate import ItemSelection
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.evaluate.catalog import Catalog
from evomerge.evaluate.evaluated_split import EvaluatedSplit
from evomerge.evaluate.evaluator import ItemInfo
from evomerge.evaluate.splits import Splits
from evomerge.run.config import ObjectiveConfig
from evomerge.run.item_rules import check_test_splits, item_facts
from evomerge.score import Objective, TaskGoal

TEXTS = {"a": "What is the capital of Peru?", "b": "what is the capital of peru", "c": "3 + 4 ="}
GOAL = TaskGoal("t", "acc,none")


def catalog(**changes: str) -> Catalog:
    texts = TEXTS | changes
    infos = {"t": {item: ItemInfo(text, text) for item, text in texts.items()}}
    split = EvaluatedSplit("validation", "validation", ())
    return Catalog({"t": tuple(texts)}, (GOAL,), infos, {"t": split})


def splits(search: tuple[str, ...], holdout: tuple[str, ...]) -> Splits:
    parts = (search, (), holdout)
    return Splits(*(ItemSelection((("t", ids),)) for ids in parts))


def many(count: int) -> dict[str, str]:
    return {f"h{i}": f"{i} + 1 =" for i in range(count)}


def test_near_duplicates_of_holdout_items_are_a_warning_with_an_example() -> None:
    held = many(300)
    facts = item_facts(catalog(**held), splits(("a", "c"), ("b", *held)), Objective((GOAL,)))
    assert facts.near_duplicates == 1
    assert facts.notices == (
        "1 of 301 holdout items nearly repeat items that the recipe is tuned on, such as 'what is "
        "the capital of peru' and 'What is the capital of Peru?': scores on them may be too high; "
        "leave one of each out of the data",
    )
    facts = item_facts(catalog(**held), splits(("a", "b"), ("c", *held)), Objective((GOAL,)))
    assert (facts.near_duplicates, facts.notices) == (0, ())


def test_copies_are_a_notice_with_their_number_and_an_example() -> None:
    held = many(300)
    facts = item_facts(
        catalog(d="3 + 4 =", **held), splits(("a",), tuple(held)), Objective((GOAL,))
    )
    assert facts.notices == (
        "task 't': 2 of 304 items repeat the question and answer of another, such as '3 + 4 ='; "
        "copies are kept on one side of the splits",
    )


@pytest.mark.parametrize("count", [1, 19])
def test_a_holdout_too_small_to_be_one(count: int) -> None:
    held = many(count)
    with pytest.raises(PreflightFailed, match=rf"holdout has {count} items, and fewer than 20 pro"):
        item_facts(catalog(**held), splits(("a",), tuple(held)), Objective((GOAL,)))


def test_no_holdout_is_no_error() -> None:
    assert item_facts(catalog(), splits(("a", "b"), ()), Objective((GOAL,))).notices == ()


@pytest.mark.parametrize(("count", "points"), [(20, 18), (100, 8), (249, 5)])
def test_a_small_holdout_says_what_it_can_show(count: int, points: int) -> None:
    held = many(count)
    found = item_facts(catalog(**held), splits(("a",), tuple(held)), Objective((GOAL,)))
    assert found.notices == (
        f"the holdout has {count} items: a true lead of less than about {points} points would "
        "often go unnoticed (80 % power, one item in ten changing); 250 or more is better",
    )
    loss = Objective((TaskGoal("t", "perplexity,none", aggregation="perplexity"),))
    found = item_facts(catalog(**held), splits(("a",), tuple(held)), loss)
    assert found.notices == (f"the holdout has {count} items: 250 or more is better",)


def test_test_data_need_permission_task_by_task() -> None:
    both = Catalog(
        {"t": ("a",), "u": ("b",), "v": ("c",)},
        (GOAL,),
        {},
        {
            "t": EvaluatedSplit("test", "test", ("validation", "training")),
            "u": EvaluatedSplit("validation", "test[:100]", ()),
            "v": EvaluatedSplit("validation", "dev", ("training",)),
        },
    )
    objective = ObjectiveConfig.model_validate({"tasks": [{"task": "t", "metric": "acc"}]})
    with pytest.raises(InvalidInput, match="would be tuned on its test split") as caught:
        check_test_splits(objective, both)
    first, second = caught.value.problems
    assert "'t' would be tuned on its test split 'test'" in first
    assert "add split: validation or split: training to its entry, or set objective.all" in first
    assert "'u' would be tuned on its test split 'test[:100]'" in second
    assert "name other data as validation_split in its task file, or set" in second
    check_test_splits(objective.model_copy(update={"allow_test_split": True}), both)
