"""Constraints: limits that task metrics must keep, in their own units, absolute or against a model.

A violation is measured in units of fitness, as the distance to the limit over the metric's slope,
so that one weight suits accuracies and perplexities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from evomerge.score import AGGREGATIONS, Objective, TaskGoal, TaskOutcomes, TaskTotals, totals
from evomerge.seeding import generator
from evomerge.statistics import Interval, wilson

BOUNDS = ("min", "max", "min_ratio", "max_ratio", "max_drop")
RELATIVE = ("min_ratio", "max_ratio", "max_drop")
"""Those that compare with a model."""
_BOOTSTRAPS = 2_000
_ALMOST = 1e-12

Results = tuple[TaskOutcomes, ...]
Sums = tuple[TaskTotals, ...]


@dataclass(frozen=True)
class Constraint:
    """One limit of one task.

    Attributes:
        task: whose metric it limits.
        kind: one of BOUNDS.
        bound: in units of the metric; a factor for the ratios.
        of: the model that a relative limit compares with; None for an absolute one.
    """

    task: str
    kind: str
    bound: float
    of: str | None = None

    def limit(self, goal: TaskGoal, reference: float | None) -> float:
        """The limit in units of the metric, given the reference model's metric."""
        if self.kind in ("min", "max"):
            return self.bound
        assert reference is not None, "relative limits have a reference"
        if self.kind == "max_drop":
            return reference - self.bound if goal.higher_is_better else reference + self.bound
        return self.bound * reference

    def room(self, goal: TaskGoal, value: float, reference: float | None) -> float:
        """How far the metric is from the limit; negative when it violates it."""
        gap = value - self.limit(goal, reference)
        is_floor = self.kind in ("min", "min_ratio") or (
            self.kind == "max_drop" and goal.higher_is_better
        )
        return gap if is_floor else -gap

    def text(self, goal: TaskGoal) -> str:
        """The constraint in words."""
        metric = goal.metric.removesuffix(",none")
        if self.kind in ("min", "max"):
            side = "at least" if self.kind == "min" else "at most"
            return f"{self.task} {metric} {side} {self.bound:g}"
        if self.kind == "max_drop":
            worse = "below" if goal.higher_is_better else "above"
            return f"{self.task} {metric} at most {self.bound:g} {worse} that of {self.of}"
        side = "at least" if self.kind == "min_ratio" else "at most"
        return f"{self.task} {metric} {side} {self.bound:g} times that of {self.of}"


class Kept(Enum):
    """What items can say about a constraint."""

    KEPT = "kept"
    VIOLATED = "violated"
    UNCLEAR = "cannot tell"


@dataclass(frozen=True)
class Finding:
    """One model and one constraint on some items, in units of the metric.

    `limit` is what the reference's score on the same items makes it; `room` is the distance to it,
    with a 95 % interval, negative when the constraint is violated.
    """

    constraint: Constraint
    value: float
    limit: float
    room: Interval

    @property
    def kept(self) -> Kept:
        """Kept or violated only when the whole interval says so."""
        if self.room.low >= 0.0:
            return Kept.KEPT
        return Kept.VIOLATED if self.room.high < 0.0 else Kept.UNCLEAR


def violation(
    objective: Objective,
    constraints: Sequence[Constraint],
    ours: Sums,
    references: Mapping[str, Sums],
) -> float:
    """How far all violated limits are exceeded, in units of fitness; 0 when all are kept.

    `references` has the totals of the models that relative limits name, on the same items.
    """
    found = 0.0
    for constraint in constraints:
        goal = objective.goal(constraint.task)
        ratio = _ratio(ours, goal.task)
        known = None if constraint.of is None else references[constraint.of]
        reference = None if known is None else metric(goal, known)
        room = constraint.room(goal, metric(goal, ours), reference)
        if room < -_ALMOST:
            found -= room / abs(AGGREGATIONS[goal.aggregation].slope(ratio))
    return found


def metric(goal: TaskGoal, sums: Sums) -> float:
    """The goal's metric in its own units."""
    return AGGREGATIONS[goal.aggregation].metric(_ratio(sums, goal.task))


def finding(
    objective: Objective, constraint: Constraint, ours: Results, reference: Results | None
) -> Finding:
    """What the outcomes on the same items say; a paired bootstrap, Wilson for absolute 0/1."""
    goal = objective.goal(constraint.task)
    known = None if reference is None else metric(goal, totals(reference))
    value = metric(goal, totals(ours))
    room = constraint.room(goal, value, known)
    outcomes = _columns(goal, ours)
    if reference is None and goal.aggregation == "mean" and set(outcomes[0]) <= {0.0, 1.0}:
        share = wilson(value, len(outcomes[0]))
        low, high = sorted(constraint.room(goal, v, None) for v in (share.low, share.high))
    else:
        drawn = _resampled(goal, outcomes, None if reference is None else _columns(goal, reference))
        rooms = [constraint.room(goal, *pair) for pair in drawn]
        low, high = (float(bound) for bound in np.quantile(rooms, [0.025, 0.975]))
    return Finding(constraint, value, constraint.limit(goal, known), Interval(room, low, high))


Columns = NDArray[np.float64]


def _resampled(
    goal: TaskGoal, ours: Columns, reference: Columns | None
) -> list[tuple[float, float | None]]:
    """The metrics of both models on the same resampled items, again and again."""
    count = ours.shape[1]
    rng = generator(0, "constraint", count)
    to_metric = AGGREGATIONS[goal.aggregation].metric
    drawn: list[tuple[float, float | None]] = []
    for _ in range(0, _BOOTSTRAPS, 100):  # blocks keep the index matrix small
        places = rng.integers(0, count, (100, count))
        ratios = [_ratios(part, places) for part in (ours, reference) if part is not None]
        metrics = [[to_metric(float(ratio)) for ratio in part] for part in ratios]
        drawn += zip(metrics[0], metrics[1] if len(metrics) > 1 else [None] * 100, strict=True)
    return drawn


def _ratios(columns: Columns, places: NDArray[np.int64]) -> Columns:
    """sum(value) / sum(weight) of the items at `places`, shape [draws, items] -> [draws]."""
    sums = columns[:, places].sum(axis=2)
    return np.asarray(sums[0] / sums[1])


def _columns(goal: TaskGoal, results: Results) -> Columns:
    """Values and weights of the goal's task, shape [2, items]."""
    (task,) = (result for result in results if result.task == goal.task)
    return np.asarray([(o.value, o.weight) for o in task.outcomes], dtype=np.float64).T


def _ratio(sums: Sums, name: str) -> float:
    (task,) = (entry for entry in sums if entry.task == name)
    return task.value / task.weight
