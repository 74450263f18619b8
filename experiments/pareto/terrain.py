"""Terrain with several objectives: what a merge scores on every item of every task, no model.

Genes are the weights of m parents in L groups of layers, as positions u in [0, 1]^d. Task j has an
optimum o_j = 1/2 + SPREAD (sqrt(1 - APART) g + sqrt(APART) g_j), g and g_j ~ N(0, 1), clipped; the
optima share most of their place, and the rest pulls apart. Item i of task j is right iff

    TOP - DROP / (d SPREAD^2) (u - o_j)' A_j (u - o_j) + own_ij(u) > hard_ij,

with A_j a random rotation of eigenvalues from 1 to 30, mean 1; own_ij a smooth random function of u
(32 cosines) that makes two merges of equal quality differ on items; hard_ij ~ N(0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.mergekit_yaml import to_mapping
from evomerge.recipe import Recipe
from evomerge.seeding import generator

Floats = NDArray[np.float64]

SPREAD, TOP, DROP, CONDITION, OWN = 0.25, 1.0, 1.1, 30.0, 0.45
APART = 0.4
FEATURES = 32
RANGE = (-0.3, 1.5)
GROUPS = 6
SEARCH, SELECTION, TRUTH = 3000, 1200, 4000
"""Items of each task, numbered in this order; the last are never part of a run."""


@dataclass(frozen=True)
class Terrain:
    """One landscape with so many objectives and as many parents."""

    objectives: int
    seed: int

    @property
    def dimension(self) -> int:
        """Genes."""
        return self.objectives * GROUPS

    def right(self, task: int, u: Floats, items: NDArray[np.intp]) -> Floats:
        """1.0 or 0.0 for each of the items of a task."""
        gap = u - self.optima[task]
        skill = TOP - DROP / (self.dimension * SPREAD**2) * (gap @ self._curvatures[task] @ gap)
        own = self._own[task][items] @ np.cos(self._waves[0] @ u + self._waves[1])
        return np.asarray(skill + own > self._hard[task][items], dtype=np.float64)

    def truth(self, u: Floats) -> tuple[float, ...]:
        """The quality in every task."""
        items = np.arange(SEARCH + SELECTION, SEARCH + SELECTION + TRUTH)
        return tuple(float(self.right(j, u, items).mean()) for j in range(self.objectives))

    def position(self, recipe: Recipe) -> Floats:
        """Where a recipe lies: parents and fixed recipes have the same weight in every group."""
        mapping = to_mapping(recipe)
        models = [f"p{j}" for j in range(self.objectives)]
        weights = np.zeros((self.objectives, GROUPS))
        if "slices" in mapping:
            for group, part in enumerate(mapping["slices"]):
                for source in part["sources"]:
                    if "parameters" in source:
                        found = source["parameters"]["weight"]
                        weights[models.index(source["model"]), group] = found
        else:
            named = [s.model for s in recipe.models if s.model in models]
            even = recipe.merge_method in ("linear", "slerp")
            scale = mapping.get("parameters", {}).get("lambda", 1.0)
            for model in named:
                weights[models.index(model)] = 1.0 / len(named) if even else scale
        low, high = RANGE
        return np.asarray((weights.ravel() - low) / (high - low))

    @cached_property
    def optima(self) -> Floats:
        """o_j, shape [objectives, d]."""
        rng = generator(self.seed, "optima")
        common = rng.standard_normal(self.dimension)
        own = rng.standard_normal((self.objectives, self.dimension))
        raw = 0.5 + SPREAD * (np.sqrt(1 - APART) * common + np.sqrt(APART) * own)
        return np.asarray(np.clip(raw, 0.03, 0.97))

    @cached_property
    def _curvatures(self) -> Floats:
        rng, d = generator(self.seed, "curvatures"), self.dimension
        values = np.geomspace(1.0, CONDITION, d)
        values /= values.mean()
        turns = (np.linalg.qr(rng.standard_normal((d, d)))[0] for _ in range(self.objectives))
        return np.stack([q @ np.diag(values) @ q.T for q in turns])

    @cached_property
    def _waves(self) -> tuple[Floats, Floats]:
        rng = generator(self.seed, "waves")
        w = rng.standard_normal((FEATURES, self.dimension)) / (np.sqrt(self.dimension) * SPREAD)
        return w, rng.uniform(0.0, 2.0 * np.pi, FEATURES)

    @cached_property
    def _own(self) -> Floats:
        shape = (self.objectives, SEARCH + SELECTION + TRUTH, FEATURES)
        drawn = generator(self.seed, "own").standard_normal(shape)
        return np.asarray(OWN * np.sqrt(2.0 / FEATURES) * drawn)

    @cached_property
    def _hard(self) -> Floats:
        shape = (self.objectives, SEARCH + SELECTION + TRUTH)
        return generator(self.seed, "hard").standard_normal(shape)
