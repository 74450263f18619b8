"""Commands that build or score models: merge, evaluate, export."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.candidate import Candidate
from evomerge.cli.consenting import AllowFlags, given_consent
from evomerge.consent import Consent
from evomerge.errors import InvalidInput
from evomerge.evaluate.lm_harness import full_results
from evomerge.export import export_model, find_candidate, mergekit_text, recipe_text
from evomerge.mergekit_yaml import load_recipe
from evomerge.recipe import STACK
from evomerge.report.card import render_card
from evomerge.report.claims import caveats, with_caveats
from evomerge.report.recorded import read_run
from evomerge.report.sentences import MUCH_TRUNCATED
from evomerge.report.summarize import summarize
from evomerge.run.build import checked_parents, evaluator_spec
from evomerge.run.config import read_objective
from evomerge.run.directory import model_root
from evomerge.weights.expansion import expand
from evomerge.weights.materialize import Materializer
from evomerge.weights.pickled import converted
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.rehearsal import notices, value_problems
from evomerge.weights.resident import ResidentModel
from evomerge.weights.saved import best_device, load_saved

_ID_AND_OUT = 2


def merge_command(recipe_file: Path, out: Path, allow: AllowFlags) -> None:
    """Build and save the model of a recipe file; its relative paths start at the file."""
    recipe = load_recipe(recipe_file)
    problems = validate_recipe(recipe)
    if problems:
        raise InvalidInput([f"{recipe_file}: {line}" for line in problems])
    root = recipe_file.resolve().parent
    consent = given_consent(allow, root)
    pool = checked_parents(recipe, root, consent)
    if recipe.merge_method != STACK:
        targets = expand(recipe, pool)
        problems = value_problems(recipe, targets)
        if problems:
            raise InvalidInput([f"{recipe_file}: {line}" for line in problems])
        for line in notices(recipe, pool, targets):
            print(line, file=sys.stderr)
    export_model(recipe, root, out, consent)
    print(out)


def evaluate_command(model: Path, suite: Path, allow: AllowFlags, *, as_json: bool) -> None:
    """Score a model directory or a recipe on every item of a suite and print all metrics."""
    objective = read_objective(suite)
    consent = given_consent(allow, suite.resolve().parent)
    spec = evaluator_spec(objective, suite.resolve().parent, consent)
    results = full_results(spec, *_loaded(model, consent))
    if as_json:
        print(json.dumps(results))
        return
    for task, metrics in results["tasks"].items():
        for metric, score in metrics.items():
            error = score["stderr"]
            margin = "" if error is None else f" ± {error:.4f}"
            print(f"{task:<24} {metric:<28} {score['value']:.4f}{margin}  n={score['n']}")
    _warn_of_truncation(results)


def _warn_of_truncation(results: Mapping[str, Any]) -> None:
    for task, cut in results["truncated"].items():
        items = max((score["n"] for score in results["tasks"][task].values()), default=0)
        if cut > MUCH_TRUNCATED * items:
            print(
                f"warning: task '{task}': {cut} of {items} answers were cut off by max_gen_toks: "
                "the score depends on it; raise it in the task file, or add a stop string",
                file=sys.stderr,
            )


def _loaded(model: Path, consent: Consent) -> tuple[Any, Any]:
    device = best_device()
    if model.is_dir():
        pickles = consent.pickle_of(model)
        if pickles is None:
            return load_saved(model, device, consent)
        folder = converted(model, pickles)
        return load_saved(folder, device, consent.with_copy(model, folder))
    if model.suffix not in (".yaml", ".yml"):
        raise InvalidInput(f"{model}: expected a model directory or a recipe file (.yaml)")
    recipe = load_recipe(model)
    problems = validate_recipe(recipe)
    if problems:
        raise InvalidInput([f"{model}: {line}" for line in problems])
    pool = checked_parents(recipe, model.resolve().parent, consent)
    resident = ResidentModel(Materializer(pool), recipe, device)
    resident.become(recipe)
    return resident.model, resident.tokenizer


def export_command(run: Path, targets: tuple[str, ...], to: str, allow: AllowFlags) -> None:
    """Write one candidate of a run in one form and print where."""
    if len(targets) > _ID_AND_OUT:
        raise InvalidInput(f"export: expected [ID] OUT, got {' '.join(targets)}")
    number = None
    if len(targets) == _ID_AND_OUT:
        if not targets[0].isdigit():
            raise InvalidInput(
                f"export: expected a candidate number before OUT, got {targets[0]!r}"
            )
        number = int(targets[0])
    out = Path(targets[-1])
    candidate = find_candidate(run, number)
    root = model_root(run)
    consent = given_consent(allow, root)
    if to == "model":
        export_model(candidate.recipe, root, out, consent)
    else:
        _write_text(out, _text(run, candidate, number, to, consent))
    for line in caveats(read_run(run, driven=False), candidate.id):
        print(f"notice: {line}", file=sys.stderr)
    print(out)


def _text(run: Path, candidate: Candidate, number: int | None, to: str, consent: Consent) -> str:
    if to == "card":
        if number is not None:
            raise InvalidInput(
                "export --to card: a card describes the winner; leave out the number"
            )
        return render_card(summarize(run))
    root, said = model_root(run), caveats(read_run(run, driven=False), candidate.id)
    if to == "recipe":
        return with_caveats(recipe_text(candidate, root), said)
    return with_caveats(mergekit_text(candidate, root, consent), said)


def _write_text(out: Path, text: str) -> None:
    if out.exists():
        raise InvalidInput(f"{out}: exists already; choose another path or remove it")
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"{out}: cannot be written ({error.strerror}); check the path") from None
    sys.stdout.flush()
