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

    `kind` is "base", "parent", "baseline", "stage" (what an earlier stage found) or "winner";
    `comparison` is None for the model handed over itself; `truncated` answers were cut off by
    the limit on their length.
    """

    candidate: int
    label: str
    kind: str
    fitness: float
    low: float
    high: float
    scores: tuple[TaskScore, ...]
    comparison: Comparison | None = None
    truncated: int = 0


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
class StageLine:
    """One search of a run: what it searched with what, and in a sentence what came of it."""

    name: str
    method: str
    algorithm: str
    dimensions: int
    verdict: str


@dataclass(frozen=True)
class RouteStop:
    """One layer on the path of a token through a stack; `gain` is 1 where nothing is scaled."""

    model: str
    layer: int
    gain: float


@dataclass(frozen=True)
class DepthPoint:
    """One candidate's number of layers against its score.

    `kind` is "search" (on its generation's minibatch), or as in ModelRow (on the split that the
    results are from).
    """

    candidate: int
    layers: int
    fitness: float
    kind: str


@dataclass(frozen=True)
class Spending:
    """What the run has cost so far and what it was allowed to cost.

    `rejected` candidates were found broken before they were scored; they are not among the failed.
    """

    candidates: int
    candidate_budget: int | None
    failed: int
    rejected: int
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
    test_splits: tuple[str, ...]
    """The tasks whose items, in all three parts, are those of a test split."""
    near_duplicates: int
    """Holdout items that nearly repeat items of the other two parts."""
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
    route: tuple[RouteStop, ...]
    """The winner's layers in order; empty unless it is a stack."""
    stages: tuple[StageLine, ...]
    """More than one in a run of several searches; the last one's result is the run's."""
    depths: tuple[DepthPoint, ...]
    """Empty unless the last search was over stacks."""
    warnings: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
