"""Adapters as files, without a base: what is read, and every reason to refuse."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evomerge.errors import InvalidInput
from evomerge.weights.adapters import Adapter
from evomerge.weights.checkpoint import Checkpoint
from tests import adapters, models
from tests.adapters import PREFIX

LAYER = f"{PREFIX}model.layers.0."
Q_PROJ = f"{LAYER}self_attn.q_proj"


def _refused(folder: Path) -> list[str]:
    with pytest.raises(InvalidInput, match=r".") as caught:
        Adapter.open(folder)
    return list(caught.value.problems)


def test_folders_without_an_adapter(llamas: Path, tmp_path: Path) -> None:
    (line,) = _refused(llamas / "base")
    assert "expected an adapter with adapter_config.json, got none" in line
    folder = adapters.lora(llamas / "base", tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    (line,) = _refused(folder)
    assert "adapter_model.safetensors: expected a safetensors file, got none" in line


def test_pickles_are_refused_unread(llamas: Path, tmp_path: Path) -> None:
    folder = adapters.lora(llamas / "base", tmp_path / "a")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))
    (line,) = _refused(folder)
    assert "got adapter_model.bin, a pickle file that can run code" in line
    assert "--allow-pickle" in line


def test_damaged_files(llamas: Path, tmp_path: Path) -> None:
    folder = adapters.lora(llamas / "base", tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "damaged safetensors file (truncated" in _refused(folder)[0]
    (folder / "adapter_config.json").write_text("{")
    assert "expected JSON, got something else" in _refused(folder)[0]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (f"{LAYER}mlp.ia3_l.lora_C.weight", torch.ones(2, 2), "has no place in a LoRA"),
        ("model.layers.0.mlp.up_proj.lora_A.weight", torch.ones(2, 2), "has no place in a LoRA"),
        (f"{Q_PROJ}.lora_A.default.weight", torch.ones(2, 2), "has no place in a LoRA"),
        (f"{Q_PROJ}.lora_B.bias", torch.ones(2), "has no place in a LoRA"),
        (f"{Q_PROJ}.lora_magnitude_vector", torch.ones(32), "lora_magnitude_vector, but no DoRA"),
        (f"{Q_PROJ}.lora_embedding_A", torch.ones(4, 32), "are the same: remove one"),
        (f"{LAYER}self_attn.v_proj.lora_A.weight", torch.ones(4, 32), "lacks lora_B"),
        (f"{Q_PROJ}.weight", torch.ones(32, 32, dtype=torch.int8), "is int8: save the adapter"),
    ],
)
def test_tensors_that_make_no_sense_are_named(
    llamas: Path, tmp_path: Path, name: str, tensor: torch.Tensor, message: str
) -> None:
    content = adapters.matrices(llamas / "base") | {name: tensor}
    (line,) = _refused(adapters.write(tmp_path / "a", content))
    assert message in line
    assert name.partition(".lora_")[0].removeprefix(PREFIX) in line


def test_a_module_that_the_config_does_not_target_is_refused(llamas: Path, tmp_path: Path) -> None:
    content = adapters.matrices(llamas / "base", targets=("layers.0.self_attn.v_proj", "q_proj"))
    (line,) = _refused(adapters.write(tmp_path / "a", content, targets=("q_proj",)))
    assert "module 'model.layers.0.self_attn.v_proj' has matrices, but target_modules" in line


def test_convolutions_an_empty_file_and_a_dora_without_magnitudes(
    llamas: Path, tmp_path: Path
) -> None:
    content = adapters.matrices(llamas / "base", targets=("layers.0.self_attn.q_proj",))
    conv = {name: tensor[..., None, None] for name, tensor in content.items()}
    (line,) = _refused(adapters.write(tmp_path / "conv", conv))
    assert "has lora_A of shape [4, 32, 1, 1], expected a matrix: a LoRA of convolutions" in line
    (line,) = _refused(adapters.write(tmp_path / "empty", {}))
    assert "holds no tensors" in line
    (line,) = _refused(adapters.write(tmp_path / "dora", content, settings={"use_dora": True}))
    assert "lacks lora_magnitude_vector" in line


def test_an_adapter_alone_is_no_model_and_the_line_says_what_to_write(
    llamas: Path, tmp_path: Path
) -> None:
    folder = adapters.lora(llamas / "base", tmp_path / "a")
    message = f"expected a full model, got an adapter: write 'somewhere/base+{folder}'"
    with pytest.raises(InvalidInput) as caught:
        Checkpoint.open(folder)
    (line,) = caught.value.problems
    assert message in line
    settings = json.loads((folder / "adapter_config.json").read_text())
    del settings["base_model_name_or_path"]
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(InvalidInput, match=r"write 'BASE\+"):
        Checkpoint.open(folder)


def test_a_model_beside_an_adapter_is_a_model(llamas: Path, tmp_path: Path) -> None:
    folder = models.perturbed(llamas / "base", tmp_path / "both", seed=1)
    (folder / "adapter_config.json").write_text("{}")
    save_file({"x": torch.ones(1)}, tmp_path / "both" / "adapter_model.safetensors")
    assert Checkpoint.open(folder).infos().keys() == Checkpoint.open(llamas / "base").infos().keys()
