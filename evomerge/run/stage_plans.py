"""From a checked stage of a space file to its plan: which strategy, how many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from evomerge.candidate import Genotype, ItemSelection
from evomerge.genes import CONTINUOUS, Axis
from evomerge.run.baselines import Baseline, baselines, starting_points
from evomerge.run.coarse import coarse_blocks, coarse_to_fine
from evomerge.run.config import BudgetConfig, ObjectiveConfig, SpaceFile, StrategyConfig
from evomerge.run.core import ARRIVAL, ORDERED, Schedule
from evomerge.run.directory import StoredStage
from evomerge.run.plan import Batches, FinalPlan, StagePlan
from evomerge.run.spaces import Stage
from evomerge.run.stack_stage import stack_baselines
from evomerge.search.chebyshev import Chebyshev, usual_population
from evomerge.search.claims import usual_strategy
from evomerge.search.cma_es import CmaEs, default_population
from evomerge.search.first_paths import first_paths
from evomerge.search.ga import Ga
from evomerge.search.random import Random
from evomerge.search.stack_ga import StackGa
from evomerge.search.strategy import Strategy
from evomerge.seeding import derive
from evomerge.space import SearchSpace
from evomerge.stack_space import StackSpace, paper_start

_GA_POPULATION = 16
_ITEMS, _TIMED_ITEMS, _FEW_ITEMS = 64, 50, 20
"""Of each task: where only candidates are limited, where time is, which merges take, too, and where
items are (experiments/search)."""
_FEWEST = 4
StartingPoints = Callable[[Sequence[Baseline]], tuple[Genotype, ...]]


def stage_plan(
    file: SpaceFile, stage: Stage, stored: StoredStage | None, workers: int
) -> StagePlan:
    """The plan of one stage.

    Args:
        file: the space file.
        stage: one of its searches, checked.
        stored: what the run to continue was created with; None for a new run.
        workers: how many there are; a new run has no smaller population, and its schedule keeps
            them busy.
    """
    config, space = file.strategy_of(stage.config), stage.space
    trades = _trades(file.objective)
    algorithm = config.algorithm or usual_strategy(space)
    batches = _batches(config, file.budget)
    usual = _usual_population(algorithm, space.dimension, batches, trades)
    given = stored.population if stored else max(usual, workers, _FEWEST)
    size = config.population or given
    seed = derive(file.seed, stage.config.name) if stage.config.name else file.seed
    fixed, points = _starts(stage)
    if algorithm == "cma_es" and trades:
        strategy = _chebyshev(space, config, seed, size, trades)
    else:
        strategy = _strategy(algorithm, space, config, seed, size)
    return StagePlan(
        name=stage.config.name,
        space=space,
        baselines=fixed,
        algorithm=algorithm,
        strategy=strategy,
        starting_points=points,
        population=size,
        schedule=_schedule(config, stored, size, workers),
        batches=batches,
        final=FinalPlan(config.final_share) if config.final == "paired" else None,
        share=stage.config.share,
    )


def _usual_population(algorithm: str, dimension: int, batches: Batches, trades: int) -> int:
    if algorithm != "cma_es":
        return _GA_POPULATION
    if trades:
        return usual_population(trades)
    # few items each: more candidates make up for the luck of single ones
    times = 2 if batches.items is not None and batches.items <= _FEW_ITEMS else 1
    return times * default_population(dimension)


def _starts(stage: Stage) -> tuple[tuple[Baseline, ...], StartingPoints]:
    """The baselines, and what the search proposes first when they are scored."""
    space = stage.space
    if isinstance(space, SearchSpace):
        return baselines(space), partial(starting_points, space)
    assert stage.settings is not None, "spaces of stacks have settings"
    return stack_baselines(stage.settings, stage.depths), _none_yet


def _none_yet(best: Sequence[Baseline]) -> tuple[Genotype, ...]:
    """The baselines of stacks are the first stacks that the search proposes."""
    del best
    return ()


def resolved_stage(stage: Stage, plan: StagePlan, items: ItemSelection) -> dict[str, Any]:
    """What of a stage, searched on `items`, can change the trajectory beside the file."""
    space = stage.space
    method = space.method if isinstance(space, SearchSpace) else "stack"
    varying = isinstance(space, SearchSpace) and space.methods_vary
    return {
        "name": plan.name,
        "method": f"{method} and others" if varying else method,
        "algorithm": plan.algorithm,
        "population": plan.population,
        "schedule": plan.schedule.name,
        "ahead": plan.schedule.ahead,
        "minibatch": plan.batches.per_task(items),
        "dimensions": space.dimension,
        "baselines": [{"label": b.label, "kind": b.kind, "model": b.model} for b in plan.baselines],
    }


def _schedule(
    config: StrategyConfig, stored: StoredStage | None, population: int, workers: int
) -> Schedule:
    """Ordered while half a generation ahead keeps the workers busy; else by arrival.

    By arrival, one candidate more than workers is under way, so that nobody waits for the driver.
    """
    usual = stored.schedule if stored else ORDERED if workers <= population // 2 else ARRIVAL
    ordered = (config.schedule or usual) == ORDERED
    ahead = stored.ahead if stored else population // 2 if ordered else workers
    return Schedule(ordered, ahead if config.ahead is None else config.ahead)


def _trades(objective: ObjectiveConfig) -> int:
    """How many objectives of their own there are; 0 where the weighted mean is the only one."""
    if objective.combine != "pareto":
        return 0
    return sum(task.weight > 0 for task in objective.tasks) + (objective.cost is not None)


def _batches(config: StrategyConfig, budget: BudgetConfig) -> Batches:
    fresh = config.items == "fresh"
    if isinstance(config.minibatch, int):
        return Batches(config.minibatch, fresh)
    if config.minibatch == "all":
        return Batches(None, fresh)
    if budget.candidates is not None:
        return Batches(_ITEMS, fresh)
    return Batches(_FEW_ITEMS if budget.time is None else _TIMED_ITEMS, fresh)


def _strategy(
    algorithm: str,
    space: SearchSpace | StackSpace,
    config: StrategyConfig,
    seed: int,
    population: int,
) -> Callable[[Genotype, int], Strategy]:
    """Makes the strategy from the genotype to start from and how many candidates to expect."""
    if algorithm == "stack_ga":
        assert isinstance(space, StackSpace), "checked with the space"
        return lambda _start, _count: StackGa(
            space, first_paths(space), seed=seed, population=population
        )
    if algorithm == "cma_es":
        return _cma_es(space, config, seed, population)
    axes = space.axes
    if algorithm == "ga":
        return lambda start, _: Ga(start, axes=axes, seed=seed, population=population)
    if algorithm == "random":
        return lambda start, _: Random(start, axes=axes, seed=seed, population=population)
    # optuna takes a second to import
    from evomerge.search.optuna_sampler import OptunaSampler  # noqa: PLC0415

    return lambda start, _: OptunaSampler(
        algorithm, start, axes=axes, seed=seed, population=population
    )


def _chebyshev(
    space: SearchSpace | StackSpace,
    config: StrategyConfig,
    seed: int,
    population: int,
    objectives: int,
) -> Callable[[Genotype, int], Strategy]:
    """A CMA-ES for each trade; parts of the depth never move together first."""

    def begin(start: Genotype, _expected: int) -> Strategy:
        fine = config.model_copy(update={"coarse_to_fine": False})

        def search(direction: int, size: int) -> Strategy:
            own = derive(seed, "direction", direction)
            return _cma_es(space, fine, own, size)(start, 0)

        return Chebyshev(search, objectives=objectives, population=population)

    return begin


def _cma_es(
    space: SearchSpace | StackSpace, config: StrategyConfig, seed: int, population: int
) -> Callable[[Genotype, int], Strategy]:
    """Stacks in the paper's encoding: how far a position is from its threshold counts, too."""

    def make(start: Genotype, axes: Sequence[Axis]) -> Strategy:
        return CmaEs(start, axes=axes, seed=seed, population=population, sigma=config.sigma)

    if isinstance(space, StackSpace):
        start = paper_start(space, config.sigma)
        return lambda _start, _count: make(start, [CONTINUOUS] * space.dimension)
    blocks = coarse_blocks(space) if config.coarse_to_fine else None
    if blocks is None:
        return lambda start, _: make(start, space.axes)
    return coarse_to_fine(blocks, space.axes, make, population)
