"""Parts that a search protocol could have, tried in a plain loop before they are built.

    python experiments/search/prototypes.py [--seeds 12] [--budgets 10000] [VARIANT ...]

The loop has the engine's shape: CMA-ES on fresh minibatches, then the last means, the mean of the
later half's means and the best candidates meet on selection items, halved after each rung. Every
item that is scored counts. There are no baselines: the search begins at the space's start.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from micro import micro
from micro_terrain import MicroTerrain
from simulator import (
    ROUGH_TERRAIN,
    SEARCH,
    SELECTION,
    SMOOTH_TERRAIN,
    Floats,
    Indices,
    Terrain,
)
from stepping import Ground, Rule, Stepper, coarse_start

from evomerge.seeding import derive, generator

RUNGS = (0.25, 0.5, 1.0)
RESULTS = Path(__file__).resolve().parents[2] / "runs" / "search" / "prototypes.jsonl"


@dataclass(frozen=True)
class Variant:
    """One setting of the protocol.

    Attributes:
        rule: how generations are scored and told.
        final: share of the budget for the final; 0 takes the last mean without one.
        best: how many of the search's best candidates are finalists.
        means: whether means of the distribution are.
        ranking: what makes candidates of different generations comparable: "level" is the engine's
            (above the generation's mean, plus smoothed means); "reference" is the difference to a
            reference candidate, which is scored in every generation on the same items.
        coarse: numbers of blocks per model to search first, and the share of the budget for each.
    """

    rule: Rule
    final: float = 0.25
    best: int = 5
    means: bool = True
    ranking: str = "level"
    coarse: tuple[tuple[int, float], ...] = ()


_BASE = Variant(Rule())


def _rule(**changes: object) -> Variant:
    return replace(_BASE, rule=replace(_BASE.rule, **changes))  # type: ignore[arg-type]


VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "n=50": _BASE,
        "n=10": _rule(minibatch=10),
        "n=20": _rule(minibatch=20),
        "n=100": _rule(minibatch=100),
        "n=200": _rule(minibatch=200),
        "n=1200": _rule(minibatch=1200),
        "n=20 fixed": _rule(minibatch=20, fresh=False),
        "n=100 fixed": _rule(minibatch=100, fresh=False),
        "n grows 20 to 100": _rule(minibatch=20, last_minibatch=100),
        "n grows 10 to 200": _rule(minibatch=10, last_minibatch=200),
        "gold n=50": _rule(gold=1.0),
        "gold n=20": _rule(gold=1.0, minibatch=20),
        "half gold n=50": _rule(gold=0.5),
        "half gold n=20": _rule(gold=0.5, minibatch=20),
        "racing 10+30": _rule(minibatch=10, raced=30, population=2.0),
        "racing 20+60": _rule(minibatch=20, raced=60, population=2.0),
        "racing 25+50": _rule(minibatch=25, raced=50, population=2.0),
        "population x2": _rule(population=2.0),
        "population x2 n=20": _rule(population=2.0, minibatch=20),
        "population x4 n=20": _rule(population=4.0, minibatch=20),
        "full covariance": _rule(diagonal=False),
        "diagonal": _rule(diagonal=True),
        "sigma .1": _rule(sigma=0.1),
        "sigma .3": _rule(sigma=0.3),
        "reference": replace(_BASE, ranking="reference"),
        "no best": replace(_BASE, best=0),
        "no means": replace(_BASE, means=False),
        "last mean, no final": replace(_BASE, final=0.0, best=0),
        "final 10 %": replace(_BASE, final=0.10),
        "final 40 %": replace(_BASE, final=0.40),
        "coarse 1, 4": replace(_BASE, coarse=((1, 0.15), (4, 0.25))),
        "coarse 4": replace(_BASE, coarse=((4, 0.3),)),
        "coarse 8": replace(_BASE, coarse=((8, 0.4),)),
        "coarse 1, 4, 8": replace(_BASE, coarse=((1, 0.1), (4, 0.2), (8, 0.25))),
        "coarse 1, 4, 16": replace(_BASE, coarse=((1, 0.1), (4, 0.2), (16, 0.25))),
    }
)
COARSE = tuple(name for name in VARIANTS if name.startswith("coarse"))

TERRAINS: Mapping[str, Callable[[int], Ground]] = MappingProxyType(
    {
        "6 smooth": lambda seed: Terrain(6, seed, SMOOTH_TERRAIN),
        "6 rough": lambda seed: Terrain(6, seed, ROUGH_TERRAIN),
        "24 smooth": lambda seed: Terrain(24, seed, SMOOTH_TERRAIN),
        "24 rough": lambda seed: Terrain(24, seed, ROUGH_TERRAIN),
        "64 depth": lambda seed: Terrain(64, seed, SMOOTH_TERRAIN, layers=32),
        "64 free": lambda seed: Terrain(64, seed, SMOOTH_TERRAIN),
        "read and write": lambda seed: MicroTerrain(micro("read and write", seed)),
        "two halves": lambda seed: MicroTerrain(micro("two halves", seed)),
    }
)


class Purse:
    """Scores items and counts them (stateful)."""

    def __init__(self, terrain: Ground) -> None:
        self._terrain = terrain
        self.spent = 0

    def score(self, u: Floats, items: Indices, gold: float = 0.0) -> Floats:
        """Per-item scores: right or wrong, mixed with a share of the probability of the answer."""
        self.spent += len(items)
        right = self._terrain.right(u, items)
        return right if gold == 0.0 else (1 - gold) * right + gold * self._terrain.gold(u, items)


@dataclass(frozen=True)
class Found:
    """What a protocol returned: true quality, what it claims, and what it cost."""

    quality: float
    claimed: float
    spent: int


def run(variant: Variant, terrain: Ground, budget: int) -> Found:
    """One search; the same for the same arguments."""
    purse = Purse(terrain)
    search_budget = round(budget * (1.0 - variant.final))
    start = np.full(terrain.dimension, 0.5)
    rule = variant.rule
    for blocks, share in variant.coarse:
        start = coarse_start(rule, terrain, purse, start, blocks, round(share * search_budget))
    stepper = Stepper(rule, terrain, purse, start, reference=variant.ranking == "reference")
    stepper.until(search_budget)
    field = stepper.means if variant.means else []
    field = [*field, *stepper.best(variant.best, variant.ranking), *([start] if field else [])]
    if variant.final == 0.0:
        return Found(terrain.quality(field[0]), float("nan"), purse.spent)
    winner, claimed = _final(purse, field, budget - purse.spent, terrain.seed)
    return Found(terrain.quality(winner), claimed, purse.spent)


def _final(purse: Purse, field: Sequence[Floats], budget: int, seed: int) -> tuple[Floats, float]:
    """Successive halving on the selection items, shortened to what is left."""
    items = SEARCH + generator(derive(seed, "final"), "order").permutation(SELECTION)
    cost, alive, done = 0.0, float(len(field)), 0.0
    for share in RUNGS:
        cost, alive, done = cost + alive * (share - done) * SELECTION, np.ceil(alive / 2), share
    items = items[: max(4, int(SELECTION * min(1.0, budget / cost)))]
    scores: dict[int, Floats] = {place: np.empty(0) for place in range(len(field))}
    begin = 0
    for share in RUNGS:
        part = items[begin : round(share * len(items))]
        begin = round(share * len(items))
        scores = {p: np.append(s, purse.score(field[p], part)) for p, s in scores.items()}
        ranked = sorted(scores, key=lambda p: -float(scores[p].mean()))
        if share < 1.0:
            scores = {place: scores[place] for place in ranked[: -(-len(ranked) // 2)]}
    return field[ranked[0]], float(scores[ranked[0]].mean())


def _cell(job: tuple[str, str, int, int]) -> dict[str, object]:
    name, place, budget, seed = job
    began = time.perf_counter()
    found = run(VARIANTS[name], TERRAINS[place](seed), budget)
    return {
        "variant": name,
        "terrain": place,
        "budget": budget,
        "seed": seed,
        "quality": found.quality,
        "claimed": found.claimed,
        "spent": found.spent,
        "seconds": round(time.perf_counter() - began, 2),
    }


def _jobs(arguments: argparse.Namespace) -> Iterator[tuple[str, str, int, int]]:
    known: set[tuple[object, ...]] = set()
    if RESULTS.exists():
        rows = map(json.loads, RESULTS.read_text().splitlines())
        known = {(r["variant"], r["terrain"], r["budget"], r["seed"]) for r in rows}
    for seed in range(arguments.seeds):
        for budget in arguments.budgets:
            for name in arguments.variants or VARIANTS:
                for place in arguments.terrains or TERRAINS:
                    job = (name, place, budget, seed)
                    if job not in known and not (name in COARSE and place != "64 depth"):
                        yield job


def main() -> None:
    """Run what is not in the results yet, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="*", choices=[[], *VARIANTS])
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--budgets", type=int, nargs="+", default=[10_000])
    parser.add_argument("--terrains", nargs="+", choices=list(TERRAINS))
    arguments = parser.parse_args()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool, RESULTS.open("a") as file:
        for row in pool.map(_cell, list(_jobs(arguments)), chunksize=4):
            file.write(json.dumps(row) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
