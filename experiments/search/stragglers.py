"""What failures and stragglers cost the search: the default protocol under bad conditions.

    python experiments/search/stragglers.py       # writes stragglers.json

A fifth of the candidates fail; 16 workers take times that differ by 4 times, in virtual time.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from bench import HERE, RUNS, Cell, fill, known

LANDSCAPES = ("6 smooth", "24 smooth")
BUDGET = 10_000
SEEDS = 48
FAILING = 0.2
WORKERS = 16
CONDITIONS = ("one worker", "failures", "stragglers", "both")


def measure(cell: Cell) -> dict[str, Any]:
    """Run one cell; the condition takes the protocol's place."""
    from harness import landscape_of, run  # noqa: PLC0415 - torch takes seconds
    from landscapes import Landscape  # noqa: PLC0415
    from protocols import evomerge  # noqa: PLC0415
    from virtual_pool import VirtualPool  # noqa: PLC0415

    from evomerge.errors import TooManyFailures  # noqa: PLC0415
    from evomerge.run.pool import WorkerPool  # noqa: PLC0415
    from evomerge.run.pools.inline import InlinePool  # noqa: PLC0415

    place, condition, budget, seed = cell
    failing = FAILING if condition in ("failures", "both") else 0.0
    many = condition in ("stragglers", "both")
    made: list[VirtualPool] = []

    def pool_of(landscape: Landscape) -> WorkerPool:
        if not many:
            return InlinePool(landscape.worker(failing))
        made.append(VirtualPool(landscape.worker(failing)(), WORKERS, seed))
        return made[-1]

    found: dict[str, Any] = {"stopped": False, "busy": None}
    try:
        protocol = evomerge(workers=WORKERS if many else 1)
        found |= asdict(run(landscape_of(place, seed), protocol, budget, seed, pool_of))
    except TooManyFailures:
        found["stopped"] = True  # by the failure policy: 15 of the last 20 failed
    if made:
        found["busy"] = made[-1].busy / (WORKERS * max(made[-1].clock, 1e-9))
    return {"landscape": place, "protocol": condition, "budget": budget, "seed": seed, **found}


def compared(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean truth by condition, its difference to one worker's, and how busy workers were."""
    by = {(r["landscape"], r["protocol"], r["seed"]): r for r in rows}
    found: list[dict[str, Any]] = []
    for place in LANDSCAPES:
        for condition in CONDITIONS:
            mine = {s: by[place, condition, s] for s in range(SEEDS) if (place, condition, s) in by}
            seeds = [
                s
                for s, row in mine.items()
                if not row["stopped"] and (place, CONDITIONS[0], s) in by
            ]
            if not seeds:
                continue
            gain = [mine[s]["truth"] - by[place, CONDITIONS[0], s]["truth"] for s in seeds]
            busy = [mine[s]["busy"] for s in seeds if mine[s]["busy"] is not None]
            found.append(
                {
                    "landscape": place,
                    "condition": condition,
                    "seeds": len(seeds),
                    "stopped": sum(row["stopped"] for row in mine.values()),
                    "truth": round(100 * float(np.mean([mine[s]["truth"] for s in seeds])), 1),
                    "difference": round(100 * float(np.mean(gain)), 1),
                    "error": round(100 * float(np.std(gain) / np.sqrt(max(len(gain) - 1, 1))), 1),
                    "busy_percent": round(100 * float(np.mean(busy)), 1) if busy else None,
                }
            )
    return found


def main() -> None:
    """Fill the table, then compare."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    path = RUNS / "stragglers.jsonl"
    wanted = [
        (place, condition, BUDGET, seed)
        for seed in range(SEEDS)
        for place in LANDSCAPES
        for condition in CONDITIONS
    ]
    fill(path, wanted, measure, time.time() + 1e9)
    text = json.dumps(compared(known(path)), indent=1) + "\n"
    (HERE / "stragglers.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
