"""From a run directory to a RunSummary: reads the ledger and the resolved specification only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.candidate import SEARCH
from evomerge.constraints import Kept
from evomerge.mergekit_yaml import dump_recipe
from evomerge.recipe import STACK, Recipe
from evomerge.report.formats import Scale, p_clause, scale_of
from evomerge.report.profiles import depth_profiles
from evomerge.report.recorded import (
    RecordedRun,
    finalists,
    kind_of,
    label_of,
    read_run,
)
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
from evomerge.report.trades import constraint_lines, eligible, front_summary
from evomerge.run.final import Results
from evomerge.run.ledger import Tally
from evomerge.stack import hops, path_of
from evomerge.statistics import fitness_interval, paired_difference


def summarize(run_dir: Path, *, driven: bool = False) -> RunSummary:
    """The state of the run in `run_dir`; `driven` when its driver is known to be alive.

    Raises:
        InvalidInput: not a run directory, or damaged.
    """
    run = read_run(run_dir, driven=driven)
    resolved = run.resolved
    winner = None if run.decision is None or not run.finished else int(run.decision["winner"])
    held_back = run.results("holdout") if run.finished else {}
    selected = finalists(run)
    early = _fixed(run, run.results("baseline"))
    holdout = _rows(run, "holdout", held_back, winner)
    selection = _rows(run, "selection", selected, winner)
    known = (("holdout", held_back), ("selection", selected), ("search", early))
    split, shown = next((entry for entry in known if entry[1]), known[-1])
    winner_row = next((r for r in (*holdout, *selection) if r.candidate == winner), None)
    recipe = None if winner is None else run.candidates[winner].recipe
    parents = tuple(resolved["parents"])
    kinds = [entry["kind"] for entry in run.resolved["searches"][0]["baselines"]]
    base = next((m for m in parents if "base" in kinds and m == parents[0]), None)
    lines = constraint_lines(run, split, shown, tuple(shown))
    violated = any(line.candidate == winner and line.kept == Kept.VIOLATED.value for line in lines)
    broken = winner is not None and (violated or _none_eligible(run))
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
        test_splits=tuple(resolved["test_splits"]),
        near_duplicates=resolved["near_duplicates"],
        minibatch=run.search["minibatch"],
        spending=_spending(run),
        history=_history(run),
        baselines=_rows(run, "search", early, None),
        selection=selection,
        holdout=holdout,
        winner=winner_row,
        winner_recipe="" if recipe is None else dump_recipe(recipe),
        better=_better(run, winner, holdout, broken=broken),
        verdict="",
        profiles=() if recipe is None else depth_profiles(recipe),
        route=_route(recipe),
        stages=(),
        depths=_depths(run, holdout or selection),
        front=front_summary(run, split, shown, winner),
        constraints=lines,
        broken=broken,
        warnings=run.warnings,
        versions=tuple(resolved["versions"].items()),
    )
    scale = scale_of(summary)
    return replace(summary, verdict=_verdict(run, scale, run.decision), stages=_stages(run, scale))


def _rows(
    run: RecordedRun, split: str, results: Mapping[int, Results], winner: int | None
) -> tuple[ModelRow, ...]:
    return tuple(_row(run, split, number, results, winner) for number in results)


def _row(
    run: RecordedRun,
    split: str,
    number: int,
    results: Mapping[int, Results],
    winner: int | None,
) -> ModelRow:
    ours = results[number]
    interval = fitness_interval(run.objective, ours)
    comparison = None
    if winner is not None and winner in results and number != winner:
        paired = paired_difference(run.objective, results[winner], ours)
        comparison = Comparison(paired.value, paired.low, paired.high, paired.p_value)
    return ModelRow(
        candidate=number,
        label=label_of(run, number),
        kind=kind_of(run, number),
        fitness=interval.value,
        low=interval.low,
        high=interval.high,
        scores=run.objective.scores(ours),
        comparison=comparison,
        eligible=eligible(run, split, results, number),
        truncated=sum(task.truncated for task in ours),
    )


def _fixed(run: RecordedRun, results: Mapping[int, Results]) -> dict[int, Results]:
    own = (number for number in results if number in run.baselines and number >= run.first)
    return {number: results[number] for number in own}


def _history(run: RecordedRun) -> tuple[GenerationPoint, ...]:
    """Best and mean of every complete generation, over the items spent until then."""
    spent = sum(t.items for t in run.tallies if t.stage == "baseline")
    generations: dict[int, list[Tally]] = {}
    for tally in run.tallies:
        if tally.stage == SEARCH:
            generation = run.candidates.generation(tally.candidate)
            generations.setdefault(generation, []).append(tally)
    points: list[GenerationPoint] = []
    for generation, members in sorted(generations.items()):
        spent += sum(member.items for member in members)
        values = [run.searched[m.candidate] for m in members if m.candidate in run.searched]
        if values and len(members) in run.populations:
            mean = sum(values) / len(values)
            points.append(GenerationPoint(generation, spent, max(values), mean))
    return tuple(points)


def _spending(run: RecordedRun) -> Spending:
    budget = run.resolved["budget"]
    built = {t.candidate for t in run.tallies if t.stage in ("baseline", SEARCH)}
    return Spending(
        candidates=len(built),
        candidate_budget=budget["candidates"],
        failed=len(run.failed(rejected=False)),
        rejected=len(run.failed(rejected=True)),
        items=sum(t.items for t in run.tallies if t.stage != "holdout"),
        item_budget=budget["items"],
        seconds=run.seconds,
        time_budget=budget["time"],
        build_seconds=sum(t.build_seconds for t in run.tallies),
        score_seconds=sum(t.score_seconds for t in run.tallies),
    )


def _better(
    run: RecordedRun, winner: int | None, holdout: Iterable[ModelRow], *, broken: bool
) -> bool | None:
    """Whether the winner's interval over the best baseline on the holdout lies above zero."""
    if winner is None:
        return None
    if winner in run.baselines and kind_of(run, winner) != "stage":
        return False
    if broken:
        return False
    bars = [row for row in holdout if row.candidate in run.baselines and row.candidate != winner]
    rivals = [row for row in bars if row.eligible]
    if not rivals:
        return True if bars else None  # no other known model keeps the constraints
    best = max(rivals, key=lambda row: row.fitness)
    assert best.comparison is not None
    if best.comparison.low > 0:
        return True
    return False if best.comparison.high < 0 else None


def _stages(run: RecordedRun, scale: Scale) -> tuple[StageLine, ...]:
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


def _depths(run: RecordedRun, rows: Iterable[ModelRow]) -> tuple[DepthPoint, ...]:
    """Layers and scores of the last search's candidates and of the models in `rows`."""
    if run.search["method"] != STACK:
        return ()

    def layers(number: int) -> int:
        return len(hops(path_of(run.candidates[number].recipe)))

    points = [
        DepthPoint(n, layers(n), fitness, "search")
        for n, fitness in run.searched.items()
        if n >= run.first
    ]
    stacks = (r for r in rows if run.candidates[r.candidate].recipe.merge_method == STACK)
    points += [DepthPoint(r.candidate, layers(r.candidate), r.fitness, r.kind) for r in stacks]
    return tuple(points)


def _verdict(run: RecordedRun, scale: Scale, decision: Mapping[str, Any] | None) -> str:
    """How a search's winner was chosen, in one sentence; empty before the decision."""
    if decision is None:
        return ""
    if decision["best_baseline"] is None:
        return _untested(run, decision)
    bar = label_of(run, int(decision["best_baseline"]))
    if decision["challenger"] is None:
        kept = " and kept every constraint" if decision["violating"] else ""
        return f"No merge reached the last rung of the final{kept}, so {bar} is handed over."
    challenger = label_of(run, int(decision["challenger"]))
    test = f"{scale.lead(decision['difference'])}, {p_clause(decision['p_value'])}"
    if decision["winner"] == decision["best_baseline"]:
        return (
            f"On the selection items {challenger} came closest to {bar} but did not beat it "
            f"({test}), so {bar} is handed over."
        )
    return f"On the selection items {challenger} beat the best baseline, {bar} ({test})."


def _untested(run: RecordedRun, decision: Mapping[str, Any]) -> str:
    """Why the winner was compared with no baseline."""
    winner = label_of(run, int(decision["winner"]))
    if decision["winner"] in decision["violating"]:
        return (
            f"No finalist kept every constraint on the selection items: {winner} came closest and "
            "is handed over."
        )
    if decision["challenger"] is not None:
        return f"On the selection items {winner} keeps every constraint, and no baseline does."
    return f"{winner} had the best score of the search; no final tested it."


def _none_eligible(run: RecordedRun) -> bool:
    decision = run.decision
    return decision is not None and decision["winner"] in decision["violating"]
