"""What each part of the protocol is worth: one part changed at a time, through the engine.

    python experiments/search/ablations.py       # cells that are there already are skipped

Writes experiments/search/ablations.json: true quality, and its difference to the default on the
same landscapes and seeds, with standard errors.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import numpy as np
from bench import BUDGETS, HERE, REAL, RUNS, Cell, fill, known

from evomerge.candidate import Genotype
from evomerge.run.baselines import Baseline
from evomerge.run.plan import FinalPlan, StagePlan

DEFAULT = "default"
LONGER = "twice as long coarse"
"""30 % of the candidates for the coarse search in place of 15 %: a constant, no setting."""
LANDSCAPES = (*(name for name in BUDGETS if name not in REAL), "read and write")
BUDGET = 10_000
SEEDS = 8

SETTINGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        DEFAULT: {},
        "fixed items, 20": {"items": "fixed", "minibatch": 20},
        "fixed items, 100": {"items": "fixed", "minibatch": 100},
        "10 items": {"minibatch": 10},
        "20 items, usual population": {"minibatch": 20},
        "50 items": {"minibatch": 50},
        "100 items": {"minibatch": 100},
        "best search score": {"final": "best_score"},
        "final 5 %": {"final_share": 0.05},
        "final 25 %": {"final_share": 0.25},
        "final 40 %": {"final_share": 0.4},
        "no coarse to fine": {"coarse_to_fine": False},
        LONGER: {},
        "first step 0.1": {"sigma": 0.1},
        "first step 0.3": {"sigma": 0.3},
        "genetic algorithm": {"algorithm": "ga"},
        "TPE": {"algorithm": "tpe"},
        "NSGA-II": {"algorithm": "nsga2"},
        "GP, 100 items": {"algorithm": "gp", "minibatch": 100},
        "random": {"algorithm": "random"},
    }
)


def _no_means(stage: StagePlan) -> StagePlan:
    assert stage.final is not None
    return replace(stage, final=FinalPlan(stage.final.share, estimates=False))


def _nowhere(best: Sequence[Baseline]) -> tuple[Genotype, ...]:
    del best
    return ()


def _cold(stage: StagePlan) -> StagePlan:
    """Baselines are scored and are the bar, but the search begins at the space's own start."""
    return replace(stage, starting_points=_nowhere)


CHANGES = MappingProxyType({"no late means": _no_means, "no warm start": _cold})
PARTS = (*SETTINGS, *CHANGES)


def measure(cell: Cell) -> dict[str, Any]:
    """Run one cell; the part takes the protocol's place."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from harness import landscape_of, run  # noqa: PLC0415 - torch takes seconds
    from protocols import evomerge  # noqa: PLC0415

    from evomerge.run import coarse  # noqa: PLC0415

    place, part, budget, seed = cell
    if part in CHANGES:
        protocol = evomerge(changed=CHANGES[part])
    else:
        settings = dict(SETTINGS[part])
        if part == "20 items, usual population":
            from evomerge.search.cma_es import default_population  # noqa: PLC0415

            settings["population"] = default_population(landscape_of(place, seed).space.dimension)
        protocol = evomerge(settings)
    share = 0.3 if part == LONGER else coarse.SHARE
    with patch.object(coarse, "SHARE", share):
        row = run(landscape_of(place, seed), protocol, budget, seed)
    return {"landscape": place, "protocol": part, "budget": budget, "seed": seed, **asdict(row)}


def compared(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each part on each landscape: mean truth, and the difference to the default by seed."""
    truth = {(r["landscape"], r["protocol"], r["seed"]): r for r in rows}
    found: list[dict[str, Any]] = []
    for place in LANDSCAPES:
        for part in PARTS:
            seeds = sorted(
                seed
                for where, what, seed in truth
                if (where, what) == (place, part) and (place, DEFAULT, seed) in truth
            )
            if len(seeds) < 2:
                continue
            ours = np.asarray([truth[place, part, seed]["truth"] for seed in seeds])
            usual = np.asarray([truth[place, DEFAULT, seed]["truth"] for seed in seeds])
            error = (ours - usual).std(ddof=1) / np.sqrt(len(seeds))
            claims = [
                truth[place, part, s]["claimed"] - truth[place, part, s]["truth"] for s in seeds
            ]
            found.append(
                {
                    "landscape": place,
                    "part": part,
                    "seeds": len(seeds),
                    "truth": round(100 * float(ours.mean()), 1),
                    "difference": round(100 * float((ours - usual).mean()), 1),
                    "error": round(100 * float(error), 1),
                    "optimism": round(100 * float(np.median(claims)), 1),
                }
            )
    return found


def main() -> None:
    """Fill the table, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--landscapes", nargs="+", choices=LANDSCAPES, default=LANDSCAPES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no cell after this long")
    arguments = parser.parse_args()
    path = RUNS / "ablations.jsonl"
    wanted = [
        (place, part, BUDGET, seed)
        for seed in range(arguments.seeds)
        for place in arguments.landscapes
        for part in arguments.parts
    ]
    fill(path, wanted, measure, time.time() + 60 * arguments.minutes)
    text = json.dumps(compared(known(path)), indent=1) + "\n"
    (HERE / "ablations.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
