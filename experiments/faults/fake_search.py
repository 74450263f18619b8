"""A search without models, through the real driver: ledger, strategy, dispatcher, local processes.

    python experiments/faults/fake_search.py RUN [--schedule arrival] [--candidates 200] ...

What a worker answers depends on the recipe and the items alone, how long it takes on them and a
seed; so a run that was killed can be compared with one that was not.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from evomerge.candidate import Assignment, Failed, ItemSelection, Scored
from evomerge.errors import EvomergeError
from evomerge.run.baselines import baselines, starting_points
from evomerge.run.core import Schedule
from evomerge.run.deadlines import Deadlines
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.driver import Search
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger
from evomerge.run.plan import Batches, Budget, FinalPlan, RunPlan, StagePlan
from evomerge.run.pools.inline import InlinePool
from evomerge.run.pools.local import local_pool
from evomerge.run.progress import Progress
from evomerge.score import ItemOutcome, Objective, TaskGoal, TaskOutcomes
from evomerge.search.cma_es import CmaEs
from evomerge.space_file import read_space

TASKS = ("arithmetic", "reading", "writing")
LAYERS = 24
ORDERED, ARRIVAL = Schedule(ordered=True, ahead=8), Schedule(ordered=False, ahead=8)


@dataclass(frozen=True)
class FakeWorkers:
    """Makes workers that are right on an item when the recipe's bytes say so; one in 40 fails."""

    seconds: float

    def __call__(self) -> FakeWorker:
        return FakeWorker(self.seconds)


@dataclass(frozen=True)
class FakeWorker:
    seconds: float

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        """Right with a probability that grows as the weights come near 0.3."""
        digest = assignment.recipe.digest
        time.sleep(self.seconds * (0.5 + _draw(digest, assignment.stage)))
        if _draw(digest, "fails") < 1 / 40 and assignment.candidate > 20:
            return Failed("non-finite weights", "tensor 'x' has NaN")
        quality = _quality(assignment)
        results = tuple(
            TaskOutcomes(
                task,
                tuple(ItemOutcome(i, float(_draw(task, i) < quality)) for i in items),
            )
            for task, items in assignment.items.tasks
        )
        return Scored(results, 0.001, self.seconds)


def _quality(assignment: Assignment) -> float:
    weights = [
        clause.value
        for part in assignment.recipe.slices
        for source in part.sources
        for _, setting in source.parameters.settings
        for clause in setting.clauses
        if isinstance(clause.value, float)
    ]
    if not weights:
        return 0.4
    return 0.9 / (1.0 + sum((weight - 0.3) ** 2 for weight in weights) / len(weights))


def _draw(*words: str) -> float:
    text = "/".join(words).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:7], "big") / 2**56


def items(letter: str, count: int) -> ItemSelection:
    """`count` items of every task."""
    ids = tuple(hashlib.sha256(f"{letter}{i}".encode()).hexdigest()[:16] for i in range(count))
    return ItemSelection(tuple((task, tuple(sorted(ids))) for task in TASKS))


def space_mapping(groups: int = 6) -> dict[str, object]:
    """`groups` weights for each of two models, as a space file has them."""
    return {
        "merge_method": "task_arithmetic",
        "base_model": "base",
        "models": [{"model": "a"}, {"model": "b"}],
        "layer_groups": groups,
        "parameters": {
            "weight": {"float": [-0.5, 1.5], "init": 1.0, "per": ["model", "layer_group"]}
        },
        "dtype": "float32",
    }


def plan(
    *, candidates: int, schedule: Schedule, population: int, minibatch: int, groups: int = 6
) -> RunPlan:
    """A whole run: `minibatch` items per task, `groups` weights for each of two models."""
    space = read_space(space_mapping(groups), "space", LAYERS)
    stage = StagePlan(
        name="",
        space=space,
        baselines=baselines(space),
        algorithm="cma_es",
        strategy=lambda start, _: CmaEs(
            start, axes=space.axes, seed=3, population=population, sigma=1 / 6
        ),
        starting_points=lambda best: starting_points(space, best),
        population=population,
        schedule=schedule,
        batches=Batches(minibatch),
        final=FinalPlan(),
        share=1.0,
    )
    return RunPlan(
        objective=Objective(tuple(TaskGoal(task, "acc,none") for task in TASKS)),
        constraints=(),
        search_items=items("s", 10 * minibatch),
        selection_items=items("v", 2 * minibatch),
        holdout_items=items("h", 2 * minibatch),
        stages=(stage,),
        budget=Budget(candidates, None, None),
        seed=3,
    )


def drive(run: Path, chosen: RunPlan, *, seconds: float, workers: int) -> Iterator[Progress]:
    """One start of the search; without workers this process evaluates."""
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger.open(run))
        deadlines = Deadlines()
        pool = (
            local_pool(FakeWorkers(seconds), workers, deadline=deadlines, logs=run / "logs")
            if workers
            else InlinePool(FakeWorkers(seconds))
        )
        stack.enter_context(pool)
        evaluations = Evaluations(ledger, Dispatcher(pool), chosen.objective, threading.Event())
        yield from Search(chosen, ledger, evaluations).run()


def main() -> None:
    """Drive the run to its end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--schedule", choices=("ordered", "arrival"), default="ordered")
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--minibatch", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    chosen = plan(
        candidates=arguments.candidates,
        schedule=ORDERED if arguments.schedule == "ordered" else ARRIVAL,
        population=16,
        minibatch=arguments.minibatch,
    )
    try:
        for _ in drive(arguments.run, chosen, seconds=arguments.seconds, workers=arguments.workers):
            pass
    except EvomergeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
