"""What an objective must satisfy as a whole, and its constraints as the search uses them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from evomerge.constraints import BOUNDS, RELATIVE, Constraint
from evomerge.errors import InvalidInput
from evomerge.run.config import ConstraintConfig, ObjectiveConfig
from evomerge.search.chebyshev import MOST_OBJECTIVES
from evomerge.signatures import did_you_mean


def check_objective(objective: ObjectiveConfig) -> None:
    """Check weights, trades and constraints among themselves.

    Raises:
        InvalidInput: every problem, one line each.
    """
    problems = [*_trade_problems(objective), *_constraint_problems(objective)]
    if problems:
        raise InvalidInput(problems)


def read_constraints(
    objective: ObjectiveConfig, base: str | None, models: Sequence[frozenset[str]]
) -> tuple[Constraint, ...]:
    """The constraints of a checked objective.

    Args:
        objective: the section of the space file.
        base: what relative limits compare with unless they say `of`.
        models: the models that are baselines, stage by stage.

    Raises:
        InvalidInput: one compares with a model that is not among them, one line each.
    """
    found: list[Constraint] = []
    problems: list[str] = []
    for index, config in enumerate(objective.constraints):
        of = config.of or base
        known = frozenset.intersection(*models)
        where = f"objective.constraints[{index}]"
        for kind, bound in _bounds(config):
            found.append(Constraint(config.task, kind, bound, of if kind in RELATIVE else None))
        if not any(kind in RELATIVE for kind, _ in _bounds(config)):
            continue
        if of is None:
            problems.append(f"{where}: compares with the base, and there is none; name a model: of")
        elif of not in known:
            stages = " of every stage" if len(models) > 1 else ""
            problems.append(
                f"{where}.of: '{of}' is neither the base nor a parent{stages}; "
                f"{did_you_mean(of, sorted(known))}"
            )
    if problems:
        raise InvalidInput(problems)
    return tuple(found)


def _trade_problems(objective: ObjectiveConfig) -> Iterator[str]:
    names = [task.task for task in objective.tasks]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        yield f"objective.tasks: '{repeated[0]}' appears twice; keep one entry"
    weighted = [task.task for task in objective.tasks if task.weight > 0]
    if not weighted:
        yield "objective.tasks: every weight is 0; give one task a positive weight"
    count = len(weighted) + (objective.cost is not None)
    if objective.combine == "pareto" and weighted and not 1 < count <= MOST_OBJECTIVES:
        fix = "give another task weight" if count == 1 else "give some weight 0"
        yield (
            f"objective.combine: pareto needs 2 to {MOST_OBJECTIVES} tasks with weight (or cost), "
            f"got {count}; {fix}, or use weighted_mean"
        )


def _constraint_problems(objective: ObjectiveConfig) -> Iterator[str]:
    tasks = {task.task: task for task in objective.tasks}
    limits: list[tuple[int, str, Constraint]] = []
    for index, config in enumerate(objective.constraints):
        where = f"objective.constraints[{index}]"
        task = tasks.get(config.task)
        if task is None:
            advice = did_you_mean(config.task, tasks)
            yield f"{where}.task: '{config.task}' is not in objective.tasks; {advice}"
        elif config.metric not in (None, task.metric):
            yield (
                f"{where}.metric: objective.tasks scores {config.task} by '{task.metric}', got "
                f"'{config.metric}'; name that one"
            )
        bounds = _bounds(config)
        if not bounds:
            yield f"{where}: no limit; add one of {', '.join(BOUNDS)}"
        if config.of is not None and bounds and not any(k in RELATIVE for k, _ in bounds):
            yield f"{where}.of: min and max compare with no model; use min_ratio or leave it out"
        limits += [(index, where, Constraint(config.task, *b, config.of)) for b in bounds]
    for (_, _, one), (_, where, other) in combinations(limits, 2):
        if one.task == other.task and (text := _contradiction(one, other)):
            yield f"{where}: nothing keeps both {text} of {one.task}; correct one"


def _contradiction(one: Constraint, other: Constraint) -> str | None:
    """Two limits that exclude each other, whatever the reference scores; None if they do not."""
    by_kind = {one.kind: one, other.kind: other}
    for low, high in (("min", "max"), ("min_ratio", "max_ratio")):
        if low in by_kind and high in by_kind and by_kind[low].bound > by_kind[high].bound:
            if low == "min_ratio" and one.of != other.of:
                return None
            return f"{low} {by_kind[low].bound:g} and {high} {by_kind[high].bound:g}"
    return None


def _bounds(config: ConstraintConfig) -> list[tuple[str, float]]:
    given = (
        ("min", config.min),
        ("max", config.max),
        ("min_ratio", config.min_ratio),
        ("max_ratio", config.max_ratio),
        ("max_drop", config.max_drop),
    )
    return [(kind, bound) for kind, bound in given if bound is not None]
