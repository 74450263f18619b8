"""The worker border: an assignment is built and scored, and failures become values."""

from __future__ import annotations

import errno
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, final

import torch
from safetensors import SafetensorError

from evomerge.candidate import NO_ROOM, OUT_OF_MEMORY, SEARCH, Assignment, Failed, Scored
from evomerge.consent import NOTHING, Consent
from evomerge.errors import DISK_FULL, BuildFailed, DiskFull, EvomergeError, PreflightFailed
from evomerge.evaluate.evaluator import Evaluator, EvaluatorSpec
from evomerge.recipe import STACK, Recipe
from evomerge.run.benches import Bench, MergeBench, Probe, Scoring, StackBench
from evomerge.weights.canary import StaleWeights
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.saved import best_device

_FRAMES_SHOWN = 4
T = TypeVar("T")


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs to know, small enough to send anywhere; calling it makes one.

    Attributes:
        models: every model that recipes may refer to, with a digest of its contents.
        root: the folder to which their relative paths refer.
        donor: a recipe of the first search space; all its merges give tensors of the same shapes.
        evaluator: what to score, and how.
        threads: CPU threads; part of the numerics, since sums are split by thread.
        merges: about how many candidates a worker will build.
        probe: what rejects broken stacks before they are scored.
        cost: the measure of a stack's cost that is part of the objective.
        consent: which code and pickle files of the models may be used.
    """

    models: tuple[tuple[str, str], ...]
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
            InvalidInput, PreflightFailed: parents, tasks and donor do not fit on this machine, or
                its copy of a parent is not the driver's.
        """
        torch.set_num_threads(self.threads)
        models = tuple(model for model, _ in self.models)
        pool = ParentPool.open(models, Path(self.root), self.consent)
        self._check_contents(pool)
        benches = Benches(self, pool, best_device())
        benches.of(self.donor)
        return Worker(benches)

    def _check_contents(self, pool: ParentPool) -> None:
        """A damaged or older copy of a parent on one node would spoil scores without a trace."""
        problems = [
            f"{socket.gethostname()}: {pool.directory(model)}: not the same files as where the "
            f"search was started (digest {pool.contents(model)}, expected {expected}): copy the "
            "model to this machine again"
            for model, expected in self.models
            if pool.contents(model) != expected
        ]
        if problems:
            raise PreflightFailed(problems)


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
        self._scoring = Scoring(spec.evaluator, device)
        self._bench: Bench | None = None

    def of(self, recipe: Recipe) -> Bench:
        """The bench for `recipe`; another kind's, or stage's, is given up, and its memory with it.

        Raises:
            InvalidInput, PreflightFailed: parents, tasks and donor do not fit on this machine.
        """
        spec = self._spec
        if recipe.merge_method == STACK:
            if not isinstance(self._bench, StackBench):
                self._bench = None
                self._bench = StackBench(
                    self._pool, self._scoring, probe=spec.probe, cost=spec.cost
                )
        elif not isinstance(self._bench, MergeBench) or not self._bench.takes(recipe):
            self._bench = None
            materializer = Materializer(self._pool, merges=spec.merges)
            self._bench = MergeBench(materializer, recipe, self._scoring)
        return self._bench


@final
class Worker:
    """Builds and scores one candidate after the other (stateful: what is in memory)."""

    def __init__(self, benches: ChoosesBench) -> None:
        """`benches` have the models that become candidates."""
        self._benches = benches
        self._built: Recipe | None = None

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        """Build the merge and score it; seconds are wall time.

        Raises:
            Exception: it is about this process or this machine: its model cannot be built, its GPU
                or its disk answers with errors, the model does not take new weights. Every other
                exception is about the candidate and is returned as a Failed.
        """
        bench = self._benches.of(assignment.recipe)
        try:
            return self._evaluate(assignment, bench)
        except Exception as error:  # the one place where an exception becomes a value
            self._built = None
            if _breaks_the_worker(error):
                raise
            failed = _failure(error)
        _free_memory()  # after the frames that held the tensors are gone
        return failed

    def _evaluate(self, assignment: Assignment, bench: Bench) -> Scored | Failed:
        recipe = assignment.recipe
        began = time.perf_counter()
        if recipe != self._built:  # parts of one evaluation come one after the other
            self._built = None
            bench.become(recipe)
            self._built = recipe
        built = time.perf_counter()
        evaluator = bench.evaluator(recipe)
        if assignment.stage == SEARCH:
            rejected = within_memory(lambda: bench.screen(recipe), evaluator)
            if rejected is not None:
                return rejected
        results = within_memory(lambda: evaluator.evaluate(assignment.items), evaluator)
        scored = time.perf_counter()
        asked = {task: items for task, items in assignment.items.tasks if items}
        answered = {result.task: result.items() for result in results}
        assert answered == asked, "the evaluator answered other items than it was asked"
        costs = bench.costs(recipe)
        return Scored((*results, *costs), built - began, scored - built, evaluator.remarks)


def within_memory(score: Callable[[], T], evaluator: Evaluator) -> T:
    """What `score` returns, in as small a batch as the memory demands.

    Raises:
        Exception: whatever `score` raises; running out of memory with a batch of 1 included.
    """
    while True:
        try:
            return score()
        except Exception as error:
            if not _out_of_memory(error) or evaluator.halve_batch() is None:
                raise
        _free_memory()  # after the frames that held the tensors are gone


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _breaks_the_worker(error: Exception) -> bool:
    """Whether the error says something about this process or machine, not about the candidate."""
    if isinstance(error, StaleWeights | SafetensorError) or "CUDA error" in str(error):
        return True
    return isinstance(error, OSError) and error.errno not in (*DISK_FULL, errno.ENOMEM)


def _failure(error: Exception) -> Failed:
    """What the error says about the candidate; the whole traceback goes to the worker's log."""
    if isinstance(error, BuildFailed):
        return Failed("unusable merge", _one_line(error))
    if isinstance(error, DiskFull) or getattr(error, "errno", None) in DISK_FULL:
        return Failed(NO_ROOM, _one_line(error))
    if isinstance(error, EvomergeError):
        return Failed("error", _one_line(error))
    traceback.print_exception(error, file=sys.stderr)
    if _out_of_memory(error):
        return Failed(OUT_OF_MEMORY, _one_line(error))
    name = type(error).__name__
    frames = reversed(traceback.extract_tb(error.__traceback__)[-_FRAMES_SHOWN:])
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
    return Failed("error", f"{name}: {_one_line(error)} (in {places})")


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # torch has no exception class for it on the CPU
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "Cannot allocate memory" in text
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
