"""From a run directory to a RunSummary: reads the ledger and the resolved specification only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.candidate import Candidate, Failed, Scored
from evomerge.mergekit_yaml import dump_recipe
from evomerge.recipe import STACK, Recipe
from evomerge.report.formats import Scale, p_clause, scale_of
from evomerge.report.profiles import depth_profiles
from evomerge.report.summary import (
    Comparison,
    DepthPoint,
    GenerationPoint,
    ModelRow,
    RouteStop,
    RunSummary,
    Spending,
    StageLine,
)
from evomerge.run.directory import read_resolved
from evomerge.run.final import Results, joined
from evomerge.run.ledger import Evaluation, LedgerReader
from evomerge.score import Objective, TaskGoal
from evomerge.stack import hops, path_of
from evomerge.statistics import fitness_interval, paired_difference


@dataclass(frozen=True)
class _Run:
    """What was read from a run directory."""

    resolved: Mapping[str, Any]
    objective: Objective
    candidates: Mapping[int, Candidate]
    evaluations: tuple[Evaluation, ...]
    decisions: tuple[Mapping[str, Any] | None, ...]
    firsts: tuple[int, ...]
    warnings: tuple[str, ...]
    finished: bool
    driven: bool
    seconds: float

    @property
    def search(self) -> Mapping[str, Any]:
        """The last search, whose result is the run's."""
        found: Mapping[str, Any] = self.resolved["searches"][-1]
        return found

    @property
    def first(self) -> int:
        """The first candidate of the last search."""
        return self.firsts[-1]

    @cached_property
    def baselines(self) -> Mapping[int, Mapping[str, str]]:
        """Label and kind of all searches' baselines, by candidate id."""
        return {
            number: entry
            for search, first in zip(self.resolved["searches"], self.firsts, strict=True)
            for number, entry in enumerate(search["baselines"], start=first)
        }

    @property
    def decision(self) -> Mapping[str, Any] | None:
        """That of the last search."""
        return self.decisions[-1]

    @property
    def populations(self) -> frozenset[int]:
        """The sizes of complete generations."""
        return frozenset(search["population"] for search in self.resolved["searches"])

    def failed(self, *, rejected: bool) -> set[int]:
        """The candidates that failed, or those that were rejected unscored."""
        outcomes = ((e.candidate, e.outcome) for e in self.evaluations)
        return {c for c, o in outcomes if isinstance(o, Failed) and o.rejected == rejected}

    def results(self, stage: str) -> dict[int, Results]:
        """Per-item outcomes of a stage by candidate."""
        return {
            e.candidate: e.outcome.results
            for e in self.evaluations
            if e.stage == stage and isinstance(e.outcome, Scored)
        }


def summarize(run_dir: Path, *, driven: bool = False) -> RunSummary:
    """The state of the run in `run_dir`; `driven` when its driver is known to be alive.

    Raises:
        InvalidInput: not a run directory, or damaged.
    """
    run = _read(run_dir, driven)
    resolved = run.resolved
    winner = None if run.decision is None or not run.finished else int(run.decision["winner"])
    holdout = _rows(run, run.results("holdout"), winner) if run.finished else ()
    selection = _rows(run, _selection(run), winner)
    winner_row = next((r for r in (*holdout, *selection) if r.candidate == winner), None)
    recipe = None if winner is None else run.candidates[winner].recipe
    parents = tuple(resolved["parents"])
    kinds = [entry["kind"] for entry in run.resolved["searches"][0]["baselines"]]
    base = next((m for m in parents if "base" in kinds and m == parents[0]), None)
    summary = RunSummary(
        name=resolved["name"],
        state="finished" if run.finished else "running" if driven else "interrupted",
        method=run.search["method"],
        metric=", ".join(f"{g.task} {g.metric.removesuffix(',none')}" for g in run.objective.goals),
        base=base,
        parents=tuple(model for model in parents if model != base),
        algorithm=run.search["algorithm"],
        seed=resolved["seed"],
        dimensions=run.search["dimensions"],
        split_sizes=tuple((n, sum(s.values())) for n, s in resolved["splits"].items()),
        minibatch=run.search["minibatch"],
        spending=_spending(run),
        history=_history(run),
        baselines=_rows(run, _fixed(run, run.results("baseline")), None),
        selection=selection,
        holdout=holdout,
        winner=winner_row,
        winner_recipe="" if recipe is None else dump_recipe(recipe),
        better=_better(run, winner, holdout),
        verdict="",
        profiles=() if recipe is None else depth_profiles(recipe),
        route=_route(recipe),
        stages=(),
        depths=_depths(run, holdout or selection),
        warnings=run.warnings,
        versions=tuple(resolved["versions"].items()),
    )
    scale = scale_of(summary)
    return replace(summary, verdict=_verdict(run, scale, run.decision), stages=_stages(run, scale))


def _read(run_dir: Path, driven: bool) -> _Run:
    resolved = read_resolved(run_dir)
    names = [f"{search['name']}: " if search["name"] else "" for search in resolved["searches"]]
    with LedgerReader.open(run_dir) as reader:
        candidates = {candidate.id: candidate for candidate in reader.candidates()}
        texts = [str(event.payload["text"]) for event in reader.events("warning")]
        return _Run(
            resolved,
            Objective(tuple(TaskGoal(**goal) for goal in resolved["goals"])),
            candidates,
            reader.evaluations(),
            tuple(reader.meta(f"{name}decision") for name in names),
            tuple(_first_candidate(reader, name) for name in names),
            tuple(dict.fromkeys(texts)),
            reader.meta("winner") is not None,
            driven,
            float(reader.meta("seconds") or 0.0),
        )


def _first_candidate(reader: LedgerReader, name: str) -> int:
    """Where a search's candidates begin; beyond all of them before it has begun."""
    first = reader.meta(f"{name}first candidate")
    return sys.maxsize // 2 if first is None else int(first)


def _rows(run: _Run, results: Mapping[int, Results], winner: int | None) -> tuple[ModelRow, ...]:
    return tuple(_row(run, number, results, winner) for number in results)


def _row(run: _Run, number: int, results: Mapping[int, Results], winner: int | None) -> ModelRow:
    ours = results[number]
    interval = fitness_interval(run.objective, ours)
    comparison = None
    if winner is not None and winner in results and number != winner:
        paired = paired_difference(run.objective, results[winner], ours)
        comparison = Comparison(paired.value, paired.low, paired.high, paired.p_value)
    return ModelRow(
        candidate=number,
        label=_label(run, number),
        kind=_kind(run, number),
        fitness=interval.value,
        low=interval.low,
        high=interval.high,
        scores=run.objective.scores(ours),
        comparison=comparison,
    )


def _kind(run: _Run, number: int) -> str:
    if number not in run.baselines:
        return "winner"
    kind = run.baselines[number]["kind"]
    # An earlier stage may have found nothing better than a fixed recipe.
    return "baseline" if kind == "stage" and not _evolved_earlier(run, number) else kind


def _label(run: _Run, number: int) -> str:
    if number in run.baselines:
        return str(run.baselines[number]["label"])
    candidate = run.candidates[number]
    return f"merge {number} ({candidate.origin})"


def _fixed(run: _Run, results: Mapping[int, Results]) -> dict[int, Results]:
    own = (number for number in results if number in run.baselines and number >= run.first)
    return {number: results[number] for number in own}


def _selection(run: _Run) -> dict[int, Results]:
    """The models that reached the last rung, with their outcomes on all selection items."""
    stages = sorted(
        {
            e.stage
            for e in run.evaluations
            if e.stage.startswith("final ") and e.candidate >= run.first
        }
    )
    if run.decision is None or not stages:
        return {}
    found: dict[int, Results] = {}
    for number in run.results(stages[-1]):
        if number < run.first:
            continue
        total: Results | None = None
        for stage in stages:
            total = joined(total, run.results(stage)[number])
        assert total is not None
        found[number] = total
    return found


def _history(run: _Run) -> tuple[GenerationPoint, ...]:
    """Best and mean of every complete generation, over the items spent until then."""
    scored = {
        e.candidate: run.objective.fitness(e.outcome.results)
        for e in run.evaluations
        if e.stage == "search" and isinstance(e.outcome, Scored)
    }
    spent = sum(e.items for e in run.evaluations if e.stage == "baseline")
    generations: dict[int, list[Evaluation]] = {}
    for evaluation in run.evaluations:
        if evaluation.stage == "search":
            generation = run.candidates[evaluation.candidate].generation
            generations.setdefault(generation, []).append(evaluation)
    points: list[GenerationPoint] = []
    for generation, members in sorted(generations.items()):
        spent += sum(member.items for member in members)
        values = [scored[m.candidate] for m in members if m.candidate in scored]
        if values and len(members) in run.populations:
            mean = sum(values) / len(values)
            points.append(GenerationPoint(generation, spent, max(values), mean))
    return tuple(points)


def _spending(run: _Run) -> Spending:
    budget = run.resolved["budget"]
    scored = [e.outcome for e in run.evaluations if isinstance(e.outcome, Scored)]
    built = {e.candidate for e in run.evaluations if e.stage in ("baseline", "search")}
    return Spending(
        candidates=len(built),
        candidate_budget=budget["candidates"],
        failed=len(run.failed(rejected=False)),
        rejected=len(run.failed(rejected=True)),
        items=sum(e.items for e in run.evaluations if e.stage != "holdout"),
        item_budget=budget["items"],
        seconds=run.seconds,
        time_budget=budget["time"],
        build_seconds=sum(outcome.build_seconds for outcome in scored),
        score_seconds=sum(outcome.score_seconds for outcome in scored),
    )


def _better(run: _Run, winner: int | None, holdout: Iterable[ModelRow]) -> bool | None:
    """Whether the winner's interval over the best baseline on the holdout lies above zero."""
    if winner is None:
        return None
    if winner in run.baselines and _kind(run, winner) != "stage":
        return False
    rivals = [row for row in holdout if row.comparison is not None]
    if not rivals:
        return None
    best = max(rivals, key=lambda row: row.fitness)
    assert best.comparison is not None
    if best.comparison.low > 0:
        return True
    return False if best.comparison.high < 0 else None


def _stages(run: _Run, scale: Scale) -> tuple[StageLine, ...]:
    searches = run.resolved["searches"]
    return tuple(
        StageLine(
            search["name"],
            search["method"],
            search["algorithm"],
            search["dimensions"],
            _verdict(run, scale, decision),
        )
        for search, decision in zip(searches, run.decisions, strict=True)
    )


def _route(recipe: Recipe | None) -> tuple[RouteStop, ...]:
    if recipe is None or recipe.merge_method != STACK:
        return ()
    return tuple(RouteStop(hop.model, hop.layer, hop.gain) for hop in hops(path_of(recipe)))


def _depths(run: _Run, rows: Iterable[ModelRow]) -> tuple[DepthPoint, ...]:
    """Layers and scores of the last search's candidates and of the models in `rows`."""
    if run.search["method"] != STACK:
        return ()

    def layers(number: int) -> int:
        return len(hops(path_of(run.candidates[number].recipe)))

    tried = {n: found for n, found in run.results("search").items() if n >= run.first}
    points = [
        DepthPoint(n, layers(n), run.objective.fitness(found), "search")
        for n, found in tried.items()
    ]
    stacks = (r for r in rows if run.candidates[r.candidate].recipe.merge_method == STACK)
    points += [DepthPoint(r.candidate, layers(r.candidate), r.fitness, r.kind) for r in stacks]
    return tuple(points)


def _evolved_earlier(run: _Run, winner: int) -> bool:
    """Whether a baseline of the last search is a merge that an earlier one evolved."""
    recipes = {
        run.candidates[int(decision["winner"])].recipe.digest
        for decision in run.decisions[:-1]
        if decision is not None and decision["winner"] != decision["best_baseline"]
    }
    nested = {recipe.digest for _, recipe in run.candidates[winner].recipe.nested}
    return bool(nested & recipes)


def _verdict(run: _Run, scale: Scale, decision: Mapping[str, Any] | None) -> str:
    """How a search's winner was chosen, in one sentence; empty before the decision."""
    if decision is None:
        return ""
    bar = _label(run, int(decision["best_baseline"]))
    if decision["challenger"] is None:
        return f"No merge reached the last rung of the final, so {bar} is handed over."
    challenger = _label(run, int(decision["challenger"]))
    test = f"{scale.lead(decision['difference'])}, {p_clause(decision['p_value'])}"
    if decision["winner"] == decision["best_baseline"]:
        return (
            f"On the selection items {challenger} came closest to {bar} but did not beat it "
            f"({test}), so {bar} is handed over."
        )
    return f"On the selection items {challenger} beat the best baseline, {bar} ({test})."


def leading_candidates(run_dir: Path, top: int) -> tuple[tuple[Candidate, str], ...]:
    """The winner first, then the candidates that did best, each with where its score comes from.

    Candidates that reached the final are ranked by it, others by their distance from the mean of
    their generation, because generations are scored on different items.
    """
    run = _read(run_dir, driven=False)
    finalists = _selection(run)
    fitness = {number: run.objective.fitness(found) for number, found in finalists.items()}
    found = [(n, f"fitness {fitness[n]:.4f} on the selection items") for n in _best_first(fitness)]
    if run.decision is not None:
        winner = int(run.decision["winner"])
        found.sort(key=lambda entry: entry[0] != winner)
    seen = {number for number, _ in found}
    lead = _leads(run)
    found += [
        (n, f"{lead[n]:+.4f} against its generation's mean")
        for n in _best_first(lead)
        if n not in seen
    ]
    return tuple((run.candidates[number], score) for number, score in found[:top])


def _best_first(fitness: Mapping[int, float]) -> list[int]:
    return sorted(fitness, key=lambda number: (-fitness[number], number))


def _leads(run: _Run) -> dict[int, float]:
    values = {n: run.objective.fitness(found) for n, found in run.results("search").items()}
    generations: dict[int, list[float]] = {}
    for number, value in values.items():
        generations.setdefault(run.candidates[number].generation, []).append(value)
    means = {generation: sum(v) / len(v) for generation, v in generations.items()}
    return {n: value - means[run.candidates[n].generation] for n, value in values.items()}
