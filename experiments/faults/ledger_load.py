"""What the ledger and its driver cost with 100, 10,000 and 100,000 candidates.

    python experiments/faults/ledger_load.py [--sizes 100 10000 100000]      # half an hour in all

The real driver (ledger, CMA-ES, dispatcher) over a worker that takes no time; 3 tasks of 64 items,
12 genes, population 16. Writes ledger_load.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fake_search import ORDERED, drive, plan, space_mapping

from evomerge.candidate import Candidate, Scored
from evomerge.run.directory import open_directory
from evomerge.run.ledger import LEDGER, Ledger, LedgerReader
from evomerge.run.plan import RunPlan
from evomerge.run.progress import Evaluated
from evomerge.seeding import generator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MINIBATCH = 64


def chosen(candidates: int) -> RunPlan:
    """The run that is measured."""
    return plan(candidates=candidates, schedule=ORDERED, population=16, minibatch=MINIBATCH)


def start(run: Path, candidates: int) -> dict[str, Any]:
    """Start or continue the run in this process and measure that."""
    wall, cpu = time.perf_counter(), time.process_time()
    ready, fresh = 0.0, 0
    for event in drive(run, chosen(candidates), seconds=0.0, workers=0):
        if isinstance(event, Evaluated):
            ready = ready or time.perf_counter() - wall
            fresh += not event.replayed
    return {
        "seconds": round(time.perf_counter() - wall, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "first_evaluation_known_after": round(ready, 2),
        "evaluated": fresh,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def in_process(*arguments: object) -> dict[str, Any]:
    """The same in a process of its own, for its memory."""
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def specification(run: Path, candidates: int) -> None:
    """What `evomerge status` reads besides the ledger."""
    run_plan = chosen(candidates)
    (stage,) = run_plan.stages
    sizes = {
        "search": run_plan.search_items,
        "selection": run_plan.selection_items,
        "holdout": run_plan.holdout_items,
    }
    content = {
        "name": "load",
        "seed": run_plan.seed,
        "space": space_mapping(),
        "objective": {"combine": "weighted_mean"},
        "constraints": [],
        "parents": {"base": "0", "a": "1", "b": "2"},
        "budget": {"candidates": candidates, "items": None, "time": None},
        "splits": {n: {t: len(ids) for t, ids in s.tasks} for n, s in sizes.items()},
        "test_splits": {},
        "near_duplicates": 0,
        "versions": {},
        "goals": [
            {
                "task": goal.task,
                "metric": goal.metric,
                "weight": goal.weight,
                "aggregation": goal.aggregation,
                "higher_is_better": goal.higher_is_better,
            }
            for goal in run_plan.objective.goals
        ],
        "searches": [
            {
                "name": "",
                "method": "task_arithmetic",
                "algorithm": "cma_es",
                "population": stage.population,
                "minibatch": stage.batches.items,
                "dimensions": 12,
                "baselines": [{"label": b.label, "kind": b.kind} for b in stage.baselines],
            }
        ],
    }
    open_directory(run, Path(__file__), content)


def command(run: Path, *words: str) -> float:
    """Seconds that a command of evomerge takes."""
    began = time.perf_counter()
    arguments = [sys.executable, "-m", "evomerge", words[0], str(run), *words[1:]]
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    return round(time.perf_counter() - began, 2)


def writes(folder: Path, number: int) -> dict[str, float]:
    """Candidates and outcomes per second when nothing else happens, each with its own fsync."""
    run_plan, rng = chosen(100), generator(0, "genes")
    (stage,) = run_plan.stages
    genes = [tuple(map(float, rng.random(12))) for _ in range(number)]
    candidates = [
        Candidate(i, i // 16, "cma_es", stage.space.decode(g), g) for i, g in enumerate(genes)
    ]
    with LedgerReader.open(folder) as reader:
        outcome = next(
            e.outcome for e in reader.evaluations("search") if isinstance(e.outcome, Scored)
        )
    with tempfile.TemporaryDirectory(dir=folder) as name, Ledger.open(Path(name)) as ledger:
        began, cpu = time.perf_counter(), time.process_time()
        for candidate in candidates:
            ledger.add_candidate(candidate)
            ledger.record((candidate.id, "search"), outcome, attempts=1, worker="w")
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "pairs_per_second": round(number / wall),
        "milliseconds": round(1000 * wall / number, 2),
        "cpu_milliseconds": round(1000 * cpu / number, 2),
    }


def measure(candidates: int) -> dict[str, Any]:
    """One size: written, continued, looked at."""
    run = ROOT / "runs" / f"load-{candidates}"
    shutil.rmtree(run, ignore_errors=True)
    specification(run, candidates)
    whole = in_process("--start", run, candidates)
    size = (run / LEDGER).stat().st_size
    found = {
        "candidates": candidates,
        "whole": whole,
        "driver_cpu_ms_per_candidate": round(1000 * whole["cpu_seconds"] / candidates, 2),
        "bytes": size,
        "bytes_per_candidate": size // candidates,
        "continue": in_process("--start", run, candidates),
        "status_seconds": min(command(run, "status") for _ in range(3)),
        "best_seconds": command(run, "best"),
        "report_seconds": command(run, "report"),
    }
    if candidates <= 1000:
        found["ledger_alone"] = writes(run, 1000)
    shutil.rmtree(run)
    return found


def main() -> None:
    """Measure every size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--start", nargs=2, metavar=("RUN", "CANDIDATES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        run, candidates = arguments.start
        print(json.dumps(start(Path(run), int(candidates))))
        return
    results = []
    for size in arguments.sizes:
        results.append(measure(size))
        print(json.dumps(results[-1]), flush=True)
    text = json.dumps(results, indent=1)
    (HERE / "ledger_load.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
