"""RunPlan: everything a run is a function of, resolved; built once, never changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from evomerge.candidate import Genotype, ItemSelection
from evomerge.run.baselines import Baseline
from evomerge.score import Objective
from evomerge.search.strategy import Strategy
from evomerge.space import SearchSpace

FINAL_SHARE = 0.25
"""Share of an item or time budget that is kept for the final."""


@dataclass(frozen=True)
class Budget:
    """Limits of a run; None is unlimited. `seconds` is the wall time of baselines and search."""

    candidates: int | None
    items: int | None
    seconds: float | None


@dataclass(frozen=True)
class RunPlan:
    """The inputs of a search. `minibatch` counts fresh items per task and generation."""

    space: SearchSpace
    objective: Objective
    search_items: ItemSelection
    selection_items: ItemSelection
    holdout_items: ItemSelection
    baselines: tuple[Baseline, ...]
    algorithm: str
    strategy: Callable[[Genotype], Strategy]
    """Makes the strategy, given the genotype to start from."""
    lookahead: int
    minibatch: int
    budget: Budget
    seed: int
