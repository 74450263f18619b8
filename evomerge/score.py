"""From per-item outcomes to task scores to fitness; direction is applied here, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
METRIC, PROBABILITY = "metric", "probability"
"""What a strategy can learn from: the metric itself, or how likely the right answer was."""
COST_TASK = "cost"
"""The task whose only outcome is what a model costs to run; no question is asked for it."""


@dataclass(frozen=True)
class ItemOutcome:
    """What one item contributed: the metric is a function of sum(value) / sum(weight).

    For a mean metric `value` is the item's metric and `weight` is 1; for perplexities `value` is
    the log-likelihood in nats and `weight` the number of words, bytes or items it covers.
    `truncated` answers were cut off by the limit on their length, before the model was done.
    `probability` is that of the right answer, in [0, 1], where a strategy learns from it.
    """

    item: str
    value: float
    weight: float = 1.0
    truncated: bool = False
    probability: float | None = None


@dataclass(frozen=True)
class TaskOutcomes:
    """The outcomes of one model on the items of one task, in ascending order of item id."""

    task: str
    outcomes: tuple[ItemOutcome, ...]

    def items(self) -> tuple[str, ...]:
        """The item ids, in order."""
        return tuple(outcome.item for outcome in self.outcomes)

    @property
    def truncated(self) -> int:
        """How many answers were cut off."""
        return sum(outcome.truncated for outcome in self.outcomes)

    def only(self, items: frozenset[str]) -> TaskOutcomes:
        """The outcomes of the given items."""
        return TaskOutcomes(self.task, tuple(o for o in self.outcomes if o.item in items))


@dataclass(frozen=True)
class TaskTotals:
    """The outcomes of one model on one task, summed over its `items`: all that fitness needs.

    `truncated` of the items have an answer that was cut off; `probability` is the sum of those of
    the right answers, where they are known of all.
    """

    task: str
    value: float
    weight: float
    items: int
    truncated: int = 0
    probability: float | None = None


def totals(results: tuple[TaskOutcomes, ...]) -> tuple[TaskTotals, ...]:
    """The sums of each task, added in the order of the items."""
    return tuple(
        TaskTotals(
            result.task,
            sum(o.value for o in result.outcomes),
            sum(o.weight for o in result.outcomes),
            len(result.outcomes),
            result.truncated,
            _sum([o.probability for o in result.outcomes]),
        )
        for result in results
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class Aggregation:
    """How a task metric follows from r = sum(value) / sum(weight), and its slope for the stderr."""

    metric: Callable[[float], float]
    slope: Callable[[float], float]
    ratio_higher_is_better: bool | None
    """Direction of r itself; None: the same as the metric's."""


AGGREGATIONS: Mapping[str, Aggregation] = MappingProxyType(
    {
        "mean": Aggregation(lambda r: r, lambda _: 1.0, None),
        "perplexity": Aggregation(lambda r: math.exp(-r), lambda r: -math.exp(-r), True),
        "weighted_perplexity": Aggregation(lambda r: math.exp(-r), lambda r: -math.exp(-r), True),
        "bits_per_byte": Aggregation(
            lambda r: -r / math.log(2.0), lambda _: -1.0 / math.log(2.0), True
        ),
    }
)


@dataclass(frozen=True)
class TaskGoal:
    """One task of the objective: which metric counts, in which direction, and how much."""

    task: str
    metric: str
    weight: float = 1.0
    aggregation: str = "mean"
    higher_is_better: bool = True
    learn_from: str = METRIC

    @property
    def sign(self) -> float:
        """+1 when a larger ratio sum(value) / sum(weight) is better, else -1."""
        ratio_direction = AGGREGATIONS[self.aggregation].ratio_higher_is_better
        better = self.higher_is_better if ratio_direction is None else ratio_direction
        return 1.0 if better else -1.0


@dataclass(frozen=True)
class TaskScore:
    """A task metric over n items with its standard error, in the metric's own units."""

    task: str
    metric: str
    value: float
    stderr: float
    n: int


@dataclass(frozen=True)
class Objective:
    """The goals and their weights; fitness is the weighted mean of signed ratios, maximised.

    Attributes:
        goals: a task of weight 0 is scored for constraints only.
        pareto: every goal that has weight is an objective of its own.
    """

    goals: tuple[TaskGoal, ...]
    pareto: bool = False

    @property
    def trades(self) -> tuple[TaskGoal, ...]:
        """The goals that are objectives of their own; empty when the fitness is all there is."""
        return tuple(goal for goal in self.goals if goal.weight > 0) if self.pareto else ()

    def goal(self, task: str) -> TaskGoal:
        """The goal of `task`."""
        return next(goal for goal in self.goals if goal.task == task)

    def share(self, task: str) -> float:
        """The weight of `task` among all tasks; the shares sum to 1."""
        return self.goal(task).weight / sum(goal.weight for goal in self.goals)

    def fitness(self, results: tuple[TaskOutcomes, ...]) -> float:
        """The fitness of one model from its outcomes on every task."""
        return self.fitness_of(totals(results))

    def fitness_of(self, sums: tuple[TaskTotals, ...]) -> float:
        """The fitness of one model from the totals of every task."""
        return sum(
            self.share(task.task) * self.goal(task.task).sign * (task.value / task.weight)
            for task in sums
        )

    def aims(self, sums: tuple[TaskTotals, ...]) -> tuple[float, ...]:
        """What a strategy maximises, one number per objective, from the totals of every task."""
        if not self.pareto:
            return (sum(self.share(task.task) * self._aim(task) for task in sums),)
        return tuple(self._aim(task) for task in self._traded(sums))

    def point(self, sums: tuple[TaskTotals, ...]) -> tuple[float, ...]:
        """The metric of every objective, signed so that more is better; empty when there is one."""
        return tuple(
            self.goal(task.task).sign * (task.value / task.weight) for task in self._traded(sums)
        )

    def _traded(self, sums: tuple[TaskTotals, ...]) -> list[TaskTotals]:
        by_task = {task.task: task for task in sums}
        return [by_task[goal.task] for goal in self.trades if goal.task in by_task]

    def _aim(self, task: TaskTotals) -> float:
        goal = self.goal(task.task)
        if goal.learn_from == METRIC:
            return goal.sign * (task.value / task.weight)
        assert task.probability is not None, "the evaluator knows what is learnt from"
        return task.probability / task.items

    def scores(self, results: tuple[TaskOutcomes, ...]) -> tuple[TaskScore, ...]:
        """The task metrics in their own units, with standard errors (delta method)."""
        return tuple(task_score(self.goal(result.task), result) for result in results)


def joined(results: Sequence[tuple[TaskOutcomes, ...]]) -> tuple[TaskOutcomes, ...]:
    """The outcomes of one model on several sets of items as one, items ascending and each once."""
    found: dict[str, dict[str, ItemOutcome]] = {}
    for part in results:
        for task in part:
            found.setdefault(task.task, {}).update((o.item, o) for o in task.outcomes)
    return tuple(
        TaskOutcomes(task, tuple(outcomes[item] for item in sorted(outcomes)))
        for task, outcomes in found.items()
    )


def task_score(goal: TaskGoal, result: TaskOutcomes) -> TaskScore:
    """The metric of `goal` over the outcomes; stderr is the sample one, as lm-eval reports it."""
    aggregation = AGGREGATIONS[goal.aggregation]
    ratio = _ratio(result)
    n = len(result.outcomes)
    mean_weight = sum(o.weight for o in result.outcomes) / n
    residuals = [(o.value - ratio * o.weight) / mean_weight for o in result.outcomes]
    variance = sum(r * r for r in residuals) / max(n - 1, 1)
    stderr = abs(aggregation.slope(ratio)) * math.sqrt(variance / n)
    return TaskScore(goal.task, goal.metric, aggregation.metric(ratio), stderr, n)


def contributions(objective: Objective, results: tuple[TaskOutcomes, ...]) -> FloatArray:
    """Per-item contributions, shape [items over all tasks], whose sum is the fitness.

    Tasks follow the objective's order, items their order within the task; two models scored on the
    same items can therefore be compared entry by entry.
    """
    parts: list[float] = []
    by_task = {result.task: result for result in results}
    for goal in objective.goals:
        outcomes = by_task[goal.task].outcomes
        scale = objective.share(goal.task) * goal.sign / sum(o.weight for o in outcomes)
        parts += [scale * o.value for o in outcomes]
    return np.asarray(parts, dtype=np.float64)


def _ratio(result: TaskOutcomes) -> float:
    return sum(o.value for o in result.outcomes) / sum(o.weight for o in result.outcomes)
