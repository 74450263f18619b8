from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe, Source
from evomerge.stack import Segment, recipe_of
from evomerge.weights.pool import ParentPool
from evomerge.weights.stack_mergekit import mergekit_form
from tests import stacks


def _form(family: str, root: Path, recipe: Recipe) -> Recipe:
    stacks.parents(family, root)
    return mergekit_form(recipe, ParentPool.open(["a", "b"], root))


def test_a_llama_needs_slices_and_scales_only(tmp_path: Path) -> None:
    recipe = _form("llama", tmp_path, stacks.tangled("stream"))
    assert recipe.merge_method == "passthrough"
    names = {n for part in recipe.slices for s in part.sources for n, _ in s.parameters}
    assert names == {"scale"}


@pytest.mark.parametrize(
    ("family", "line"),
    [
        ("gemma2", r"scales of 'gemma2' shift the gains of norms, and it can only multiply: use"),
        ("llama-biases", r"silently leaves out biases of 'llama' models such as 'mlp\.down_proj"),
        ("qwen2", "it does not move the entries of layer_types with the layers"),
    ],
)
def test_what_mergekit_cannot_say_is_refused(tmp_path: Path, family: str, line: str) -> None:
    with pytest.raises(PreflightFailed, match=line):
        _form(family, tmp_path, stacks.tangled("stream"))


def test_other_widths_and_nested_recipes_are_refused(tmp_path: Path) -> None:
    stacks.write(stacks.FAMILIES["llama"](2), tmp_path / "a", seed=1)
    wide = stacks.FAMILIES["llama"](2)
    wide.intermediate_size = 64
    stacks.write(wide, tmp_path / "b", seed=1)
    pool = ParentPool.open(["a", "b"], tmp_path)
    path = Segment("a", 0, 2), Segment("b", 0, 1)
    recipe = recipe_of(path, donor="a", scale_mode="stream", dtype=None)
    with pytest.raises(PreflightFailed, match="layers of different sizes, which it does not make"):
        mergekit_form(recipe, pool)
    nested = replace(recipe, nested=(("b", Recipe("passthrough", (Source("a"),))),))
    with pytest.raises(PreflightFailed, match=r"no place for nested recipes \('b'\)"):
        mergekit_form(nested, pool)
