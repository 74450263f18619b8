"""A run with two objectives that pull apart and a guard, without models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from evomerge.candidate import Assignment, Failed, ItemSelection, Scored
from evomerge.constraints import Constraint
from evomerge.genes import CONTINUOUS
from evomerge.mergekit_yaml import to_mapping
from evomerge.run.core import Schedule
from evomerge.run.plan import Batches, RunPlan
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes
from evomerge.search.chebyshev import Chebyshev
from evomerge.search.cma_es import CmaEs
from evomerge.search.strategy import Strategy
from tests.run.fakes import ScrambledPool, draw, plan

TASKS = ("left", "right", "guard")
OBJECTIVE = Objective(
    (TaskGoal("left", "acc,none"), TaskGoal("right", "acc,none"), TaskGoal("guard", "acc,none", 0)),
    pareto=True,
)
SINGLE = {"base": (0.2, 0.2, 0.2), "a": (0.4, 0.1, 0.7), "b": (0.1, 0.4, 0.3)}
"""What the models do as they are, in every task; fixed recipes reach 0.3."""
GUARD = Constraint("guard", "max_drop", 0.1, "a")
FLOOR = Constraint("guard", "min", 0.2)


@dataclass(frozen=True)
class TradeWorkers:
    """Right on "left" with weights of 0.2, on "right" with 1.0, on "guard" with little of b."""

    fail_every: int = 0
    broken_reference: bool = False

    def __call__(self) -> TradeWorkers:
        return self

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        due = self.fail_every and assignment.candidate % self.fail_every == self.fail_every - 1
        if due and assignment.stage == "search":
            return Failed("non-finite weights", "tensor 'x' has NaN")
        if self.broken_reference and "reference" in assignment.stage:
            return Failed("error", "no such file")
        quality = _quality(assignment)
        return Scored(
            tuple(
                TaskOutcomes(
                    task,
                    tuple(ItemOutcome(i, float(_drawn(task + i) < quality[task])) for i in ids),
                )
                for task, ids in assignment.items.tasks
            ),
            0.001,
            0.01,
        )


@cache
def _drawn(item: str) -> float:
    return draw(item)


def _quality(assignment: Assignment) -> dict[str, float]:
    mapping = to_mapping(assignment.recipe)
    if "slices" not in mapping:
        single = mapping["merge_method"] == "passthrough"
        model = assignment.recipe.models[0].model if single else ""
        left, right, guard = SINGLE.get(model, (0.3, 0.3, 0.3))
        return {"left": left, "right": right, "guard": guard}
    weights = [
        source["parameters"]["weight"]
        for part in mapping["slices"]
        for source in part["sources"]
        if "parameters" in source
    ]
    near = {goal: sum((w - goal) ** 2 for w in weights) / len(weights) for goal in (0.2, 0.6, 1.0)}
    return {
        "left": 0.9 / (1.0 + 2.0 * near[0.2]),
        "right": 0.9 / (1.0 + 2.0 * near[1.0]),
        "guard": max(0.0, 0.85 - max(0.0, sum(weights) / len(weights) - 0.3)),
    }


def trades(
    *constraints: Constraint,
    candidates: int = 64,
    by_arrival: bool = False,
    items: int | None = None,
) -> RunPlan:
    """Three tasks, five directions of two candidates."""
    usual = plan(candidates=None if items else candidates, budget_items=items)
    (stage,) = usual.stages

    def strategy(start: tuple[float, ...], _expected: int) -> Strategy:
        def search(direction: int, size: int) -> Strategy:
            axes = [CONTINUOUS] * len(start)
            return CmaEs(start, axes=axes, seed=direction, population=size, sigma=1 / 6)

        return Chebyshev(search, objectives=2, population=10)

    schedule = Schedule(not by_arrival, ScrambledPool.size if by_arrival else 5)
    stage = replace(stage, strategy=strategy, population=10, schedule=schedule, batches=Batches(20))
    return replace(
        usual,
        objective=OBJECTIVE,
        constraints=constraints,
        search_items=_items("s", 150),
        selection_items=_items("v", 120),
        holdout_items=_items("h", 120),
        stages=(stage,),
    )


def _items(name: str, count: int) -> ItemSelection:
    ids = tuple(f"{name}{index:05d}" for index in range(count))
    return ItemSelection(tuple((task, ids) for task in TASKS))
