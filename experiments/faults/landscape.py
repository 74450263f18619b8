"""A search without models: what a recipe scores follows from its weights, item by item.

Everything but the worker is real: plan, strategy, schedule, dispatcher, ledger, final, holdout.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from evomerge.candidate import Assignment, Failed, ItemSelection, Scored
from evomerge.mergekit_yaml import to_mapping
from evomerge.recipe import Recipe
from evomerge.run.baselines import baselines, starting_points
from evomerge.run.core import Schedule
from evomerge.run.plan import Batches, Budget, FinalPlan, RunPlan, StagePlan
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes
from evomerge.search.cma_es import CmaEs
from evomerge.seeding import derive, generator
from evomerge.space_file import read_space

OBJECTIVE = Objective((TaskGoal("task", "acc,none"),))
LAYER_GROUPS = 6
_COMMON = 1.0
"""Spread of how hard items are for everybody, on the scale of a candidate's own luck, 0.8."""
_OWN = 0.8
_NORMAL = NormalDist()


def quality(recipe: Recipe, seed: int) -> float:
    """The share of all items that the recipe gets right: 0.85 at a hidden place in the space."""
    mapping = to_mapping(recipe)
    if "slices" not in mapping:
        return 0.55 if mapping["merge_method"] == "task_arithmetic" else 0.35
    weights = [
        source["parameters"]["weight"]
        for part in mapping["slices"]
        for source in part["sources"]
        if "parameters" in source
    ]
    hidden = generator(seed, "hidden place")
    goal = hidden.uniform(0.0, 1.2, len(weights))
    importance = hidden.uniform(0.3, 2.0, len(weights))
    importance /= importance.sum()
    gap = (importance * (weights - goal) ** 2).sum()
    return float(max(0.02, 0.85 - 0.8 * gap))


@lru_cache(maxsize=1 << 16)
def _uniform(*names: object) -> float:
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return (int.from_bytes(digest[:8], "big") + 0.5) / 2**64


def outcomes(assignment: Assignment, seed: int) -> tuple[TaskOutcomes, ...]:
    """Right or wrong on every item; a function of recipe, item and seed."""
    bound = _NORMAL.inv_cdf(quality(assignment.recipe, seed)) * math.hypot(_COMMON, _OWN)
    ((task, items),) = assignment.items.tasks
    digest = assignment.recipe.digest

    def right(item: str) -> float:
        hard = _COMMON * _NORMAL.inv_cdf(_uniform(seed, item))
        luck = _OWN * _NORMAL.inv_cdf(_uniform(seed, item, digest))
        return float(hard + luck < bound)

    return (TaskOutcomes(task, tuple(ItemOutcome(item, right(item)) for item in items)),)


def seconds(assignment: Assignment, spread: float, seed: int) -> float:
    """A lognormal time of median 1 for a minibatch of 64; `spread` is sigma of its logarithm."""
    draw = _NORMAL.inv_cdf(_uniform(seed, "time", assignment.candidate, assignment.stage))
    return math.exp(spread * draw) * max(assignment.items.count / 64.0, 0.25)


@dataclass(frozen=True)
class Landscape:
    """Makes workers; picklable, so that processes can have them."""

    seed: int

    def __call__(self) -> Landscape:
        """The worker is the landscape itself."""
        return self

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        """Score at once."""
        return Scored(outcomes(assignment, self.seed), 0.0, 0.0)


def _items(name: str, count: int) -> ItemSelection:
    return ItemSelection((("task", tuple(f"{name}{index:05d}" for index in range(count))),))


def plan(*, candidates: int, population: int, schedule: Schedule, seed: int) -> RunPlan:
    """A run of CMA-ES over two models' weights in six groups of layers."""
    space = read_space(
        {
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "models": [{"model": "a"}, {"model": "b"}],
            "layer_groups": LAYER_GROUPS,
            "parameters": {
                "weight": {"float": [-0.3, 1.5], "init": 0.6, "per": ["model", "layer_group"]}
            },
            "dtype": "float32",
        },
        "space",
        2 * LAYER_GROUPS,
    )
    stage = StagePlan(
        name="",
        space=space,
        baselines=baselines(space),
        algorithm="cma_es",
        strategy=lambda start, _: CmaEs(
            start, axes=space.axes, seed=seed, population=population, sigma=1 / 6
        ),
        starting_points=lambda best: starting_points(space, best),
        population=population,
        schedule=schedule,
        batches=Batches(64),
        final=FinalPlan(),
        share=1.0,
    )
    return RunPlan(
        objective=OBJECTIVE,
        constraints=(),
        search_items=_items("s", 4000),
        selection_items=_items("v", 1000),
        holdout_items=_items("h", 2000),
        stages=(stage,),
        budget=Budget(candidates, None, None),
        seed=derive(seed, "run"),
    )
