"""Sakana's search: CMA-ES as Optuna's CmaEsSampler runs it (Akiba et al. 2024, arXiv:2403.13187).

Which items it is scored on and how the winner is chosen are settings of a protocol. What differs
from Optuna: pycma in place of the package cmaes, and no random trial before the first generation.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from evomerge.candidate import Genotype, Scores
from evomerge.search.cma_es import default_population
from evomerge.search.strategy import only
from evomerge.seeding import generator

with warnings.catch_warnings():  # pycma warns on import when matplotlib is absent
    warnings.simplefilter("ignore")
    import cma

DRAWS = 100
NEVER = 10**9


class SakanaCmaEs:
    """CMA-ES from the middle of every range, sigma 1/6, 4 + floor(3 ln d) candidates (stateful).

    Full covariance whatever the dimension. Samples outside the cube are drawn again, at last cut
    off; the update sees them as they were asked.
    """

    def __init__(self, dimension: int, *, seed: int) -> None:
        self._population = default_population(dimension)
        self._rng = generator(seed, "sakana")
        options: dict[str, Any] = {
            "popsize": self._population,
            "randn": lambda *shape: self._rng.standard_normal(shape),
            "seed": np.nan,
            "signals_filename": None,
            "verbose": -9,
            "maxiter": NEVER,
            "maxfevals": NEVER,
        }
        with untouched_global_random_state():
            self._es = cma.CMAEvolutionStrategy([0.5] * dimension, 1.0 / 6.0, options)

    @property
    def population(self) -> int:
        """Genotypes per generation."""
        return self._population

    def ask(self) -> Genotype:
        """A sample of the current distribution."""
        for _ in range(DRAWS):
            with untouched_global_random_state():
                (sample,) = self._es.ask(1)
            if ((sample >= 0.0) & (sample <= 1.0)).all():
                break
        return tuple(np.clip(sample, 0.0, 1.0).tolist())

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Update by ranks; failures are one worse than the worst."""
        fitness = only(scores)
        worst = max((-value for value in fitness if value is not None), default=0.0) + 1.0
        losses = [worst if value is None else -value for value in fitness]
        with untouched_global_random_state():
            self._es._flgtelldone = False
            self._es.tell([np.asarray(one) for one in genotypes], losses)

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """None: the best score of the search is the result."""
        return ()


@contextmanager
def untouched_global_random_state() -> Iterator[None]:
    """Some paths of pycma draw from NumPy's global generator, and some warn."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
