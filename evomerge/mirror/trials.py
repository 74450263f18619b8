"""Which trials a run's candidates are: values, named parameters and attributes, without Optuna."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.candidate import SEARCH, Candidate, Failed, Scored
from evomerge.mergekit_yaml import dump_recipe
from evomerge.recipe import STACK, Recipe
from evomerge.report.formats import short_names
from evomerge.report.profiles import depth_profiles
from evomerge.report.recorded import RecordedRun, label_of
from evomerge.run.ledger import Evaluation
from evomerge.stack import hops, path_of

MOST_PARAMETERS = 20
"""More cannot be told apart in plots, and every one costs milliseconds per trial."""
METHOD = "method"
FITNESS = "fitness on search items"
"""Not what a winner is chosen by: generations are scored on different items."""
_WIDTH = 24
_STAGES = ("baseline", SEARCH)


@dataclass(frozen=True)
class MirrorTrial:
    """One candidate as a trial.

    `values` are in the order of `MirrorStudy.metrics`, None when it failed; `parameters` are
    numbers, but a merge method is a name; `began` and `ended` are seconds since the epoch.
    """

    candidate: int
    values: tuple[float, ...] | None
    rejected: bool
    parameters: Mapping[str, float | int | str]
    attributes: Mapping[str, Any]
    began: float
    ended: float


@dataclass(frozen=True)
class MirrorStudy:
    """One search of a run as a study.

    `metrics` are fitness, then every task when there are several; `maximised` says for each
    whether more is better. `ranges` are the bounds of parameters whose space gives them.
    """

    name: str
    metrics: tuple[str, ...]
    maximised: tuple[bool, ...]
    ranges: Mapping[str, tuple[float, float]]
    methods: tuple[str, ...]
    trials: tuple[MirrorTrial, ...]


def mirror_studies(
    run: RecordedRun, searched: Sequence[Evaluation], name: str
) -> tuple[MirrorStudy, ...]:
    """The studies of a run called `name`: one per search; candidates in the order they finished.

    `searched` are the evaluations of stage SEARCH, which `run` does not hold; they may have been
    read a moment before or after it.
    """
    known = [e for e in searched if e.candidate in run.candidates]
    evaluations = sorted((*run.evaluations, *known), key=lambda e: e.seq)
    goals = run.objective.goals
    tasks = goals if len(goals) > 1 else ()
    ends = (*run.firsts[1:], None)
    studies = []
    for search, first, end in zip(run.resolved["searches"], run.firsts, ends, strict=True):
        own = [e for e in evaluations if e.candidate >= first and e.stage in _STAGES]
        own = [e for e in own if end is None or e.candidate < end]
        spaces = _space_of(run.resolved, search["name"])
        methods = _methods(spaces)
        studies.append(
            MirrorStudy(
                f"{name}/{search['name']}" if search["name"] else name,
                (FITNESS, *(_metric(goal.task, goal.metric) for goal in tasks)),
                (True, *(goal.higher_is_better for goal in tasks)),
                dict(_ranges(spaces)),
                methods,
                tuple(_trial(run, entry, methods_vary=len(methods) > 1) for entry in own),
            )
        )
    return tuple(studies)


def _trial(run: RecordedRun, evaluation: Evaluation, *, methods_vary: bool) -> MirrorTrial:
    candidate, outcome = run.candidates[evaluation.candidate], evaluation.outcome
    attributes: dict[str, Any] = {
        "candidate": candidate.id,
        "origin": label_of(run, candidate.id)
        if candidate.id in run.baselines
        else candidate.origin,
        "generation": candidate.generation,
        "stage": evaluation.stage,
        "worker": evaluation.worker,
        "attempts": evaluation.attempts,
        "items": evaluation.items,
    }
    values, took = None, 0.0
    if isinstance(outcome, Scored):
        goals = run.objective.goals
        scores = {score.task: score.value for score in run.objective.scores(outcome.results)}
        tasks = [scores[goal.task] for goal in goals] if len(goals) > 1 else []
        values = (run.objective.fitness(outcome.results), *tasks)
        took = outcome.build_seconds + outcome.score_seconds
        attributes |= {
            "build seconds": round(outcome.build_seconds, 3),
            "score seconds": round(outcome.score_seconds, 3),
        }
        if outcome.remarks:
            attributes["remarks"] = list(outcome.remarks)
    else:
        attributes["failure"] = f"{outcome.kind}: {outcome.message}"
    attributes["recipe"] = dump_recipe(candidate.recipe)
    return MirrorTrial(
        candidate.id,
        values,
        isinstance(outcome, Failed) and outcome.rejected,
        _parameters(candidate, methods_vary=methods_vary),
        attributes,
        evaluation.finished - took,
        evaluation.finished,
    )


def _parameters(candidate: Candidate, *, methods_vary: bool) -> dict[str, float | int | str]:
    """What a person would plot; nothing for fixed recipes, whose parameters are others."""
    recipe = candidate.recipe
    if candidate.genotype is None:
        return {}
    if recipe.merge_method == STACK:
        return _layers(recipe)
    profiles = depth_profiles(recipe)
    short = short_names([p.model for p in profiles if p.model], _WIDTH)
    single = {
        " ".join(filter(None, (p.parameter, short.get(p.model, ""), _place(label)))): value
        for p in profiles
        for label, value in zip(p.labels, p.values, strict=True)
    }
    if len(single) > MOST_PARAMETERS - 1:
        single = {
            " ".join(filter(None, ("mean", p.parameter, short.get(p.model, "")))): (
                sum(p.values) / len(p.values)
            )
            for p in profiles
        }
    chosen: dict[str, float | int | str] = dict(list(single.items())[: MOST_PARAMETERS - 1])
    return chosen | ({METHOD: recipe.merge_method} if methods_vary else {})


def _place(label: str) -> str:
    """Where a value applies: "layer 3", "layers 0-7", "head"; nothing when it is everywhere."""
    if label == "all layers":
        return ""
    if not label[0].isdigit() or "%" in label:
        return label
    return f"layers {label}" if "-" in label else f"layer {label}"


def _layers(recipe: Recipe) -> dict[str, float | int | str]:
    path = hops(path_of(recipe))
    models = sorted({hop.model for hop in path})
    short = short_names(models, _WIDTH)
    counts = {f"layers of {short[m]}": sum(hop.model == m for hop in path) for m in models}
    return {"layers": len(path), **dict(list(counts.items())[: MOST_PARAMETERS - 1])}


def _metric(task: str, metric: str) -> str:
    return f"{task} {metric.removesuffix(',none')}"


def _space_of(resolved: Mapping[str, Any], stage: str) -> Any:
    for entry in resolved.get("stages") or ():
        if entry.get("name") == stage:
            return entry.get("space", {})
    return resolved.get("space") or {}


def _methods(space: Any) -> tuple[str, ...]:
    method = space.get("merge_method") if isinstance(space, dict) else None
    choices = method.get("choice", ()) if isinstance(method, dict) else ()
    return tuple(str(choice) for choice in choices)


def _ranges(space: Any) -> Iterator[tuple[str, tuple[float, float]]]:
    """The bounds of numeric genes, by the name of the parameter they stand for."""
    if isinstance(space, list):
        for entry in space:
            yield from _ranges(entry)
    elif isinstance(space, dict):
        for key, value in space.items():
            bounds = value.get("float") or value.get("int") if isinstance(value, dict) else None
            if isinstance(bounds, list) and len(bounds) == 2:
                yield key, (float(bounds[0]), float(bounds[1]))
            else:
                yield from _ranges(value)
