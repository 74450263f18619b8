from __future__ import annotations

from pathlib import Path

import pytest

from evomerge import yaml12
from evomerge.errors import InvalidInput


def test_core_schema_of_yaml_1_2() -> None:
    text = "{a: 1e-3, b: no, c: on, d: 012, e: ~, f: .5, g: true, h: '1', i: -.inf}"
    value = yaml12.loads(text, "text")
    assert value == {
        "a": 0.001,
        "b": "no",
        "c": "on",
        "d": 12,
        "e": None,
        "f": 0.5,
        "g": True,
        "h": "1",
        "i": float("-inf"),
    }


def test_duplicate_keys_are_errors() -> None:
    with pytest.raises(InvalidInput, match="line 2: the key 'a' appears twice"):
        yaml12.loads("a: 1\na: 2\n", "text")


def test_python_tags_are_refused() -> None:
    with pytest.raises(InvalidInput, match="not readable as YAML"):
        yaml12.loads("!!python/object/apply:os.system ['true']", "text")


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read") as caught:
        yaml12.load(tmp_path / "none.yaml")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("value", [{"a": [1, 2.5, "no", "1e3", True, None]}, [], {"x": {}}, 1e-5])
def test_what_is_written_is_read_back(value: object) -> None:
    assert yaml12.loads(yaml12.dumps(value), "text") == value
