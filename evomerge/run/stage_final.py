"""The final of a stage: successive halving of its finalists over the selection items."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from evomerge.candidate import SEARCH, Candidate, ItemSelection
from evomerge.errors import TooManyFailures
from evomerge.run.archive import TOP_BASELINES, TOP_CANDIDATES, TOP_TRADES, Archive
from evomerge.run.comparisons import take_reference
from evomerge.run.evaluations import Evaluations
from evomerge.run.final import Decision, Results, cost, decide, going_on, rungs, survivors
from evomerge.run.judging import Judge, Judged
from evomerge.run.plan import Allotment, FinalPlan, RunPlan, StagePlan
from evomerge.run.progress import Progress
from evomerge.score import Objective, joined, totals
from evomerge.search import chebyshev
from evomerge.search.generations import ESTIMATES

REFERENCE = "selection reference"
"""The stage in which the models of relative constraints answer the selection items."""


@dataclass(frozen=True)
class StageResult:
    """What a stage found: the decision, and finalists from the winner down; at least one."""

    decision: Decision
    ranking: tuple[Candidate, ...]
    front: tuple[Candidate, ...] = ()


@final
class StageFinal:
    """All finalists answer the same items, rung after rung; the better half goes on."""

    def __init__(self, run: RunPlan, items: float, evaluations: Evaluations, judge: Judge) -> None:
        """Rungs are shortened to cost at most `items`."""
        self._run = run
        self._items = items
        self._evaluations = evaluations
        self._judge = judge
        self._share = going_on(run.objective)

    def run(
        self,
        field: Sequence[Candidate],
        baselines: frozenset[int],
        references: Sequence[Candidate],
    ) -> Generator[Progress, None, StageResult]:
        """Score and decide; `baselines` are the ids that count as such among all candidates.

        `references` are the models that relative constraints name; on the record, they answer the
        same items without taking part.

        Raises:
            Interrupted, TooManyFailures: see `Evaluations.answers`; or no baseline can be scored,
                or a reference cannot.
        """
        finalists = {candidate.id: candidate for candidate in field}
        baselines &= finalists.keys()
        parts = affordable_rungs(self._run, self._items, len(finalists), self._judge)
        yield from self._references(references, parts)
        results: dict[int, Results] = {}
        judged: dict[int, Judged] = {}
        left: dict[int, Results] = {}
        reached: dict[int, tuple[int, float]] = {}
        alive = tuple(finalists)
        for number, part in enumerate(parts, start=1):
            scored = yield from self._rung(number, [finalists[c] for c in alive], part)
            results = {c: joined([results.get(c, ()), scored[c]]) for c in alive if c in scored}
            judged = self._judged(results)
            reached |= {c: (number, one.worth) for c, one in judged.items()}
            last = number == len(parts)
            alive = tuple(results) if last else survivors(judged, baselines, self._share)
            left |= {c: found for c, found in results.items() if c not in alive}
        if not baselines & set(results):
            self._evaluations.begin_again_at((c, "final 1") for c in baselines)
            raise TooManyFailures(
                "no baseline could be scored in the final; repair what the failures above say and "
                "run the same command again"
            )
        decision = decide(self._run.objective, results, judged, baselines, left)
        ranking = sorted(reached, key=lambda c: (-reached[c][0], -reached[c][1], c))
        ranking.sort(key=lambda c: c != decision.winner)
        front = tuple(finalists[c] for c in decision.front)
        return StageResult(decision, tuple(finalists[c] for c in ranking), front)

    def _references(
        self, models: Sequence[Candidate], rungs_: Sequence[ItemSelection]
    ) -> Generator[Progress, None, None]:
        """Have the judge know what the reference models do on all the items of the rungs."""
        if not models:
            return
        items = self._judge.concerned(_together(rungs_))
        for evaluated in self._evaluations.each(models, REFERENCE, items):
            yield evaluated
            take_reference(evaluated, self._judge, self._evaluations)
        self._evaluations.save_clock()

    def _judged(self, results: Mapping[int, Results]) -> dict[int, Judged]:
        """What the finalists' outcomes, all on the same items, are worth."""
        found: dict[int, Judged] = {}
        items: ItemSelection | None = None
        for candidate, outcomes in results.items():
            items = items or ItemSelection(tuple((r.task, r.items()) for r in outcomes))
            judged = self._judge.judged(totals(outcomes), items)
            assert judged is not None, "it was scored"
            found[candidate] = judged
        return found

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


def best_score(archive: Archive, early: str) -> StageResult:
    """Whoever scored best in the search, or in the stage `early` where the search has nobody.

    With several objectives the front is that of their own scores.

    Raises:
        TooManyFailures: nobody has a score.
    """
    stage = SEARCH if archive.ranked(SEARCH) else early
    ranking = archive.ranked(stage)
    if not ranking:
        raise TooManyFailures("no candidate could be scored; see the failures above")
    front = archive.trades(stage)
    decision = Decision(ranking[0].id, None, None, None, tuple(one.id for one in front))
    return StageResult(decision, tuple(ranking), tuple(front))


def stage_judge(run: RunPlan, stage: StagePlan, first: int) -> Judge:
    """The judge of a stage whose baselines are numbered from `first`."""
    models = (baseline.model for baseline in stage.baselines)
    numbers = {model: k for k, model in enumerate(models, start=first) if model is not None}
    return Judge(run.objective, run.constraints, numbers)


def most_finalists(objective: Objective) -> tuple[int, int]:
    """How many candidates of the search and how many estimates can be in a final."""
    if not objective.trades:
        return TOP_CANDIDATES, ESTIMATES
    each = chebyshev.ESTIMATES * len(chebyshev.directions(len(objective.trades)))
    return TOP_TRADES, max(each, ESTIMATES)


def final_cost(run: RunPlan, parts: Sequence[ItemSelection], finalists: int, judge: Judge) -> int:
    """Items that a final scores, at most; reference models answer those of constrained tasks."""
    concerned = sum(judge.concerned(part).count for part in parts)
    return cost(finalists, parts, going_on(run.objective)) + len(judge.references) * concerned


def affordable_rungs(
    run: RunPlan, items: float, finalists: int, judge: Judge
) -> tuple[ItemSelection, ...]:
    """The rungs, shortened so that the final scores at most about `items`."""
    parts = rungs(run.selection_items, run.seed)
    part = items / final_cost(run, parts, finalists, judge)
    return parts if part >= 1.0 else rungs(run.selection_items, run.seed, part)


def kept_items(run: RunPlan, final: FinalPlan | None, allotment: Allotment, judge: Judge) -> float:
    """How many items of an allotment are kept for the final: its share, but no more than it needs.

    Infinite without an item budget.
    """
    if final is None:
        return 0.0
    if allotment.items is None:
        return math.inf
    most = TOP_BASELINES + 1 + sum(most_finalists(run.objective))
    whole = final_cost(run, rungs(run.selection_items, run.seed), most, judge)
    return min(final.share * allotment.items, whole)


def distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Each recipe once, first come."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        found.setdefault(candidate.recipe.digest, candidate)
    return list(found.values())


def _together(parts: Sequence[ItemSelection]) -> ItemSelection:
    found: dict[str, list[str]] = {}
    for part in parts:
        for task, ids in part.tasks:
            found.setdefault(task, []).extend(ids)
    return ItemSelection(tuple((task, tuple(sorted(ids))) for task, ids in found.items()))
