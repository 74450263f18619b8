"""The protocol of a search, from the first baseline to the holdout, as one replayable sequence.

Everything here is a function of the plan and of recorded outcomes: run again after a crash, it asks
for the same evaluations in the same order, and those on record are answered without a worker.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence

from evomerge.candidate import Candidate, Genotype, ItemSelection
from evomerge.errors import TooManyFailures
from evomerge.evaluate.splits import minibatch
from evomerge.run.archive import Archive
from evomerge.run.baselines import starting_point
from evomerge.run.core import Core
from evomerge.run.evaluations import Evaluations
from evomerge.run.final import Decision, Results, cost, decide, joined, rungs, survivors
from evomerge.run.ledger import Ledger
from evomerge.run.plan import FINAL_SHARE, RunPlan
from evomerge.run.progress import (
    Evaluated,
    Finished,
    GenerationDone,
    PhaseStarted,
    Progress,
    Warned,
)
from evomerge.seeding import derive

BASELINE_MINIBATCHES = 2
"""The baselines share this many minibatches: they are few, and they set the bar and the start."""
WARM_STARTS = 3
ESTIMATE_ORIGINS = {"cma_es": "late mean"}
"""What candidates are called that are a strategy's estimates; "elite" for the others."""

Steps = Generator[Progress, None, None]


class Search:
    """One search (stateful: it fills a ledger and an archive as its phases pass)."""

    def __init__(self, plan: RunPlan, ledger: Ledger, evaluations: Evaluations) -> None:
        self._plan = plan
        self._ledger = ledger
        self._evaluations = evaluations
        self._archive = Archive()
        self._next_id = 0

    def run(self) -> Steps:
        """All phases; yields progress and ends with `Finished`.

        Raises:
            Interrupted, TooManyFailures: see `Evaluations.answers`; the run can be continued.
        """
        start = yield from self._baselines()
        estimates = yield from self._search(start)
        decision = yield from self._final(estimates)
        yield from self._holdout(decision)
        winner = self._archive.candidate(decision.winner)
        self._ledger.set_meta("winner", winner.id)
        yield Finished(winner, decision.is_baseline)

    def _candidate(self, origin: str, generation: int, genotype: Genotype) -> Candidate:
        recipe = self._plan.space.decode(genotype)
        return self._numbered(Candidate(self._next_id, generation, origin, recipe, genotype))

    def _numbered(self, candidate: Candidate) -> Candidate:
        assert candidate.id == self._next_id, "candidates are numbered in order"
        self._next_id += 1
        return candidate

    def _warned(self, text: str) -> Warned:
        """A warning that is also on record, for the report."""
        self._ledger.log("warning", {"text": text})
        return Warned(text)

    def _score(self, candidates: Sequence[Candidate], stage: str, items: ItemSelection) -> Steps:
        for evaluated, outcome in self._evaluations.each(candidates, stage, items):
            self._archive.add(evaluated.candidate, stage, outcome, evaluated.fitness)
            yield evaluated
        self._evaluations.save_clock()

    def _baselines(self) -> Generator[Progress, None, Genotype]:
        """Score the baselines on common items, then the points of the space nearest to the best."""
        plan = self._plan
        items = minibatch(
            plan.search_items,
            BASELINE_MINIBATCHES * plan.minibatch,
            generation=0,
            seed=derive(plan.seed, "baselines"),
        )
        fixed = [
            self._numbered(Candidate(self._next_id, -1, b.label, b.recipe)) for b in plan.baselines
        ]
        yield PhaseStarted("baselines", len(fixed))
        yield from self._score(fixed, "baseline", items)
        ranked = self._archive.ranked("baseline")
        best = [plan.baselines[c.id] for c in ranked[:WARM_STARTS]]
        genotypes = [plan.space.start, *(starting_point(plan.space, b) for b in best)]
        starts = [
            self._candidate("starting point", -1, genotype) for genotype in dict.fromkeys(genotypes)
        ]
        yield PhaseStarted("starting points", len(starts))
        yield from self._score(starts, "baseline", items)
        if self._archive.flat("baseline"):
            yield self._warned(
                "every baseline has the same score: the objective cannot tell candidates apart; "
                "check the task, its metric and the answer format"
            )
        usable = [c for c in self._archive.ranked("baseline") if c.genotype is not None]
        return usable[0].genotype if usable and usable[0].genotype else plan.space.start

    def _search(self, start: Genotype) -> Generator[Progress, None, tuple[Genotype, ...]]:
        """Generations on fresh minibatches, until the budget is spent; the strategy's estimates."""
        plan = self._plan
        strategy = plan.strategy(start)
        first = self._next_id
        limit = max(0, self._candidate_limit(first))
        closed = self._ledger.meta("search closed at")
        core = Core(strategy, lookahead=plan.lookahead, limit=limit)
        if closed is not None:
            core.close(int(closed))
        yield PhaseStarted("search", limit)
        while True:
            self._watch_the_clock(core)
            for proposal in core.proposals():
                candidate = self._candidate(plan.algorithm, proposal.generation, proposal.genotype)
                batch = self._minibatch(proposal.generation)
                self._evaluations.submit(candidate, "search", batch)
            if not core.unfinished:
                return strategy.estimates
            for evaluated, outcome in self._evaluations.answers():
                self._archive.add(evaluated.candidate, "search", outcome, evaluated.fitness)
                yield evaluated
                for told in core.result(evaluated.candidate.id - first, evaluated.fitness):
                    self._archive.generation(told)
                    self._evaluations.save_clock()
                    yield from _generation_done(told.generation, told.fitness, evaluated)

    def _minibatch(self, generation: int) -> ItemSelection:
        """Fresh items for a generation, the same for all its candidates."""
        plan = self._plan
        seed = derive(plan.seed, "search")
        return minibatch(plan.search_items, plan.minibatch, generation=generation, seed=seed)

    def _candidate_limit(self, spent: int) -> int:
        """How many candidates the search may propose, from the budget's candidates and items."""
        plan, limits = self._plan, [10**9]
        if plan.budget.candidates is not None:
            limits.append(plan.budget.candidates - spent)
        if plan.budget.items is not None:
            left = plan.budget.items * (1 - FINAL_SHARE) - self._evaluations.items_spent
            limits.append(int(left / self._minibatch(0).count))
        return min(limits)

    def _watch_the_clock(self, core: Core) -> None:
        """Stop asking when the time for the search is over; on record, so that replay agrees."""
        seconds = self._plan.budget.seconds
        if seconds is None or self._ledger.meta("search closed at") is not None:
            return
        if self._evaluations.seconds > seconds * (1 - FINAL_SHARE):
            self._ledger.set_meta("search closed at", core.asked)
            core.close(core.asked)

    def _final(self, estimates: Sequence[Genotype]) -> Generator[Progress, None, Decision]:
        """Successive halving of the finalists over the selection items, all compared in pairs."""
        plan = self._plan
        origin = ESTIMATE_ORIGINS.get(plan.algorithm, "elite")
        generation = self._archive.last_generation
        estimated = [self._candidate(origin, generation, genotype) for genotype in estimates]
        field = [*self._archive.finalists(frozenset(b.label for b in plan.baselines)), *estimated]
        finalists = {c.id: c for c in _distinct(field)}
        baselines = frozenset(c for c in finalists if c < len(plan.baselines))
        parts = self._affordable(rungs(plan.selection_items, plan.seed), len(finalists))
        results: dict[int, Results] = {}
        alive = tuple(finalists)
        yield PhaseStarted("final", len(alive))
        for number, part in enumerate(parts, start=1):
            stage = f"final {number}"
            yield from self._score([finalists[c] for c in alive], stage, part)
            scored = self._archive.results(stage)
            results = {c: joined(results.get(c), scored[c]) for c in alive if c in scored}
            last = number == len(parts)
            alive = tuple(results) if last else survivors(plan.objective, results, baselines)
        if not baselines & set(results):
            raise TooManyFailures(
                "no baseline could be scored in the final; see the failures above"
            )
        decision = decide(plan.objective, results, baselines)
        self._ledger.set_meta("decision", _plain(decision))
        return decision

    def _affordable(
        self, parts: tuple[ItemSelection, ...], finalists: int
    ) -> tuple[ItemSelection, ...]:
        """The rungs, shortened so that the final stays within its share of an item budget."""
        budget = self._plan.budget.items
        if budget is None:
            return parts
        share = budget * FINAL_SHARE / cost(finalists, parts)
        return parts if share >= 1 else tuple(_share(part, share) for part in parts)

    def _holdout(self, decision: Decision) -> Steps:
        """The winner and every baseline, once, on items that nothing has seen."""
        plan = self._plan
        if not plan.holdout_items.count:
            # not on record: the report sees it for itself
            yield Warned("no holdout: the result is unverified; set splits.holdout above 0")
            return
        ids = dict.fromkeys([decision.winner, *range(len(plan.baselines))])
        yield PhaseStarted("holdout", len(ids))
        entries = [self._archive.candidate(c) for c in ids]
        yield from self._score(entries, "holdout", plan.holdout_items)


def _generation_done(
    generation: int, fitness: Sequence[float | None], evaluated: Evaluated
) -> Generator[GenerationDone, None, None]:
    known = [value for value in fitness if value is not None]
    if known:
        mean = sum(known) / len(known)
        yield GenerationDone(generation, max(known), mean, evaluated.items_spent)


def _plain(decision: Decision) -> Mapping[str, int | float | bool | None]:
    comparison = decision.comparison
    return {
        "winner": decision.winner,
        "best_baseline": decision.best_baseline,
        "challenger": decision.challenger,
        "difference": None if comparison is None else comparison.value,
        "p_value": None if comparison is None else comparison.p_value,
    }


def _share(items: ItemSelection, share: float) -> ItemSelection:
    tasks = tuple((task, ids[: max(1, int(share * len(ids)))]) for task, ids in items.tasks)
    return ItemSelection(tasks)


def _distinct(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Each recipe once, first come."""
    found: dict[str, Candidate] = {}
    for candidate in candidates:
        found.setdefault(candidate.recipe.digest, candidate)
    return list(found.values())
