"""Hands over a candidate: its recipe, mergekit's YAML, the model itself, and a model card."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from evomerge.candidate import Candidate, ItemSelection, Scored
from evomerge.consent import NOTHING, Consent
from evomerge.errors import BuildFailed, InvalidInput, PreflightFailed
from evomerge.evaluate.evaluator import EvaluatorSpec
from evomerge.evaluate.lm_harness import LmHarness
from evomerge.mergekit_yaml import dump_recipe
from evomerge.model_reference import ModelReference
from evomerge.recipe import STACK, Module, Recipe, Slice, Source
from evomerge.report.card import render_card
from evomerge.report.claims import caveats, with_caveats
from evomerge.report.recorded import read_run
from evomerge.report.summarize import summarize
from evomerge.run.directory import model_root, read_resolved
from evomerge.run.ledger import LedgerReader
from evomerge.score import COST_TASK, TaskOutcomes
from evomerge.weights.materialize import Materializer
from evomerge.weights.nested import opened
from evomerge.weights.pool import ParentPool
from evomerge.weights.references import locate
from evomerge.weights.saved import best_device, load_saved
from evomerge.weights.stack_fold import is_scaled
from evomerge.weights.stack_mergekit import mergekit_form
from evomerge.weights.writer import write_model

_ROUNDED_SHARE = 0.05
"""Items whose answer the rounding of folded scales may change."""


def find_candidate(run_dir: Path, number: int | None) -> Candidate:
    """The candidate with this id; None means the run's winner.

    Raises:
        InvalidInput: there is no such candidate, or no winner yet.
    """
    with LedgerReader.open(run_dir) as reader:
        winner = reader.meta("winner")
        candidates = reader.candidate_rows()
    wanted = winner if number is None else number
    if wanted is None:
        raise InvalidInput(
            f"{run_dir}: no winner yet; let the search finish, or name a candidate by its number"
        )
    if wanted not in candidates:
        last = max(candidates, default=0)
        raise InvalidInput(f"{run_dir}: no candidate {wanted}; expected a number from 0 to {last}")
    return candidates[wanted]


def recipe_text(candidate: Candidate, root: Path) -> str:
    """The recipe as a file that works anywhere on this machine: local models by absolute path."""
    return dump_recipe(_renamed(candidate.recipe, lambda model: _absolute(model, root)))


def mergekit_text(candidate: Candidate, root: Path, consent: Consent = NOTHING) -> str:
    """The same for mergekit, which rounds after every step unless it is told to work in float32.

    Raises:
        PreflightFailed: mergekit cannot express the recipe, a stack.
    """
    recipe = candidate.recipe
    if recipe.merge_method == STACK:
        pool = ParentPool.open(recipe.stored_models(), root, consent)
        recipe = mergekit_form(recipe, pool)
    recipe = _renamed(recipe, lambda model: _absolute(model, root))
    if recipe.storage_dtype not in (None, "float32", "float64"):
        recipe = replace(recipe, dtype="float32", out_dtype=recipe.storage_dtype)
    return dump_recipe(recipe)


def export_model(recipe: Recipe, root: Path, out: Path, consent: Consent = NOTHING) -> None:
    """Write the merged model to the new directory `out`, whole or not at all."""
    pool = opened(recipe, ParentPool.open(recipe.stored_models(), root, consent))
    write_model(recipe, Materializer(pool), out)


def save_best(run_dir: Path, evaluator: EvaluatorSpec, consent: Consent = NOTHING) -> Path:
    """Fill `best/` in the run directory with everything about the winner, and check the model.

    The saved model is loaded back and scored on the items of the winner's last evaluation; every
    outcome must be the recorded one. Only the scales of a stack, which are folded into weights when
    it is saved, may round some otherwise (`verification.json` has the count). `best/` appears only
    when all is well.

    Raises:
        BuildFailed: the saved model does not reproduce the recorded outcomes.
    """
    best, partial = run_dir / "best", run_dir / ".best.partial"
    if best.exists():
        return best
    shutil.rmtree(partial, ignore_errors=True)
    root = model_root(run_dir)
    winner = find_candidate(run_dir, None)
    partial.mkdir()
    export_model(winner.recipe, root, partial / "model", consent)
    verified = _verify(run_dir, winner, partial / "model", evaluator, consent)
    (partial / "verification.json").write_text(json.dumps(verified), encoding="utf-8")
    said = caveats(read_run(run_dir, driven=False), winner.id)
    recipe = with_caveats(recipe_text(winner, root), said)
    (partial / "recipe.yaml").write_text(recipe, encoding="utf-8")
    with contextlib.suppress(PreflightFailed):  # some stacks have no form in mergekit
        text = with_caveats(mergekit_text(winner, root, consent), said)
        (partial / "mergekit.yaml").write_text(text, encoding="utf-8")
    card = render_card(summarize(run_dir))
    (partial / "README.md").write_text(card, encoding="utf-8")
    (partial / "model" / "README.md").write_text(card, encoding="utf-8")
    os.replace(partial, best)
    return best


def _verify(
    run_dir: Path,
    winner: Candidate,
    model_dir: Path,
    evaluator: EvaluatorSpec,
    consent: Consent,
) -> dict[str, int]:
    """Score the saved model again; how many items there were, and how many answers differ."""
    with LedgerReader.open(run_dir) as reader:
        own = (t for t in reader.tallies() if t.candidate == winner.id and t.failure is None)
        *_, last = own
        (outcome,) = (e.outcome for e in reader.evaluations(last.stage) if e.seq == last.seq)
    assert isinstance(outcome, Scored), "it did not fail"
    recorded = tuple(result for result in outcome.results if result.task != COST_TASK)
    items = ItemSelection(tuple((result.task, result.items()) for result in recorded))
    torch.set_num_threads(int(read_resolved(run_dir)["threads"]))
    device = best_device()
    if winner.recipe.donor in winner.recipe.stored_models():  # whose code the saved model has
        donor = ModelReference.parse(winner.recipe.donor).base
        consent = consent.with_copy(locate(donor, model_root(run_dir)), model_dir)
    model, tokenizer = load_saved(model_dir, device, consent)
    scored = LmHarness(model, tokenizer, evaluator, device).evaluate(items)
    different = _differences(recorded, scored)
    recipe = winner.recipe
    rounded = recipe.merge_method == STACK and is_scaled(recipe)
    if len(different) > (_ROUNDED_SHARE * items.count if rounded else 0):
        raise BuildFailed(
            f"{model_dir}: the saved model does not reproduce what was scored: "
            f"{len(different)} of {items.count} items differ, the first is {different[0]}; "
            "the run is intact: run the same command again on the machine that scored it"
        )
    return {"items": items.count, "different": len(different)}


def _differences(recorded: tuple[TaskOutcomes, ...], scored: tuple[TaskOutcomes, ...]) -> list[str]:
    by_task = {result.task: result for result in scored}
    return [
        f"{result.task} item {then.item}: recorded {then.value:g}, now {now.value:g}"
        for result in recorded
        for then, now in zip(result.outcomes, by_task[result.task].outcomes, strict=True)
        if then != now
    ]


def _absolute(model: str, root: Path) -> str:
    def absolute(part: str) -> str:
        path = Path(part).expanduser()
        folder = (path if path.is_absolute() else root / path).resolve()
        # A '+' would be read as the border between base and adapter.
        return str(folder) if folder.is_dir() and "+" not in str(folder) else part

    return ModelReference.parse(model).renamed(absolute).text


def _renamed(recipe: Recipe, name: Callable[[str], str]) -> Recipe:
    """The recipe with every model reference replaced by `name` of it."""

    def source(entry: Source) -> Source:
        return replace(entry, model=name(entry.model))

    def part(entry: Slice) -> Slice:
        base = None if entry.base_model is None else name(entry.base_model)
        sources = tuple(source(inner) for inner in entry.sources)
        return replace(entry, sources=sources, base_model=base)

    def module(entry: Module) -> Module:
        models, slices = map(source, entry.models), map(part, entry.slices)
        return replace(entry, models=tuple(models), slices=tuple(slices))

    return replace(
        recipe,
        models=tuple(source(entry) for entry in recipe.models),
        slices=tuple(part(entry) for entry in recipe.slices),
        modules=tuple(module(entry) for entry in recipe.modules),
        base_model=None if recipe.base_model is None else name(recipe.base_model),
        tokenizer=None if recipe.tokenizer is None else recipe.tokenizer.renamed(name),
        nested=tuple((key, _renamed(inner, name)) for key, inner in recipe.nested),
    )
