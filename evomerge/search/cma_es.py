"""CMA-ES through pycma's ask and tell, with its own random numbers and no stopping rules.

Hansen 2016, The CMA evolution strategy: a tutorial, arXiv:1604.00772. Ordered steps and choices of
two are numbers that keep a least standard deviation: Marty et al. 2024, LB+IC-CMA-ES, PPSN, without
its integer centering.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from evomerge.candidate import Genotype, Scores
from evomerge.genes import CONTINUOUS, Axis
from evomerge.search.strategy import only
from evomerge.seeding import generator

with warnings.catch_warnings():  # pycma warns on import when matplotlib is absent
    warnings.simplefilter("ignore")
    import cma

LATE_GENERATIONS = 3
_MARGIN = 0.02
_STAYS = 0.2
"""Least standard deviation of an ordered number, in steps (Marty et al.)."""
_NEVER = 10**9
_DIAGONAL_FROM = 40


def default_population(dimension: int) -> int:
    """4 + floor(3 ln d): eq. 48 of the tutorial."""
    return 4 + math.floor(3.0 * math.log(max(dimension, 1)))


def _border(axis: Axis) -> float:
    """The first position a mean may take: the middle of the first step.

    Farther out nothing changes, and no sample would find its way back.
    """
    return 0.0 if axis.steps is None else axis.middle(0)


def _least_deviation(axis: Axis) -> float:
    """From the middle of a step one sample in eighty leaves it, however far the search has come."""
    return 0.0 if axis.steps is None else _STAYS / axis.steps


class CmaEs:
    """CMA-ES in the unit cube; more than 40 genes adapt only the diagonal of the covariance."""

    def __init__(
        self, start: Genotype, *, axes: Sequence[Axis], seed: int, population: int, sigma: float
    ) -> None:
        """Begin at `start` (kept 0.02 off the borders) with step size `sigma`.

        `axes` say what the numbers stand for. A choice of three or more would be taken for one with
        an order.
        """
        self._dimension = len(start)
        if self._dimension == 1:
            # pycma refuses one dimension: a second coordinate that nothing depends on
            start, axes = (*start, 0.5), (*axes, CONTINUOUS)
        self._population = population
        self._rng = generator(seed, "cma_es")
        self._means: list[Genotype] = []
        low = [_border(axis) for axis in axes]
        inner = [
            min(max(position, border + _MARGIN), 1.0 - border - _MARGIN)
            for position, border in zip(start, low, strict=True)
        ]
        options: dict[str, Any] = {
            "bounds": [low, [1.0 - border for border in low]],
            "popsize": population,
            "maxstd": 1.0 / 3.0,
            "minstd": [_least_deviation(axis) for axis in axes],
            "CMA_diagonal": len(start) > _DIAGONAL_FROM,
            "randn": self._normal,
            "seed": np.nan,  # leaves NumPy's global generator alone
            "signals_filename": None,
            "verbose": -9,
            # minibatch noise makes pycma's convergence tests meaningless: the budget decides
            "tolfun": 0,
            "tolfunhist": 0,
            "tolfunrel": 0,
            "tolx": 0,
            "tolflatfitness": _NEVER,
            "tolstagnation": _NEVER,
            "tolconditioncov": None,
            "maxiter": _NEVER,
            "maxfevals": _NEVER,
        }
        with _untouched_global_random_state():
            self._es = cma.CMAEvolutionStrategy(inner, sigma, options)

    def _normal(self, *shape: int) -> Any:
        return self._rng.standard_normal(shape)

    @property
    def population(self) -> int:
        """Genotypes per generation."""
        return self._population

    def ask(self) -> Genotype:
        """One sample of the current distribution."""
        with (
            _quietly()
        ):  # nothing else: this is done for every candidate, and draws from ours alone
            (sample,) = self._es.ask(1)
        return self._genotype(sample)

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Update mean, step size and covariance; only the ranks of the fitness matter."""
        fitness = only(scores)
        finite = [-value for value in fitness if value is not None]
        worst = max(finite, default=0.0) + 1.0
        losses = [worst if value is None else -value for value in fitness]
        padding = [] if self._dimension > 1 else [0.5]
        solutions = [np.asarray([*genotype, *padding]) for genotype in genotypes]
        with _untouched_global_random_state():
            # asking ahead clears the flag by which pycma allows one tell per ask
            self._es._flgtelldone = False
            # meant for the next samples, of which there may have been none
            self._es.pop_injection_directions = []
            self._es.tell(solutions, losses)
        self._means.append(self._genotype(self._es.result.xfavorite))

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """The last means of the distribution, then the average of those of the later half."""
        late = tuple(self._means[-LATE_GENERATIONS:])
        half = self._means[len(self._means) // 2 :]
        if len(half) < 2:
            return late
        return (*late, tuple(sum(values) / len(half) for values in zip(*half, strict=True)))

    def _genotype(self, sample: Any) -> Genotype:
        clipped = np.clip(np.asarray(sample, dtype=np.float64), 0.0, 1.0)[: self._dimension]
        return tuple(float(value) for value in clipped)


@contextmanager
def _quietly() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _untouched_global_random_state() -> Iterator[None]:
    """Some paths of pycma draw from NumPy's global generator; the caller must not notice."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        with _quietly():
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
