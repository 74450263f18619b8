"""What one candidate costs on SmolLM2: milliseconds to build, to score, and peak memory.

    python experiments/smollm2/cost.py

One worker, one thread, in this process; medians of five. Writes results/cost.json.
"""

from __future__ import annotations

import json
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from evomerge.candidate import ItemSelection
from evomerge.evaluate.catalog import load_catalog
from evomerge.evaluate.lm_harness import LmHarness
from evomerge.evaluate.splits import minibatch
from evomerge.recipe import Parameters, Recipe, Scalar, Source
from evomerge.run.build import evaluator_spec
from evomerge.run.config import read_objective
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident import ResidentModel

HERE = Path(__file__).resolve().parent
BASE, READ, WRITE = "parents/base", "parents/read", "parents/write"
MERGES = 200
"""Of a search: enough to repay compiled kernels, where numba is there."""


def recipe(method: str, step: int) -> Recipe:
    """A recipe that differs a little in every step, as candidates do."""
    weight = 0.7 + 0.01 * step
    settings: dict[str, Scalar] = {"weight": weight}
    if method != "linear":
        settings["density"] = 0.5 + 0.01 * step
    sources = tuple(Source(m, None, Parameters.constants(settings)) for m in (READ, WRITE))
    base = None if method == "linear" else BASE
    return Recipe(method, sources, base_model=base, dtype="float32")


def times(action: Callable[[int], object]) -> dict[str, float]:
    """The first call and the median of five more, wall and CPU milliseconds."""
    walls, cpus = [], []
    for step in range(6):
        wall, cpu = time.perf_counter(), time.process_time()
        action(step)
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return {
        "first_wall_ms": round(walls[0]),
        "wall_ms": round(statistics.median(walls[1:])),
        "cpu_ms": round(statistics.median(cpus[1:])),
    }


def candidate(resident: ResidentModel, method: str, step: int) -> None:
    """Merge one in memory."""
    resident.become(recipe(method, step))


def memory() -> int:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def private() -> int:
    """Memory that no other process can share, now, in MB: without the mapped parents."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) // 1024


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    spec = evaluator_spec(read_objective(HERE / "space.yaml"), HERE)
    pool = ParentPool.open((BASE, READ, WRITE), HERE)
    result: dict[str, object] = {"before": {"peak_mb": memory(), "private_mb": private()}}
    resident = ResidentModel(Materializer(pool, merges=MERGES), recipe("ties", 0))
    for method in ("linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"):
        result[f"build {method}"] = times(partial(candidate, resident, method))
    result["after building"] = {"peak_mb": memory(), "private_mb": private()}
    harness = LmHarness(resident.model, resident.tokenizer, spec)
    items = load_catalog(spec).items
    every = ItemSelection(tuple(items.items()))
    result["score 64 items"] = times(
        lambda step: harness.evaluate(minibatch(every, 64, generation=step, seed=0))
    )
    result["after scoring"] = {"peak_mb": memory(), "private_mb": private()}
    (HERE / "results" / "cost.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
