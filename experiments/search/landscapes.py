"""Landscape: what a protocol is tried on: a space, items of three splits, workers and the truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from simulator import (
    HOLDOUT,
    ROUGH_TERRAIN,
    SEARCH,
    SELECTION,
    SMOOTH_TERRAIN,
    TOTAL,
    TRUTH,
    Floats,
    Roughness,
    Terrain,
)

from evomerge.candidate import Assignment, Failed, ItemSelection, Scored
from evomerge.recipe import Parameters, Recipe
from evomerge.run.pool import EvaluatingWorker
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes
from evomerge.seeding import generator
from evomerge.space import SearchSpace
from evomerge.space_file import read_space

TASK = "task"
LOWEST, HIGHEST = -0.3, 1.5
"""Range of the weights."""


class Landscape(Protocol):
    """Where a search takes place; `seed` makes it another one of the same kind, where it can."""

    @property
    def space(self) -> SearchSpace: ...

    @property
    def objective(self) -> Objective: ...

    @property
    def splits(self) -> tuple[ItemSelection, ItemSelection, ItemSelection]:
        """Search, selection and holdout items."""
        ...

    def worker(self, failing: float) -> Callable[[], EvaluatingWorker]:
        """Makes workers, which know how likely right answers were.

        That share of the candidates of the search fails.
        """
        ...

    def truth(self, recipe: Recipe) -> Floats:
        """Contributions of items outside all splits; their mean is the true quality."""
        ...


@dataclass(frozen=True)
class Simulated:
    """A terrain behind the space of a merge: two models' weights in each layer group."""

    terrain: Terrain
    space: SearchSpace

    @property
    def objective(self) -> Objective:
        return Objective((TaskGoal(TASK, "acc,none"),))

    @property
    def splits(self) -> tuple[ItemSelection, ItemSelection, ItemSelection]:
        ends = np.cumsum([0, SEARCH, SELECTION, HOLDOUT])
        search, selection, holdout = (_numbered(ends[i], ends[i + 1]) for i in range(3))
        return search, selection, holdout

    def worker(self, failing: float) -> Callable[[], EvaluatingWorker]:
        return lambda: SimulatedWorker(self, failing)

    def truth(self, recipe: Recipe) -> Floats:
        u = np.asarray(positions(self.space, recipe))
        return self.terrain.right(u, np.arange(TOTAL - TRUTH, TOTAL))


class SimulatedWorker:
    """Answers items as the terrain does (stateful: the positions of the last recipe)."""

    def __init__(self, landscape: Simulated, failing: float) -> None:
        self._landscape = landscape
        self._failing = failing
        self._recipe: Recipe | None = None
        self._u: Floats = np.empty(0)

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        """Score at once."""
        if assignment.recipe is not self._recipe:  # parts of one evaluation share it
            self._recipe = assignment.recipe
            self._u = np.asarray(positions(self._landscape.space, assignment.recipe))
        if fails(self._failing, self._landscape.terrain.seed, assignment):
            return Failed("non-finite weights", "drawn by lot")
        ((task, ids),) = assignment.items.tasks
        items = np.fromiter((int(name[1:]) for name in ids), np.intp, len(ids))
        right, gold = self._landscape.terrain.answers(self._u, items)
        return Scored((outcomes_of(task, ids, right, gold),), 0.0, 0.0)


def outcomes_of(task: str, ids: Sequence[str], right: Floats, gold: Floats) -> TaskOutcomes:
    """The answers of one task."""
    pairs = zip(ids, right.tolist(), gold.tolist(), strict=True)
    return TaskOutcomes(
        task, tuple(ItemOutcome(item, value, probability=likely) for item, value, likely in pairs)
    )


def fails(share: float, seed: int, assignment: Assignment) -> bool:
    """Whether a candidate of the search is one of those that fail; the same however often asked."""
    if not share or assignment.stage != "search":
        return False
    return bool(generator(seed, "fails", assignment.candidate).random() < share)


def _numbered(begin: int, end: int) -> ItemSelection:
    return ItemSelection(((TASK, tuple(f"i{index:05d}" for index in range(begin, end))),))


def positions(space: SearchSpace, recipe: Recipe) -> tuple[float, ...]:
    """Where a recipe lies in the space; for baselines, the point that stands for it.

    A weight at density q acts like the weight (1 + q) / 2: trimming keeps the large entries, which
    carry most of a task vector.
    """
    if recipe.slices:  # only the space makes these, in the order of its genes by model, then group
        values = [
            [_constant(source.parameters, "weight") for source in part.sources if source.parameters]
            for part in recipe.slices
        ]
        flat = np.asarray(values, dtype=np.float64).T.ravel()
        return tuple(((flat - LOWEST) / (HIGHEST - LOWEST)).tolist())
    weights = _whole(recipe)
    return space.encode(lambda place: weights.get(str(place.model), 0.0))


def _whole(recipe: Recipe) -> Mapping[str, float]:
    """Effective weights of task vectors by model, of a recipe over whole models."""
    models = [source.model for source in recipe.models]
    if recipe.merge_method == "passthrough":
        return dict.fromkeys(models, 1.0)
    if recipe.merge_method == "slerp":
        return dict.fromkeys(recipe.referenced_models(), 0.5)
    if recipe.merge_method == "linear":
        return dict.fromkeys(models, 1.0 / len(models))
    scale = _constant(recipe.parameters, "lambda", 1.0)
    kept = (1.0 + _constant(recipe.parameters, "density", 1.0)) / 2.0
    return {s.model: scale * kept * _constant(s.parameters, "weight", 1.0) for s in recipe.models}


def _constant(parameters: Parameters, name: str, default: float = 0.0) -> float:
    for key, setting in parameters.settings:
        if key == name:
            value = setting.clauses[0].value
            assert isinstance(value, float | int)
            return float(value)
    return default


def _two_models(groups: int) -> SearchSpace:
    """Weights of two models in each of `groups` layers."""
    mapping: dict[str, Any] = {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": "one"}, {"model": "two"}],
        "layer_groups": groups,
        "parameters": {
            "weight": {"float": [LOWEST, HIGHEST], "init": 0.6, "per": ["model", "layer_group"]}
        },
        "dtype": "float32",
    }
    return read_space(mapping, "space", groups)


def simulated(dimension: int, roughness: Roughness, layers: int, seed: int) -> Simulated:
    """The terrain of these settings and seed, behind a space."""
    space = _two_models(dimension // 2)
    return Simulated(Terrain(dimension, seed, roughness, layers), space)


SIMULATED: Mapping[str, Callable[[int], Simulated]] = MappingProxyType(
    {
        "6 smooth": lambda seed: simulated(6, SMOOTH_TERRAIN, 0, seed),
        "6 rough": lambda seed: simulated(6, ROUGH_TERRAIN, 0, seed),
        "24 smooth": lambda seed: simulated(24, SMOOTH_TERRAIN, 0, seed),
        "24 rough": lambda seed: simulated(24, ROUGH_TERRAIN, 0, seed),
        "64 depth": lambda seed: simulated(64, SMOOTH_TERRAIN, 32, seed),
        "64 free": lambda seed: simulated(64, SMOOTH_TERRAIN, 0, seed),
    }
)

MICRO = ("read and write", "two halves")
"""Landscapes of real merges, which micro.py makes: it needs torch, these do not."""
