"""What repeating one block of layers does to a model, for every block in its middle.

    python experiments/stacking/blocks.py MODEL SUITE [--longest 8] [--items 96] [--name NAME]

MODEL is a folder, SUITE a file with an `objective:`. For every block of consecutive layers between
the first tenth and the last tenth of MODEL the stack 0..end, start..last is assembled by reference;
the loss of prompts with their answers and the score on the same items are measured. Writes
NAME.json and the map NAME.svg.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

from evomerge.candidate import ItemSelection
from evomerge.evaluate.lm_harness import LmHarness
from evomerge.evaluate.splits import minibatch
from evomerge.run.build import evaluator_spec
from evomerge.run.config import read_objective
from evomerge.score import Objective
from evomerge.stack import Path as StackPath
from evomerge.stack import Segment, recipe_of
from evomerge.weights.cost import depth_of
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident_stack import ResidentStack
from evomerge.weights.saved import best_device

HERE = Path(__file__).resolve().parent
MARGIN = 0.1


def blocks(depth: int, longest: int) -> list[tuple[int, int]]:
    """Every block of 1 to `longest` layers away from both ends."""
    first, last = max(1, round(MARGIN * depth)), depth - max(1, round(MARGIN * depth))
    return [(i, j) for i in range(first, last) for j in range(i + 1, min(i + longest, last) + 1)]


def main() -> None:
    """Measure and draw the map."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("suite", type=Path)
    parser.add_argument("--longest", type=int, default=8)
    parser.add_argument("--items", type=int, default=96)
    parser.add_argument("--name", default="blocks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pool = ParentPool.open([options.model], Path.cwd())
    resident = ResidentStack(pool, device=best_device())
    depth = depth_of(pool.parent(options.model))

    def become(path: StackPath) -> None:
        resident.become(recipe_of(path, donor=options.model, scale_mode="stream", dtype=None))

    become((Segment(options.model, 0, depth),))
    spec = evaluator_spec(read_objective(options.suite), options.suite.resolve().parent)
    harness = LmHarness(resident.model, resident.tokenizer(options.model), spec, best_device())
    objective = Objective(harness.goals())
    whole = ItemSelection(tuple(harness.items().items()))
    items = minibatch(whole, options.items, generation=0, seed=1)

    def measured() -> dict[str, float]:
        return {
            "loss": round(harness.prompt_loss(items), 4),
            "score": round(objective.fitness(harness.evaluate(items)), 4),
        }

    found = {"model": options.model, "items": items.count, "depth": depth, "whole": measured()}
    print("whole", found["whole"], flush=True)
    rows = []
    for start, end in blocks(depth, options.longest):
        began = time.perf_counter()
        become((Segment(options.model, 0, end), Segment(options.model, start, depth)))
        built = time.perf_counter() - began
        rows.append({"start": start, "end": end, "build_ms": round(1000 * built, 2), **measured()})
        print(rows[-1], flush=True)
    found["blocks"] = rows
    (HERE / f"{options.name}.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, HERE / f"{options.name}.svg")


def draw(found: dict, target: Path) -> None:  # type: ignore[type-arg]
    """Two maps: start of the block against its length, coloured by loss and by score."""
    rows, whole = found["blocks"], found["whole"]
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    longest = max(row["end"] - row["start"] for row in rows)
    for axis, key, better in zip(axes, ("loss", "score"), (-1.0, 1.0), strict=True):
        grid = [[float("nan")] * found["depth"] for _ in range(longest)]
        for row in rows:
            grid[row["end"] - row["start"] - 1][row["start"]] = better * (row[key] - whole[key])
        limit = max(abs(row[key] - whole[key]) for row in rows) or 1.0
        image = axis.imshow(
            grid, cmap="RdBu", vmin=-limit, vmax=limit, origin="lower", aspect="auto",
            extent=(-0.5, found["depth"] - 0.5, 0.5, longest + 0.5),
        )  # fmt: skip
        axis.set_xlabel("first layer of the repeated block")
        axis.set_ylabel("layers repeated")
        sign = "" if better > 0 else "minus "
        axis.set_title(f"{sign}{key}, against the model as it is", fontsize=10)
        figure.colorbar(image, ax=axis)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
