"""Commands that read files and ledgers only: validate, status, best, report, schema."""

# ruff: noqa: PLC0415 - matplotlib is loaded for reports only

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.text import Text

from evomerge.cli.overrides import overrides
from evomerge.cli.viewing import View, listed_runs, viewed
from evomerge.errors import InvalidInput
from evomerge.mergekit_yaml import dump_recipe, to_mapping
from evomerge.parameter import Parameter, Scope
from evomerge.plain_text import one_line
from evomerge.recipe import STACK
from evomerge.report.claims import with_caveats
from evomerge.report.evidence import VERIFIED, standing
from evomerge.report.leading import leading_candidates
from evomerge.report.sentences import stamps
from evomerge.report.summarize import summarize
from evomerge.report.summary import RunSummary
from evomerge.report.terminal import results_table, status_lines, verdict_lines
from evomerge.run.config import read_space_file
from evomerge.run.schema import space_file_schema
from evomerge.run.spaces import Stage, checked_stages, space_notices
from evomerge.signatures import SIGNATURES, did_you_mean
from evomerge.space import SearchSpace

_WATCH_SECONDS = 2.0


def validate_command(path: Path, settings: tuple[str, ...], *, as_json: bool) -> None:
    """Print what a valid space file contains."""
    file = read_space_file(path, overrides(settings))
    stages = checked_stages(file, path)
    for notice in space_notices(file, stages, path):
        print(notice, file=sys.stderr)
    if as_json:
        found = [_stage(stage) for stage in stages]
        print(json.dumps({"schema": "evomerge/validate/v2", "valid": True, "stages": found}))
        return
    tasks = ", ".join(f"{task.task} ({task.metric})" for task in file.objective.tasks)
    print(f"{path}: valid")
    for stage in stages:
        if stage.config.name:
            print(f"  stage {stage.config.name}")
        for line in _described_space(stage):
            print(f"  {line}")
    print(f"  tasks    {tasks}")


def _stage(stage: Stage) -> dict[str, object]:
    space = stage.space
    genes = [gene.name for gene in space.genes] if isinstance(space, SearchSpace) else []
    return {"name": stage.config.name, "dimensions": space.dimension, "genes": genes}


def _described_space(stage: Stage) -> list[str]:
    space = stage.space
    if isinstance(space, SearchSpace):
        return [
            f"method   {space.method}{' and others' if space.methods_vary else ''}",
            f"parents  {', '.join(space.parents)}",
            f"genes    {space.dimension}: {_gene_counts([g.name for g in space.genes])}",
        ]
    layers = ", ".join(f"{model} ({count} layers)" for model, count in stage.depths.items())
    return [
        f"method   stack, scales of {space.scale_mode}",
        f"parents  {layers}",
        f"donor    {space.donor}: embeddings, norm and head, first and last layer",
        f"slots    {space.slots.count}; {space.fewest} to {space.most} layers",
    ]


def _gene_counts(names: list[str]) -> str:
    kinds = [name.partition("[")[0] for name in names]
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


def status_command(run: str, *, as_json: bool) -> None:
    """Print how far a run is, or which runs a database has."""
    lines = listed_runs(run)
    if lines and not as_json:
        print("\n".join(lines))
        return
    with viewed(run) as view:
        summary = _seen(view)
    if as_json:
        verified = standing(summary) in VERIFIED
        found = {"verified": verified, "stamps": stamps(summary), **asdict(summary)}
        print(json.dumps({"schema": "evomerge/status/v1", **found}))
        return
    for line in (*status_lines(summary), *verdict_lines(summary)):
        print(one_line(line))


def _seen(view: View) -> RunSummary:
    run_dir = view.look()
    return summarize(run_dir, driven=view.driven)


def watch_command(run: str) -> None:
    """Print how far a run is, again and again until nobody drives it any more."""
    with viewed(run) as view, Live(refresh_per_second=1) as live:
        while True:
            summary = _seen(view)
            live.update(Text("\n".join((*status_lines(summary), *verdict_lines(summary)))))
            if summary.state != "running":
                return
            time.sleep(_WATCH_SECONDS)


def best_command(run: str, top: int, *, as_json: bool) -> None:
    """Print the winner's recipe, or the leading candidates while there is no winner."""
    with viewed(run) as view:
        leading = leading_candidates(view.look(), top)
    if as_json:
        entries = [
            {
                "candidate": entry.candidate.id,
                "origin": entry.candidate.origin,
                "score": entry.score,
                "caveats": entry.caveats,
                "recipe": to_mapping(entry.candidate.recipe),
            }
            for entry in leading
        ]
        print(json.dumps({"schema": "evomerge/best/v1", "candidates": entries}))
        return
    for entry in leading:
        candidate = entry.candidate
        print(f"# candidate {candidate.id} ({candidate.origin}), {entry.score}")
        print(with_caveats(dump_recipe(candidate.recipe), entry.caveats))


def report_command(run: str, out: Path | None) -> None:
    """Write the HTML report and print its path."""
    from evomerge.report.html import render_report

    with viewed(run) as view:
        summary = _seen(view)
        target = out or view.report
    target.write_text(render_report(summary), encoding="utf-8")
    Console(file=sys.stderr).print(results_table(summary))
    print(target)


def methods_command(name: str | None, *, as_json: bool) -> None:
    """Print what a recipe may say about each merge method."""
    if name is not None and name not in SIGNATURES:
        raise InvalidInput(f"methods: unknown method '{name}'; {did_you_mean(name, SIGNATURES)}")
    chosen = [s for s in SIGNATURES.values() if name in (None, s.name)]
    if as_json:
        listed = [
            {
                "name": s.name,
                "base": s.base.value,
                "models": [s.minimum, s.maximum],
                "paper": s.paper,
                "parameters": [_parameter(p) for p in s.parameters],
            }
            for s in chosen
        ]
        print(json.dumps({"schema": "evomerge/methods/v1", "methods": listed}))
        return
    for signature in chosen:
        base = (
            "gives embeddings, norm and head" if signature.name == STACK else signature.base.value
        )
        print(f"{signature.name}\n  {signature.paper}; base model {base}")
        for parameter in signature.parameters:
            print(f"    {_described(parameter)}")


def _described(parameter: Parameter) -> str:
    given = parameter.default is not None
    default = f"default {json.dumps(parameter.default)}" if given else "required"
    bounds = ""
    if parameter.low is not None or parameter.high is not None:
        bounds = f" in [{_bound(parameter.low)}, {_bound(parameter.high)}]"
    where = "one per model" if parameter.scope is Scope.MODEL else "one per merge"
    kind = f"{parameter.kind.__name__}{bounds}"
    return f"{parameter.name:<12} {where}, {kind}, {default}: {parameter.doc}"


def _parameter(parameter: Parameter) -> dict[str, object]:
    return {
        "name": parameter.name,
        "scope": parameter.scope.value,
        "kind": parameter.kind.__name__,
        "default": parameter.default,
        "low": parameter.low,
        "high": parameter.high,
        "doc": parameter.doc,
    }


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def schema_command() -> None:
    """Print the JSON Schema of space files."""
    print(json.dumps(space_file_schema(), indent=2))
