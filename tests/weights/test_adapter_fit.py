"""Adapters that are sound by themselves on a base that is not theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.weights.adapters import Adapter
from evomerge.weights.pool import ParentPool
from tests import adapters, models
from tests.adapters import PREFIX

Q_PROJ = f"{PREFIX}model.layers.0.self_attn.q_proj"


def _misfits(llamas: Path, folder: Path) -> list[str]:
    """The problems of an adapter that is fine by itself but does not fit the base."""
    Adapter.open(folder)
    with pytest.raises(PreflightFailed, match=r".") as caught:
        ParentPool.open([f"base+{folder}"], llamas)
    return list(caught.value.problems)


def test_unknown_modules_are_listed_up_to_five(llamas: Path, tmp_path: Path) -> None:
    content = {}
    for index in range(7):
        module = f"{PREFIX}model.layers.{index}.attention.q_proj"
        content[f"{module}.lora_A.weight"] = torch.ones(4, 32)
        content[f"{module}.lora_B.weight"] = torch.ones(32, 4)
    *lines, rest = _misfits(llamas, adapters.write(tmp_path / "a", content))
    assert len(lines) == 5
    assert all("attention.q_proj', which the base does not have: name the" in x for x in lines)
    assert rest.endswith("... and 2 more")


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
def test_ranks_that_contradict_are_refused(llamas: Path, tmp_path: Path, part: str) -> None:
    content = adapters.matrices(llamas / "base", targets=("layers.0.self_attn.q_proj",))
    name = f"{Q_PROJ}.{part}.weight"
    content[name] = content[name][:3] if part == "lora_A" else content[name][:, :3].contiguous()
    (line,) = _misfits(llamas, adapters.write(tmp_path / "a", content))
    ranks = "3 in lora_A and 4 in lora_B" if part == "lora_A" else "4 in lora_A and 3 in lora_B"
    assert f"has rank {ranks}, adapter_config.json says 4: get a sound copy" in line


def test_the_rank_of_the_config_must_be_that_of_the_tensors(llamas: Path, tmp_path: Path) -> None:
    folder = adapters.lora(
        llamas / "base", tmp_path / "a", targets=("layers.0.mlp.up_proj",), settings={"r": 8}
    )
    (line,) = _misfits(llamas, folder)
    assert "rank 4 in lora_A and 4 in lora_B, adapter_config.json says 8" in line


def test_an_adapter_of_another_shape_is_refused_and_its_base_named(
    llamas: Path, tmp_path: Path
) -> None:
    models.llama(tmp_path / "wide", layers=4, hidden=64)
    settings = {"base_model_name_or_path": "org/Wide-7B"}
    folder = adapters.lora(tmp_path / "wide", tmp_path / "a", settings=settings)
    lines = _misfits(llamas, folder)
    assert len(lines) == 7  # eight modules, five lines, one for the rest, one for the base
    assert "from 64 inputs to 64 outputs, the base's 'model.layers.0." in "".join(lines)
    assert "has shape [32, 32]: name the adapter's own base" in "".join(lines)
    assert "trained on 'org/Wide-7B', not on 'base'" in lines[-1]


def test_replaced_tensors_must_have_the_base_s_shape(llamas: Path, tmp_path: Path) -> None:
    content = {f"{PREFIX}model.embed_tokens.weight": torch.zeros(65, 32)}
    (line,) = _misfits(llamas, adapters.write(tmp_path / "a", content))
    assert "replaces 'model.embed_tokens.weight' by a tensor of shape [65, 32]" in line
    assert "if the adapter has a vocabulary of its own, merge it" in line


def test_a_magnitude_of_another_length_is_refused(llamas: Path, tmp_path: Path) -> None:
    content = adapters.matrices(llamas / "base", targets=("layers.0.self_attn.q_proj",))
    content[f"{Q_PROJ}.lora_magnitude_vector"] = torch.ones(31)
    folder = adapters.write(tmp_path / "a", content, settings={"use_dora": True})
    (line,) = _misfits(llamas, folder)
    assert "has 32 outputs, but a lora_magnitude_vector of shape [31]" in line


def test_two_modules_for_one_tensor_and_integers_are_refused(llamas: Path, tmp_path: Path) -> None:
    content = adapters.matrices(llamas / "base", targets=("layers.0.self_attn.q_proj",))
    content |= {name.replace("model.model.", "model."): t + 0 for name, t in content.items()}
    (line,) = _misfits(llamas, adapters.write(tmp_path / "a", content))
    assert "are one tensor of the base" in line
    norms = {f"{PREFIX}{name}": torch.ones(32) for name in ("model.norm.weight", "norm.weight")}
    (line,) = _misfits(llamas, adapters.write(tmp_path / "norms", norms))
    assert "'model.norm.weight' and 'norm.weight' are one tensor of the base" in line
    quantised = models.perturbed(llamas / "base", tmp_path / "quantised", seed=3, scale=0.0)
    weight = "model.layers.0.self_attn.q_proj.weight"
    models.rewrite(quantised, {weight: torch.zeros(32, 32, dtype=torch.int8)})
    folder = adapters.lora(llamas / "base", tmp_path / "b", targets=("layers.0.self_attn.q_proj",))
    with pytest.raises(PreflightFailed, match=f"'{weight}', which is stored as int8: use the full"):
        ParentPool.open([f"quantised+{folder}"], tmp_path)


def test_a_name_that_fits_several_tensors_is_refused(tmp_path: Path) -> None:
    base = models.llama(tmp_path / "base")
    models.rewrite(base, {"tower.model.extra.weight": torch.zeros(4, 4)})
    models.rewrite(base, {"other.model.extra.weight": torch.zeros(4, 4)})
    content = {f"{PREFIX}extra.weight": torch.ones(4, 4)}
    folder = adapters.write(tmp_path / "a", content)
    with pytest.raises(PreflightFailed, match="'extra', which fits several tensors"):
        ParentPool.open([f"base+{folder}"], tmp_path)


def test_all_problems_of_all_models_come_at_once(llamas: Path, tmp_path: Path) -> None:
    unfit = adapters.write(tmp_path / "unfit", {f"{PREFIX}ghost.weight": torch.ones(1)})
    with pytest.raises(InvalidInput) as caught:
        ParentPool.open(["base+nowhere", f"base+{unfit}", "typo+x", "typo+y", "base+a+b"], llamas)
    lines = caught.value.problems
    assert len(lines) == 4
    assert lines[0].startswith("adapter 'nowhere': there is no folder")
    assert "'ghost', which the base does not have" in lines[1]
    assert lines[2].startswith("model 'typo': there is no folder")
    assert "expected at most one '+'" in lines[3]
