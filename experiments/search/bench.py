"""Protocols on landscapes under equal budgets: what they return, what they claim, what they spend.

    python experiments/search/bench.py            # all; cells that are there already are skipped
    python experiments/search/bench.py --quick    # two terrains, three budgets, three seeds

Cells are kept one a line in runs/search/cells.jsonl, and all that are in it are condensed into
experiments/search/results.json (not with --quick).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).resolve().parent
RUNS = HERE.parents[1] / "runs" / "search"
RESULTS = HERE / "results.json"
SEEDS = 8

Cell = tuple[str, str, int, int]
"""Landscape, protocol, budget, seed."""

SMALL, LARGE = (2_000, 5_000, 10_000), (30_000, 100_000)
BUDGETS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "6 smooth": (*SMALL, *LARGE),
        "6 rough": (*SMALL, *LARGE),
        "24 smooth": (5_000, 10_000, 50_000),
        "24 rough": (5_000, 10_000, 50_000),
        "64 depth": (10_000, 50_000),
        "64 free": (10_000, 50_000),
        "read and write": (5_000, 10_000, *LARGE),
        "two halves": (5_000, 10_000, *LARGE),
    }
)
MOST: Mapping[str, int] = MappingProxyType(
    {"CMA-ES, fixed 20": 10_000, "Mergenetic": 10_000, "random, fixed 100": 30_000}
)
"""Larger budgets are left out where a protocol was never meant for them: 20 fixed items are 500
candidates at 10,000, and Mergenetic's own configurations stop at 700."""
REAL = ("read and write", "two halves")
MOST_REAL = 30_000
"""With real merges, except for Sakana's protocol, whose figure at 100,000 is the goal."""
MERGENETIC = 7 * 5 * 20
"""The budget of Mergenetic's shipped configurations, run beside the common ones."""


def cells(protocols: Iterable[str], landscapes: Iterable[str], seeds: int) -> Iterator[Cell]:
    """All cells; whole seeds first, so that an interrupted bench is balanced."""
    for seed in range(seeds):
        for place in landscapes:
            for name in protocols:
                if name == "Mergenetic":
                    yield (place, name, MERGENETIC, seed)
                for budget in BUDGETS[place]:
                    if budget <= most(name, place):
                        yield (place, name, budget, seed)


def most(protocol: str, landscape: str) -> int:
    """The largest budget that a protocol is given there."""
    largest = max(BUDGETS[landscape])
    if landscape in REAL and protocol != "Sakana":
        largest = MOST_REAL
    return min(largest, MOST.get(protocol, largest))


def measure(cell: Cell) -> dict[str, Any]:
    """Run one cell; in a process of its own, with one thread."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # imported where the work is done: torch takes seconds
    from harness import landscape_of, run  # noqa: PLC0415
    from protocols import PROTOCOLS  # noqa: PLC0415

    place, name, budget, seed = cell
    row = run(landscape_of(place, seed), PROTOCOLS[name], budget, seed)
    return {"landscape": place, "protocol": name, "budget": budget, "seed": seed, **asdict(row)}


def known(path: Path) -> list[dict[str, Any]]:
    """The cells that are there already; a line cut short by a crash is dropped."""
    rows: list[dict[str, Any]] = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                continue
    return rows


def key(row: Mapping[str, Any]) -> Cell:
    """Which cell a row is of."""
    return (row["landscape"], row["protocol"], row["budget"], row["seed"])


def fill(
    path: Path, wanted: list[Cell], work: Callable[[Cell], dict[str, Any]], until: float
) -> None:
    """Run what is not there yet, two at a time, a line for each; none begins after `until`."""
    there = {key(row) for row in known(path)}
    todo = [cell for cell in wanted if cell not in there]
    path.parent.mkdir(parents=True, exist_ok=True)
    context = get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool, path.open("a") as file:
        begun = iter(todo)
        running = {pool.submit(work, cell) for cell in _next(begun, 4, until)}
        done = 0
        while running:
            finished = next(as_completed(running))
            running.remove(finished)
            file.write(json.dumps(finished.result()) + "\n")
            file.flush()
            done += 1
            if done % 50 == 0:
                print(f"{done} of {len(todo)} cells", flush=True)
            running |= {pool.submit(work, cell) for cell in _next(begun, 1, until)}


def _next(begun: Iterator[Cell], count: int, until: float) -> Iterator[Cell]:
    for _ in range(count):
        if time.time() < until:
            yield from (cell for cell in [next(begun, None)] if cell is not None)


def main() -> None:
    """Fill the table, then condense it."""
    from condense import condensed  # noqa: PLC0415 - numpy, after --help
    from protocols import PROTOCOLS  # noqa: PLC0415

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--landscapes", nargs="+", choices=list(BUDGETS), default=list(BUDGETS))
    parser.add_argument("--protocols", nargs="+", choices=list(PROTOCOLS), default=list(PROTOCOLS))
    parser.add_argument("--budgets", nargs="+", type=int, help="only these")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no cell after this long")
    arguments = parser.parse_args()
    until = time.time() + 60 * arguments.minutes
    if arguments.quick:
        chosen = cells(arguments.protocols, ("6 smooth", "24 smooth"), 3)
        wanted = [cell for cell in chosen if cell[2] <= 10_000]
        fill(RUNS / "quick.jsonl", wanted, measure, until)
        rows = known(RUNS / "quick.jsonl")
        print(json.dumps(condensed(rows), indent=1))
        return
    path = RUNS / "cells.jsonl"
    chosen = cells(arguments.protocols, arguments.landscapes, arguments.seeds)
    wanted = [c for c in chosen if arguments.budgets is None or c[2] in arguments.budgets]
    fill(path, wanted, measure, until)
    text = json.dumps(condensed(known(path)), indent=1) + "\n"
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
