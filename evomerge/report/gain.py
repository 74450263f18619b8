"""What more search would gain: saturating curves fitted to the climb of the generations.

A curve is level + climb * phi(items), with phi an exponential or a power law of some rate. Beside
it there are the luck of each generation's items and a slow wander that no curve describes. Rates
and the size of the wander are averaged over, in proportion to how well they explain what was seen;
so a short or noisy climb leaves many of them, and a wide interval. With the rate given, this is a
Gaussian process with explicit basis functions and unknown noise (Rasmussen and Williams 2006,
Gaussian processes for machine learning, section 2.7; O'Hagan 1978).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from evomerge.report.trials import Floats
from evomerge.seeding import generator

FEWEST_GENERATIONS = 6
_POINTS = 60
"""More generations than this are averaged in groups."""
_DRAWS = 4000
_RATES = tuple(2.0**power for power in np.arange(-5.0, 1.5, 0.75))
"""Items until much of the climb is done, as a share of those spent."""
_LATE = tuple((middle, width) for middle in (0.4, 0.7, 1.0) for width in (0.1, 0.2, 0.35))
"""Middle and width of climbs that begin slowly, as shares of the items spent."""
_STEADY = 32.0
"""A rate at which nothing saturates."""
_WANDERS = (
    (0.0, 1.0), (0.3, 1.0), (1.0, 0.7), (3.0, 0.4), (10.0, 0.2), (40.0, 0.1), (200.0, 0.07),
    (1000.0, 0.07),
)  # fmt: skip
"""Variance that the wander gathers in the whole search, in variances of a generation's mean, and
how likely that is beforehand."""
_LEVEL, _CLIMB = 1e3, 60.0
"""Standard deviations of level and climb before anything is seen, in those of a generation."""
_GUESS = 2.0
"""How many generations the first guess at the noise is worth."""
_TAIL = 0.025


@dataclass(frozen=True)
class Level:
    """The mean fitness of one generation, once so many items of the search were spent.

    `weight` is how many items the mean rests on.
    """

    spent: float
    mean: float
    weight: float


@dataclass(frozen=True)
class Gain:
    """What twice the items would add to the mean of a generation, with a 95 % interval.

    `told` is False when the interval is wider than twice what the search has gained so far.
    `spent`, `curve`, `low_curve` and `high_curve` are the expected mean with its 95 % interval,
    from the first generation up to twice the items.
    """

    expected: float
    low: float
    high: float
    told: bool
    spent: tuple[float, ...]
    curve: tuple[float, ...]
    low_curve: tuple[float, ...]
    high_curve: tuple[float, ...]


@dataclass(frozen=True)
class _Shape:
    """One curve and one size of the wander, given what was seen.

    The curve has mean `path` and covariance `root @ root.T` times a variance that is inverse gamma
    with `freedom` / 2 and `energy` / 2.
    """

    log_evidence: float
    path: Floats
    root: Floats
    freedom: float
    energy: float


def gain(levels: Sequence[Level], ceiling: float | None) -> Gain | None:
    """The gain to expect; None with fewer than six generations, or when all are equal.

    `ceiling` is the highest fitness there can be, if there is one.
    """
    if len(levels) < FEWEST_GENERATIONS or len({level.mean for level in levels}) == 1:
        return None
    spent, means, weights = _grouped(levels)
    span = float(spent[-1])
    past, future = np.linspace(spent[0] / span, 1.0, 25), np.linspace(1.0, 2.0, 26)[1:]
    at = np.concatenate([past, future])
    paths = _paths(list(_shapes(spent / span, means, weights / weights.mean(), at)))
    paths = paths if ceiling is None else np.minimum(paths, ceiling)
    now = len(past) - 1
    low, expected, high = _bounds(paths[:, -1] - paths[:, now])
    so_far = abs(float(np.median(paths[:, now] - paths[:, 0])))
    bounds = np.quantile(paths, [0.5, _TAIL, 1.0 - _TAIL], axis=0)
    curve, low_curve, high_curve = (tuple(line.tolist()) for line in bounds)
    return Gain(
        expected=expected,
        low=low,
        high=high,
        told=high - low <= 2.0 * so_far,
        spent=tuple((at * span).tolist()),
        curve=curve,
        low_curve=low_curve,
        high_curve=high_curve,
    )


def _grouped(levels: Sequence[Level]) -> tuple[Floats, Floats, Floats]:
    """Items spent, mean and weight of every generation, or of groups of them."""
    table = np.asarray([(level.spent, level.mean, level.weight) for level in levels])
    groups = np.array_split(table, min(len(table), _POINTS))
    weights = np.asarray([group[:, 2].sum() for group in groups])
    means = np.asarray([np.average(group[:, 1], weights=group[:, 2]) for group in groups])
    return np.asarray([group[:, 0].mean() for group in groups]), means, weights


def _shapes(times: Floats, means: Floats, weights: Floats, at: Floats) -> Iterator[_Shape]:
    """Every shape; `times` and `at` are shares of the items spent."""
    # half the mean squared step is the variance around any slow curve
    guess = float(np.mean(np.diff(means) ** 2)) / 2.0
    values = means - means.mean()
    points = np.concatenate([times, at])
    seen, asked = slice(0, len(times)), slice(len(times), None)
    shorter = np.minimum(points[:, None], points[None, :])
    for (family, rate, usual), (wander, likely) in product(_CURVES, _WANDERS):
        rise = family(points / rate) / float(family(np.asarray(1.0 / rate)))
        prior = _LEVEL**2 + _CLIMB**2 * np.outer(rise, rise) + wander * shorter
        noisy = prior[seen, seen] + np.diag(1.0 / weights)
        factor = np.linalg.cholesky(noisy)
        white = np.linalg.solve(factor, np.column_stack([values, prior[seen, asked]]))
        energy = _GUESS * guess + float(white[:, 0] @ white[:, 0])
        freedom = _GUESS + len(values)
        left = prior[asked, asked] - white[:, 1:].T @ white[:, 1:]
        jitter = 1e-9 * _LEVEL**2 * np.eye(len(at))
        yield _Shape(
            float(np.log(usual * likely) - np.log(np.diag(factor)).sum())
            - 0.5 * freedom * float(np.log(energy)),
            means.mean() + white[:, 1:].T @ white[:, 0],
            np.linalg.cholesky(left + jitter),
            freedom,
            energy,
        )


def _paths(shapes: Sequence[_Shape]) -> Floats:
    """Draws of the curve, each from a shape in proportion to its evidence: (draws, points)."""
    evidence = np.asarray([shape.log_evidence for shape in shapes])
    chances = np.exp(evidence - evidence.max())
    rng = generator(0, "search curve")
    paths = []
    for shape, count in zip(shapes, rng.multinomial(_DRAWS, chances / chances.sum()), strict=True):
        if count:
            variance = shape.energy / rng.chisquare(shape.freedom, size=count)
            normal = rng.standard_normal((count, len(shape.path))) @ shape.root.T
            paths.append(shape.path + np.sqrt(variance)[:, None] * normal)
    return np.concatenate(paths)


def _bounds(draws: Floats) -> tuple[float, float, float]:
    low, middle, high = np.quantile(draws, [_TAIL, 0.5, 1.0 - _TAIL])
    return float(low), float(middle), float(high)


def _exponential(times: Floats) -> Floats:
    return np.asarray(-np.expm1(-times), dtype=np.float64)


def _hyperbola(times: Floats) -> Floats:
    return np.asarray(times / (1.0 + times), dtype=np.float64)


def _root_law(times: Floats) -> Floats:
    return np.asarray(1.0 - 1.0 / np.sqrt(1.0 + times), dtype=np.float64)


def _sigmoid(times: Floats, middle: float, width: float) -> Floats:
    """Slow first, as where a threshold has to be passed before answers become right."""
    return np.asarray(1.0 / (1.0 + np.exp((middle - times) / width)), dtype=np.float64)


_CURVES: tuple[tuple[Callable[[Floats], Floats], float, float], ...] = (
    *((family, rate, 1.0) for family in (_exponential, _hyperbola, _root_law) for rate in _RATES),
    (_exponential, _STEADY, 3.0),
    *((partial(_sigmoid, middle=middle, width=width), 1.0, 0.4) for middle, width in _LATE),
)
"""Family, rate, and how likely the curve is beforehand."""
