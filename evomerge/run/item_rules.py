"""What a search demands of its items: no test data, no leak into the holdout, enough to show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.candidate import ItemSelection
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.evaluate.catalog import Catalog
from evomerge.evaluate.overlap import overlap
from evomerge.evaluate.splits import Splits
from evomerge.plain_text import one_line
from evomerge.run.config import ObjectiveConfig
from evomerge.score import Objective
from evomerge.statistics import FEWEST_HELD, SMALL_HOLDOUT, expected_stderr, visible_difference

_SHOWN = 80


@dataclass(frozen=True)
class ItemFacts:
    """How many holdout items nearly repeat others, and what to say of the items beforehand."""

    near_duplicates: int
    notices: tuple[str, ...]


def check_test_splits(objective: ObjectiveConfig, catalog: Catalog) -> None:
    """Refuse to tune on test data unless the file allows it; raises InvalidInput."""
    if objective.allow_test_split:
        return
    problems: list[str] = []
    for task, name in catalog.test_splits.items():
        others = catalog.splits[task].others
        fix = (
            f"add split: {' or split: '.join(others)} to its entry"
            if others
            else "name other data as validation_split in its task file"
        )
        problems.append(
            f"objective.tasks: '{task}' would be tuned on its test split '{name}': scores on it "
            f"would prove nothing any more; {fix}, or set objective.allow_test_split: true"
        )
    if problems:
        raise InvalidInput(problems)


def item_facts(catalog: Catalog, splits: Splits, objective: Objective) -> ItemFacts:
    """Check the sizes of the splits and compare the texts of their items.

    Raises:
        PreflightFailed: there is a holdout, and it is too small to be one.
    """
    held = splits.holdout.count
    if 0 < held < FEWEST_HELD:
        raise PreflightFailed(
            f"objective.splits: the holdout has {held} items, and fewer than {FEWEST_HELD} prove "
            "nothing; add items, raise splits.holdout or `limit`, or set splits.holdout to 0 for "
            "a result that stays unverified"
        )
    near, repeated = _near_duplicates(catalog, splits)
    return ItemFacts(near, (*_power(splits.holdout, objective), *_copies(catalog), *repeated))


def _power(holdout: ItemSelection, objective: Objective) -> tuple[str, ...]:
    if not 0 < holdout.count < SMALL_HOLDOUT:
        return ()
    counts: Mapping[str, int] = {task: len(ids) for task, ids in holdout.tasks}
    stderr = expected_stderr(objective, counts)
    shown = ""
    if stderr is not None:
        points = 100.0 * visible_difference(stderr)
        shown = (
            f"a true lead of less than about {points:.0f} points would often go unnoticed (80 % "
            "power, one item in ten changing); "
        )
    return (f"the holdout has {holdout.count} items: {shown}{SMALL_HOLDOUT} or more is better",)


def _copies(catalog: Catalog) -> tuple[str, ...]:
    found: list[str] = []
    for task, groups in catalog.duplicates.items():
        if groups:
            copies, first = sum(map(len, groups)), catalog.infos[task][groups[0][0]].text
            found.append(
                f"task '{task}': {copies} of {len(catalog.items[task])} items repeat the question "
                f"and answer of another, such as {_quoted(first)}; copies are kept on one side of "
                "the splits"
            )
    return tuple(found)


def _near_duplicates(catalog: Catalog, splits: Splits) -> tuple[int, tuple[str, ...]]:
    held = _texts(catalog, splits.holdout)
    others = _texts(catalog, splits.search) + _texts(catalog, splits.selection)
    found = overlap(held, others)
    if found is None:
        return 0, ()
    return found.count, (
        f"{found.count} of {len(held)} holdout items nearly repeat items that the recipe is tuned "
        f"on, such as {_quoted(held[found.held])} and {_quoted(others[found.other])}: scores on "
        "them may be too high; leave one of each out of the data",
    )


def _texts(catalog: Catalog, items: ItemSelection) -> list[str]:
    known = ((catalog.infos[task], ids) for task, ids in items.tasks)
    return [infos[item].text for infos, ids in known for item in ids if item in infos]


def _quoted(text: str) -> str:
    return f"'{one_line(' '.join(text.split()), longest=_SHOWN)}'"
