"""Adapters of one base as parents, from the command line: merged, searched, exported, refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge import yaml12
from evomerge.mergekit_yaml import load_recipe
from tests import adapters, models
from tests.cli.conftest import Run

Space = Callable[..., Path]


@pytest.fixture(scope="session")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, the adapters `a` and `b`, and `full-a`, `full-b` merged by hand."""
    root = tmp_path_factory.mktemp("adapted")
    base = models.llama(root / "base", layers=4, seed=1)
    for seed, name in enumerate(("a", "b")):
        adapters.lora(base, root / name, seed=seed, targets=("q_proj", "v_proj", "up_proj"))
        shutil.copytree(base, root / f"full-{name}")
        changed = adapters.merged_by_hand(base, root / name)
        models.rewrite(root / f"full-{name}", changed)
    return root


def _recipe(path: Path, base: object, one: object, other: object) -> Path:
    recipe = {
        "merge_method": "ties",
        "base_model": base,
        "models": [
            {"model": one, "parameters": {"weight": 0.7, "density": 0.5}},
            {"model": other, "parameters": {"weight": 0.4, "density": 0.7}},
        ],
        "dtype": "bfloat16",
    }
    path.write_text(yaml12.dumps(recipe))
    return path


def test_merging_adapters_equals_merging_full_models(
    evomerge: Run, adapted: Path, tmp_path: Path
) -> None:
    base = str(adapted / "base")
    mapping = {"model": {"path": base}, "lora": {"path": str(adapted / "b")}}
    mixed = _recipe(tmp_path / "mixed.yaml", base, f"{base}+{adapted / 'a'}", mapping)
    full = _recipe(tmp_path / "full.yaml", base, str(adapted / "full-a"), str(adapted / "full-b"))
    for recipe in (mixed, full):
        done = evomerge("merge", recipe, tmp_path / recipe.stem)
        assert (done.code, done.err) == (0, "")
    merged, expected = (models.read_tensors(tmp_path / name) for name in ("mixed", "full"))
    assert merged.keys() == expected.keys()
    assert all(torch.equal(merged[name], tensor) for name, tensor in expected.items())


def test_search_among_adapters_and_all_that_follows(
    evomerge: Run, space: Space, adapted: Path, tmp_path: Path
) -> None:
    """Relative names in the space file; absolute ones in what is exported."""
    for name in ("base", "a", "b"):
        shutil.copytree(adapted / name, tmp_path / name)
    path = space(
        space={
            "base_model": {"model": {"path": "base"}},
            "models": [{"model": "base+a"}, {"model": {"model": "base", "lora": {"path": "b"}}}],
        }
    )
    done = evomerge("validate", path)
    assert done.code == 0, done.err
    assert "parents  base+a, base+b" in done.out
    run = tmp_path / "run"
    command = ("search", "--space", path, "--out", run, "--engine", "inline", "--budget", "20")
    done = evomerge(*command)
    assert done.code == 0, done.err
    assert done.err.count("the adapter was trained on") == 0

    absolute = {str(tmp_path / "base"), *(f"{tmp_path}/base+{tmp_path}/{x}" for x in "ab")}
    # No winner is promised; candidate 9 is the slerp of both parents.
    for kind in ("recipe", "mergekit"):
        assert evomerge("export", run, "9", tmp_path / kind, "--to", kind).code == 0
        exported = load_recipe(tmp_path / kind)
        assert set(exported.referenced_models()) <= absolute
        assert any("+" in model for model in exported.referenced_models())
    assert evomerge("export", run, "9", tmp_path / "m9", "--to", "model").code == 0
    assert evomerge("merge", tmp_path / "recipe", tmp_path / "again").code == 0
    merged, saved = models.read_tensors(tmp_path / "again"), models.read_tensors(tmp_path / "m9")
    assert all(torch.equal(merged[name], saved[name]) for name in saved)

    # The run knows its adapters: with another one it is another run.
    shutil.copyfile(
        adapted / "b/adapter_model.safetensors", tmp_path / "a/adapter_model.safetensors"
    )
    done = evomerge(*command)
    assert done.code == 2
    assert "parents.base+a: the run has" in done.err


def _set(folder: Path, **settings: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def test_errors_are_lines_with_the_right_code(
    evomerge: Run, space: Space, adapted: Path, tmp_path: Path
) -> None:
    base = adapted / "base"
    for name in ("a", "b"):
        shutil.copytree(adapted / name, tmp_path / name)
    cases: list[tuple[str, int, str]] = [
        (str(tmp_path / "a"), 2, f"write 'somewhere/base+{tmp_path}/a'"),
        (f"{base}+{tmp_path}/a+{tmp_path}/b", 2, "expected at most one '+'"),
        (f"{base}+{tmp_path}/nowhere", 2, f"adapter '{tmp_path}/nowhere': there is no folder"),
        (f"{base}+{tmp_path}/a", 3, "has rank 4 in lora_A and 4 in lora_B, adapter_config.json"),
        (f"{base}+{tmp_path}/b", 2, "expected peft_type LORA, got IA3"),
    ]
    _set(tmp_path / "a", r=16)
    _set(tmp_path / "b", peft_type="IA3")
    for model, code, message in cases:
        path = space(space={"models": [{"model": model}]})
        for command in (
            ("search", "--space", path, "--out", tmp_path / "run", "--engine", "inline"),
            ("merge", _recipe(tmp_path / "r.yaml", str(base), model, str(base)), tmp_path / "out"),
        ):
            done = evomerge(*command)
            assert done.code == code, (model, done.err)
            assert message in done.err
            assert "Traceback" not in done.err
            assert not (tmp_path / "run").exists()
            assert not (tmp_path / "out").exists()
    done = evomerge("validate", space(space={"models": [{"model": "a+b+c"}]}))
    assert done.code == 2
    assert "space: model 'a+b+c': expected at most one '+'" in done.err


def test_a_foreign_adapter_is_one_warning_per_command(
    evomerge: Run, adapted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(adapted / "a", tmp_path / "a")
    _set(tmp_path / "a", base_model_name_or_path="org/Other-7B")
    base = str(adapted / "base")
    recipe = _recipe(tmp_path / "r.yaml", base, f"{base}+{tmp_path}/a", f"{base}+{adapted}/b")
    assert evomerge("merge", recipe, tmp_path / "out").code == 0
    (record,) = caplog.records
    assert "the adapter was trained on 'org/Other-7B', not on '" in record.getMessage()
