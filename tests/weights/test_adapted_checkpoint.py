"""A base with an adapter is a parent like any other."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from evomerge.recipe import Parameters, Recipe, Source
from evomerge.weights.pool import ParentPool
from tests import adapters, models
from tests.weights.merging import assert_same, linear, materializer, merged, source


@pytest.fixture
def parents(tmp_path: Path) -> Path:
    """`base` in bfloat16, the adapters `a` and `b`, and both merged by hand as full models."""
    base = models.llama(tmp_path / "base", layers=3, dtype="bfloat16")
    for seed, name in enumerate(("a", "b")):
        adapters.lora(base, tmp_path / name, seed=seed)
        full = tmp_path / f"full-{name}"
        shutil.copytree(base, full)
        models.rewrite(full, adapters.merged_by_hand(base, tmp_path / name))
    return tmp_path


RECIPES = {
    "ties": Recipe(
        "ties",
        (source("base+a", weight=0.7, density=0.4), source("base+b", weight=0.6, density=0.6)),
        base_model="base",
    ),
    "slerp": Recipe(
        "slerp",
        (source("base+b"),),
        base_model="base+a",
        parameters=Parameters.constants({"t": 0.3}),
    ),
    "linear": linear(source("base+a", weight=0.25), source("base+b", weight=0.75)),
    "passthrough": Recipe("passthrough", (source("base+b"),)),
}


@pytest.mark.parametrize("method", RECIPES)
def test_merges_equal_those_of_full_models(parents: Path, method: str) -> None:
    recipe = RECIPES[method]
    engine = materializer(parents, *recipe.referenced_models())
    engine.pool.check()
    engine.pool.check_finite(engine.pool.models)
    text = repr(recipe).replace("base+", "full-")
    assert text != repr(recipe)

    def full(model: str) -> str:
        return model.replace("base+", "full-")

    same = Recipe(
        recipe.merge_method,
        tuple(Source(full(s.model), s.layer_range, s.parameters) for s in recipe.models),
        base_model=recipe.base_model and full(recipe.base_model),
        parameters=recipe.parameters,
    )
    expected = merged(materializer(parents, *same.referenced_models()), same)
    got = merged(engine, recipe)
    assert_same(got, expected)
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


def test_tensors_that_the_adapter_leaves_alone_are_the_base_s(parents: Path) -> None:
    pool = ParentPool.open(["base", "base+a", "base+b"], parents)
    name = "model.layers.0.self_attn.k_proj.weight"
    assert torch.equal(pool.get("base+a", name), pool.get("base", name))
    changed = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(pool.get("base+a", changed), pool.get("base", changed))
    assert pool.infos("base+a") == pool.infos("base")
    assert pool.directory("base+a") == pool.directory("base")
    assert pool.config("base+a") == pool.config("base")
    with pytest.raises(KeyError, match="ghost"):
        pool.get("base+a", "ghost")


def _read_all(root: Path, model: str = "base+a") -> dict[str, torch.Tensor]:
    pool = ParentPool.open([model], root)
    return {name: pool.get(model, name) for name in pool.infos(model)}


def test_changed_tensors_are_computed_once_for_the_same_files(
    parents: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = tmp_path / "own cache"
    monkeypatch.setenv("EVOMERGE_CACHE", str(cache))
    first = _read_all(parents)
    entries = {path: path.stat().st_ino for path in cache.iterdir()}
    assert len(entries) == 6  # two modules in each of three layers
    again = _read_all(parents)
    absolute = _read_all(parents, f"{parents}/base+{parents}/a")
    assert {path: path.stat().st_ino for path in cache.iterdir()} == entries
    for name, tensor in first.items():
        assert torch.equal(again[name], tensor)
        assert torch.equal(absolute[name], tensor)


def test_other_bases_and_adapters_are_never_mixed_up(parents: Path) -> None:
    name = "model.layers.2.mlp.down_proj.weight"
    before = _read_all(parents)[name].clone()
    prints = [ParentPool.open(["base+a"], parents).fingerprint("base+a")]

    shutil.copyfile(
        parents / "b/adapter_model.safetensors", parents / "a/adapter_model.safetensors"
    )
    other_adapter = _read_all(parents)[name].clone()
    assert torch.equal(other_adapter, _read_all(parents, "base+b")[name])
    prints.append(ParentPool.open(["base+a"], parents).fingerprint("base+a"))

    config = parents / "a" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 12}))
    other_scale = _read_all(parents)[name].clone()
    prints.append(ParentPool.open(["base+a"], parents).fingerprint("base+a"))

    weight = models.read_tensors(parents / "base")[name]
    models.rewrite(parents / "base", {name: weight * 2})
    other_base = _read_all(parents)[name].clone()
    prints.append(ParentPool.open(["base+a"], parents).fingerprint("base+a"))

    found = (before, other_adapter, other_scale, other_base)
    assert not any(torch.equal(x, y) for i, x in enumerate(found) for y in found[:i])
    prints.append(ParentPool.open(["base"], parents).fingerprint("base"))
    assert len(set(prints)) == len(prints)


def test_a_change_that_the_fingerprint_cannot_see_is_not_taken_from_the_cache(
    parents: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fingerprint samples large files; the file's time tells that they were written anew."""
    monkeypatch.setattr("evomerge.weights.checkpoint.fingerprint", lambda _: "same")
    name = "model.layers.0.self_attn.q_proj.weight"
    before = _read_all(parents)[name].clone()
    file = parents / "base" / "model.safetensors"
    models.rewrite(parents / "base", {name: models.read_tensors(file)[name] * 2})
    os.utime(file, (1, 1))
    assert not torch.equal(_read_all(parents)[name], before)


def test_full_precision_replacements_are_rounded_to_the_base_s_type(parents: Path) -> None:
    exact = torch.linspace(0.5, 1.5, 32)
    same_type = torch.linspace(-1, 1, 64 * 32).view(64, 32).bfloat16()
    content = {
        f"{adapters.PREFIX}model.norm.weight": exact,
        f"{adapters.PREFIX}lm_head.weight": same_type,
    }
    adapters.write(parents / "norms", content, settings={"modules_to_save": ["norm", "lm_head"]})
    tensors = _read_all(parents, "base+norms")
    assert torch.equal(tensors["model.norm.weight"], exact.bfloat16())
    assert torch.equal(tensors["lm_head.weight"], same_type)


def test_old_files_without_the_prefix_of_the_base_model(tmp_path: Path) -> None:
    base = models.gpt2(tmp_path / "new")
    tensors = models.read_tensors(base)
    shutil.copytree(base, tmp_path / "old")
    models.rewrite(tmp_path / "old", dict.fromkeys(tensors))
    models.rewrite(
        tmp_path / "old", {n.removeprefix("transformer."): t for n, t in tensors.items()}
    )
    module = f"{adapters.PREFIX}transformer.h.1.attn.c_attn"
    content = {
        f"{module}.lora_A.weight": torch.ones(4, 32),
        f"{module}.lora_B.weight": torch.arange(96.0 * 4).view(96, 4),
    }
    adapters.write(tmp_path / "a", content, targets=("c_attn",))
    new, old = _read_all(tmp_path, "new+a"), _read_all(tmp_path, "old+a")
    for name, tensor in new.items():
        assert torch.equal(old[name.removeprefix("transformer.")], tensor)
    changed = "transformer.h.1.attn.c_attn.weight"
    assert not torch.equal(new[changed], tensors[changed])


@pytest.mark.parametrize(
    ("trained_on", "warned"),
    [
        ("base", False),
        ("/data/on/another/machine/Base/", False),
        ("org/base", False),
        ("/hub/models--org--base/snapshots/0123abc", False),
        ("org/other-7b", True),
        (None, False),
    ],
)
def test_another_name_of_the_base_is_a_warning(
    llamas: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, trained_on: str, warned: bool
) -> None:
    folder = adapters.lora(
        llamas / "base", tmp_path / "a", settings={"base_model_name_or_path": trained_on}
    )
    with caplog.at_level(logging.WARNING):
        ParentPool.open(["base", f"base+{folder}"], llamas).check()
    assert len(caplog.records) == warned
    if warned:
        line = caplog.records[0].getMessage()
        assert f"the adapter was trained on '{trained_on}', not on 'base': check that" in line


def test_adapters_come_from_the_hub_s_local_cache(
    llamas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--org--adapter"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "v2").write_text("0" * 40)
    adapters.lora(llamas / "base", repo / "snapshots" / ("0" * 40))
    pool = ParentPool.open(["base+org/adapter@v2"], llamas)
    expected = adapters.merged_by_hand(llamas / "base", repo / "snapshots" / ("0" * 40))
    for name, tensor in expected.items():
        assert torch.equal(pool.get("base+org/adapter@v2", name), tensor)


_CHECK = """
import sys
from pathlib import Path
from evomerge.weights.pool import ParentPool
pool = ParentPool.open(["base", f"base+{sys.argv[2]}"], Path(sys.argv[1]))
pool.check()
pool.fingerprint(pool.models[1])
loaded = {"torch", "transformers", "huggingface_hub", "peft"} & set(sys.modules)
sys.exit(f"imported {loaded}" if loaded else 0)
"""


def test_preflight_needs_no_torch_and_no_peft(llamas: Path, tmp_path: Path) -> None:
    folder = adapters.lora(llamas / "base", tmp_path / "a")
    command = [sys.executable, "-c", _CHECK, str(llamas), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
