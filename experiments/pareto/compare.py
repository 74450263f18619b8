"""How much of the trades a budget buys: evomerge's protocol against NSGA-II as Mergenetic runs it.

Hypervolume of the true qualities of the front that each hands over, above the least true quality of
a baseline in each objective. Budgets count all items of a run: baselines, search and final.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers.nsgaii import SBXCrossover
from terrain import GROUPS, RANGE, SEARCH, SELECTION, Floats, Terrain

from evomerge.candidate import Assignment, Failed, Genotype, ItemSelection, Scored
from evomerge.front import front, hypervolume, worst
from evomerge.run.baselines import baselines, starting_points
from evomerge.run.core import Schedule
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.driver import Search
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger
from evomerge.run.plan import Batches, Budget, FinalPlan, RunPlan, StagePlan
from evomerge.run.pools.inline import InlinePool
from evomerge.run.progress import Evaluated
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes
from evomerge.search.chebyshev import Chebyshev, usual_population
from evomerge.search.cma_es import CmaEs
from evomerge.search.optuna_sampler import OptunaSampler
from evomerge.search.strategy import Strategy
from evomerge.space import SearchSpace
from evomerge.space_file import read_space

HERE = Path(__file__).resolve().parent
SEEDS = range(100, 124)
"""None of them was looked at while the strategies were built."""
RIVAL = (7, 5, 20)
"""Population, generations and fixed items of Mergenetic's shipped settings."""
BUDGETS = {350: 5, 700: 5, 2000: 10, 7000: 20}
"""Items per task of a whole run, and those of a generation."""


@dataclass(frozen=True)
class Worker:
    """Scores recipes on a terrain."""

    terrain: Terrain

    def __call__(self) -> Worker:
        """The worker is the terrain."""
        return self

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        """Score at once."""
        u = self.terrain.position(assignment.recipe)
        results = []
        for task, ids in assignment.items.tasks:
            values = self.terrain.right(int(task), u, np.asarray([int(i) for i in ids]))
            pairs = zip(ids, values, strict=True)
            results.append(TaskOutcomes(task, tuple(ItemOutcome(i, float(v)) for i, v in pairs)))
        return Scored(tuple(results), 0.0, 0.0)


def space_of(terrain: Terrain) -> SearchSpace:
    """Weights of each parent in each group of layers."""
    models = [{"model": f"p{j}"} for j in range(terrain.objectives)]
    weight = {"float": list(RANGE), "init": 0.6, "per": ["model", "layer_group"]}
    mapping = {"merge_method": "task_arithmetic", "base_model": "base", "models": models}
    rest = {"layer_groups": GROUPS, "parameters": {"weight": weight}, "dtype": "float32"}
    return read_space({**mapping, **rest}, "space", 2 * GROUPS)


def plan(terrain: Terrain, algorithm: str, items: int, minibatch: int) -> RunPlan:
    """The product's protocol with an item budget."""
    space, count = space_of(terrain), terrain.objectives
    seed, population = terrain.seed, usual_population(count)

    def strategy(start: Genotype, _expected: int) -> Strategy:
        if algorithm == "nsga2":
            return OptunaSampler("nsga2", start, axes=space.axes, seed=seed, population=population)

        def search(direction: int, size: int) -> Strategy:
            own = 100 * seed + direction
            return CmaEs(start, axes=space.axes, seed=own, population=size, sigma=1 / 6)

        return Chebyshev(search, objectives=count, population=population)

    stage = StagePlan(
        name="",
        space=space,
        baselines=baselines(space),
        algorithm=algorithm,
        strategy=strategy,
        starting_points=lambda best: starting_points(space, best),
        population=population,
        schedule=Schedule(ordered=True, ahead=population // 2),
        batches=Batches(minibatch),
        final=FinalPlan(),
        share=1.0,
    )
    goals = (TaskGoal(str(j), "acc") for j in range(count))
    return RunPlan(
        objective=Objective(tuple(goals), pareto=True),
        constraints=(),
        search_items=_items(terrain, range(SEARCH)),
        selection_items=_items(terrain, range(SEARCH, SEARCH + SELECTION)),
        holdout_items=_items(terrain, range(0)),
        stages=(stage,),
        budget=Budget(None, items * count, None),
        seed=seed,
    )


def _items(terrain: Terrain, numbers: Sequence[int]) -> ItemSelection:
    ids = tuple(f"{number:05d}" for number in numbers)
    return ItemSelection(tuple((str(j), ids) for j in range(terrain.objectives)))


def ours(terrain: Terrain, algorithm: str, items: int, minibatch: int) -> tuple[list[Floats], int]:
    """Where the front of a whole run lies, and the items of each task that it cost."""
    run, spent = plan(terrain, algorithm, items, minibatch), 0
    with tempfile.TemporaryDirectory() as place, Ledger.open(Path(place)) as ledger:
        with InlinePool(Worker(terrain)) as pool:
            evaluations = Evaluations(ledger, Dispatcher(pool), run.objective, threading.Event())
            for event in Search(run, ledger, evaluations).run():
                if isinstance(event, Evaluated):
                    spent = event.items_spent
        members = ledger.meta("decision")["front"]
        found = [terrain.position(ledger.candidate(number).recipe) for number in members]
    return found, spent // terrain.objectives


def rival(terrain: Terrain) -> list[Floats]:
    """NSGA-II from random merges on fixed items; the front by its own scores."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    population, generations, count = RIVAL
    rng = np.random.default_rng(terrain.seed)
    items = rng.choice(SEARCH, count, replace=False)
    study = optuna.create_study(
        directions=["maximize"] * terrain.objectives,
        sampler=optuna.samplers.NSGAIISampler(
            population_size=population, crossover=SBXCrossover(), seed=terrain.seed
        ),
    )
    places: list[Floats] = []
    scores: list[tuple[float, ...]] = []
    for _ in range(population * generations):
        trial = study.ask()
        u = np.asarray([trial.suggest_float(f"{k}", 0, 1) for k in range(terrain.dimension)])
        values = [float(terrain.right(j, u, items).mean()) for j in range(terrain.objectives)]
        study.tell(trial, values)
        places.append(u)
        scores.append(tuple(values))
    return [places[k] for k in front(scores)]


def measure(objectives: int, seed: int) -> dict[str, float]:
    """The volumes of every protocol on one terrain."""
    terrain = Terrain(objectives, 1000 * objectives + seed)
    space = space_of(terrain)
    fixed = [terrain.truth(terrain.position(b.recipe)) for b in baselines(space)]
    reference = worst(fixed)

    def volume(places: Sequence[Floats]) -> float:
        return hypervolume([terrain.truth(u) for u in places], reference)

    population, generations, count = RIVAL
    cost = population * generations * count
    found = {"baselines": hypervolume(fixed, reference)}
    mergenetic = rival(terrain)
    found[f"Mergenetic's NSGA-II, {cost}"] = volume(mergenetic)
    with_fixed = [*(terrain.truth(u) for u in mergenetic), *fixed]
    found[f"the same with all baselines given, {cost}"] = hypervolume(with_fixed, reference)
    for items, minibatch in BUDGETS.items():
        for algorithm in ("cma_es", "nsga2"):
            places, spent = ours(terrain, algorithm, items, minibatch)
            assert spent <= items, "everything counts"
            found[f"evomerge, {algorithm}, {items}"] = volume(places)
    return found


def main() -> None:
    """Measure, write results.json and print a table."""
    results: dict[str, dict[str, list[float]]] = {}
    with ProcessPoolExecutor(2) as pool:
        for objectives in (2, 3):
            runs = list(pool.map(measure, [objectives] * len(SEEDS), SEEDS))
            results[str(objectives)] = {
                name: [round(run[name], 5) for run in runs] for name in runs[0]
            }
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for count, protocols in results.items():
        print(f"\n{count} objectives, {len(SEEDS)} terrains: median [quartiles]\n")
        for name, values in protocols.items():
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            print(f"| {name} | {middle:.3f} [{low:.3f}, {high:.3f}] |")


if __name__ == "__main__":
    main()
