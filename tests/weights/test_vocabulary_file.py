from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evomerge.errors import EvomergeError
from evomerge.weights.vocabulary_file import read_vocabulary

MODEL = {"type": "WordLevel", "vocab": {"a": 0, "b": 1}}


def _write(path: Path, content: Any) -> None:
    (path / "tokenizer.json").write_text(json.dumps(content))


def test_ids_are_those_that_loading_gives(tmp_path: Path) -> None:
    """The tokenizers library numbers added tokens itself, whatever their entries say."""
    added = [
        {"content": "b", "id": 1},
        {"content": "<x>", "id": 77},
        {"content": "<y>", "id": 3},
        7,
    ]
    _write(tmp_path, {"model": MODEL, "added_tokens": added})
    found = read_vocabulary("m", tmp_path)
    assert dict(found.ids) == {"a": 0, "b": 1, "<x>": 2, "<y>": 3}
    assert list(found.ordinary) == ["a"]


def test_unigram_ids_are_positions(tmp_path: Path) -> None:
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["x", -1.0], ["y", -2.0]]}
    _write(tmp_path, {"model": model, "added_tokens": [{"content": "<unk>", "id": 0}]})
    found = read_vocabulary("m", tmp_path)
    assert dict(found.ids) == {"<unk>": 0, "x": 1, "y": 2}
    assert list(found.ordinary) == ["x", "y"]


@pytest.mark.parametrize(
    ("files", "code", "message"),
    [
        ({}, 3, "got no tokenizer: copy the files of its tokenizer, or remove"),
        ({"tokenizer.model": ""}, 3, "got only tokenizer.model, which needs code to read: save it"),
        ({"vocab.json": "{}", "merges.txt": ""}, 3, "got only vocab.json"),
        ({"tokenizer.json": "{"}, 2, "expected JSON, got something else"),
        ({"tokenizer.json": "{}"}, 2, "expected a 'model' in it, got none: save the tokenizer"),
        ({"tokenizer.json": '{"model": {"vocab": 3}}'}, 2, "expected a model with a vocabulary"),
        ({"tokenizer.json": '{"model": {"vocab": {}}}'}, 2, "expected a model with a vocabulary"),
        ({"tokenizer.json": '{"model": {"vocab": {"a": "b"}}}'}, 2, "a model with a vocabulary"),
        ({"tokenizer.json": '{"model": {}, "added_tokens": 3}'}, 2, "expected a 'model' in it"),
    ],
)
def test_files_that_do_not_tell(
    tmp_path: Path, files: dict[str, str], code: int, message: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(EvomergeError) as caught:
        read_vocabulary("m", tmp_path)
    assert caught.value.exit_code == code
    (line,) = caught.value.problems
    assert message in line
    assert "\n" not in line
