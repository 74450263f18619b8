"""A whole run: stage after stage, each with the results of those before, then the holdout."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from evomerge.candidate import Candidate
from evomerge.recipe import Recipe
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger
from evomerge.run.plan import RunPlan
from evomerge.run.progress import Finished, PhaseStarted, Progress, Warned
from evomerge.run.stage_final import StageResult
from evomerge.run.stage_search import Counter, StageSearch
from evomerge.stack_file import TOP


class Search:
    """One run; all it does follows from its plan and from recorded outcomes."""

    def __init__(self, plan: RunPlan, ledger: Ledger, evaluations: Evaluations) -> None:
        self._plan = plan
        self._ledger = ledger
        self._evaluations = evaluations

    def run(self) -> Generator[Progress, None, None]:
        """All stages and the holdout; yields progress and ends with `Finished`.

        Raises:
            Interrupted, TooManyFailures: see `Evaluations.answers`; the run can be continued.
        """
        plan, counter = self._plan, Counter()
        if self._ledger.missing:
            yield Warned(
                f"{self._ledger.missing} evaluations that were counted are not in the ledger: its "
                "write-ahead log was damaged or left behind; they are done again"
            )
        rewound = self._evaluations.forget_failures()
        if rewound is not None:
            yield Warned(
                f"{rewound.evaluations} evaluations, from the first failure that stopped this run "
                "on, are done again"
            )
        results: dict[str, Recipe] = {}
        bar: dict[str, Candidate] = {}
        for stage, allotment in zip(plan.stages, plan.allotments, strict=True):
            search = StageSearch(
                plan, stage.given(results), allotment, counter, self._ledger, self._evaluations
            )
            found = yield from search.run()
            results |= stage_results(stage.name, found)
            # A parent may be a baseline of every stage; the last one's models come last.
            for candidate in search.baselines:
                bar.pop(candidate.origin, None)
                bar[candidate.origin] = candidate
        yield from self._holdout((*bar.values(), *found.front, found.ranking[0]))
        winner = found.ranking[0]
        self._ledger.set_meta("winner", winner.id)
        yield Finished(winner, found.decision.is_baseline)

    def _holdout(self, models: Sequence[Candidate]) -> Generator[Progress, None, None]:
        """The baselines, the front and the winner, once, on items that nothing has seen."""
        items = self._plan.holdout_items
        if not items.count:
            # not on record: the report sees it for itself
            yield Warned("no holdout: the result is unverified; set splits.holdout above 0")
            return
        entries = {candidate.id: candidate for candidate in models}
        yield PhaseStarted("holdout", len(entries))
        yield from self._evaluations.each(list(entries.values()), "holdout", items)
        self._evaluations.save_clock()


def stage_results(stage: str, found: StageResult) -> Mapping[str, Recipe]:
    """What later stages may call the results of a stage; a short ranking repeats its last."""
    ranked = [candidate.recipe for candidate in found.ranking[:TOP]]
    ranked += [ranked[-1]] * (TOP - len(ranked))
    tops = {f"${stage}.top{rank}": recipe for rank, recipe in enumerate(ranked, start=1)}
    return {f"${stage}.best": ranked[0], **tops}
