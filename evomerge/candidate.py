"""Candidate and what became of it: the values that cross the border between driver and worker."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evomerge.recipe import Recipe
from evomerge.score import TaskOutcomes

SEARCH = "search"
"""The stage of a run in which a strategy proposes; the others are baselines and finals."""
Genotype = tuple[float, ...]
"""What a strategy sees: one number in [0, 1] per gene."""
Scores = tuple[float, ...]
"""What a strategy learns of a candidate: one number per objective, each maximised."""


@dataclass(frozen=True)
class ItemSelection:
    """The items to score, per task, each tuple in ascending order."""

    tasks: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def count(self) -> int:
        """The number of items over all tasks: what one evaluation costs."""
        return sum(len(items) for _, items in self.tasks)


PART = 64
"""The most items per task that a worker scores in one go."""


def parts(items: ItemSelection) -> tuple[ItemSelection, ...]:
    """The selection in parts of at most `PART` items per task, about equal; at least one.

    Whoever scores a selection scores it in these parts, so outcomes do not depend on who does it:
    which items share a batch can change the last bits of a likelihood.
    """
    count = max(1, *(math.ceil(len(ids) / PART) for _, ids in items.tasks)) if items.tasks else 1

    def cut(ids: tuple[str, ...], part: int) -> int:
        # rounded up: whatever has items at all has some in the first part
        return -(-len(ids) * part // count)

    return tuple(
        ItemSelection(
            tuple((task, ids[cut(ids, part) : cut(ids, part + 1)]) for task, ids in items.tasks)
        )
        for part in range(count)
    )


@dataclass(frozen=True)
class Candidate:
    """A recipe under evaluation and where it came from.

    `origin` is a short readable name such as "uniform soup", "cma_es" or "late mean".
    Baselines and finalists that no strategy asked for have no genotype.
    """

    id: int
    generation: int
    origin: str
    recipe: Recipe
    genotype: Genotype | None = None


@dataclass(frozen=True)
class Assignment:
    """One evaluation to carry out: what a pool receives. `stage` and candidate id identify it."""

    candidate: int
    stage: str
    recipe: Recipe
    items: ItemSelection
    part: int = 0
    """Which of its parts, where it has several; a part has items of its own and the same key."""

    @property
    def key(self) -> tuple[int, str]:
        """Identity of this evaluation in the ledger."""
        return (self.candidate, self.stage)


@dataclass(frozen=True)
class Scored:
    """Outcomes per task, and seconds spent building the merge and scoring it.

    `remarks` are short texts on what was unusual, such as a smaller batch.
    """

    results: tuple[TaskOutcomes, ...]
    build_seconds: float
    score_seconds: float
    remarks: tuple[str, ...] = ()


OUT_OF_MEMORY = "out of memory"
"""The kind of failure of a candidate that did not fit in memory, however small the batch."""
NO_ROOM = "disk full"
"""The kind of failure that says nothing about the candidate: a worker could not write a file."""
REJECTED = "rejected"
"""The kind of failure of a candidate that was not scored because a cheap test found it broken."""


@dataclass(frozen=True)
class Failed:
    """The candidate itself cannot be scored (NaN weights, an evaluation error); never a score."""

    kind: str
    message: str

    @property
    def rejected(self) -> bool:
        """Whether nothing went wrong: the candidate was not worth an evaluation."""
        return self.kind == REJECTED


@dataclass(frozen=True)
class Lost:
    """The worker vanished before it answered: the candidate is not to blame and is tried again."""

    message: str


Outcome = Scored | Failed
