"""How many items a candidate should be asked when building it takes time: the same time for all.

    python experiments/search/merge_cost.py      # cells that are there already are skipped

Time is counted in items: building a merge takes as long as `COSTS` items, and a run ends when
`TIME` items could have been scored. The few merges that the final builds again are not charged.
Writes experiments/search/merge_cost.json: true quality by cost and items per candidate.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

import numpy as np
from bench import HERE, RUNS, Cell, fill, known

LANDSCAPES = ("6 smooth", "24 smooth", "64 depth")
TIME = 20_000
COSTS = (0, 5, 20, 50, 100, 400)
SEEDS = 8

ASKED: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "20, twice the population": (20, 2),
        "50, twice the population": (50, 2),
        "50": (50, 1),
        "100, twice the population": (100, 2),
        "100": (100, 1),
        "200": (200, 1),
    }
)
"""Items of a candidate, and how many times CMA-ES's usual population."""


def part_of(cost: int, asked: str) -> str:
    """How a cell of the results file is called."""
    return f"{asked} items, merge {cost}"


PARTS = MappingProxyType(
    {part_of(cost, asked): (cost, *sizes) for cost in COSTS for asked, sizes in ASKED.items()}
)


def measure(cell: Cell) -> dict[str, Any]:
    """Run one cell; the setting takes the protocol's place."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from harness import landscape_of, run  # noqa: PLC0415 - torch takes seconds
    from protocols import evomerge  # noqa: PLC0415

    from evomerge.search.cma_es import default_population  # noqa: PLC0415

    place, part, budget, seed = cell
    cost, items, times = PARTS[part]
    landscape = landscape_of(place, seed)
    population = times * default_population(landscape.space.dimension)
    affordable = budget * items // (items + cost)
    protocol = evomerge({"minibatch": items, "population": population})
    row = run(landscape, protocol, affordable, seed)
    return {"landscape": place, "protocol": part, "budget": budget, "seed": seed, **asdict(row)}


def compared(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean truth, and the difference to the best setting of the same cost, by seed."""
    truth = {(r["landscape"], r["protocol"], r["seed"]): 100.0 * r["truth"] for r in rows}
    found: list[dict[str, Any]] = []
    for place in LANDSCAPES:
        for cost in COSTS:
            values = {
                asked: [truth.get((place, part_of(cost, asked), s), np.nan) for s in range(SEEDS)]
                for asked in ASKED
            }
            means = {asked: float(np.nanmean(values[asked])) for asked in ASKED}
            best = values[max(means, key=lambda asked: means[asked])]
            for asked, mean in means.items():
                gap = np.asarray(values[asked]) - np.asarray(best)
                found.append(
                    {
                        "landscape": place,
                        "cost": cost,
                        "asked": asked,
                        "truth": round(mean, 1),
                        "behind": round(float(np.nanmean(gap)), 1),
                        "error": round(float(np.nanstd(gap, ddof=1)) / SEEDS**0.5, 1),
                    }
                )
    return found


def main() -> None:
    """Fill the table, then compare."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    path = RUNS / "merge_cost.jsonl"
    wanted = [
        (place, part, TIME, seed) for seed in range(SEEDS) for place in LANDSCAPES for part in PARTS
    ]
    fill(path, wanted, measure, time.time() + 1e9)
    text = json.dumps(compared(known(path)), indent=1) + "\n"
    (HERE / "merge_cost.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
