"""From a space file to a run: the only place where configuration meets concrete classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evomerge.consent import NOTHING, Consent
from evomerge.errors import InvalidInput
from evomerge.evaluate.catalog import Catalog, load_catalog
from evomerge.evaluate.evaluator import EvaluatorSpec, TaskSpec
from evomerge.evaluate.splits import Shares, Splits, minibatch, split_items
from evomerge.recipe import Recipe
from evomerge.run.benches import Probe
from evomerge.run.config import ObjectiveConfig, SpaceFile
from evomerge.run.directory import CONSENT, StoredStage
from evomerge.run.footprint import LIBRARY_BYTES, Footprint, default_workers, footprint
from evomerge.run.item_rules import check_test_splits, item_facts
from evomerge.run.machine import cores, memory
from evomerge.run.objective_rules import check_objective
from evomerge.run.plan import Budget, RunPlan
from evomerge.run.resolved import resolved_run
from evomerge.run.spaces import Stage, stage_constraints
from evomerge.run.stage_plans import stage_plan
from evomerge.run.workers import WorkerSpec
from evomerge.score import COST_TASK, Objective, TaskGoal
from evomerge.seeding import derive
from evomerge.space import SearchSpace
from evomerge.weights.nested import opened
from evomerge.weights.pool import ParentPool
from evomerge.weights.saved import check_loadable
from evomerge.weights.stack_plan import check_models

_PROBED = 20
"""Prompts per task whose likelihood tells broken stacks from others."""
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
    needs: Footprint


def build_run(
    file: SpaceFile,
    stages: Sequence[Stage],
    path: Path,
    *,
    workers: int | None,
    room: Callable[[int], int] | None = None,
    stored: Sequence[StoredStage] | None,
    consent: Consent = NOTHING,
) -> BuiltRun:
    """Check the parents and tasks of a space file and put the run together.

    Args:
        file: the parsed space file.
        stages: its searches.
        path: where the file is; relative paths start from its folder.
        workers: how many; None for as many as there is room for. Not part of the run: it only
            raises the default population of a new one.
        room: how many workers of so many bytes fit where they will be; None is this machine.
        stored: what the run to continue was created with; None for a new run.
        consent: which code and pickle files may be used.

    Raises:
        InvalidInput, PreflightFailed: every problem found before anything heavy starts.
    """
    root = path.resolve().parent
    models = tuple(dict.fromkeys(model for stage in stages for model in stage.models))
    start = stages[0].space.decode(stages[0].space.start)
    merges = [stage.space for stage in stages if isinstance(stage.space, SearchSpace)]
    parents = ParentPool.open(models, root, consent)
    for recipe in (space.decode(space.start) for space in merges):
        check_models(recipe, parents.only(recipe.referenced_models()))
    parents.check_finite(models)
    if merges:
        check_loadable(merges[0].decode(merges[0].start), parents)
    evaluator = evaluator_spec(file.objective, root, consent)
    catalog = load_catalog(evaluator)
    check_test_splits(file.objective, catalog)
    splits = _splits(file, catalog)
    needs = footprint(stages, parents)
    if workers is None and room is not None:
        workers = room(needs.resident + LIBRARY_BYTES)
    gpus = torch.cuda.device_count()
    count = workers or default_workers(needs, memory(), cores().count, gpus)
    plan = _plan(file, stages, catalog, splits, stored or [None] * len(stages), count)
    _check_budget(plan, path)
    built = (plan.budget.candidates or _MERGES) // count
    worker = WorkerSpec(
        tuple((model, parents.contents(model)) for model in models),
        str(root),
        start,
        evaluator,
        file.threads,
        built,
        _probe(file, stages, splits),
        None if file.objective.cost is None else file.objective.cost.measure,
        consent,
    )
    facts = item_facts(catalog, splits, plan.objective)
    resolved = resolved_run(file, path, plan, stages, catalog, parents)
    resolved["near_duplicates"] = facts.near_duplicates
    if consent != NOTHING:
        resolved[CONSENT] = consent.record()
    vocabularies = [_vocabulary_notices(space.decode(space.start), parents) for space in merges]
    notices = (*(line for lines in vocabularies for line in lines), *facts.notices)
    return BuiltRun(plan, worker, count, resolved, notices, needs)


def _plan(
    file: SpaceFile,
    stages: Sequence[Stage],
    catalog: Catalog,
    splits: Splits,
    stored: Sequence[StoredStage | None],
    workers: int,
) -> RunPlan:
    goals = catalog.goals
    if file.objective.cost is not None:
        measure, weight = file.objective.cost.measure, file.objective.cost.weight
        goals = (*goals, TaskGoal(COST_TASK, measure, weight, higher_is_better=False))
    return RunPlan(
        objective=Objective(goals, pareto=file.objective.combine == "pareto"),
        constraints=stage_constraints(file, stages),
        search_items=splits.search,
        selection_items=splits.selection,
        holdout_items=splits.holdout,
        stages=tuple(
            stage_plan(file, stage, past, workers)
            for stage, past in zip(stages, stored, strict=True)
        ),
        budget=Budget(file.budget.candidates, file.budget.items, file.budget.time),
        seed=file.seed,
    )


def _probe(file: SpaceFile, stages: Sequence[Stage], splits: Splits) -> Probe | None:
    """Some search items of every task, the same for the whole run; None without stacks."""
    margins = [file.strategy_of(s.config).margin for s in stages if s.settings is not None]
    if not margins:
        return None
    items = minibatch(
        splits.search, _PROBED, generation=0, seed=derive(file.seed, "prompt likelihood")
    )
    return Probe(items, min(margins))


def checked_parents(recipe: Recipe, root: Path, consent: Consent = NOTHING) -> ParentPool:
    """The models of a recipe, compatible and without NaN; with its vocabulary, if it names one.

    Results of nested recipes are made where they do not exist yet.
    """
    stored = ParentPool.open(recipe.stored_models(), root, consent)
    parents = opened(recipe, stored).only(recipe.referenced_models())
    check_models(recipe, parents)
    parents.check_finite(parents.models)
    return parents


def evaluator_spec(
    objective: ObjectiveConfig, root: Path, consent: Consent = NOTHING
) -> EvaluatorSpec:
    """What workers need to score models; task folders become absolute."""
    missing = [name for name in objective.include if not (root / name).is_dir()]
    if missing:
        raise InvalidInput(
            [f"objective.include: no folder {root / name}; correct the path" for name in missing]
        )
    check_objective(objective)
    return EvaluatorSpec(
        tasks=tuple(
            TaskSpec(
                task.task,
                task.metric,
                weight=task.weight,
                limit=task.limit,
                split=task.split,
                learn_from=task.learn_from,
            )
            for task in objective.tasks
        ),
        include=tuple(str((root / name).resolve()) for name in objective.include),
        batch_size=objective.batch_size,
        apply_chat_template=objective.apply_chat_template,
        num_fewshot=objective.num_fewshot,
        task_code=consent.task_code,
    )


def _splits(file: SpaceFile, catalog: Catalog) -> Splits:
    shares = file.objective.splits
    limits = {task.task: task.limit for task in file.objective.tasks if task.limit is not None}
    return split_items(
        catalog.items,
        Shares(shares.search, shares.selection, shares.holdout),
        file.seed,
        infos=catalog.infos,
        limits=limits,
    )


def _check_budget(plan: RunPlan, path: Path) -> None:
    problems: list[str] = []
    for stage, allotment in zip(plan.stages, plan.allotments, strict=True):
        needed = len(stage.baselines) + 4
        if allotment.candidates is not None and allotment.candidates <= needed:
            of = f" of stage {stage.name}" if stage.name else ""
            problems.append(
                f"{path}: budget.candidates: expected more than {needed}{of} (that many baselines "
                f"and starting points come first), got {allotment.candidates}"
            )
    if problems:
        raise InvalidInput(problems)


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
