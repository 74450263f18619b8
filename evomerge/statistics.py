"""Intervals and paired tests on per-item contributions; numpy only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from evomerge.score import COST_TASK, Objective, TaskOutcomes, contributions
from evomerge.seeding import generator

SMALL_HOLDOUT = 250
"""With fewer items even a lead of several points is usually invisible."""
FEWEST_HELD = 20
"""Fewer items are no holdout."""
_Z95 = NormalDist().inv_cdf(0.975)
_POWER = NormalDist().inv_cdf(0.95) + NormalDist().inv_cdf(0.80)
_CHANGED = 0.1
"""Share of right-or-wrong items on which a merge and its best baseline typically differ."""
_RESAMPLES = 10_000
_BOOTSTRAPS = 2_000


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds of its 95 % interval, in units of fitness."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """Fitness of one model minus another's on the same items, with its 95 % interval.

    `p_value` is one-sided: how often chance alone gives a difference at least this large.
    """

    value: float
    low: float
    high: float
    p_value: float


def fitness_interval(objective: Objective, results: tuple[TaskOutcomes, ...]) -> Interval:
    """Fitness with a 95 % interval: Wilson's for one task of 0/1 outcomes, else the normal one.

    Wilson 1927, Probable inference, the law of succession, and statistical inference.
    """
    value = objective.fitness(results)
    values = [o.value for result in results for o in result.outcomes]
    goal = objective.goals[0]
    if len(objective.goals) == 1 and goal.sign > 0 and set(values) <= {0.0, 1.0}:
        return wilson(value, len(values))
    variance = sum(
        (objective.share(score.task) * _ratio_stderr(objective, result)) ** 2
        for score, result in zip(objective.scores(results), results, strict=True)
    )
    half = _Z95 * math.sqrt(variance)
    return Interval(value, value - half, value + half)


def wilson(share: float, n: int) -> Interval:
    """Wilson's 95 % interval of a share of n outcomes."""
    centre = (share + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + _Z95**2 / (4 * n * n)) / (1 + _Z95**2 / n)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(
    objective: Objective, ours: tuple[TaskOutcomes, ...], theirs: tuple[TaskOutcomes, ...]
) -> PairedDifference:
    """Compare two models item by item.

    The p-value is McNemar's exact one when every difference is the same size or zero (0/1 outcomes
    of one task), else a sign-flip permutation test with a fixed seed; the interval is a paired
    bootstrap within tasks. Both models must have the same items. What a model costs is certain: the
    test shifts every item by its share of that difference.

    Raises:
        ValueError: the two models were scored on different items.
    """
    if [r.items() for r in ours] != [r.items() for r in theirs]:
        raise ValueError("paired comparison needs the same items for both models")
    differences = contributions(objective, ours) - contributions(objective, theirs)
    sizes = [len(result.outcomes) for result in _in_order(objective, ours)]
    low, high = _bootstrap(differences, sizes)
    p_value = _p_value(_shifted(objective, differences, sizes))
    return PairedDifference(float(differences.sum()), low, high, p_value)


def best_of_many(
    objective: Objective,
    best: tuple[TaskOutcomes, ...],
    others: Sequence[tuple[TaskOutcomes, ...]],
    theirs: tuple[TaskOutcomes, ...],
) -> float:
    """How often chance alone puts the best of several models this far above `theirs`, one-sided.

    The largest standardised difference is compared with the largest under random signs, the same
    for all models of an item (Westfall & Young 1993, Resampling-based multiple testing): models
    that answer alike count as few, and picking the best of many is paid for. `others` may have been
    scored on fewer of the items of `theirs`.

    Raises:
        ValueError: a model was scored on items that `theirs` lacks.
    """
    places = {
        (task.task, outcome.item): index
        for index, (task, outcome) in enumerate((t, o) for t in theirs for o in t.outcomes)
    }
    columns = [_standardised(objective, ours, theirs, places) for ours in (best, *others)]
    observed = columns[0].sum()
    differing = np.stack([column for column in columns if column.any()] or columns[:1], axis=1)
    rng = generator(0, "best of many", len(places))
    largest = np.empty(_RESAMPLES)
    for start in range(0, _RESAMPLES, 500):  # blocks keep the sign matrix small
        signs = rng.integers(0, 2, size=(500, len(places)), dtype=np.int8) * 2.0 - 1.0
        largest[start : start + 500] = (signs @ differing).max(axis=1)
    return (int((largest >= observed - 1e-12).sum()) + 1) / (_RESAMPLES + 1)


def _standardised(
    objective: Objective,
    ours: tuple[TaskOutcomes, ...],
    theirs: tuple[TaskOutcomes, ...],
    places: Mapping[tuple[str, str], int],
) -> NDArray[np.float64]:
    """Differences on our items, of length 1 as a vector, at the places of all items."""
    ours = tuple(_in_order(objective, ours))
    known = {result.task: result for result in theirs}
    same = tuple(known[result.task].only(frozenset(result.items())) for result in ours)
    if [r.items() for r in ours] != [r.items() for r in same]:
        raise ValueError("a paired comparison needs the same items for both models")
    differences = contributions(objective, ours) - contributions(objective, same)
    shifted = _shifted(objective, differences, [len(result.outcomes) for result in ours])
    column = np.zeros(len(places))
    asked = [(r.task, o.item) for r in ours if r.task != COST_TASK for o in r.outcomes]
    column[[places[key] for key in asked]] = shifted / (np.linalg.norm(shifted) or 1.0)
    return column


def _shifted(
    objective: Objective, differences: NDArray[np.float64], sizes: Sequence[int]
) -> NDArray[np.float64]:
    """The differences on questions, each with its share of the difference in cost."""
    is_cost = np.repeat([goal.task == COST_TASK for goal in objective.goals], sizes)
    items = differences[~is_cost]
    shifted: NDArray[np.float64] = items + differences[is_cost].sum() / items.size
    return shifted


def visible_difference(stderr: float) -> float:
    """The true difference that a one-sided 5 % test finds in four of five cases (80 % power).

    (z(0.95) + z(0.80)) times the standard error of the estimated difference, in its unit.
    """
    return _POWER * stderr


def interval_stderr(low: float, high: float) -> float:
    """The standard error behind a 95 % interval, by the normal approximation."""
    return (high - low) / (2.0 * _Z95)


def expected_stderr(objective: Objective, counts: Mapping[str, int]) -> float | None:
    """The standard error of a paired difference to expect from so many items of each task.

    McNemar's variance with one right-or-wrong item in ten changing, 0.1 / n, per task, weighted as
    the objective weights tasks. None when a task that counts is no mean of items.
    """
    goals = [goal for goal in objective.goals if goal.weight > 0 and goal.task != COST_TASK]
    if any(goal.aggregation != "mean" for goal in goals):
        return None
    parts = (objective.share(goal.task) ** 2 * _CHANGED / counts[goal.task] for goal in goals)
    return math.sqrt(sum(parts))


def _in_order(objective: Objective, results: tuple[TaskOutcomes, ...]) -> Sequence[TaskOutcomes]:
    by_task = {result.task: result for result in results}
    return [by_task[goal.task] for goal in objective.goals]


def _ratio_stderr(objective: Objective, result: TaskOutcomes) -> float:
    goal = objective.goal(result.task)
    values = np.asarray([o.value for o in result.outcomes])
    weights = np.asarray([o.weight for o in result.outcomes])
    ratio = values.sum() / weights.sum()
    residuals = (values - ratio * weights) / weights.mean()
    n = len(values)
    assert goal.weight >= 0
    return float(math.sqrt((residuals**2).sum() / max(n - 1, 1) / n))


def _p_value(differences: NDArray[np.float64]) -> float:
    changed = differences[differences != 0.0]
    if changed.size == 0:
        return 1.0
    sizes = np.abs(changed)
    if np.allclose(sizes, sizes[0], rtol=1e-9, atol=0.0):
        return _binomial_tail(int((changed > 0).sum()), changed.size)
    rng = generator(0, "sign flips", changed.size)
    flipped = np.empty(_RESAMPLES)
    for start in range(0, _RESAMPLES, 500):  # blocks keep the sign matrix small
        signs = rng.integers(0, 2, size=(500, changed.size), dtype=np.int8) * 2.0 - 1.0
        flipped[start : start + 500] = signs @ sizes
    at_least = int((flipped >= changed.sum() - 1e-12).sum())
    return (at_least + 1) / (_RESAMPLES + 1)


def _binomial_tail(wins: int, n: int) -> float:
    """P(X >= wins) for X ~ Binomial(n, 1/2): the exact one-sided McNemar test."""
    log_total = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2.0)
        for k in range(wins, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(term) for term in log_total))


def _bootstrap(differences: NDArray[np.float64], sizes: Sequence[int]) -> tuple[float, float]:
    """A 95 % percentile interval of the summed differences, items resampled within each task."""
    rng = generator(0, "bootstrap", differences.size)
    totals = np.zeros(_BOOTSTRAPS)
    start = 0
    for size in sizes:
        part = differences[start : start + size]
        start += size
        for block in range(0, _BOOTSTRAPS, 100):  # blocks keep the index matrix small
            totals[block : block + 100] += part[rng.integers(0, size, (100, size))].sum(axis=1)
    low, high = np.quantile(totals, [0.025, 0.975])
    return float(low), float(high)
