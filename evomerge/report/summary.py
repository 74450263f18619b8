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
    the limit on their length. `eligible` is whether it keeps every constraint on these items.
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
    eligible: bool = True


@dataclass(frozen=True)
class TradeScore:
    """A model in one objective: the metric, and its distance to the winner's on the same items.

    `difference` is this model minus the winner in units of fitness, more is better; `clear` when
    it is more than chance, with all comparisons of the front considered (Holm 1979).
    """

    task: str
    metric: str
    value: float
    stderr: float
    difference: float
    clear: bool


@dataclass(frozen=True)
class TradeRow:
    """One model among the trades; `place` is "front", "baseline" or "dominated".

    `eligible` is whether it keeps every constraint on these items.
    """

    candidate: int
    label: str
    place: str
    scores: tuple[TradeScore, ...]
    eligible: bool


@dataclass(frozen=True)
class CoverPoint:
    """The hypervolume of one generation's own scores, at the number of items spent by then."""

    items_spent: int
    hypervolume: float


@dataclass(frozen=True)
class FrontSummary:
    """Several objectives: which models trade them, and how much they cover.

    Attributes:
        tasks: the objectives.
        split: where the scores of the front and the baselines are from.
        rows: the front, best in the first objective first, then baselines.
        dropped: finalists that another dominates, scored on the selection items.
        clearly_dropped: how many of them are clearly worse than that one in some objective.
        reference: the least score of a baseline in each objective, from which volumes are measured.
        covered: the volume of the front.
        covered_before: the volume of the baselines alone, without those that violate a constraint.
        history: the volumes of the generations, on their own items, above the baselines' least.
        before: the volume of the baselines on the search items.
    """

    tasks: tuple[str, ...]
    split: str
    rows: tuple[TradeRow, ...]
    dropped: tuple[TradeRow, ...]
    clearly_dropped: int
    reference: tuple[float, ...]
    covered: float
    covered_before: float
    history: tuple[CoverPoint, ...]
    before: float


@dataclass(frozen=True)
class ConstraintLine:
    """One constraint and one model, in units of the metric.

    `room` is the distance to the limit, negative when it is violated, with a 95 % interval; `kept`
    is "kept", "violated" or "cannot tell".
    """

    candidate: int
    label: str
    text: str
    value: float
    limit: float
    room: float
    low: float
    high: float
    kept: str


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
    front: FrontSummary | None
    """None with one objective, or before baselines are scored."""
    constraints: tuple[ConstraintLine, ...]
    """Of the models in the results, on the same items."""
    broken: bool
    """Whether the winner violates a constraint: nobody kept all, or the holdout is sure of it."""
    warnings: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
