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
from evomerge.run.comparisons import Comparisons, take_reference
from evomerge.run.core import Core, Told
from evomerge.run.evaluations import Evaluations
from evomerge.run.generation_items import GenerationItems
from evomerge.run.ledger import Ledger
from evomerge.run.plan import Allotment, RunPlan, StagePlan, search_end
from evomerge.run.progress import (
    Evaluated,
    GenerationDone,
    PhaseStarted,
    Progress,
    Warned,
)
from evomerge.run.room import Room
from evomerge.run.stage_final import (
    StageFinal,
    StageResult,
    best_score,
    distinct,
    kept_items,
    stage_judge,
)
from evomerge.seeding import derive

BASELINE_MINIBATCHES = 2
"""The baselines share this many minibatches: they are few, and they set the bar and the start."""
WARM_STARTS = 3
BASELINE = "baseline"
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
        self._judge = stage_judge(run, stage, counter.candidate)
        self._items = GenerationItems(run.search_items, stage.batches, derive(run.seed, "search"))
        self._kept = kept_items(run, stage.final, allotment, self._judge)
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

    def _score(self, candidates: Sequence[Candidate], items: ItemSelection) -> Steps:
        """Score baselines and starting points; judged together, since references are among them."""
        scored: list[Evaluated] = []
        for evaluated in self._evaluations.each(candidates, BASELINE, items):
            scored.append(evaluated)
            yield evaluated
            if evaluated.candidate.id in self._judge.references.values():
                take_reference(evaluated, self._judge, self._evaluations)
        for evaluated in scored:
            judged = self._judge.judged(evaluated.totals, items)
            self._archive.add(evaluated.candidate, BASELINE, judged)
        self._evaluations.save_clock()

    def _baselines(self) -> Generator[Progress, None, Genotype]:
        """Score the baselines on common items, then the points of the space nearest to the best."""
        stage = self._stage
        items = minibatch(
            self._run.search_items,
            BASELINE_MINIBATCHES * self._stage.batches.per_task(self._run.search_items),
            generation=0,
            seed=derive(self._run.seed, self._key("baselines")),
        )
        fixed = [self._numbered(b.label, -1, b.recipe) for b in stage.baselines]
        yield self._phase("baselines", len(fixed))
        yield from self._score(fixed, items)
        ranked = self._archive.ranked(BASELINE)
        best = [stage.baselines[c.id - self._first] for c in ranked[:WARM_STARTS]]
        starts = [
            self._candidate("starting point", -1, genotype)
            for genotype in stage.starting_points(best)
        ]
        yield self._phase("starting points", len(starts))
        yield from self._score(starts, items)
        if self._archive.none_keeps_all(BASELINE):
            yield self._warned(
                "every baseline violates a constraint: the search may find nothing that keeps all; "
                "check the limits"
            )
        if self._archive.flat(BASELINE):
            yield self._warned(
                "every baseline has the same score: the objective cannot tell candidates apart; "
                "check the task, its metric and the answer format"
            )
        usable = [c.genotype for c in self._archive.ranked(BASELINE) if c.genotype is not None]
        return usable[0] if usable else stage.space.start

    def _search(self, start: Genotype) -> Generator[Progress, None, tuple[Genotype, ...]]:
        """Generations on fresh minibatches, until the allotment is spent."""
        stage = self._stage
        first, recorded = self._counter.candidate, self._ledger.next_candidate
        room = self._room()
        strategy = stage.strategy(start, room.expected)
        closed = self._ledger.meta(self._key("search closed at"))
        core = Core(strategy, stage.schedule, room.for_candidate)
        comparisons = Comparisons(self._judge, self._evaluations, self._archive.candidate)
        if closed is not None:
            core.close(int(closed))
        yield self._phase("search", room.expected)
        while True:
            self._watch_the_clock(core, recorded - first)
            for proposal in core.proposals():
                generation = self._first_generation + proposal.generation
                candidate = self._candidate(stage.algorithm, generation, proposal.genotype)
                self._counter.generation = generation + 1
                comparisons.ask(generation, self._items.of(generation))
                self._evaluations.submit(candidate, SEARCH, self._items.of(generation))
            if not core.unfinished:
                return strategy.estimates
            for evaluated in self._evaluations.answers():
                yield evaluated
                for known in comparisons.ready(evaluated):
                    candidate, items = known.candidate, self._items.of(known.candidate.generation)
                    judged = self._judge.judged(known.totals, items)
                    self._archive.add(candidate, SEARCH, judged)
                    scores = None if judged is None else judged.scores
                    for told in core.result(candidate.id - first, scores):
                        self._evaluations.save_clock()
                        yield from self._learnt(told, first, evaluated)

    def _room(self) -> Room:
        """What the allotment leaves for the search."""
        given, candidates, items = self._allotment, None, None
        if given.candidates is not None:
            candidates = given.candidates - (self._counter.candidate - self._first)
        if given.items_until is not None:
            items = given.items_until - self._kept - self._evaluations.items_spent
        return Room(candidates, items, self._cost)

    def _cost(self, index: int) -> int:
        """Items of a proposal; the first of a generation pays for the reference models, too."""
        items = self._items.of(self._generation(index))
        first = index % self._stage.population == 0
        compared = self._judge.concerned(items).count * len(self._judge.references)
        return items.count + (compared if first else 0)

    def _generation(self, index: int) -> int:
        """The number, over all stages, of the generation of a proposal of this search."""
        return self._first_generation + index // self._stage.population

    def _watch_the_clock(self, core: Core, recorded: int) -> None:
        """Stop asking when the time for the search is over; on record, so that replay agrees.

        Not before those that are `recorded` have been asked again: their time was spent.
        """
        end, key = search_end(self._allotment, self._stage.final), self._key("search closed at")
        if end is None or core.asked < recorded or self._ledger.meta(key) is not None:
            return
        if self._evaluations.seconds > end:
            self._ledger.set_meta(key, core.asked)
            core.close(core.asked)

    def _learnt(self, told: Told, first: int, evaluated: Evaluated) -> Steps:
        """Let whoever watches know of a generation that was told."""
        ids = [first + member for member in told.members]
        generation = self._first_generation + told.generation
        fitness = [self._archive.fitness(SEARCH, number) for number in ids]
        known = [value for value in fitness if value is not None]
        if known:
            mean = sum(known) / len(known)
            yield GenerationDone(generation, max(known), mean, evaluated.items_spent)

    def _final(self, estimates: Sequence[Genotype]) -> Generator[Progress, None, StageResult]:
        """The finalists, with what the strategy holds for the optimum, compared in pairs."""
        plan = self._stage.final
        if plan is None:
            result = best_score(self._archive, BASELINE)
            self._ledger.set_meta(self._key("decision"), result.decision.facts())
            return result
        origin = ESTIMATE_ORIGINS.get(self._stage.algorithm, "elite")
        generation = self._counter.generation - 1
        held = estimates if plan.estimates else ()
        late = [self._candidate(origin, generation, genotype) for genotype in held]
        field = distinct([*self._archive.finalists(frozenset(self._baseline_ids)), *late])
        yield self._phase("final", len(field))
        final = StageFinal(self._run, self._kept, self._evaluations, self._judge)
        references = [self._archive.candidate(c) for c in self._judge.references.values()]
        result = yield from final.run(field, frozenset(self._baseline_ids), references)
        self._ledger.set_meta(self._key("decision"), result.decision.facts())
        return result
