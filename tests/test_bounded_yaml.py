"""YAML of strangers: small in the file is small in memory, and every error is one line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge import yaml12
from evomerge.errors import InvalidInput
from evomerge.plain_text import one_line
from evomerge.text_files import read_bytes

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line 7: more than 1000000 values"),
        ("a: &a [*a]", "an alias stands for what contains it"),
        ("a: &a {b: [*a]}", "an alias stands for what contains it"),
        ("[" * 5000, "more than 64 levels deep"),
        ("a: *b", "undefined alias"),
        ("a: !!bool x", "a value contradicts its tag"),
        ("a: !!timestamp x", "a value contradicts its tag"),
        ("a: !!float ''", "a value contradicts its tag"),
        ("a: " + "9" * 5000, "a value contradicts its tag"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_documents_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        yaml12.loads(text, "x.yaml")
    (line,) = caught.value.problems
    assert line.startswith("x.yaml: ")
    assert line.endswith("; correct the file")


def test_honest_aliases_work() -> None:
    text = "a: &a {x: [1, 2]}\nb: *a\nc: [*a, *a]"
    assert yaml12.loads(text, "x")["c"] == [{"x": [1, 2]}, {"x": [1, 2]}]


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "big").write_bytes(b"x" * (2**20 + 1))
    names = {"pipe": "not a regular", "loop": "symbolic links", "zero": "not a regular"}
    names |= {"big": "at most 1 MiB", "none": "No such file", "a\0b": "null byte"}
    for name, message in names.items():
        with pytest.raises(InvalidInput, match=message):
            read_bytes(tmp_path / name, max_mib=1)


@given(st.text())
def test_one_line_is_one_line_and_keeps_what_is_printable(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert not text.isprintable() or line == text


def test_long_lines_are_cut() -> None:
    assert len(one_line("a" * 10_000, longest=100)) <= 100
    assert one_line("\x1b[2J\nx") == "\\x1b[2J\\nx"
