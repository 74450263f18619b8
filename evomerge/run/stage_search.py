"""One stage of a run: baselines, search and final, as one replayable sequence.

Everything here is a function of the plan and of recorded outcomes: run again after a crash, it asks
for the same evaluations in the same order, and those on record are answered without a worker.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from evomerge.candidate import SEARCH, Candidate, Genotype, ItemSelection
from evomerge.evaluate.splits import minibatch
from evomerge.recipe import Recipe
from evomerge.run.archive import Archive
from evomerge.run.core import Core
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger
from evomerge.run.plan import FINAL_SHARE, Allotment, RunPlan, StagePlan
from evomerge.run.progress import (
    Evaluated,
    GenerationDone,
    PhaseStarted,
    Progress,
    Warned,
)
from evomerge.run.stage_final import StageFinal, StageResult, distinct
from evomerge.seeding import derive

BASELINE_MINIBATCHES = 2
"""The baselines share this many minibatches: they are few, and they set the bar and the start."""
WARM_STARTS = 3
ESTIMATE_ORIGINS = {"cma_es": "late mean"}
"""What candidates are called that are a strategy's estimates; "elite" for the others."""

Steps = Generator[Progress, None, None]


@dataclass
class Counter:
    """The next candidate's id and the next generation's number, over all stages (stateful)."""

    candidate: int = 0
    generation: int = 0


class StageSearch:
    """One stage (stateful: it fills a ledger and an archive as its phases pass)."""

    def __init__(
        self,
        run: RunPlan,
        stage: StagePlan,
        allotment: Allotment,
        counter: Counter,
        ledger: Ledger,
        evaluations: Evaluations,
    ) -> None:
        """`counter` goes on from where the stage before this one ended."""
        self._run = run
        self._stage = stage
        self._allotment = allotment
        self._counter = counter
        self._ledger = ledger
        self._evaluations = evaluations
        self._archive = Archive(ledger.candidate)
        self._batch: tuple[int, ItemSelection] | None = None
        self._first = counter.candidate
        self._first_generation = counter.generation

    def run(self) -> Generator[Progress, None, StageResult]:
        """All phases; yields progress.

        Raises:
            Interrupted, TooManyFailures: see `Evaluations.answers`; the run can be continued.
        """
        self._ledger.set_meta(self._key("first candidate"), self._first)
        start = yield from self._baselines()
        estimates = yield from self._search(start)
        return (yield from self._final(estimates))

    @property
    def baselines(self) -> tuple[Candidate, ...]:
        """The stage's baselines, once they are scored."""
        return tuple(self._archive.candidate(c) for c in self._baseline_ids)

    @property
    def _baseline_ids(self) -> range:
        return range(self._first, self._first + len(self._stage.baselines))

    def _key(self, name: str) -> str:
        """The name of a fact of this stage in the ledger."""
        return f"{self._stage.name}: {name}" if self._stage.name else name

    def _phase(self, name: str, evaluations: int) -> PhaseStarted:
        return PhaseStarted(self._key(name), evaluations)

    def _candidate(self, origin: str, generation: int, genotype: Genotype) -> Candidate:
        recipe = self._stage.space.decode(genotype)
        return self._numbered(origin, generation, recipe, genotype)

    def _numbered(
        self, origin: str, generation: int, recipe: Recipe, genotype: Genotype | None = None
    ) -> Candidate:
        number = self._counter.candidate
        self._counter.candidate += 1
        return Candidate(number, generation, origin, recipe, genotype)

    def _warned(self, text: str) -> Warned:
        """A warning that is also on record, for the report."""
        self._ledger.log("warning", {"text": text})
        return Warned(text)

    def _score(self, candidates: Sequence[Candidate], stage: str, items: ItemSelection) -> Steps:
        for evaluated in self._evaluations.each(candidates, stage, items):
            self._archive.add(evaluated.candidate, stage, evaluated.fitness)
            yield evaluated
        self._evaluations.save_clock()

    def _baselines(self) -> Generator[Progress, None, Genotype]:
        """Score the baselines on common items, then the points of the space nearest to the best."""
        stage = self._stage
        items = minibatch(
            self._run.search_items,
            BASELINE_MINIBATCHES * stage.minibatch,
            generation=0,
            seed=derive(self._run.seed, self._key("baselines")),
        )
        fixed = [self._numbered(b.label, -1, b.recipe) for b in stage.baselines]
        yield self._phase("baselines", len(fixed))
        yield from self._score(fixed, "baseline", items)
        ranked = self._archive.ranked("baseline")
        best = [stage.baselines[c.id - self._first] for c in ranked[:WARM_STARTS]]
        starts = [
            self._candidate("starting point", -1, genotype)
            for genotype in stage.starting_points(best)
        ]
        yield self._phase("starting points", len(starts))
        yield from self._score(starts, "baseline", items)
        if self._archive.flat("baseline"):
            yield self._warned(
                "every baseline has the same score: the objective cannot tell candidates apart; "
                "check the task, its metric and the answer format"
            )
        usable = [c.genotype for c in self._archive.ranked("baseline") if c.genotype is not None]
        return usable[0] if usable else stage.space.start

    def _search(self, start: Genotype) -> Generator[Progress, None, tuple[Genotype, ...]]:
        """Generations on fresh minibatches, until the allotment is spent."""
        stage = self._stage
        strategy = stage.strategy(start)
        first, recorded = self._counter.candidate, self._ledger.next_candidate
        limit = max(0, self._candidate_limit())
        closed = self._ledger.meta(self._key("search closed at"))
        core = Core(strategy, stage.schedule, limit=limit)
        if closed is not None:
            core.close(int(closed))
        yield self._phase("search", limit)
        while True:
            self._watch_the_clock(core, recorded - first)
            for proposal in core.proposals():
                generation = self._first_generation + proposal.generation
                candidate = self._candidate(stage.algorithm, generation, proposal.genotype)
                self._counter.generation = generation + 1
                self._evaluations.submit(candidate, SEARCH, self._minibatch(generation))
            if not core.unfinished:
                return strategy.estimates
            for evaluated in self._evaluations.answers():
                self._archive.add(evaluated.candidate, SEARCH, evaluated.fitness)
                yield evaluated
                for told in core.result(evaluated.candidate.id - first, evaluated.fitness):
                    self._evaluations.save_clock()
                    yield from _generation_done(
                        self._first_generation + told.generation, told.fitness, evaluated
                    )

    def _minibatch(self, generation: int) -> ItemSelection:
        """Fresh items for a generation, the same for all its candidates."""
        if self._batch is None or self._batch[0] != generation:  # drawn once for all of them
            run = self._run
            seed = derive(run.seed, "search")
            size = self._stage.minibatch
            chosen = minibatch(run.search_items, size, generation=generation, seed=seed)
            self._batch = (generation, chosen)
        return self._batch[1]

    def _candidate_limit(self) -> int:
        """How many candidates the search may propose, from the allotted candidates and items."""
        given, limits = self._allotment, [10**9]
        if given.candidates is not None:
            limits.append(given.candidates - (self._counter.candidate - self._first))
        if given.items is not None and given.items_until is not None:
            left = given.items_until - given.items * FINAL_SHARE - self._evaluations.items_spent
            limits.append(int(left / self._minibatch(0).count))
        return min(limits)

    def _watch_the_clock(self, core: Core, recorded: int) -> None:
        """Stop asking when the time for the search is over; on record, so that replay agrees.

        Not before those that are `recorded` have been asked again: their time was spent.
        """
        given, key = self._allotment, self._key("search closed at")
        if given.seconds is None or given.seconds_until is None:
            return
        if core.asked < recorded or self._ledger.meta(key) is not None:
            return
        if self._evaluations.seconds > given.seconds_until - given.seconds * FINAL_SHARE:
            self._ledger.set_meta(key, core.asked)
            core.close(core.asked)

    def _final(self, estimates: Sequence[Genotype]) -> Generator[Progress, None, StageResult]:
        """The finalists, with what the strategy holds for the optimum, compared in pairs."""
        origin = ESTIMATE_ORIGINS.get(self._stage.algorithm, "elite")
        generation = self._counter.generation - 1
        late = [self._candidate(origin, generation, genotype) for genotype in estimates]
        field = distinct([*self._archive.finalists(frozenset(self._baseline_ids)), *late])
        yield self._phase("final", len(field))
        final = StageFinal(self._run, self._allotment, self._evaluations)
        result = yield from final.run(field, frozenset(self._baseline_ids))
        self._ledger.set_meta(self._key("decision"), result.decision.facts())
        return result


def _generation_done(
    generation: int, fitness: Sequence[float | None], evaluated: Evaluated
) -> Generator[GenerationDone, None, None]:
    known = [value for value in fitness if value is not None]
    if known:
        mean = sum(known) / len(known)
        yield GenerationDone(generation, max(known), mean, evaluated.items_spent)
