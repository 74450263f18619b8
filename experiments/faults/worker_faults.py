"""A search in which one evaluation in five meets a fault, against the same search without any.

    python experiments/faults/worker_faults.py        # some minutes; writes worker_faults.json

The driver, its ledger, dispatcher and worker processes are real; only models and questions are not
(see landscape.py). Faults come from a list drawn in advance; each marks a file when it strikes, so
that those of the machine strike once and the next worker succeeds, as in life. Those of the
candidate strike every time.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from landscape import Landscape, plan

from evomerge.candidate import OUT_OF_MEMORY, SEARCH, Assignment, Failed, Scored
from evomerge.errors import BuildFailed, PreflightFailed
from evomerge.recipe import Recipe
from evomerge.run.core import Schedule
from evomerge.run.deadlines import Deadlines
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.driver import Search
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger, LedgerReader
from evomerge.run.pools.local import local_pool
from evomerge.run.progress import Finished
from evomerge.run.workers import Worker
from evomerge.score import TaskGoal, TaskOutcomes
from evomerge.seeding import generator
from evomerge.weights.canary import StaleWeights

HERE = Path(__file__).resolve().parent
DEADLINE = 3.0
OF_THE_MACHINE = (
    "killed",
    "hung",
    "stopped",
    "memory of the host",
    "memory of the GPU",
    "GPU lost",
    "stale weights",
    "worker broken",
    "no start",
)
OF_THE_CANDIDATE = ("NaN in weights", "NaN in scores", "too large for any worker")


@dataclass(frozen=True)
class Faulty:
    """Makes workers that meet the faults of `schedule`, by candidate."""

    seed: int
    folder: str
    schedule: tuple[tuple[int, str], ...]

    def __call__(self) -> FaultyWorker:
        """The process after one that ended as "no start" fails to start, too."""
        for place in Path(self.folder).glob("broken start *"):
            with suppress(FileNotFoundError):
                place.unlink()
                raise PreflightFailed("this machine lost its disk for a moment")
        return FaultyWorker(self)


class FaultyWorker:
    """One worker: `Worker` itself with a bench that breaks in the way it is told."""

    def __init__(self, factory: Faulty) -> None:
        self._factory = factory
        self._faults = dict(factory.schedule)

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        fault = self._faults.get(assignment.candidate) if assignment.stage == SEARCH else None
        once = fault in OF_THE_MACHINE
        if once and not _first(Path(self._factory.folder, str(assignment.candidate))):
            fault = None
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hung":
            time.sleep(3600)
        if fault == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        if fault == "worker broken":
            raise OSError("the file system went away")
        if fault == "no start":
            Path(self._factory.folder, f"broken start {assignment.candidate}").touch()
            os._exit(9)
        return Worker(FaultyBench(assignment, fault, self._factory.seed)).evaluate(assignment)


class FaultyBench:
    """The model that is not there: raises what a real one raises."""

    def __init__(self, assignment: Assignment, fault: str | None, seed: int) -> None:
        self._assignment = assignment
        self._fault = fault
        self._landscape = Landscape(seed)
        self._batch = 32

    def of(self, recipe: Recipe) -> FaultyBench:
        del recipe
        return self

    def become(self, recipe: Recipe) -> None:
        del recipe
        if self._fault == "NaN in weights":
            raise BuildFailed("merged tensor 'w' holds NaN or Inf")
        if self._fault == "stale weights":
            raise StaleWeights("the model computes with the weights of an earlier candidate")
        if self._fault == "GPU lost":
            raise RuntimeError("CUDA error: device-side assert triggered")

    def screen(self, recipe: Recipe) -> Failed | None:
        del recipe
        return None

    def evaluator(self, recipe: Recipe) -> FaultyBench:
        del recipe
        return self

    def costs(self, recipe: Recipe) -> tuple[TaskOutcomes, ...]:
        del recipe
        return ()

    def items(self) -> dict[str, tuple[str, ...]]:
        return {}

    def goals(self) -> tuple[TaskGoal, ...]:
        return ()

    def prompt_loss(self, selection: object) -> float:
        del selection
        return 0.0

    def halve_batch(self) -> int | None:
        self._batch //= 2
        return self._batch or None

    @property
    def remarks(self) -> tuple[str, ...]:
        return () if self._batch == 32 else (f"batch of {self._batch}",)

    def evaluate(self, selection: object) -> tuple[TaskOutcomes, ...]:
        del selection
        if self._fault == "memory of the GPU" and self._batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if self._fault in ("memory of the host", "too large for any worker"):
            raise MemoryError("DefaultCPUAllocator: can't allocate memory")
        if self._fault == "NaN in scores":
            raise BuildFailed("the log-likelihood of 3 of 64 answers is nan")
        scored = self._landscape.evaluate(self._assignment)
        assert isinstance(scored, Scored)
        return scored.results


def _first(path: Path) -> bool:
    """Whether this call is the first, over all processes."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def search(run_dir: Path, factory: Any, workers: int, candidates: int, seed: int) -> dict[str, Any]:
    """The real search over worker processes; what it recorded."""
    run = plan(
        candidates=candidates, population=12, schedule=Schedule(ordered=True, ahead=6), seed=seed
    )
    deadlines = Deadlines(DEADLINE)
    begun = time.monotonic()
    with (
        Ledger.open(run_dir) as ledger,
        local_pool(factory, workers, deadline=deadlines, logs=run_dir / "logs") as pool,
    ):
        evaluations = Evaluations(
            ledger, Dispatcher(pool), run.objective, threading.Event(), deadlines=deadlines
        )
        *_, last = Search(run, ledger, evaluations).run()
    assert isinstance(last, Finished)
    with LedgerReader.open(run_dir) as reader:
        entries = reader.evaluations()
        recipes = {c.id: c.recipe.digest for c in reader.candidates()}
    return {
        "seconds": round(time.monotonic() - begun, 1),
        "outcomes": {e.key: e.outcome for e in entries},
        "recipes": recipes,
        "attempts": {e.candidate: e.attempts for e in entries if e.stage == SEARCH},
        "winner": recipes[last.winner.id],
        "beaten": not last.is_baseline,
        "recorded twice": max(Counter(e.key for e in entries).values()) > 1,
    }


def drawn(candidates: int, share: float, kinds: tuple[str, ...], seed: int) -> dict[int, str]:
    """A fault for `share` of the candidates of a search, every kind as often as the others."""
    rng = generator(seed, "faults")
    struck = rng.choice(range(14, candidates), round(share * candidates), replace=False)
    return {int(c): kinds[place % len(kinds)] for place, c in enumerate(struck)}


def compare(
    folder: Path, faults: dict[int, str], clean: dict[str, Any], candidates: int, seed: int
) -> dict[str, Any]:
    """The search with these faults, beside the one without."""
    markers = folder / "markers"
    markers.mkdir(parents=True)
    factory = Faulty(seed, str(markers), tuple(faults.items()))
    found = search(folder / "run", factory, 2, candidates, seed)
    same = {
        key: outcome
        for key, outcome in found["outcomes"].items()
        if _plain(clean["outcomes"].get(key)) == _plain(outcome)
    }
    failed = Counter(o.kind for o in found["outcomes"].values() if isinstance(o, Failed))
    return {
        "faults": Counter(faults.values()),
        "struck": len(list(markers.iterdir())),
        "seconds": found["seconds"],
        "seconds without faults": clean["seconds"],
        "evaluations": len(found["outcomes"]),
        "recorded twice": found["recorded twice"],
        "recorded as failed": failed,
        "evaluated more than once": sum(a > 1 for a in found["attempts"].values()),
        "outcomes equal": len(same),
        "candidates equal": found["recipes"] == clean["recipes"],
        "winner equal": found["winner"] == clean["winner"],
        "verdict equal": found["beaten"] == clean["beaten"],
    }


def _plain(outcome: Scored | Failed | None) -> object:
    return outcome.results if isinstance(outcome, Scored) else outcome


def main() -> None:
    """Faults of the machine only; then those of the candidates as well."""
    logging.disable(logging.WARNING)  # every lost worker is logged
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=300)
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    seed, candidates = given.seed, given.candidates
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clean = search(folder / "clean", Landscape(seed), 2, candidates, seed)
        machine = drawn(candidates, given.share, OF_THE_MACHINE, seed)
        both = drawn(candidates, given.share, OF_THE_MACHINE + OF_THE_CANDIDATE, seed + 1)
        result = {
            "candidates": candidates,
            "of the machine": compare(folder / "a", machine, clean, candidates, seed),
            "of machine and candidate": compare(folder / "b", both, clean, candidates, seed),
        }
    assert OUT_OF_MEMORY in result["of machine and candidate"]["recorded as failed"]
    (HERE / "worker_faults.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
