"""Pickle files become safetensors when they hold tensors by name, and nothing else."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.consent import Allowed, Consent, allowed_files
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.weights import pickled
from evomerge.weights.pickle_files import pickle_files
from evomerge.weights.pool import ParentPool
from evomerge.weights.unpickling import Refused, convert
from tests.models import llama, read_tensors


def saved(path: Path, content: object, **options: Any) -> dict[Path, str]:
    torch.save(content, path, **options)
    return {path: hashlib.sha256(path.read_bytes()).hexdigest()}


def test_every_kind_of_tensor_survives(tmp_path: Path) -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "half": torch.ones(3, dtype=torch.bfloat16),
        "view": matrix[:, 1:3],
        "turned": matrix.T,
        "learned": torch.nn.Parameter(torch.ones(2)),
        "number": torch.tensor(7),
        "nothing": torch.empty(0, 4),
        "yes": torch.tensor([True, False]),
    }
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        (tmp_path / "out").mkdir(exist_ok=True)
        convert(saved(tmp_path / "x.bin", tensors, **options), tmp_path / "out", tied=False)
        found = read_tensors(tmp_path / "out")
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_the_embedding(tmp_path: Path, tied: bool) -> None:
    weight = torch.randn(4, 2)
    tensors = {"model.embed_tokens.weight": weight, "lm_head.weight": weight}
    convert(saved(tmp_path / "x.bin", tensors), tmp_path, tied=tied)
    assert ("lm_head.weight" in read_tensors(tmp_path)) is not tied


def test_a_head_of_its_own_is_kept(tmp_path: Path) -> None:
    tensors = {"model.embed_tokens.weight": torch.ones(4, 2), "lm_head.weight": torch.zeros(4, 2)}
    convert(saved(tmp_path / "x.bin", tensors), tmp_path, tied=True)
    assert read_tensors(tmp_path).keys() == tensors.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a": torch.ones(1)}}, "got more names below 'state_dict'"),
        ({"a": torch.ones(1), "step": 3}, "got a int as 'step'"),
        ({0: torch.ones(1)}, "got a Tensor as 0"),
        ([torch.ones(1)], "got a list"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, "got a Tensor as 'a'"),
        ({"a": torch.eye(3).to_sparse()}, "got a Tensor as 'a'"),
        ({"a": torch.zeros(1).expand(10**12)}, "bytes of tensors made of 4: refused"),
        ({"a": Path("x")}, r"it would call pathlib\.\w+: refused"),
        (torch.nn.Linear(2, 2), r"it would call torch\.nn\.modules\.linear\.Linear: refused"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(Refused, match=message):
        convert(saved(tmp_path / "x.bin", content), tmp_path, tied=False)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cut", "damaged"),
        (b"", "damaged"),
        (b"\x80\x04cos\nsystem\n(S'true'\ntR.", "x.bin: "),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes | str, message: str) -> None:
    saved(tmp_path / "x.bin", {"a": torch.ones(100)})
    raw = content if isinstance(content, bytes) else (tmp_path / "x.bin").read_bytes()[:-200]
    (tmp_path / "x.bin").write_bytes(raw)
    with pytest.raises(Refused, match=message):
        convert({tmp_path / "x.bin": hashlib.sha256(raw).hexdigest()}, tmp_path, tied=False)


def test_a_file_that_was_exchanged_after_it_was_allowed(tmp_path: Path) -> None:
    sources = saved(tmp_path / "x.bin", {"a": torch.ones(1)})
    saved(tmp_path / "x.bin", {"a": torch.zeros(1)})
    with pytest.raises(Refused, match="not the file that was allowed"):
        convert(sources, tmp_path, tied=False)


def shards(folder: Path) -> Path:
    """A Llama in two pickle files with an index."""
    llama(folder)
    tensors = list(read_tensors(folder).items())
    (folder / "model.safetensors").unlink()
    parts = {"pytorch_model-1.bin": tensors[::2], "pytorch_model-2.bin": tensors[1::2]}
    for name, part in parts.items():
        torch.save(dict(part), folder / name)
    weight_map = {key: name for name, part in parts.items() for key, _ in part}
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    return folder


def allowed(folder: Path) -> Allowed:
    return allowed_files("x", folder, pickle_files(folder))


def test_shards_are_converted_once_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shards(tmp_path / "sharded")
    consent = Consent(pickle=(allowed(folder),))
    pool = ParentPool.open(["sharded"], tmp_path, consent)
    monkeypatch.setattr(pickled, "_run", None)  # the second time nothing is unpickled
    again = ParentPool.open(["sharded"], tmp_path, consent)
    assert again.fingerprint("sharded") == pool.fingerprint("sharded")
    names = llama(tmp_path / "plain")
    for name, tensor in read_tensors(names).items():
        assert torch.equal(pool.get("sharded", name), tensor)
    assert (pool.directory("sharded") / "tokenizer.json").is_file()
    with pytest.raises(InvalidInput, match="--allow-pickle"):
        ParentPool.open(["sharded"], tmp_path)


@pytest.mark.parametrize("name", ["../x.bin", "/etc/passwd", "a\0b", "missing.bin", "..\\x.bin"])
def test_an_index_cannot_name_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.bin").touch()
    folder = tmp_path / "model"
    folder.mkdir()
    index = folder / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(InvalidInput, match=r"outside the directory|does not exist"):
        pickle_files(folder)


def test_consent_is_for_the_files_as_they_were(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    entry = allowed_files("x", tmp_path, [tmp_path / "a.py"])
    consent = Consent(remote_code=(entry,))
    assert consent.trusts(tmp_path)
    assert not consent.trusts(tmp_path.parent)
    (tmp_path / "link.py").symlink_to(tmp_path.parent / "b.py")
    (tmp_path.parent / "b.py").write_text("2")
    assert entry.hash_of(tmp_path / "link.py") is None
    (tmp_path / "a.py").write_text("2")
    with pytest.raises(PreflightFailed, match=r"a.py: allowed with SHA-256 6b86b273ff34fce1, now"):
        consent.trusts(tmp_path)
    (tmp_path / "a.py").unlink()
    with pytest.raises(PreflightFailed, match="it is gone"):
        consent.trusts(tmp_path)
