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
from evomerge.errors import BuildFailed, EvomergeError
from evomerge.evaluate.evaluator import Evaluator, EvaluatorSpec
from evomerge.evaluate.lm_harness import LmHarness
from evomerge.recipe import Recipe
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident import ResidentModel
from evomerge.weights.saved import best_device

_FRAMES_SHOWN = 4


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs to know, small enough to send anywhere; calling it makes one.

    Attributes:
        models: every model that recipes may refer to.
        root: the folder to which their relative paths refer.
        donor: a recipe of the search space; all others give tensors of the same shapes.
        evaluator: what to score, and how.
        threads: CPU threads; part of the numerics, since sums are split by thread.
        merges: about how many candidates a worker will build.
    """

    models: tuple[str, ...]
    root: str
    donor: Recipe
    evaluator: EvaluatorSpec
    threads: int
    merges: int

    def __call__(self) -> Worker:
        """Open the parents, build the resident model, and load the tasks and their prompts.

        Raises:
            InvalidInput, PreflightFailed: parents, tasks and donor do not fit on this machine.
        """
        torch.set_num_threads(self.threads)
        device = best_device()
        materializer = Materializer(
            ParentPool.open(self.models, Path(self.root)), merges=self.merges
        )
        resident = ResidentModel(materializer, self.donor, device=device)
        evaluator = LmHarness(resident.model, resident.tokenizer, self.evaluator, device)
        return Worker(resident, evaluator)


class BecomesRecipe(Protocol):
    """A model in memory that takes the weights of any recipe; ResidentModel is one."""

    def become(self, recipe: Recipe) -> None:
        """Take the weights of `recipe`."""
        ...


@final
class Worker:
    """Builds and scores one candidate after the other in one resident model (stateful)."""

    def __init__(self, resident: BecomesRecipe, evaluator: Evaluator) -> None:
        """`evaluator` scores the model that `resident` changes."""
        self._resident = resident
        self._evaluator = evaluator

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

    def _evaluate(self, assignment: Assignment) -> Scored:
        began = time.perf_counter()
        self._resident.become(assignment.recipe)
        built = time.perf_counter()
        results = self._evaluator.evaluate(assignment.items)
        scored = time.perf_counter()
        asked = {task: items for task, items in assignment.items.tasks if items}
        answered = {result.task: result.items() for result in results}
        assert answered == asked, "the evaluator answered other items than it was asked"
        return Scored(results, built - began, scored - built)


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
