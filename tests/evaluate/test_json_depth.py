from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.evaluate.json_depth import MAX_DEPTH, too_deep

N = MAX_DEPTH


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("[" * (N + 1) + "]" * (N + 1), True),
        ("[" * N + "]" * N, False),
        ('{"a": ' * (N + 1), True),
        ("[\n" * (N + 1), True),
        ("[[]\n" * (N + 1), True),
        ('["]"\n' * (N + 1), True),
        ("[[1], [2]]\n" * (2 * N), False),
        ("[" + "[]," * (3 * N) + "[]]", False),
        ('{"text": "' + "[" * (3 * N) + '"}', False),
        ('{"text": "\\"' + "[" * (3 * N) + '\\\\"}', False),
        ("]" * N + "[" * N, False),
    ],
)
def test_depth(tmp_path: Path, text: str, deep: bool) -> None:
    (tmp_path / "x.jsonl").write_text(text)
    assert too_deep(tmp_path / "x.jsonl") is deep
