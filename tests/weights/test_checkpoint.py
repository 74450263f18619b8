from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from evomerge.errors import InvalidInput
from evomerge.weights.checkpoint import INDEX_FILE, Checkpoint
from tests import models


def _fresh(llamas: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llamas / "base", tmp_path / "model"))


def _sharded(tmp_path: Path) -> Path:
    return models.llama(tmp_path / "sharded", shard_bytes=30_000)


def _change_index(directory: Path, **entries: str) -> None:
    path = directory / INDEX_FILE
    index = json.loads(path.read_text())
    index["weight_map"] |= entries
    path.write_text(json.dumps(index))


def test_a_single_file_and_its_shards_hold_the_same_tensors(tmp_path: Path) -> None:
    whole = Checkpoint.open(models.llama(tmp_path / "whole"))
    parts = Checkpoint.open(_sharded(tmp_path))
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert dict(whole.infos()) == dict(parts.infos())
    for name in whole.infos():
        assert torch.equal(whole.get(name), parts.get(name)), name
    assert whole.config["num_hidden_layers"] == 2


def test_tensors_are_views_into_the_file(llamas: Path) -> None:
    checkpoint = Checkpoint.open(llamas / "base")
    first, second = (checkpoint.get("model.norm.weight") for _ in range(2))
    assert first.data_ptr() == second.data_ptr()
    with pytest.raises(KeyError, match="absent"):
        checkpoint.get("absent")


def test_buffers_that_loaders_recompute_are_left_out(llamas: Path, tmp_path: Path) -> None:
    directory = _fresh(llamas, tmp_path)
    models.rewrite(
        directory,
        {
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
            "h.0.attn.bias": torch.ones(1, 1, 8, 8),
            "h.0.attn.masked_bias": torch.tensor(-1e4),
            "h.1.attn.bias": torch.ones(8),
        },
    )
    names = set(Checkpoint.open(directory).infos())
    assert names - set(Checkpoint.open(llamas / "base").infos()) == {"h.1.attn.bias"}


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere: expected a model directory, got none"):
        Checkpoint.open(tmp_path / "nowhere")


def test_all_problems_of_a_directory_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        Checkpoint.open(tmp_path)
    config, weights = caught.value.problems
    assert "expected a config.json, got none: give the directory" in config
    assert "expected model.safetensors or model.safetensors.index.json, got neither" in weights


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "config.json: expected JSON, got something else"),
        ("[]", "config.json: expected a JSON object, got list"),
        ("[" * 100_000, "config.json: expected JSON, got something else"),
        (" " * (16 * 2**20 + 1), "expected at most 16 MiB"),
    ],
)
def test_damaged_configs_are_refused(
    llamas: Path, tmp_path: Path, content: str, message: str
) -> None:
    directory = _fresh(llamas, tmp_path)
    (directory / "config.json").write_text(content)
    with pytest.raises(InvalidInput, match=message):
        Checkpoint.open(directory)


class _Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "last.ckpt"])
def test_pickles_are_refused_unread(llamas: Path, tmp_path: Path, name: str) -> None:
    directory = _fresh(llamas, tmp_path)
    (directory / "model.safetensors").unlink()
    mark = tmp_path / "ran"
    (directory / name).write_bytes(pickle.dumps(_Trap(mark)))
    with pytest.raises(InvalidInput, match=f"got {name}, a pickle file that can run code"):
        Checkpoint.open(directory)
    assert not mark.exists()


def test_a_pickle_next_to_safetensors_is_ignored(llamas: Path, tmp_path: Path) -> None:
    directory = _fresh(llamas, tmp_path)
    (directory / "pytorch_model.bin").write_bytes(b"anything")
    assert Checkpoint.open(directory).infos()


def test_training_leftovers_are_not_taken_for_weights(llamas: Path, tmp_path: Path) -> None:
    directory = _fresh(llamas, tmp_path)
    (directory / "model.safetensors").unlink()
    (directory / "training_args.bin").write_bytes(b"anything")
    with pytest.raises(InvalidInput, match="got neither"):
        Checkpoint.open(directory)


def test_an_adapter_is_no_model(llamas: Path, tmp_path: Path) -> None:
    directory = _fresh(llamas, tmp_path)
    (directory / "model.safetensors").rename(directory / "adapter_model.safetensors")
    with pytest.raises(InvalidInput, match="expected a full model, got an adapter"):
        Checkpoint.open(directory)


def test_a_truncated_file_is_refused(llamas: Path, tmp_path: Path) -> None:
    directory = _fresh(llamas, tmp_path)
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InvalidInput, match=r"model\.safetensors: damaged .*truncated"):
        Checkpoint.open(directory)


def test_missing_shards_and_tensors_are_all_named(tmp_path: Path) -> None:
    directory = _sharded(tmp_path)
    shards = sorted(directory.glob("*.safetensors"))
    shards[0].unlink()
    _change_index(directory, **{f"ghost.{i}": shards[1].name for i in range(7)})
    with pytest.raises(InvalidInput) as caught:
        Checkpoint.open(directory)
    lines = caught.value.problems
    assert sum(f"shard '{shards[0].name}' does not exist" in line for line in lines) == 1
    assert sum(f"is not in shard '{shards[1].name}'" in line for line in lines) == 5
    assert sum("... and 2 more" in line for line in lines) == 1


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    directory = _sharded(tmp_path)
    shard = sorted(directory.glob("*.safetensors"))[1]
    shard.write_bytes(b"\0" * 20)
    with pytest.raises(InvalidInput, match=f"{shard.name}: damaged"):
        Checkpoint.open(directory)


@pytest.mark.parametrize("shard", ["../evil.safetensors", "/etc/hostname", "a/../../b", "a\\b"])
def test_shards_outside_the_directory_are_refused(tmp_path: Path, shard: str) -> None:
    directory = _sharded(tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "evil.safetensors")
    _change_index(directory, x=shard)
    with pytest.raises(InvalidInput, match="lies outside the directory: refused"):
        Checkpoint.open(directory)


@pytest.mark.parametrize("weight_map", [None, [], {"a": 1}])
def test_an_index_without_a_map_is_refused(tmp_path: Path, weight_map: object) -> None:
    directory = _sharded(tmp_path)
    (directory / INDEX_FILE).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(InvalidInput, match="expected a weight_map"):
        Checkpoint.open(directory)
