from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from evomerge.cache_folder import cache_folder
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.export import export_model
from evomerge.recipe import Parameters, Recipe, Source
from evomerge.stack import Segment, recipe_of
from evomerge.weights.nested import opened
from evomerge.weights.pool import ParentPool
from evomerge.weights.resident_stack import ResidentStack
from tests import models, stacks


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    base = stacks.write(stacks.FAMILIES["llama"](3), tmp_path / "a", seed=0)
    models.perturbed(base, tmp_path / "b", seed=1)
    return tmp_path


def _soup(weight: float = 0.5) -> Recipe:
    sources = tuple(
        Source(name, None, Parameters.constants({"weight": w}))
        for name, w in (("a", weight), ("b", 1 - weight))
    )
    return Recipe("linear", sources)


def _stack(*nested: tuple[str, Recipe], layers: str = "soup") -> Recipe:
    segments = Segment("a", 0, 2), Segment(layers, 1, 3, 1.2)
    return recipe_of(segments, donor="a", scale_mode="stream", dtype=None, nested=nested)


def _merged() -> list[str]:
    return sorted(path.name for path in (cache_folder() / "merged").iterdir())


def test_a_result_is_merged_once_and_opened_by_its_name(root: Path) -> None:
    pool, recipe = ParentPool.open(["a", "b"], root), _stack(("soup", _soup()))
    more = opened(recipe, pool)
    assert more.models == ("a", "b", "soup")
    name = "model.layers.1.mlp.up_proj.weight"
    torch.testing.assert_close(
        more.get("soup", name), (pool.get("a", name) + pool.get("b", name)) / 2
    )
    assert opened(recipe, more) is more
    (folder,) = _merged()
    written = (more.directory("soup") / "model.safetensors").stat().st_mtime_ns
    again = opened(recipe, ParentPool.open(["a", "b"], root))
    assert again.directory("soup").name == folder
    assert (again.directory("soup") / "model.safetensors").stat().st_mtime_ns == written


def test_recipes_without_any_keep_their_pool(root: Path) -> None:
    pool = ParentPool.open(["a", "b"], root)
    assert opened(_soup(), pool) is pool


def test_other_recipes_and_other_parents_give_other_results(root: Path) -> None:
    pool = ParentPool.open(["a", "b"], root)
    first = opened(_stack(("soup", _soup())), pool)
    second = opened(_stack(("soup", _soup(0.25))), first)
    assert second.directory("soup") != first.directory("soup")
    tensors = models.read_tensors(root / "b")
    models.rewrite(root / "b", {"model.norm.weight": tensors["model.norm.weight"] + 1})
    third = opened(_stack(("soup", _soup())), ParentPool.open(["a", "b"], root))
    assert third.directory("soup") not in (first.directory("soup"), second.directory("soup"))
    assert len(_merged()) == 3


def test_results_of_results(root: Path) -> None:
    inner = _stack(("soup", _soup()))
    recipe = _stack(("deep", inner), layers="deep")
    assert recipe.stored_models() == ("a", "b")
    pool = opened(recipe, ParentPool.open(["a", "b"], root))
    resident = ResidentStack(pool)
    resident.become(recipe)
    export_model(recipe, root, root / "out")
    written = LlamaForCausalLM.from_pretrained(root / "out").eval()
    assert (stacks.logits(written) - stacks.logits(resident.model)).abs().max() < 1e-5
    assert len(_merged()) == 2


def test_problems_name_the_nested_recipe(root: Path) -> None:
    pool = ParentPool.open(["a", "b"], root)
    short = replace(_soup(), models=(Source("a"),), merge_method="passthrough", dtype="float1")
    with pytest.raises(InvalidInput, match=r"^recipes\.soup: dtype: unknown type 'float1'"):
        opened(_stack(("soup", short)), pool)
    stacks.write(stacks.FAMILIES["llama"](2), root / "c", seed=4)
    uneven = replace(
        _soup(), models=(*_soup().models, Source("c", None, Parameters.constants({"weight": 1.0})))
    )
    with pytest.raises(PreflightFailed, match=r"recipes\.soup: model 'c': layer count 2, but 'a'"):
        opened(_stack(("soup", uneven)), ParentPool.open(["a", "b", "c"], root))
    assert not (cache_folder() / "merged").exists() or not _merged()


def test_whoever_needs_it_at_the_same_time_waits(root: Path) -> None:
    def folder(_: int) -> str:
        pool = ParentPool.open(["a", "b"], root)
        return opened(_stack(("soup", _soup())), pool).directory("soup").name

    with ThreadPoolExecutor(3) as threads:
        names = set(threads.map(folder, range(3)))
    assert _merged() == [*names]
