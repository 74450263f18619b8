"""A search without models: outcomes follow from a recipe's weights, item by item."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from evomerge.candidate import Assignment, Failed, ItemSelection, Scored
from evomerge.mergekit_yaml import to_mapping
from evomerge.run.baselines import baselines, starting_points
from evomerge.run.core import Schedule
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.driver import Search
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger
from evomerge.run.plan import Batches, Budget, FinalPlan, RunPlan, StagePlan
from evomerge.run.pool import Answer, WorkerPool
from evomerge.run.pools.inline import InlinePool
from evomerge.run.progress import Progress
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes
from evomerge.search.cma_es import CmaEs
from evomerge.seeding import generator
from evomerge.space_file import read_space

OBJECTIVE = Objective((TaskGoal("task", "acc,none"),))
GENES = {"float": [-0.3, 1.5], "init": 1.0, "per": ["model", "layer_group"]}


@dataclass(frozen=True)
class FakeWorkers:
    """Makes workers whose model is right on an item when its weights are near (0.2, 0.9, ...)."""

    fail_every: int = 0
    fail_from: int = 0
    spare_every: int = 0
    """One in this many does not fail after all."""
    no_final_below: int = 0
    flat: bool = False
    seconds: float = 0.0
    best: float | None = None
    """When set, nothing does better than this baseline's weight on every layer."""

    def __call__(self) -> FakeWorker:
        return FakeWorker(self)


@dataclass(frozen=True)
class FakeWorker:
    spec: FakeWorkers

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        spec = self.spec
        time.sleep(spec.seconds)
        due = spec.fail_every and assignment.candidate % spec.fail_every == spec.fail_every - 1
        spared = spec.spare_every and assignment.candidate % spec.spare_every == 0
        if due and not spared and assignment.candidate >= spec.fail_from:
            return Failed("non-finite weights", "tensor 'x' has NaN")
        if assignment.stage.startswith("final") and assignment.candidate < spec.no_final_below:
            return Failed("error", "no space left on device")
        quality = 0.5 if spec.flat else self._quality(assignment)
        results = tuple(
            TaskOutcomes(task, tuple(ItemOutcome(i, float(draw(i) < quality)) for i in items))
            for task, items in assignment.items.tasks
        )
        return Scored(results, 0.001, 0.01)

    def _quality(self, assignment: Assignment) -> float:
        mapping = to_mapping(assignment.recipe)
        if "slices" not in mapping:
            return 0.5 if mapping["merge_method"] == "task_arithmetic" else 0.3
        if self.spec.best is not None:
            return self.spec.best
        weights = [
            source["parameters"]["weight"]
            for part in mapping["slices"]
            for source in part["sources"]
            if "parameters" in source
        ]
        goal = [0.2 if index % 2 else 0.9 for index in range(len(weights))]
        distance = sum((w - g) ** 2 for w, g in zip(weights, goal, strict=True))
        return 0.95 / (1.0 + 0.4 * distance)


class ScrambledPool:
    """Has five workers in this process, whose answers come in an order that `seed` decides."""

    size = 5

    def __init__(self, factory: FakeWorkers, seed: int) -> None:
        self._worker = factory()
        self._rng = generator(seed, "scrambled")
        self._queue: list[Assignment] = []

    def submit(self, assignment: Assignment) -> None:
        self._queue.append(assignment)

    def poll(self, timeout: float) -> tuple[Answer, ...]:
        del timeout
        count = min(len(self._queue), int(self._rng.integers(1, 3)))
        answers = []
        for _ in range(count):
            one = self._queue.pop(int(self._rng.integers(len(self._queue))))
            answers.append(Answer(one, self._worker.evaluate(one), "scrambled"))
        return tuple(answers)

    def pending(self) -> int:
        return len(self._queue)

    def withdraw(self) -> tuple[Assignment, ...]:
        taken, self._queue = tuple(self._queue), []
        return taken

    def close(self) -> None:
        self._queue.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def draw(item: str) -> float:
    return int(hashlib.sha256(item.encode()).hexdigest()[:8], 16) / 2**32


def items(name: str, count: int) -> ItemSelection:
    return ItemSelection((("task", tuple(f"{name}{index:05d}" for index in range(count))),))


def plan(*, candidates: int | None = 80, budget_items: int | None = None) -> RunPlan:
    space = read_space(
        {
            "merge_method": "task_arithmetic",
            "base_model": "base",
            "models": [{"model": "a"}, {"model": "b"}],
            "layer_groups": 3,
            "parameters": {"weight": GENES},
            "dtype": "float32",
        },
        "space",
        6,
    )
    stage = StagePlan(
        name="",
        space=space,
        baselines=baselines(space),
        algorithm="cma_es",
        strategy=lambda start, _: CmaEs(start, axes=space.axes, seed=3, population=8, sigma=1 / 6),
        starting_points=lambda best: starting_points(space, best),
        population=8,
        schedule=Schedule(ordered=True, ahead=4),
        batches=Batches(40),
        final=FinalPlan(),
        share=1.0,
    )
    return RunPlan(
        objective=OBJECTIVE,
        constraints=(),
        search_items=items("s", 600),
        selection_items=items("v", 400),
        holdout_items=items("h", 400),
        stages=(stage,),
        budget=Budget(candidates, budget_items, None),
        seed=3,
    )


def drive(
    run_dir: Path,
    run_plan: RunPlan,
    workers: FakeWorkers,
    *,
    stop: threading.Event | None = None,
    scrambled: int | None = None,
) -> Iterator[Progress]:
    """One start of a search in `run_dir`; abandon the iterator to kill it.

    One worker, or five whose answers come in the order that the seed `scrambled` decides.
    """
    chosen: WorkerPool = (
        InlinePool(workers) if scrambled is None else ScrambledPool(workers, scrambled)
    )
    with Ledger.open(run_dir) as ledger, chosen as pool:
        evaluations = Evaluations(
            ledger, Dispatcher(pool), run_plan.objective, stop or threading.Event()
        )
        yield from Search(run_plan, ledger, evaluations).run()
