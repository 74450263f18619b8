"""What a running search tells whoever watches it: plain values, in the order they happen."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.candidate import Candidate
from evomerge.score import TaskTotals


@dataclass(frozen=True)
class PhaseStarted:
    """A phase of the protocol begins: baselines, starting points, search, final or holdout."""

    phase: str
    evaluations: int


@dataclass(frozen=True)
class Evaluated:
    """One evaluation is known; `replayed` when it was on record already.

    `fitness` (the weighted mean) and `totals` are None when the candidate failed; `failure` then
    says why. `rejected` is a failure in which nothing went wrong: it was not worth scoring.
    """

    candidate: Candidate
    stage: str
    fitness: float | None
    totals: tuple[TaskTotals, ...] | None
    failure: str | None
    items_spent: int
    replayed: bool
    rejected: bool = False


@dataclass(frozen=True)
class GenerationDone:
    """The strategy has learnt from a generation; fitness on that generation's minibatch."""

    generation: int
    best: float
    mean: float
    items_spent: int


@dataclass(frozen=True)
class Warned:
    """Something the user should know, in one line."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The protocol is complete: the candidate to hand over, and whether it beat the baselines."""

    winner: Candidate
    is_baseline: bool


Progress = PhaseStarted | Evaluated | GenerationDone | Warned | Finished
