"""The final: finalists meet on held-back items, and the winner must beat the best baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from evomerge.candidate import ItemSelection
from evomerge.front import front, spread
from evomerge.run.judging import Judged
from evomerge.score import Objective, TaskOutcomes
from evomerge.seeding import generator
from evomerge.statistics import PairedDifference, best_of_many, paired_difference

RUNGS = (0.25, 0.5, 1.0)
"""Shares of the selection items that have been scored after each rung."""
HALF = 1 / 2
TWO_THIRDS = 2 / 3
"""Shares of the finalists that go on after a rung: with one objective, and with several."""
SIGNIFICANCE = 0.05

Results = tuple[TaskOutcomes, ...]


@dataclass(frozen=True)
class Decision:
    """Who is handed over, and the paired test of the best challenger against the best baseline.

    Attributes:
        winner: who is handed over.
        best_baseline: the bar; None without a final, or when every baseline violates a constraint.
        challenger: the best of the others; None when there is none.
        comparison: of both; None when one is missing.
        front: with several objectives, those that keep all constraints and that nobody dominates.
        violating: those of the last rung that violate a constraint on the selection items; when the
            winner is among them, nobody keeps all.
    """

    winner: int
    best_baseline: int | None
    challenger: int | None
    comparison: PairedDifference | None
    front: tuple[int, ...] = ()
    violating: tuple[int, ...] = ()

    @property
    def is_baseline(self) -> bool:
        """Whether nothing beat the best baseline."""
        return self.winner == self.best_baseline

    def facts(self) -> Mapping[str, int | float | Sequence[int] | None]:
        """As the ledger keeps it."""
        comparison = self.comparison
        return {
            "winner": self.winner,
            "best_baseline": self.best_baseline,
            "challenger": self.challenger,
            "difference": None if comparison is None else comparison.value,
            "p_value": None if comparison is None else comparison.p_value,
            "front": list(self.front),
            "violating": list(self.violating),
        }


def rungs(items: ItemSelection, seed: int, part: float = 1.0) -> tuple[ItemSelection, ...]:
    """The items that each rung adds, disjoint, in a seeded order, of every task at least one.

    There are fewer rungs where a task is too small. With a `part` below 1 each has that part of its
    items: drawn, too, since neighbours in a data set are often alike.
    """
    shuffled = {
        task: [ids[i] for i in generator(seed, "final", task).permutation(len(ids))]
        for task, ids in items.tasks
    }
    cuts = [dict.fromkeys(shuffled, 0)]
    for share in RUNGS:
        cut = {task: int(part * math.ceil(share * len(ids))) for task, ids in shuffled.items()}
        if all(cut[task] > before for task, before in cuts[-1].items()):
            cuts.append(cut)
    # what is left over, where a task is too small for another rung, belongs to the last
    cuts[max(1, len(cuts) - 1) :] = [{task: max(1, count) for task, count in cut.items()}]
    return tuple(
        ItemSelection(
            tuple((t, tuple(sorted(ids[low[t] : high[t]]))) for t, ids in shuffled.items())
        )
        for low, high in pairwise(cuts)
    )


def going_on(objective: Objective) -> float:
    """The share of the finalists that go on after a rung: a front needs more of them."""
    return TWO_THIRDS if objective.trades else HALF


def cost(finalists: int, rung_items: Sequence[ItemSelection], share: float) -> int:
    """Items that a final scores, at most, of whose finalists a share goes on after each rung."""
    total = 0
    for rung in rung_items:
        total += finalists * rung.count
        finalists = math.ceil(finalists * share) + 1
    return total


def survivors(
    judged: Mapping[int, Judged], baselines: frozenset[int], share: float
) -> tuple[int, ...]:
    """The better share, and the best baseline whatever its rank.

    With several objectives the better ones are front after front, the last one thinned.
    """
    ranked = by_worth(judged)
    count = math.ceil(len(ranked) * share)
    several = any(one.point for one in judged.values())
    places = spread([judged[c].point for c in ranked], count) if several else range(count)
    kept = [ranked[place] for place in places]
    best_baseline = next((c for c in ranked if c in baselines), None)
    if best_baseline is not None and best_baseline not in kept:
        kept.append(best_baseline)
    return tuple(kept)


def by_worth(judged: Mapping[int, Judged]) -> list[int]:
    """The candidates, best first; those of equal worth in the order of ids."""
    return sorted(judged, key=lambda c: (-judged[c].worth, c))


def decide(
    objective: Objective,
    results: Mapping[int, Results],
    judged: Mapping[int, Judged],
    baselines: frozenset[int],
    left: Mapping[int, Results],
) -> Decision:
    """The best challenger wins if a paired one-sided test puts it above the best baseline.

    Whoever violates a constraint neither wins nor is a bar; when all do, the one that is worth most
    is handed over, untested. `results` holds the outcomes of the last rung's models on all
    selection items, `judged` what follows from them. `left` has those who left before, on the items
    they met: that the best of all challengers is tested is part of the p-value.
    """
    ranked = by_worth(judged)
    violating = tuple(sorted(c for c in ranked if judged[c].worth < judged[c].fitness))
    kept = [c for c in ranked if c not in violating]
    if not kept:
        return Decision(ranked[0], None, None, None, (), violating)
    members = front_of({c: judged[c] for c in kept}) if objective.trades else ()
    bar = next((c for c in kept if c in baselines), None)
    challenger = next((c for c in kept if c not in baselines), None)
    if bar is None or challenger is None:
        winner = challenger if bar is None else bar
        assert winner is not None, "somebody keeps all constraints"
        return Decision(winner, bar, challenger, None, members, violating)
    comparison = paired_difference(objective, results[challenger], results[bar])
    rivals = [results[c] for c in kept if c not in baselines and c != challenger]
    rivals += [found for c, found in left.items() if c not in baselines]
    if rivals:
        p_value = best_of_many(objective, results[challenger], rivals, results[bar])
        comparison = replace(comparison, p_value=p_value)
    won = comparison.value > 0 and comparison.p_value < SIGNIFICANCE
    return Decision(challenger if won else bar, bar, challenger, comparison, members, violating)


def front_of(judged: Mapping[int, Judged]) -> tuple[int, ...]:
    """Those that nobody dominates by point estimates, from most to least of the first objective."""
    numbers = list(judged)
    places = front([judged[number].point for number in numbers])
    return tuple(sorted((numbers[p] for p in places), key=lambda c: (-judged[c].point[0], c)))
