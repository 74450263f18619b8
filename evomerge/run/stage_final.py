"""The final of a stage: successive halving of its finalists over the selection items."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import final

from evomerge.candidate import Candidate, ItemSelection
from evomerge.errors import TooManyFailures
from evomerge.run.archive import TOP_BASELINES, TOP_CANDIDATES
from evomerge.run.evaluations import Evaluations
from evomerge.run.final import Decision, Results, cost, decide, rungs, survivors
from evomerge.run.plan import Allotment, FinalPlan, RunPlan
from evomerge.run.progress import Progress
from evomerge.score import joined
from evomerge.search.generations import ESTIMATES

MOST_FINALISTS = TOP_BASELINES + 1 + TOP_CANDIDATES + ESTIMATES
"""Baselines, the best starting point, candidates of the search, and estimates."""


@dataclass(frozen=True)
class StageResult:
    """What a stage found: the decision, and finalists from the winner down; at least one."""

    decision: Decision
    ranking: tuple[Candidate, ...]


@final
class StageFinal:
    """All finalists answer the same items, rung after rung; the better half goes on."""

    def __init__(self, run: RunPlan, items: float, evaluations: Evaluations) -> None:
        """Rungs are shortened to cost at most `items`."""
        self._run = run
        self._items = items
        self._evaluations = evaluations

    def run(
        self, field: Sequence[Candidate], baselines: frozenset[int]
    ) -> Generator[Progress, None, StageResult]:
        """Score and decide; `baselines` are the ids that count as such among all candidates.

        Raises:
            Interrupted, TooManyFailures: see `Evaluations.answers`; or no baseline can be scored.
        """
        finalists = {candidate.id: candidate for candidate in field}
        baselines &= finalists.keys()
        parts = self._affordable(rungs(self._run.selection_items, self._run.seed), len(finalists))
        results: dict[int, Results] = {}
        left: dict[int, Results] = {}
        reached: dict[int, tuple[int, float]] = {}
        alive = tuple(finalists)
        for number, part in enumerate(parts, start=1):
            scored = yield from self._rung(number, [finalists[c] for c in alive], part)
            results = {c: joined([results.get(c, ()), scored[c]]) for c in alive if c in scored}
            fitness = {c: self._run.objective.fitness(found) for c, found in results.items()}
            reached |= {c: (number, value) for c, value in fitness.items()}
            last = number == len(parts)
            alive = tuple(results) if last else survivors(self._run.objective, results, baselines)
            left |= {c: found for c, found in results.items() if c not in alive}
        if not baselines & set(results):
            self._evaluations.begin_again_at((c, "final 1") for c in baselines)
            raise TooManyFailures(
                "no baseline could be scored in the final; repair what the failures above say and "
                "run the same command again"
            )
        decision = decide(self._run.objective, results, baselines, left)
        ranking = sorted(reached, key=lambda c: (-reached[c][0], -reached[c][1], c))
        ranking.sort(key=lambda c: c != decision.winner)
        return StageResult(decision, tuple(finalists[c] for c in ranking))

    def _rung(
        self, number: int, alive: Sequence[Candidate], items: ItemSelection
    ) -> Generator[Progress, None, dict[int, Results]]:
        """The outcomes of those that could be scored."""
        scored: dict[int, Results] = {}
        stage = f"final {number}"
        for evaluated in self._evaluations.each(alive, stage, items):
            candidate = evaluated.candidate.id
            if evaluated.fitness is not None:
                scored[candidate] = self._evaluations.results(candidate, stage)
            yield evaluated
        self._evaluations.save_clock()
        return scored

    def _affordable(
        self, parts: tuple[ItemSelection, ...], finalists: int
    ) -> tuple[ItemSelection, ...]:
        """The rungs, shortened so that the final stays within its share of an item budget."""
        share = self._items / cost(finalists, parts)
        return parts if share >= 1 else tuple(_share(part, share) for part in parts)


def kept_items(run: RunPlan, final: FinalPlan | None, allotment: Allotment) -> float:
    """How many items of an allotment are kept for the final: its share, but no more than it needs.

    Infinite without an item budget.
    """
    if final is None:
        return 0.0
    if allotment.items is None:
        return math.inf
    whole = cost(MOST_FINALISTS, rungs(run.selection_items, run.seed))
    return min(final.share * allotment.items, whole)


def distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Each recipe once, first come."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        found.setdefault(candidate.recipe.digest, candidate)
    return list(found.values())


def _share(items: ItemSelection, share: float) -> ItemSelection:
    tasks = tuple((task, ids[: max(1, int(share * len(ids)))]) for task, ids in items.tasks)
    return ItemSelection(tasks)
