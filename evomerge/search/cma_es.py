"""CMA-ES through pycma's ask and tell, with its own random numbers and no stopping rules.

Hansen 2016, The CMA evolution strategy: a tutorial, arXiv:1604.00772.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from evomerge.candidate import Genotype, Scores
from evomerge.search.strategy import only
from evomerge.seeding import generator

with warnings.catch_warnings():  # pycma warns on import when matplotlib is absent
    warnings.simplefilter("ignore")
    import cma

LATE_GENERATIONS = 3
_MARGIN = 0.02
_NEVER = 10**9
_DIAGONAL_FROM = 40


def default_population(dimension: int) -> int:
    """4 + floor(3 ln d): eq. 48 of the tutorial."""
    return 4 + math.floor(3.0 * math.log(max(dimension, 1)))


class CmaEs:
    """CMA-ES in the unit cube; more than 40 genes adapt only the diagonal of the covariance."""

    def __init__(self, start: Genotype, *, seed: int, population: int, sigma: float) -> None:
        """Begin at `start` (kept 0.02 off the borders) with step size `sigma`."""
        if len(start) == 1:
            # pycma refuses one dimension: a second coordinate that nothing depends on
            start = (*start, 0.5)
            self._dimension = 1
        else:
            self._dimension = len(start)
        self._population = population
        self._rng = generator(seed, "cma_es")
        self._means: list[Genotype] = []
        inner = [min(max(position, _MARGIN), 1.0 - _MARGIN) for position in start]
        options: dict[str, Any] = {
            "bounds": [0.0, 1.0],
            "popsize": population,
            "maxstd": 1.0 / 3.0,
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
        with _untouched_global_random_state():
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
def _untouched_global_random_state() -> Iterator[None]:
    """Some paths of pycma draw from NumPy's global generator; the caller must not notice."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
