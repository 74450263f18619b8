"""Protocols: how one searches, as settings of a run plan; evomerge's own are its defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from landscapes import Landscape
from rivals import MergekitCma, MergeneticGa

from evomerge.candidate import Genotype
from evomerge.run.baselines import Baseline
from evomerge.run.config import SpaceFile
from evomerge.run.core import Schedule
from evomerge.run.plan import Batches, Budget, RunPlan, StagePlan
from evomerge.run.spaces import Stage
from evomerge.run.stage_plans import stage_plan
from evomerge.score import METRIC, PROBABILITY, Objective
from evomerge.search.cma_es import CmaEs, default_population
from evomerge.search.random import Random
from evomerge.search.strategy import Strategy
from evomerge.seeding import derive

Protocol = Callable[[Landscape, int, int], RunPlan]
"""From landscape, budget in items and seed to a plan."""

MERGENETIC_POPULATION = 7


def evomerge(
    settings: Mapping[str, Any] | None = None,
    *,
    workers: int = 1,
    learn_from: str = METRIC,
    changed: Callable[[StagePlan], StagePlan] = lambda stage: stage,
) -> Protocol:
    """The product with `strategy:` settings of a space file; `changed` alters its plan."""

    def plan(landscape: Landscape, budget: int, seed: int) -> RunPlan:
        stage = _stage(landscape, dict(settings or {}), budget, seed, workers)
        whole = _run_plan(landscape, changed(stage), budget, seed)
        goals = tuple(replace(goal, learn_from=learn_from) for goal in whole.objective.goals)
        return replace(whole, objective=Objective(goals))

    return plan


def _stage(
    landscape: Landscape, settings: dict[str, Any], budget: int, seed: int, workers: int = 1
) -> StagePlan:
    goals = landscape.objective.goals
    file = SpaceFile.model_validate(
        {
            "version": 1,
            "space": {},
            "objective": {"tasks": [{"task": g.task, "metric": g.metric} for g in goals]},
            "strategy": settings,
            "budget": {"items": budget},
            "seed": seed % 2**32,
        }
    )
    (config,) = file.searches()
    return stage_plan(file, Stage(config, landscape.space, None, {}), None, workers)


def _run_plan(landscape: Landscape, stage: StagePlan, budget: int, seed: int) -> RunPlan:
    search, selection, holdout = landscape.splits
    return RunPlan(
        objective=landscape.objective,
        constraints=(),
        search_items=search,
        selection_items=selection,
        holdout_items=holdout,
        stages=(stage,),
        budget=Budget(None, budget, None),
        seed=derive(seed, "run"),
    )


def rival(items: int | None, make: Callable[[Landscape, int], Strategy]) -> Protocol:
    """Fixed items (None: the whole search set), no baselines, arg-max of the search score."""

    def plan(landscape: Landscape, budget: int, seed: int) -> RunPlan:
        def strategy(start: Genotype, expected: int) -> Strategy:
            del start, expected
            return make(landscape, seed)

        stage = replace(
            _stage(landscape, {}, budget, seed),
            baselines=(),
            starting_points=_none,
            strategy=strategy,
            population=make(landscape, seed).population,
            schedule=Schedule(ordered=True, ahead=0),
            batches=Batches(_per_task(landscape, items), fresh=False),
            final=None,
        )
        return _run_plan(landscape, stage, budget, seed)

    return plan


def _none(best: Sequence[Baseline]) -> tuple[Genotype, ...]:
    del best
    return ()


def _per_task(landscape: Landscape, items: int | None) -> int | None:
    return None if items is None else max(1, items // len(landscape.objective.goals))


def static(landscape: Landscape, budget: int, seed: int) -> RunPlan:
    """The best of the baselines, all on the same items, as many as the budget allows."""
    stage = _stage(landscape, {}, budget, seed)
    tasks = len(landscape.objective.goals)
    each = max(2, budget // (len(stage.baselines) * tasks))
    stage = replace(
        stage,
        # baselines are scored on two minibatches
        batches=Batches(each // 2, fresh=False),
        starting_points=_none,
        final=None,
    )
    return replace(
        _run_plan(landscape, stage, budget, seed),
        budget=Budget(len(stage.baselines), budget, None),
    )


def _cma(landscape: Landscape, seed: int) -> Strategy:
    """Optuna's CMA-ES as Akiba et al. 2024 used it: from the middle, step 1/6 of the range."""
    d = landscape.space.dimension
    axes, population = landscape.space.axes, default_population(d)
    return CmaEs((0.5,) * d, axes=axes, seed=seed, population=population, sigma=1.0 / 6.0)


def _mergekit(landscape: Landscape, seed: int) -> Strategy:
    return MergekitCma(landscape.space, seed)


def _mergenetic(landscape: Landscape, seed: int) -> Strategy:
    return MergeneticGa(landscape.space.dimension, population=MERGENETIC_POPULATION, seed=seed)


def _uniform(landscape: Landscape, seed: int) -> Strategy:
    space = landscape.space
    return Random((0.5,) * space.dimension, axes=space.axes, seed=seed, population=10)


PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {
        "evomerge": evomerge(),
        "evomerge, probabilities": evomerge(learn_from=PROBABILITY),
        "Sakana": rival(None, _cma),
        "mergekit-evolve": rival(100, _mergekit),
        "Mergenetic": rival(20, _mergenetic),
        "CMA-ES, fixed 100": rival(100, _cma),
        "CMA-ES, fixed 20": rival(20, _cma),
        "random, all items": rival(None, _uniform),
        "random, fixed 100": rival(100, _uniform),
        "best static recipe": static,
    }
)
