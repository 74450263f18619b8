"""Divides items into search, selection and holdout by content, and a split into minibatches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from evomerge.candidate import ItemSelection
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.evaluate.copies import Copies
from evomerge.evaluate.evaluator import ItemInfo
from evomerge.seeding import generator


@dataclass(frozen=True)
class Shares:
    """The part of each task's items that search, selection and holdout get; they sum to 1.

    A holdout of 0 leaves the winner unverified; a selection of 0 leaves the choice to the search.
    """

    search: float
    selection: float
    holdout: float

    def __post_init__(self) -> None:
        """Check the shares; raises InvalidInput with every problem."""
        shares = {name: getattr(self, name) for name in ("search", "selection", "holdout")}
        problems = [
            f"splits.{name}: expected a number in [0, 1], got {share}"
            for name, share in shares.items()
            if not 0.0 <= share <= 1.0
        ]
        if not problems and self.search == 0.0:
            problems.append("splits.search: expected more than 0; the search needs items to score")
        if not problems and not math.isclose(sum(shares.values()), 1.0, abs_tol=1e-6):
            problems.append(f"splits: expected shares that sum to 1, got {sum(shares.values()):g}")
        if problems:
            raise InvalidInput(problems)


@dataclass(frozen=True)
class Splits:
    """Three disjoint selections of items; each lists every task, perhaps with no items."""

    search: ItemSelection
    selection: ItemSelection
    holdout: ItemSelection


def split_items(
    items: Mapping[str, tuple[str, ...]],
    shares: Shares,
    seed: int,
    *,
    infos: Mapping[str, Mapping[str, ItemInfo]] | None = None,
    limits: Mapping[str, int] | None = None,
) -> Splits:
    """Cut each task's items at fixed ranks of a seeded hash of their content.

    The order of the items and the name of the task do not matter, and an added item moves at most
    the neighbours of the two cuts. Copies stay on one side, in all tasks: items of one document,
    and items with the same question and answer. Without copies the sizes are the shares rounded to
    whole items; where a task repeats items of one before it, that one decides.

    Args:
        items: item ids per task.
        shares: the part of each split.
        seed: the run's seed of splits; another seed is another partition.
        infos: per task, what items ask, as far as known.
        limits: per task, how many items to use at all: the first ones in the order of the hash.

    Raises:
        PreflightFailed: a split with a share would get no item of some task.
    """
    parts: dict[str, tuple[tuple[str, ...], ...]] = {}
    problems: list[str] = []
    copies = Copies(items, infos or {})
    place: dict[str, int] = {}
    for task, ids in items.items():
        ranked = sorted(set(ids), key=lambda item: (_rank(copies.first(item), seed), item))
        parts[task] = _cut(ranked[: (limits or {}).get(task)], shares, copies, place)
        problems += _empty(task, parts[task], shares, copies)
    if problems:
        raise PreflightFailed(problems)
    search, selection, holdout = (
        ItemSelection(tuple((task, cut[index]) for task, cut in parts.items()))
        for index in range(3)
    )
    return Splits(search, selection, holdout)


def minibatch(
    split: ItemSelection, n_per_task: int, *, generation: int, seed: int
) -> ItemSelection:
    """The items of one generation: consecutive chunks of an endless series of permutations.

    Every item appears once per epoch. A chunk that crosses the border of two epochs has no item
    twice: the next permutation lets go ahead whatever the chunk does not hold yet.

    Args:
        split: the items to draw from.
        n_per_task: items of each task; a smaller task gives all it has.
        generation: which chunk, from 0.
        seed: the run's seed; a task's series depends on it and the task's name.
    """
    assert n_per_task > 0, "a minibatch needs items"
    assert generation >= 0, "generations count from 0"
    chunks = ((task, _chunk(task, ids, n_per_task, generation, seed)) for task, ids in split.tasks)
    return ItemSelection(tuple(chunks))


def _rank(content: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\x1f{content}".encode()).hexdigest()


def _cut(
    ranked: list[str], shares: Shares, copies: Copies, place: dict[str, int]
) -> tuple[tuple[str, ...], ...]:
    """The three parts of items in hash order; copies follow the first of them.

    `place` has the side of every item of earlier tasks, and gets those of this one.
    """
    count = len(ranked)
    borders = (0, round(shares.search * count), round((shares.search + shares.selection) * count))
    parts: tuple[list[str], ...] = ([], [], [])
    for index, item in enumerate(ranked):
        side = sum(index >= border for border in borders) - 1
        parts[place.setdefault(copies.first(item), side)].append(item)
    return tuple(tuple(sorted(part)) for part in parts)


def _empty(
    task: str, parts: tuple[tuple[str, ...], ...], shares: Shares, copies: Copies
) -> list[str]:
    items = [item for part in parts for item in part]
    different = len({copies.first(item) for item in items})
    held = f"{len(items)} items"
    if different < len(items):
        held += f", {different} of them different (copies stay on one side of the splits),"
    wanted = zip(("search", "selection", "holdout"), parts, strict=True)
    return [
        f"task '{task}': {held} are too few for splits.{name} = {getattr(shares, name):g}; "
        "add items, raise `limit`, or set the share to 0"
        for name, part in wanted
        if getattr(shares, name) > 0.0 and not part
    ]


def _chunk(
    task: str, items: tuple[str, ...], size: int, generation: int, seed: int
) -> tuple[str, ...]:
    size = min(size, len(items))
    if size == len(items):
        return tuple(sorted(items))
    start = generation * size
    ordered = tuple(sorted(items))  # the caller's order must not matter
    epochs = _epochs(task, ordered, size, seed)
    for epoch in range(start // len(items), (start + size - 1) // len(items) + 1):
        held, series = epochs.at(epoch)
        offset = start - epoch * len(items)
        if 0 <= offset <= len(items) - size:
            return tuple(sorted(series[offset : offset + size]))
        if offset < 0:
            return tuple(sorted(held + series[: size - len(held)]))
    raise AssertionError("the chunk starts in an epoch that was passed")


class _Epochs:
    """The permutations of one task, one after the other (stateful: the one reached last).

    Each depends on the one before it, and a long search goes through thousands.
    """

    def __init__(self, task: str, ordered: tuple[str, ...], size: int, seed: int) -> None:
        self._task = task
        self._ordered = ordered
        self._size = size
        self._seed = seed
        self._reached = -1
        self._held: list[str] = []
        self._series: list[str] = []

    def at(self, epoch: int) -> tuple[list[str], list[str]]:
        """The items of the chunk that the epoch before began, and the epoch's own series."""
        if epoch < self._reached:
            self._reached = -1
        while self._reached < epoch:
            self._advance()
        return self._held, self._series

    def _advance(self) -> None:
        epoch, count = self._reached + 1, len(self._ordered)
        begun = epoch * count % self._size
        self._held = self._series[count - begun :] if epoch else []
        order = generator(self._seed, "minibatch", self._task, epoch).permutation(count)
        shuffled = [self._ordered[index] for index in order]
        self._series = _let_ahead(shuffled, self._held, self._size)
        self._reached = epoch


@lru_cache(maxsize=64)
def _epochs(task: str, ordered: tuple[str, ...], size: int, seed: int) -> _Epochs:
    """Kept between generations; what it gives does not depend on what was asked before."""
    return _Epochs(task, ordered, size, seed)


def _let_ahead(series: list[str], held: list[str], size: int) -> list[str]:
    """`series` with the first items outside `held` at its start, as many as the chunk lacks."""
    if not held:
        return series
    begun = set(held)
    ahead = [item for item in series if item not in begun][: size - len(held)]
    moved = set(ahead)
    return ahead + [item for item in series if item not in moved]
