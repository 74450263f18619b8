"""One cell of the bench: a protocol on a landscape with a budget, through the engine, measured."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from landscapes import MICRO, SIMULATED, Landscape
from protocols import Protocol
from simulator import Floats

from evomerge.candidate import SEARCH, Scored
from evomerge.run.baselines import baselines
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.driver import Search
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger
from evomerge.run.plan import RunPlan
from evomerge.run.pool import WorkerPool
from evomerge.run.pools.inline import InlinePool
from evomerge.run.progress import Evaluated, Finished
from evomerge.score import TaskOutcomes, joined
from evomerge.statistics import fitness_interval

MEMORY = Path("/dev/shm")
"""A RAM disk, where there is one."""
HOLDOUT = "holdout"


@dataclass(frozen=True)
class Row:
    """What became of one search; qualities in [0, 1].

    Attributes:
        truth: of the recipe handed over, on items outside the run.
        claimed: its score when it was chosen: in the final, or else in the search.
        claim_low, claim_high: the 95 % interval of that score.
        quoted: its score on the holdout, which the report quotes, with its interval.
        bar: the truth of the best baseline.
        below: whether the recipe handed over is truly worse than that by more than one standard
            error of the difference.
        is_baseline: whether a baseline was handed over.
        origin: what the recipe was: a proposal, a late mean, the label of a baseline.
        items: scored in all, but for the holdout.
        candidates: merges built.
        seconds: wall time.
    """

    truth: float
    claimed: float
    claim_low: float
    claim_high: float
    quoted: float
    low: float
    high: float
    bar: float
    below: bool
    is_baseline: bool
    origin: str
    items: int
    candidates: int
    seconds: float


PoolOf = Callable[[Landscape], WorkerPool]


def inline(landscape: Landscape) -> WorkerPool:
    """One worker in this process, without failures."""
    return InlinePool(landscape.worker(0.0))


def landscape_of(name: str, seed: int) -> Landscape:
    """The landscape called `name`."""
    if name not in MICRO:
        return SIMULATED[name](seed)
    from micro import micro  # noqa: PLC0415 - torch takes seconds

    return micro(name, seed)


def run(
    landscape: Landscape, protocol: Protocol, budget: int, seed: int, pool_of: PoolOf = inline
) -> Row:
    """Search with one protocol."""
    plan = protocol(landscape, budget, seed)
    began = time.perf_counter()
    place = MEMORY if MEMORY.is_dir() else None
    with (
        tempfile.TemporaryDirectory(dir=place, prefix="search-bench-") as folder,
        Ledger.open(Path(folder)) as ledger,
        pool_of(landscape) as pool,
    ):
        stop = threading.Event()
        evaluations = Evaluations(ledger, Dispatcher(pool), plan.objective, stop)
        finished, items = _drive(plan, ledger, evaluations)
        winner = finished.winner
        claim = _outcomes(ledger, winner.id, plan)
        quote = _counted(ledger, winner.id, HOLDOUT)
        candidates = ledger.next_candidate
    seconds = time.perf_counter() - began
    claimed = fitness_interval(plan.objective, claim)
    quoted = fitness_interval(plan.objective, quote)
    ours, bar = landscape.truth(winner.recipe), best_baseline(landscape)
    difference = ours - bar
    error = float(difference.std() / np.sqrt(difference.size))
    return Row(
        truth=float(ours.mean()),
        claimed=claimed.value,
        claim_low=claimed.low,
        claim_high=claimed.high,
        quoted=quoted.value,
        low=quoted.low,
        high=quoted.high,
        bar=float(bar.mean()),
        below=bool(difference.mean() < -error),
        is_baseline=finished.is_baseline,
        origin=winner.origin,
        items=items,
        candidates=candidates,
        seconds=round(seconds, 2),
    )


def best_baseline(landscape: Landscape) -> Floats:
    """The truth of the truly best baseline."""
    found = [landscape.truth(baseline.recipe) for baseline in baselines(landscape.space)]
    return max(found, key=lambda values: float(values.mean()))


def _drive(plan: RunPlan, ledger: Ledger, evaluations: Evaluations) -> tuple[Finished, int]:
    """To the end; how it ended, and the items spent before the holdout."""
    items, finished = 0, None
    for progress in Search(plan, ledger, evaluations).run():
        if isinstance(progress, Evaluated) and progress.stage != HOLDOUT:
            items = progress.items_spent
        if isinstance(progress, Finished):
            finished = progress
    assert finished is not None, "a search ends with Finished"
    return finished, items


def _outcomes(ledger: Ledger, winner: int, plan: RunPlan) -> tuple[TaskOutcomes, ...]:
    """What the winner's claim rests on: the rungs of the final, else its score in the search."""
    stages = [f"final {rung}" for rung in (1, 2, 3)]
    if plan.stages[-1].final is None:
        stages = [SEARCH, "baseline"]
    found = [_counted(ledger, winner, s) for s in stages if ledger.counted((winner, s))]
    return joined(found)


def _counted(ledger: Ledger, candidate: int, stage: str) -> tuple[TaskOutcomes, ...]:
    known = ledger.counted((candidate, stage))
    assert known is not None, "it was scored"
    assert isinstance(known[1], Scored), "it was scored"
    return known[1].results
