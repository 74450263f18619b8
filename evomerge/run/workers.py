"""The worker border: an assignment is built and scored, and failures become values."""

from __future__ import annotations

import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

import torch

from evomerge.candidate import Assignment, Failed, Scored
from evomerge.consent import NOTHING, Consent
from evomerge.errors import BuildFailed, EvomergeError
from evomerge.evaluate.evaluator import EvaluatorSpec
from evomerge.recipe import STACK, Recipe
from evomerge.run.benches import Bench, MergeBench, Probe, StackBench
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.saved import best_device

SEARCH = "search"
"""The stage in which candidates are screened before they are scored."""
_FRAMES_SHOWN = 4


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs to know, small enough to send anywhere; calling it makes one.

    Attributes:
        models: every model that recipes may refer to.
        root: the folder to which their relative paths refer.
        donor: a recipe of the first search space; all its merges give tensors of the same shapes.
        evaluator: what to score, and how.
        threads: CPU threads; part of the numerics, since sums are split by thread.
        merges: about how many candidates a worker will build.
        probe: what rejects broken stacks before they are scored.
        cost: the measure of a stack's cost that is part of the objective.
        consent: which code and pickle files of the models may be used.
    """

    models: tuple[str, ...]
    root: str
    donor: Recipe
    evaluator: EvaluatorSpec
    threads: int
    merges: int
    probe: Probe | None = None
    cost: str | None = None
    consent: Consent = NOTHING

    def __call__(self) -> Worker:
        """Open the parents, build the resident model, and load the tasks and their prompts.

        Raises:
            InvalidInput, PreflightFailed: parents, tasks and donor do not fit on this machine.
        """
        torch.set_num_threads(self.threads)
        benches = Benches(
            self, ParentPool.open(self.models, Path(self.root), self.consent), best_device()
        )
        benches.of(self.donor)
        return Worker(benches)


class ChoosesBench(Protocol):
    """Knows which model in memory takes which recipe; `Benches` does."""

    def of(self, recipe: Recipe) -> Bench:
        """The bench for `recipe`."""
        ...


@final
class Benches:
    """One bench at a time, as stages with merges and stages with stacks follow (stateful)."""

    def __init__(self, spec: WorkerSpec, pool: ParentPool, device: str) -> None:
        """Nothing is built before it is asked for."""
        self._spec = spec
        self._pool = pool
        self._device = device
        self._bench: Bench | None = None

    def of(self, recipe: Recipe) -> Bench:
        """The bench for `recipe`; another kind's is given up, and its memory with it.

        Raises:
            InvalidInput, PreflightFailed: parents, tasks and donor do not fit on this machine.
        """
        spec = self._spec
        if recipe.merge_method == STACK:
            if not isinstance(self._bench, StackBench):
                self._bench = None
                self._bench = StackBench(
                    self._pool, spec.evaluator, self._device, probe=spec.probe, cost=spec.cost
                )
        elif not isinstance(self._bench, MergeBench):
            self._bench = None
            materializer = Materializer(self._pool, merges=spec.merges)
            self._bench = MergeBench(materializer, spec.donor, spec.evaluator, self._device)
        return self._bench


@final
class Worker:
    """Builds and scores one candidate after the other (stateful: what is in memory)."""

    def __init__(self, benches: ChoosesBench) -> None:
        """`benches` have the models that become candidates."""
        self._benches = benches

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        """Build the merge and score it; seconds are wall time.

        Raises:
            RuntimeError: the GPU has reported an error after which this process can use it no
                more. Every other exception is about the candidate and is returned as a Failed.
        """
        try:
            return self._evaluate(assignment)
        except Exception as error:  # the one place where an exception becomes a value
            if "CUDA error" in str(error):
                raise
            failed = _failure(error)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # after the frames that held the tensors are gone
        return failed

    def _evaluate(self, assignment: Assignment) -> Scored | Failed:
        recipe = assignment.recipe
        bench = self._benches.of(recipe)
        began = time.perf_counter()
        bench.become(recipe)
        built = time.perf_counter()
        rejected = bench.screen(recipe) if assignment.stage == SEARCH else None
        if rejected is not None:
            return rejected
        results = bench.evaluator(recipe).evaluate(assignment.items)
        scored = time.perf_counter()
        asked = {task: items for task, items in assignment.items.tasks if items}
        answered = {result.task: result.items() for result in results}
        assert answered == asked, "the evaluator answered other items than it was asked"
        return Scored((*results, *bench.costs(recipe)), built - began, scored - built)


def _failure(error: Exception) -> Failed:
    """What the error says about the candidate; the whole traceback goes to the worker's log."""
    if isinstance(error, BuildFailed):
        return Failed("unusable merge", _one_line(error))
    if isinstance(error, EvomergeError):
        return Failed("error", _one_line(error))
    traceback.print_exception(error, file=sys.stderr)
    if _out_of_memory(error):
        return Failed("out of memory", _one_line(error))
    name = type(error).__name__
    frames = reversed(traceback.extract_tb(error.__traceback__)[-_FRAMES_SHOWN:])
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
    return Failed("error", f"{name}: {_one_line(error)} (in {places})")


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's allocator for CPU memory has no exception class of its own
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
