from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evomerge.weights.contents import contents


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("place", [0.0, 0.371, 0.99])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_any_flipped_bit_is_seen(llamas: Path, tmp_path: Path, name: str, place: float) -> None:
    copy = Path(shutil.copytree(llamas / "base", tmp_path / "copy"))
    assert contents(copy) == contents(llamas / "base")
    content = bytearray((copy / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (copy / name).write_bytes(content)
    assert contents(copy) != contents(llamas / "base")


def test_without_a_cache_it_is_computed(
    llamas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = contents(llamas / "base")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "file"))
    assert contents(llamas / "base") == known
