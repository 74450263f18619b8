"""TunableCma: pycma with the settings of a space file's cma_es, and some that these lack."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.seeding import generator

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import cma

Floats = NDArray[np.float64]
_NEVER = 10**9


class TunableCma:
    """Maximises in the unit cube, a whole generation at a time (stateful)."""

    def __init__(
        self, start: Floats, *, seed: int, population: int, sigma: float, diagonal: bool
    ) -> None:
        rng = generator(seed, "cma_es")
        options: dict[str, Any] = {
            "bounds": [0.0, 1.0],
            "popsize": population,
            "maxstd": 1.0 / 3.0,
            "CMA_diagonal": diagonal,
            "randn": lambda *shape: rng.standard_normal(shape),
            "seed": np.nan,
            "signals_filename": None,
            "verbose": -9,
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
        self.means: list[Floats] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._es = cma.CMAEvolutionStrategy(np.clip(start, 0.02, 0.98), sigma, options)

    def ask(self) -> list[Floats]:
        """A generation, within the cube."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [np.clip(np.asarray(x, dtype=np.float64), 0.0, 1.0) for x in self._es.ask()]

    def tell(self, asked: Sequence[Floats], fitness: Sequence[float]) -> None:
        """Learn from the generation."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._es.tell(list(asked), [-value for value in fitness])
        self.means.append(np.clip(np.asarray(self._es.result.xfavorite, dtype=np.float64), 0, 1))
