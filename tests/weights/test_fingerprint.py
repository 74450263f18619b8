from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evomerge.weights.fingerprint import fingerprint


def test_equal_content_has_one_fingerprint(llamas: Path, tmp_path: Path) -> None:
    shutil.copytree(llamas / "base", tmp_path / "copy")
    assert fingerprint(tmp_path / "copy") == fingerprint(llamas / "base")
    assert fingerprint(llamas / "math") != fingerprint(llamas / "base")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_changes_a_score_changes_the_fingerprint(
    llamas: Path, tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(llamas / "base", tmp_path / "copy"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert fingerprint(copy) != fingerprint(llamas / "base")
