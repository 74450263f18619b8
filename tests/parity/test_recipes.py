"""Whole recipes, merged from end to end by the command lines of both programs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.merge.reference import flat
from tests.merge.thresholds import undecided
from tests.models import read_tensors
from tests.parity.agreement import LIMIT, Pair, Scale
from tests.parity.models import NO_SMOLLM2, bfloat16_copy, little_models, smollm2_parents
from tests.parity.oracle import Oracle
from tests.parity.recipes import LITTLE, QWEN, REAL, Shown
from tests.parity.results import Entry, Results

Tensors: TypeAlias = dict[str, torch.Tensor]
ROLES = ("base", "read", "write")


@dataclass(frozen=True)
class Models:
    """The folder of every model that recipes may name."""

    paths: dict[str, Path]

    def named_in(self, text: str) -> str:
        """The recipe with folders instead of names."""
        for name, path in self.paths.items():
            text = text.replace(f"model: {name}", f"model: {path}")
        return text


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    root = tmp_path_factory.mktemp("models")
    paths = little_models(root)
    real = smollm2_parents()
    if real is not None:
        paths |= {role.upper(): bfloat16_copy(real / role, root / role) for role in ROLES}
    return Models(paths)


SHOWN = [pytest.param(shown, id=shown.name) for shown in (*REAL, *LITTLE)]


@pytest.mark.parametrize("shown", SHOWN)
def test_recipe(
    shown: Shown, models: Models, oracle: Oracle, results: Results, tmp_path: Path
) -> None:
    if shown.is_real and "READ" not in models.paths:
        pytest.skip(NO_SMOLLM2)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(models.named_in(shown.text), encoding="utf-8")
    _merge(recipe, tmp_path / "ours")
    oracle.merge(recipe, tmp_path / "theirs")
    mine, other = (read_tensors(tmp_path / who) for who in ("ours", "theirs"))
    assert mine.keys() == other.keys()
    unequal = _unequal(shown, models, mine, other)
    results.add("recipes", shown.name, _entry(shown, mine, unequal))
    configs = [_config(tmp_path / who) for who in ("ours", "theirs")]
    assert configs[0] == configs[1]
    if not shown.unlike:
        limit = LIMIT if mine["model.norm.weight"].dtype == torch.float32 else 1.0
        assert max((pair.ulps for pair in unequal.values()), default=0.0) <= limit


def test_layer_types(models: Models, oracle: Oracle, results: Results, tmp_path: Path) -> None:
    """A stack of a model whose config lists the layers' types: mergekit fails, evomerge cuts it."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(models.named_in(QWEN), encoding="utf-8")
    _merge(recipe, tmp_path / "ours")
    types = json.loads((tmp_path / "ours" / "config.json").read_text())["layer_types"]
    full, sliding = "full_attention", "sliding_attention"
    assert types == [full, sliding, sliding, full, sliding]
    AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    with pytest.raises(RuntimeError, match="layer_types") as failed:
        oracle.merge(recipe, tmp_path / "theirs")
    results.add("refusals", "passthrough, Qwen3 with layer_types", {"mergekit": str(failed.value)})


def _merge(recipe: Path, out: Path) -> None:
    command = [sys.executable, "-m", "evomerge", "merge", str(recipe), str(out)]
    subprocess.run(command, check=True, capture_output=True)


def _unequal(shown: Shown, models: Models, mine: Tensors, other: Tensors) -> dict[str, Pair]:
    """The elements that differ, of the tensors that have any."""
    values = [{"weight": 1.0, "density": d, "gamma": shown.gamma} for d in shown.densities]
    stored = [read_tensors(models.paths[parent]) for parent in shown.parents]
    found: dict[str, Pair] = {}
    for name, tensor in mine.items():
        assert (tensor.shape, tensor.dtype) == (other[name].shape, other[name].dtype)
        places = (tensor != other[name]).reshape(-1).nonzero().reshape(-1)
        if not places.numel():
            continue
        # A tied embedding stands in for a head.
        parents = [t.get(name, t["model.embed_tokens.weight"]) for t in stored]
        decided = np.ones(places.numel(), dtype=bool)
        if shown.trims:
            decided = ~undecided(shown.trims, parents, values, {})[places.numpy()]
        results = [result.reshape(-1)[places] for result in (tensor, other[name])]
        inputs = [parent.reshape(-1)[places] for parent in parents]
        if not parents:  # slices mix layers: the tensor's largest element stands in for its parents
            inputs = [tensor.abs().max().expand(places.numel())]
        left, right = map(flat, results)
        found[name] = Pair(left, right, Scale.of(results, inputs), decided)
    return found


def _entry(shown: Shown, mine: Tensors, unequal: dict[str, Pair]) -> Entry:
    apart, relative = 0.0, 0.0
    for name, pair in unequal.items():
        largest = float(np.abs(pair.ours - pair.theirs)[pair.decided].max(initial=0.0))
        apart = max(apart, largest)
        relative = max(relative, largest / float(mine[name].abs().max()))
    count = sum(tensor.numel() for tensor in mine.values())
    return {
        "parents": "SmolLM2, bfloat16" if shown.is_real else "little, float32",
        "result": str(next(iter(mine.values())).dtype).removeprefix("torch."),
        "tensors": len(mine),
        "largest_difference": apart,
        "relative_to_largest_value": relative,
        "worst_ulps": max((pair.ulps for pair in unequal.values()), default=0.0),
        "share_of_elements_unequal": sum(p.ours.size for p in unequal.values()) / count,
        "share_of_elements_unequal_and_tied": sum(int((~p.decided).sum()) for p in unequal.values())
        / count,
        "known_difference": shown.unlike,
    }


def _config(model: Path) -> dict[str, Any]:
    """What decides how the weights are used."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return {key: config[key] for key in ("architectures", "num_hidden_layers", "vocab_size")}
