"""RunSummary: everything that tables, plots, reports and cards say about a run, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.score import TaskScore


@dataclass(frozen=True)
class Comparison:
    """The winner minus another model on the same items, in units of fitness."""

    difference: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class ModelRow:
    """One model on one split: fitness with its 95 % interval and the task metrics.

    `kind` is "base", "parent", "baseline" or "winner"; `comparison` is None for the winner itself.
    """

    candidate: int
    label: str
    kind: str
    fitness: float
    low: float
    high: float
    scores: tuple[TaskScore, ...]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class GenerationPoint:
    """Fitness on the minibatch of one generation, at the cumulative number of items spent."""

    generation: int
    items_spent: int
    best: float
    mean: float


@dataclass(frozen=True)
class DepthProfile:
    """The winner's values of one parameter for one model over depth; labels name the positions."""

    parameter: str
    model: str
    labels: tuple[str, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Spending:
    """What the run has cost so far and what it was allowed to cost."""

    candidates: int
    candidate_budget: int | None
    failed: int
    items: int
    item_budget: int | None
    seconds: float
    time_budget: float | None
    build_seconds: float
    score_seconds: float


@dataclass(frozen=True)
class RunSummary:
    """One run as its ledger tells it.

    `state` is "running", "interrupted" or "finished". `better` is True when the winner beats every
    baseline on the holdout with its interval above zero, False when the best baseline was kept,
    None while undecided or when the holdout cannot tell; `verdict` says it in a sentence.
    """

    name: str
    state: str
    method: str
    metric: str
    base: str | None
    parents: tuple[str, ...]
    algorithm: str
    seed: int
    dimensions: int
    split_sizes: tuple[tuple[str, int], ...]
    minibatch: int
    spending: Spending
    history: tuple[GenerationPoint, ...]
    baselines: tuple[ModelRow, ...]
    """The baselines on their common search items (before the search)."""
    selection: tuple[ModelRow, ...]
    """The last rung of the final on the selection items."""
    holdout: tuple[ModelRow, ...]
    winner: ModelRow | None
    winner_recipe: str
    """mergekit YAML of the winner; empty while there is none."""
    better: bool | None
    verdict: str
    profiles: tuple[DepthProfile, ...]
    warnings: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
