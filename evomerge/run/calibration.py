"""A short measurement of one worker before a run: what it takes, in seconds and bytes."""

# ruff: noqa: PLC0415 - the environment of the child comes before torch

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from evomerge.candidate import Assignment, Failed, ItemSelection, Scored
from evomerge.errors import PreflightFailed
from evomerge.offline import forget_tokens
from evomerge.recipe import Recipe
from evomerge.run.forecast import Costs
from evomerge.run.pool import EvaluatingWorker
from evomerge.run.pools.local_worker import die_with
from evomerge.run.pools.serving import start_failure
from evomerge.run.pools.supervised import START_DEADLINE
from evomerge.run.process_memory import watched

if TYPE_CHECKING:
    from evomerge.run.workers import WorkerSpec

SECONDS = 30.0
_GRACE = 120.0
"""Seconds for what was begun before the end of a rehearsal."""
_STAGE = "calibration"
_QUICK = "see the estimate with --quick"


@dataclass(frozen=True)
class Rehearsal:
    """What to build and score.

    Attributes:
        recipes: of different methods; the first is what the search starts from.
        few: items for a first impression, and to build without scoring much.
        usual: items of one evaluation in the search.
        many: several times as many, to tell the cost of an item from that of a call.
        seconds: after which nothing more is begun.
    """

    recipes: tuple[Recipe, ...]
    few: ItemSelection
    usual: ItemSelection
    many: ItemSelection
    seconds: float = SECONDS


@dataclass(frozen=True)
class Timings:
    """Seconds to build the first and a further merge of each method, and to score some items."""

    first: Mapping[str, float]
    further: Mapping[str, float]
    scores: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Calibration:
    """What was measured.

    Attributes:
        start: seconds from nothing to a worker that is ready.
        timings: of its evaluations.
        private: the most bytes that it held of its own.
        mapped: bytes of files that it maps, which the workers of a machine share: libraries and
            parents.
        device: the most bytes that it held on a GPU.
    """

    start: float
    timings: Timings
    private: int
    mapped: int
    device: int

    @property
    def costs(self) -> Costs:
        """The measurements as a straight line over the number of items."""
        call, item = _line(self.timings.scores)
        return Costs(self.start, self.timings.first, self.timings.further, call, item)


def calibrate(spec: WorkerSpec, rehearsal: Rehearsal) -> Calibration:
    """Start one worker in a process of its own, on the first GPU if there is one, and measure it.

    The process gets as long to start as the workers of a run; it does not outlive this call, nor
    the thread that called.

    Raises:
        PreflightFailed: the worker cannot start, or not even the first recipe can be scored in
            reasonable time.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    message = pickle.dumps((spec, rehearsal))
    child = context.Process(
        target=_serve, args=(theirs, os.getpid(), message, spec.threads, time.time()), daemon=True
    )
    child.start()
    theirs.close()  # so that the child's end closes the pipe
    try:
        start = _received(ours, START_DEADLINE, "the worker was not ready")
        if isinstance(start, float):
            found = _received(ours, rehearsal.seconds + _GRACE, "a ready worker had no result")
        else:
            found = start
    except EOFError:
        child.join(_GRACE)
        raise PreflightFailed(_epitaph(child.exitcode)) from None
    finally:
        child.kill()
        child.join()
        child.close()
        ours.close()
    if isinstance(found, Calibration):
        return found
    raise PreflightFailed([f"calibration: {line}" for line in found])


def rehearse(
    worker: EvaluatingWorker, rehearsal: Rehearsal, now: Callable[[], float] = time.perf_counter
) -> Timings | Failed:
    """Evaluate as much of a rehearsal as its time allows.

    Returns:
        the seconds, or why the first recipe failed; a later recipe that fails is left out.
    """
    began = now()
    first: dict[str, float] = {}
    further: dict[str, float] = {}
    scores: dict[int, float] = {}

    def evaluate(number: int, recipe: Recipe, items: ItemSelection) -> Failed | float:
        outcome = worker.evaluate(Assignment(number, _STAGE, recipe, items))
        if isinstance(outcome, Failed):
            return outcome
        assert isinstance(outcome, Scored), "a worker scores or fails"
        known = further if recipe.merge_method in first else first
        known[recipe.merge_method] = outcome.build_seconds
        return outcome.score_seconds

    def left() -> float:
        return rehearsal.seconds - (now() - began)

    start, *others = rehearsal.recipes
    last = evaluate(0, start, rehearsal.few)
    if isinstance(last, Failed):
        return last
    scored = rehearsal.few
    scores[scored.count] = last
    for items in (rehearsal.usual, rehearsal.usual, rehearsal.many):
        # What has been scored so far pays for warming up, so this is a pessimistic guess.
        if items.count < scored.count or scores[scored.count] * items.count / scored.count > left():
            break
        seconds = evaluate(0, start, items)
        if isinstance(seconds, Failed):
            return seconds
        if items.count > rehearsal.few.count:
            scores.pop(rehearsal.few.count, None)
        scores[items.count], scored = seconds, items
    for number, recipe in enumerate(others, start=1):
        for _ in range(2):
            if left() > 0.0:
                evaluate(number, recipe, rehearsal.few)
    return Timings(first, {**first, **further}, tuple(sorted(scores.items())))


def _received(pipe: Connection, seconds: float, late: str) -> Any:
    """What the child says next; EOFError when it is gone."""
    if not pipe.poll(seconds):
        raise PreflightFailed(f"calibration: {late} after {seconds:g} s; {_QUICK}")
    return pipe.recv()


def _epitaph(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return (
            "calibration: the worker was killed, most likely because memory ran out; merge smaller "
            f"models, lower objective.batch_size, or {_QUICK}"
        )
    return f"calibration: the worker's process ended with exit code {code}; {_QUICK}"


def _serve(pipe: Connection, driver: int, message: bytes, threads: int, asked: float) -> None:
    """In the child: say the seconds until the worker was ready, then what was measured.

    Lines that say what went wrong can take the place of either.
    """
    die_with(driver)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends this process
    os.environ["OMP_NUM_THREADS"] = str(threads)
    forget_tokens()
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    try:
        found = _measured(message, asked, pipe.send)
    except Exception as error:  # whatever it is, a person has to read it
        found = start_failure(error).problems
    pipe.send(found)


def _measured(
    message: bytes, asked: float, ready: Callable[[float], None]
) -> Calibration | tuple[str, ...]:
    """A worker as in a run, measured; or why its first recipe cannot be scored."""
    spec, rehearsal = pickle.loads(message)
    import torch

    with watched() as held:
        worker = spec()
        start = time.time() - asked
        ready(start)
        timings = rehearse(worker, rehearsal)
    if isinstance(timings, Failed):
        return (f"the recipe that the search starts from fails: {timings.message}",)
    device = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    return Calibration(start, timings, held.own, held.mapped, device)


def _line(scores: tuple[tuple[int, float], ...]) -> tuple[float, float]:
    """Seconds per call and per item from one or more (items, seconds), ascending."""
    (few, low), (many, high) = scores[0], scores[-1]
    slope = (high - low) / (many - few) if many > few else 0.0
    item = min(slope, high / many) if slope > 0.0 else high / many
    return max(0.0, high - item * many), item
