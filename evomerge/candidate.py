"""Candidate and what became of it: the values that cross the border between driver and worker."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.recipe import Recipe
from evomerge.score import TaskOutcomes

SEARCH = "search"
"""The stage of a run in which a strategy proposes; the others are baselines and finals."""
Genotype = tuple[float, ...]
"""What a strategy sees: one number in [0, 1] per gene."""


@dataclass(frozen=True)
class ItemSelection:
    """The items to score, per task, each tuple in ascending order."""

    tasks: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def count(self) -> int:
        """The number of items over all tasks: what one evaluation costs."""
        return sum(len(items) for _, items in self.tasks)


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
