"""The final: finalists meet on held-back items, and the winner must beat the best baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evomerge.candidate import ItemSelection
from evomerge.score import Objective, TaskOutcomes
from evomerge.seeding import generator
from evomerge.statistics import PairedDifference, best_of_many, paired_difference

RUNGS = (0.25, 0.5, 1.0)
"""Shares of the selection items that have been scored after each rung."""
SIGNIFICANCE = 0.05

Results = tuple[TaskOutcomes, ...]


@dataclass(frozen=True)
class Decision:
    """Who is handed over, and the paired test of the best challenger against the best baseline.

    Without a final there is no such baseline, and nothing was tested.
    """

    winner: int
    best_baseline: int | None
    challenger: int | None
    comparison: PairedDifference | None

    @property
    def is_baseline(self) -> bool:
        """Whether nothing beat the best baseline."""
        return self.winner == self.best_baseline

    def facts(self) -> Mapping[str, int | float | bool | None]:
        """As the ledger keeps it."""
        comparison = self.comparison
        return {
            "winner": self.winner,
            "best_baseline": self.best_baseline,
            "challenger": self.challenger,
            "difference": None if comparison is None else comparison.value,
            "p_value": None if comparison is None else comparison.p_value,
        }


def rungs(items: ItemSelection, seed: int) -> tuple[ItemSelection, ...]:
    """The items that each rung adds, disjoint, in a seeded order; empty rungs are left out."""
    shuffled = {
        task: [ids[i] for i in generator(seed, "final", task).permutation(len(ids))]
        for task, ids in items.tasks
    }
    parts: list[ItemSelection] = []
    done = 0.0
    for share in RUNGS:
        tasks = tuple(
            (task, tuple(sorted(ids[math.ceil(done * len(ids)) : math.ceil(share * len(ids))])))
            for task, ids in shuffled.items()
        )
        done = share
        if all(ids for _, ids in tasks):
            parts.append(ItemSelection(tasks))
    return tuple(parts)


def cost(finalists: int, rung_items: Sequence[ItemSelection]) -> int:
    """Items that a final with this many finalists scores, at most."""
    total = 0
    for rung in rung_items:
        total += finalists * rung.count
        finalists = math.ceil(finalists / 2) + 1
    return total


def survivors(
    objective: Objective, results: Mapping[int, Results], baselines: frozenset[int]
) -> tuple[int, ...]:
    """The better half, and the best baseline whatever its rank."""
    ranked = sorted(results, key=lambda c: (-objective.fitness(results[c]), c))
    kept = ranked[: math.ceil(len(ranked) / 2)]
    best_baseline = next((c for c in ranked if c in baselines), None)
    if best_baseline is not None and best_baseline not in kept:
        kept.append(best_baseline)
    return tuple(kept)


def decide(
    objective: Objective,
    results: Mapping[int, Results],
    baselines: frozenset[int],
    left: Mapping[int, Results],
) -> Decision:
    """The best challenger wins if a paired one-sided test puts it above the best baseline.

    `results` holds the outcomes of the last rung's models on all selection items; at least one of
    them is a baseline. `left` has those who left before, on the items they met: that the best of
    all challengers is tested is part of the p-value.
    """
    ranked = sorted(results, key=lambda c: (-objective.fitness(results[c]), c))
    best_baseline = next(c for c in ranked if c in baselines)
    challenger = next((c for c in ranked if c not in baselines), None)
    if challenger is None:
        return Decision(best_baseline, best_baseline, None, None)
    bar = results[best_baseline]
    comparison = paired_difference(objective, results[challenger], bar)
    rivals = [results[c] for c in ranked if c not in baselines and c != challenger]
    rivals += [found for c, found in left.items() if c not in baselines]
    if rivals:
        p_value = best_of_many(objective, results[challenger], rivals, bar)
        comparison = replace(comparison, p_value=p_value)
    won = comparison.value > 0 and comparison.p_value < SIGNIFICANCE
    return Decision(challenger if won else best_baseline, best_baseline, challenger, comparison)
