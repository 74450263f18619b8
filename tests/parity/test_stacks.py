"""Stacks as mergekit builds them from our export, against stacks in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig

from evomerge.mergekit_yaml import dump_recipe
from evomerge.recipe import Recipe, Slice
from evomerge.stack import Segment, recipe_of
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident_stack import ResidentStack
from evomerge.weights.stack_mergekit import mergekit_form
from tests import stacks
from tests.parity.oracle import Oracle
from tests.parity.results import Results


def _absolute(recipe: Recipe, root: Path) -> Recipe:
    parts = [
        Slice(tuple(replace(s, model=str(root / s.model)) for s in part.sources))
        for part in recipe.slices
    ]
    return replace(recipe, slices=tuple(parts), base_model=str(root / recipe.donor))


def _differences(oracle: Oracle, root: Path, recipe: Recipe) -> float:
    pool = ParentPool.open(recipe.stored_models(), root)
    file = root / "recipe.yaml"
    file.write_text(dump_recipe(_absolute(mergekit_form(recipe, pool), root)), encoding="utf-8")
    oracle.merge(file, root / "out")
    model, report = AutoModelForCausalLM.from_pretrained(root / "out", output_loading_info=True)
    assert not any(report.values())
    resident = ResidentStack(pool)
    resident.become(recipe)
    expected = stacks.logits(resident.model)
    return float((stacks.logits(model.eval()) - expected).abs().max())


@pytest.mark.parametrize("mode", ["stream", "mlp_delta"])
@pytest.mark.parametrize("donor", ["a", "b"])
def test_mergekit_makes_the_same_llama(
    oracle: Oracle, results: Results, tmp_path: Path, mode: str, donor: str
) -> None:
    stacks.parents("llama", tmp_path)
    difference = _differences(oracle, tmp_path, stacks.tangled(mode, donor=donor))
    results.add("stacks", f"llama, {mode}, donor {donor}", {"largest": difference})
    assert difference <= 1e-3


def test_mergekit_takes_a_tied_donor_with_other_tokens(oracle: Oracle, tmp_path: Path) -> None:
    stacks.parents("llama", tmp_path)
    config = LlamaConfig(
        **{**stacks.FAMILIES["llama"](3).to_dict(), "vocab_size": 120, "tie_word_embeddings": True}
    )
    stacks.write(config, tmp_path / "c", seed=3)
    path = Segment("a", 0, 3), Segment("c", 1, 3, 0.8), Segment("b", 2, 4, 1.2)
    recipe = recipe_of(path, donor="c", scale_mode="stream", dtype=None)
    assert _differences(oracle, tmp_path, recipe) <= 1e-3
