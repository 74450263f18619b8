"""What merging a candidate costs next to the floor of memory, method by method, in one process.

    python experiments/kernels/bench.py [--mergekit .venv-mergekit/bin/python] [--quick]

Real checkpoints, the real Materializer, all tensors of the model, planning included. The floor is a
linear combination of as many bfloat16 streams in C (`floor.c`) over the same tensors. CPU time of
the thread, so that other work on the machine matters less; every repeat runs floor and methods one
after the other, and a ratio is the median of the repeats' ratios. With the Python of an environment
that has mergekit the same recipes are merged by it (`incumbent.py`). Writes results.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from parents import write_parents

from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.compiled.kernels import COMPILED
from evomerge.merge.kernels import Kernels
from evomerge.mergekit_yaml import to_mapping
from evomerge.recipe import Parameters, Recipe, Scalar, Source
from evomerge.signatures import SIGNATURES
from evomerge.weights import materialize
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool

HERE = Path(__file__).resolve().parent
PLAIN = ("linear", "task_arithmetic", "ties", "breadcrumbs", "dare_ties", "della", "sce")
LINEAR = {"weight": (0.3, 0.02)}
SPARSE = {"weight": (0.7, 0.01), "density": (0.4, 0.02)}
# Method: (uses the base, how many other models; None: all; per-model parameters as (start, step),
# shared parameters)
METHODS: Mapping[str, tuple[bool, int | None, Mapping[str, tuple[float, float]], dict[str, Scalar]]]
METHODS = {
    "linear": (False, None, LINEAR, {}),
    "slerp": (True, 1, {}, {"t": 0.4}),
    "nuslerp": (True, 2, LINEAR, {}),
    "karcher": (False, None, {}, {}),
    "task_arithmetic": (True, None, LINEAR, {}),
    "multislerp": (True, None, LINEAR, {}),
    "model_stock": (True, None, {}, {}),
    "breadcrumbs": (True, None, SPARSE, {}),
    "ties": (True, None, SPARSE, {}),
    "sce": (True, None, {}, {"select_topk": 0.6}),
    "dare_linear": (True, None, SPARSE, {}),
    "dare_linear unbiased": (True, None, SPARSE, {"unbiased": True}),
    "dare_ties": (True, None, SPARSE, {}),
    "dare_ties unbiased": (True, None, SPARSE, {"unbiased": True}),
    "della": (True, None, SPARSE, {}),
    "della unbiased": (True, None, SPARSE, {"unbiased": True}),
}


def recipe(label: str, names: Sequence[str], step: int) -> Recipe:
    """A recipe that differs a little in every step, as candidates do."""
    based, count, per_model, shared = METHODS[label]
    base, *others = names
    sources = tuple(
        Source(
            name, None, Parameters.constants({k: a + b * step for k, (a, b) in per_model.items()})
        )
        for name in others[:count]
    )
    values = {
        k: float(v) + 0.01 * step if k in ("t", "select_topk") else v for k, v in shared.items()
    }
    return Recipe(
        label.split(maxsplit=1)[0],
        sources,
        base_model=base if based else None,
        parameters=Parameters.constants(values),
    )


class Floor:
    """The C pass over all tensors of a model."""

    def __init__(self, folder: Path, pool: ParentPool, names: Sequence[str]) -> None:
        library = folder / "floor.so"
        flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, "-o", library, HERE / "floor.c"], check=True)
        self._pass = ctypes.CDLL(str(library)).linear_combination
        self._parents = {n: [pool.get(m, n) for m in names] for n in pool.infos(names[0])}

    def run(self, streams: int, outs: Mapping[str, torch.Tensor]) -> None:
        """Write a combination of the first `streams` models."""
        factors = (ctypes.c_float * streams)(*[1.0 / streams] * streams)
        for name, tensors in self._parents.items():
            pointers = (ctypes.c_void_p * streams)(*[t.data_ptr() for t in tensors[:streams]])
            out = ctypes.c_void_p(outs[name].data_ptr())
            self._pass(streams, pointers, factors, out, ctypes.c_int64(outs[name].numel()))


def seconds(action: Callable[[], object]) -> float:
    """CPU seconds of this thread."""
    began = time.thread_time()
    action()
    return time.thread_time() - began


def merge_all(engine: Materializer, wanted: Recipe, outs: Mapping[str, torch.Tensor]) -> None:
    """One candidate, as a worker builds it."""
    for planned in engine.plan(wanted):
        planned.write(outs[planned.name])


def measure(
    folder: Path, names: Sequence[str], labels: Sequence[str], kernels: Kernels, repeats: int
) -> dict[str, dict[str, float]]:
    """CPU milliseconds and ratios to the floor of every method."""

    def given(elements: int) -> Kernels:
        del elements
        return kernels

    materialize.choose_kernels = given  # type: ignore[attr-defined]
    pool = ParentPool.open(names, folder)
    engine = Materializer(pool)
    outs = {n: torch.empty(i.shape, dtype=torch.bfloat16) for n, i in pool.infos(names[0]).items()}
    floor = Floor(folder, pool, names)
    rows: dict[str, dict[str, float]] = {}
    for label in labels:
        wanted = recipe(label, names, 0)
        streams = len(wanted.models) + (wanted.base_model is not None)
        first = seconds(partial(merge_all, engine, wanted, outs))
        floor.run(streams, outs)
        floors, costs = [], []
        for step in range(1, repeats + 1):
            wanted = recipe(label, names, step)
            floors.append(seconds(partial(floor.run, streams, outs)))
            costs.append(seconds(partial(merge_all, engine, wanted, outs)))
        ratios = [cost / low for cost, low in zip(costs, floors, strict=True)]
        rows[label] = {
            "first_ms": round(1000 * first),
            "ms": round(1000 * statistics.median(costs), 1),
            "floor_ms": round(1000 * statistics.median(floors), 1),
            "ratio": round(statistics.median(ratios), 2),
            "lowest": round(min(ratios), 2),
            "highest": round(max(ratios), 2),
        }
        print(f"{label:22}", rows[label], flush=True)
    return rows


def mergekit_seconds(python: str, folder: Path, names: Sequence[str]) -> dict[str, float]:
    """CPU seconds of mergekit for the same recipes; those with rules of their own are left out."""
    recipes = {}
    for label in METHODS:
        if label in SIGNATURES:
            plain = to_mapping(recipe(label, names, 1)) | {"dtype": "bfloat16"}
            recipes[label] = plain
    path = folder / "recipes.json"
    path.write_text(json.dumps(recipes))
    done = subprocess.run(
        [python, HERE / "incumbent.py", folder, path],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    seconds: dict[str, float] = json.loads(done.stdout)
    return {label: round(value, 2) for label, value in seconds.items()}


def scaling(folder: Path) -> list[dict[str, float | str]]:
    """Milliseconds and nanoseconds per element against parents, size and threads."""
    rows: list[dict[str, float | str]] = []
    sizes = [(1.345e8, count) for count in (1, 2, 4, 8)] + [(1e7, 3), (1e9, 3)]
    for elements, count in sizes:
        place = folder / f"{elements:g}-{count}"
        names = write_parents(place, count=count, elements=elements, dtype=torch.bfloat16)
        for label in ("linear", "ties"):
            row = measure(place, names, [label], COMPILED, 3)[label]
            pool = ParentPool.open(names[:1], place)
            total = sum(torch.Size(i.shape).numel() for i in pool.infos(names[0]).values())
            cost = {"parents": count, "elements": total, "ns_per_element": row["ms"] * 1e6 / total}
            rows.append({"method": label, **cost, **row})
        shutil.rmtree(place)
    return rows


def private_mb() -> int:
    """Memory that no other process can share, now, in MB: without the mapped parents."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) // 1024


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="10M elements, 3 repeats, no file")
    parser.add_argument("--scaling", action="store_true", help="also parents 1 to 8, 10M to 1B")
    parser.add_argument("--mergekit", help="a Python that can import mergekit 0.1.5")
    options = parser.parse_args()
    quick = options.quick
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        size = 1e7 if quick else 1.345e8
        names = write_parents(folder, count=3, elements=size, dtype=torch.bfloat16)
        repeats = 3 if quick else 9
        compiled = measure(folder, names, list(METHODS), COMPILED, repeats)
        memory = {"private_mb": private_mb(), "peak_mb": _peak()}
        blockwise = measure(folder, names, PLAIN, BLOCKWISE, max(repeats // 3, 1))
        result: dict[str, object] = {"compiled": compiled, "blockwise": blockwise, "memory": memory}
        if options.mergekit:
            theirs = mergekit_seconds(options.mergekit, folder, names)
            result["mergekit_s"] = theirs
            result["times_faster"] = {
                label: round(1000 * theirs[label.split()[0]] / row["ms"])
                for label, row in compiled.items()
            }
        if options.scaling:
            result["scaling"] = scaling(folder)
    if not quick:
        (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
