"""From a space file to a run: the only place where configuration meets concrete classes."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from evomerge.candidate import Genotype
from evomerge.errors import InvalidInput
from evomerge.evaluate.catalog import Catalog, load_catalog
from evomerge.evaluate.evaluator import EvaluatorSpec, TaskSpec
from evomerge.evaluate.splits import Shares, Splits, split_items
from evomerge.recipe import Recipe
from evomerge.run.baselines import baselines
from evomerge.run.config import ObjectiveConfig, SpaceFile
from evomerge.run.plan import Budget, RunPlan
from evomerge.run.spaces import space_models
from evomerge.run.workers import WorkerSpec
from evomerge.score import Objective
from evomerge.search.cma_es import CmaEs, default_population
from evomerge.search.strategy import Strategy
from evomerge.space import SearchSpace
from evomerge.weights.pool import ParentPool

_PACKAGES = ("evomerge", "torch", "transformers", "lm_eval", "cma", "numpy")
SMALL_HOLDOUT = 250
_LIBRARY_BYTES = 1 << 30
_MEMORY_SHARE = 0.8
_MOST_WORKERS = 8
_MERGES = 200
"""Candidates to expect of a search that only its items or its time limit."""


@dataclass(frozen=True)
class BuiltRun:
    """A run ready to start: its plan, what its workers need, and its resolved specification."""

    plan: RunPlan
    worker: WorkerSpec
    workers: int
    resolved: Mapping[str, Any]
    notices: tuple[str, ...]
    """What to say before the search starts, one line each."""


def build_run(
    file: SpaceFile,
    space: SearchSpace,
    path: Path,
    *,
    workers: int | None,
    population: int | None,
) -> BuiltRun:
    """Check the parents and tasks of a space file and put the run together.

    Args:
        file: the parsed space file.
        space: its search space.
        path: where the file is; relative paths start from its folder.
        workers: how many; None for what this machine can hold. Not part of the run: it only
            raises the default population of a new one.
        population: that of the run to continue, for a file that does not say; None for a new run.

    Raises:
        InvalidInput, PreflightFailed: every problem found before anything heavy starts.
    """
    root = path.resolve().parent
    start = space.decode(space.start)
    models = space_models(space)
    parents = checked_parents(start, root)
    evaluator = evaluator_spec(file.objective, root)
    catalog = load_catalog(evaluator)
    splits = _splits(file, catalog)
    count = workers or default_workers(parents, start.donor)
    population = (
        file.strategy.population or population or max(default_population(space.dimension), count)
    )
    plan = _plan(file, space, catalog, splits, population)
    _check_budget(plan, path)
    merges = (plan.budget.candidates or _MERGES) // count
    worker = WorkerSpec(models, str(root), start, evaluator, file.threads, merges)
    resolved = _resolved(file, path, plan, catalog, parents, population)
    notices = (*_vocabulary_notices(start, parents), *_notices(splits, catalog))
    return BuiltRun(plan, worker, count, resolved, notices)


def _plan(
    file: SpaceFile, space: SearchSpace, catalog: Catalog, splits: Splits, population: int
) -> RunPlan:
    lookahead = file.strategy.lookahead
    return RunPlan(
        space=space,
        objective=Objective(catalog.goals),
        search_items=splits.search,
        selection_items=splits.selection,
        holdout_items=splits.holdout,
        baselines=baselines(space),
        algorithm=file.strategy.algorithm,
        strategy=_strategy(file, population),
        lookahead=population // 2 if lookahead is None else lookahead,
        minibatch=file.strategy.minibatch,
        budget=Budget(file.budget.candidates, file.budget.items, file.budget.time),
        seed=file.seed,
    )


def checked_parents(recipe: Recipe, root: Path) -> ParentPool:
    """The models of a recipe, compatible and without NaN; with its vocabulary, if it names one."""
    parents = ParentPool.open(recipe.referenced_models(), root)
    parents.check_recipe(recipe)
    parents.check_finite(parents.models)
    return parents


def default_workers(parents: ParentPool, donor: str) -> int:
    """One worker per GPU; without any, as many as cores and memory allow, at most eight.

    A worker keeps one merged model (here taken to have the donor's size) and its libraries to
    itself; parents are mapped from disk and shared.
    """
    if torch.cuda.device_count():
        return torch.cuda.device_count()
    need = sum(info.nbytes for info in parents.infos(donor).values()) + _LIBRARY_BYTES
    room = int(_MEMORY_SHARE * psutil.virtual_memory().available / need)
    linux = sys.platform == "linux"
    cores = len(os.sched_getaffinity(0)) if linux else psutil.cpu_count() or 1
    return max(1, min(cores, room, _MOST_WORKERS))


def evaluator_spec(objective: ObjectiveConfig, root: Path) -> EvaluatorSpec:
    """What workers need to score models; task folders become absolute."""
    missing = [name for name in objective.include if not (root / name).is_dir()]
    if missing:
        raise InvalidInput(
            [f"objective.include: no folder {root / name}; correct the path" for name in missing]
        )
    if not any(task.weight > 0 for task in objective.tasks):
        raise InvalidInput("objective.tasks: every weight is 0; give one task a positive weight")
    repeated = {
        t.task for t in objective.tasks if [u.task for u in objective.tasks].count(t.task) > 1
    }
    if repeated:
        raise InvalidInput(f"objective.tasks: '{min(repeated)}' appears twice; keep one entry")
    return EvaluatorSpec(
        tasks=tuple(
            TaskSpec(task.task, task.metric, weight=task.weight, limit=task.limit)
            for task in objective.tasks
        ),
        include=tuple(str((root / name).resolve()) for name in objective.include),
        batch_size=objective.batch_size,
        apply_chat_template=objective.apply_chat_template,
        num_fewshot=objective.num_fewshot,
    )


def _splits(file: SpaceFile, catalog: Catalog) -> Splits:
    shares = file.objective.splits
    limits = {task.task: task.limit for task in file.objective.tasks if task.limit is not None}
    return split_items(
        catalog.items,
        Shares(shares.search, shares.selection, shares.holdout),
        file.seed,
        limits=limits,
    )


def _strategy(file: SpaceFile, population: int) -> Callable[[Genotype], Strategy]:
    def make(start: Genotype) -> Strategy:
        return CmaEs(start, seed=file.seed, population=population, sigma=file.strategy.sigma)

    return make


def _check_budget(plan: RunPlan, path: Path) -> None:
    needed = len(plan.baselines) + 4
    if plan.budget.candidates is not None and plan.budget.candidates <= needed:
        raise InvalidInput(
            f"{path}: budget.candidates: expected more than {needed} (that many baselines and "
            f"starting points come first), got {plan.budget.candidates}"
        )


def _vocabulary_notices(start: Recipe, parents: ParentPool) -> tuple[str, ...]:
    """That a baseline made of one parent is not that parent with its own tokenizer."""
    alignment = parents.alignment(start)
    if alignment is None:
        return ()
    models = [
        model
        for model in parents.models
        if not alignment.keeps(model, parents.parent(model).embedding_rows or 0)
    ]
    if not models:
        return ()
    return (
        f"{', '.join(models)}: scored with the vocabulary of the merge ({alignment.rows} rows), "
        "also as baseline; scores with the own tokenizer may differ",
    )


def _notices(splits: Splits, catalog: Catalog) -> tuple[str, ...]:
    found: list[str] = []
    holdout = splits.holdout.count
    if 0 < holdout < SMALL_HOLDOUT:
        visible = 100 * 1.64 * math.sqrt(0.1 / holdout)
        found.append(
            f"the holdout has {holdout} items: it cannot show differences below about "
            f"{visible:.0f} points (with one item in ten changing); use {SMALL_HOLDOUT} or more"
        )
    copies = {task: len(groups) for task, groups in catalog.duplicates.items() if groups}
    found += [
        f"task '{task}': {count} questions with the same answer appear more than once; copies that "
        "differ in other columns may fall on both sides of the splits"
        for task, count in copies.items()
    ]
    return tuple(found)


def _resolved(
    file: SpaceFile,
    path: Path,
    plan: RunPlan,
    catalog: Catalog,
    parents: ParentPool,
    population: int,
) -> dict[str, Any]:
    """Everything that can change a score or the trajectory; a resumed run must have the same."""
    plain = file.model_dump(mode="json")
    plain["name"] = file.name or path.stem
    plain["strategy"] |= {"population": population, "lookahead": plan.lookahead}
    plain["parents"] = {model: parents.fingerprint(model) for model in parents.models}
    plain["items"] = {task: _digest(ids) for task, ids in catalog.items.items()}
    plain["goals"] = [
        {
            "task": goal.task,
            "metric": goal.metric,
            "weight": goal.weight,
            "aggregation": goal.aggregation,
            "higher_is_better": goal.higher_is_better,
        }
        for goal in catalog.goals
    ]
    plain["splits"] = {
        name: {task: len(ids) for task, ids in selection.tasks}
        for name, selection in (
            ("search", plan.search_items),
            ("selection", plan.selection_items),
            ("holdout", plan.holdout_items),
        )
    }
    plain["baselines"] = [{"label": b.label, "kind": b.kind} for b in plan.baselines]
    plain["dimensions"] = plan.space.dimension
    plain["versions"] = {name: _version(name) for name in _PACKAGES}
    return plain


def _digest(ids: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
