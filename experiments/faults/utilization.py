"""How busy workers are when evaluation times differ by 4 times, and what that costs the search.

    python experiments/faults/utilization.py        # half an hour on one core; utilization.json

Simulated workers: the real driver over a pool whose clock is virtual, 8, 32 and 128 workers. Real
ones: two processes that sleep. A lognormal sigma of 0.42 puts the 95th percentile at 4 times the
5th.
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from types import TracebackType
from typing import Any, Self

from landscape import Landscape, plan, quality, seconds

from evomerge.candidate import Assignment, Failed, Scored
from evomerge.run.core import Schedule
from evomerge.run.deadlines import Deadlines
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.driver import Search
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger, LedgerReader
from evomerge.run.plan import RunPlan
from evomerge.run.pool import Answer, WorkerPool
from evomerge.run.pools.local import local_pool
from evomerge.run.progress import Finished, PhaseStarted
from evomerge.search.cma_es import default_population

HERE = Path(__file__).resolve().parent
SPREAD = 0.42
DIMENSION = 12


class SimulatedPool:
    """Workers whose evaluations take virtual time: a WorkerPool (stateful)."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.clock = 0.0
        self.busy = 0.0
        self._landscape = Landscape(seed)
        self._seed = seed
        self._queue: list[Assignment] = []
        self._running: list[tuple[float, int, Assignment]] = []
        self._begun = 0

    def submit(self, assignment: Assignment) -> None:
        self._queue.append(assignment)

    def poll(self, timeout: float) -> tuple[Answer, ...]:
        del timeout
        while self._queue and len(self._running) < self.size:
            assignment = self._queue.pop(0)
            duration = seconds(assignment, SPREAD, self._seed)
            self.busy += duration
            self._begun += 1
            heapq.heappush(self._running, (self.clock + duration, self._begun, assignment))
        if not self._running:
            return ()
        self.clock, _, assignment = heapq.heappop(self._running)
        return (Answer(assignment, self._landscape.evaluate(assignment), "simulated"),)

    def pending(self) -> int:
        return len(self._queue) + len(self._running)

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


@dataclass(frozen=True)
class Sleepers:
    """Makes real workers that take the landscape's time, shortened by `pace`."""

    seed: int
    pace: float

    def __call__(self) -> Sleepers:
        return self

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        duration = self.pace * seconds(assignment, SPREAD, self.seed)
        time.sleep(duration)
        scored = Landscape(self.seed).evaluate(assignment)
        return scored if isinstance(scored, Failed) else Scored(scored.results, 0.0, duration)


def drive(run: RunPlan, pool: WorkerPool, look: Any) -> Finished:
    """The real search over `pool`; calls `look` with the name of each phase that begins."""
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder)) as ledger, pool:
        evaluations = Evaluations(ledger, Dispatcher(pool), run.objective, threading.Event())
        for event in Search(run, ledger, evaluations).run():
            if isinstance(event, PhaseStarted):
                look(event.phase)
            if isinstance(event, Finished):
                look("end")
                return event
    raise AssertionError("a search ends with Finished")


def simulated(workers: int, run: RunPlan, seed: int) -> dict[str, float]:
    """Share of the time that workers are busy in the search and in the whole run; true quality."""
    pool = SimulatedPool(workers, seed)
    marks: dict[str, tuple[float, float]] = {}
    finished = drive(run, pool, lambda name: marks.setdefault(name, (pool.clock, pool.busy)))
    (begin, before), (end, after) = marks["search"], marks["final"]
    return {
        "search": (after - before) / (workers * (end - begin)),
        "run": pool.busy / (workers * pool.clock),
        "time": end - begin,
        "quality": quality(finished.winner.recipe, seed),
    }


def real(run: RunPlan, seed: int, pace: float) -> dict[str, float]:
    """The same with two processes; pipes, pickling and the ledger's fsync are in it."""
    marks: dict[str, float] = {}
    begun = time.monotonic()
    spent = 0.0
    with tempfile.TemporaryDirectory() as folder, Ledger.open(Path(folder)) as ledger:
        with local_pool(Sleepers(seed, pace), 2, deadline=Deadlines()) as pool:
            evaluations = Evaluations(ledger, Dispatcher(pool), run.objective, threading.Event())
            for event in Search(run, ledger, evaluations).run():
                if isinstance(event, PhaseStarted):
                    marks[event.phase] = time.monotonic() - begun
            end = time.monotonic() - begun
            with_seconds = _evaluations(Path(folder))
        searched = sum(s for stage, s in with_seconds if stage == "search")
        spent = sum(s for _, s in with_seconds)
    return {
        "search": searched / (2 * (marks["final"] - marks["search"])),
        "run": spent / (2 * (end - marks["baselines"])),
    }


def _evaluations(folder: Path) -> list[tuple[str, float]]:
    with LedgerReader.open(folder) as reader:
        return [
            (e.stage, e.outcome.score_seconds)
            for e in reader.evaluations()
            if isinstance(e.outcome, Scored)
        ]


def schedules(workers: int) -> dict[str, Schedule]:
    """Barrier after every generation, half a generation ahead, and by arrival."""
    population = max(default_population(DIMENSION), workers)
    return {
        "generation by generation": Schedule(ordered=True, ahead=0),
        "ordered": Schedule(ordered=True, ahead=population // 2),
        "by arrival": Schedule(ordered=False, ahead=workers),
    }


def summary(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Medians and quartiles over seeds."""
    found: dict[str, Any] = {}
    for key in rows[0]:
        values = [row[key] for row in rows]
        low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
        found[key] = {"median": median(values), "quartiles": [low, high]}
    return found


def _plan(candidates: int, population: int, schedule: Schedule, seed: int) -> RunPlan:
    return plan(candidates=candidates, population=population, schedule=schedule, seed=seed)


def main() -> None:
    """Measure everything; what is known is written after every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--pace", type=float, default=0.25, help="seconds per evaluation")
    parser.add_argument("--real-only", action="store_true", help="keep what was simulated before")
    arguments = parser.parse_args()
    file, seeds = HERE / "utilization.json", range(arguments.seeds)
    result: dict[str, Any] = {"spread": SPREAD, "seeds": arguments.seeds, "simulated": {}}
    if arguments.real_only:
        result = json.loads(file.read_text(encoding="utf-8"))
    for workers, candidates in () if arguments.real_only else ((8, 400), (32, 800), (128, 1920)):
        population = max(default_population(DIMENSION), workers)
        rows: dict[str, Any] = {"candidates": candidates, "population": population}
        result["simulated"][str(workers)] = rows
        for name, schedule in schedules(workers).items():
            runs = [(_plan(candidates, population, schedule, seed), seed) for seed in seeds]
            rows[name] = summary([simulated(workers, *run) for run in runs])
            print(workers, name, json.dumps(rows[name]), flush=True)
            file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    result["real"] = {
        name: real(_plan(120, default_population(DIMENSION), schedule, 0), 0, arguments.pace)
        for name, schedule in schedules(2).items()
    }
    print(json.dumps(result["real"]))
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
