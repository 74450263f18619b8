"""The files of a run directory: whole, as they were written, or refused in one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from evomerge.consent import Allowed, Consent
from evomerge.errors import InvalidInput
from evomerge.run.directory import (
    CONSENT,
    check_consent,
    model_root,
    open_directory,
    read_resolved,
)

CODE = Consent(task_code=(Allowed("tasks", "/x/tasks", (("a.py", "0" * 64), ("b.py", "1" * 64))),))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "space.yaml").write_text("version: 1\n")
    resolved = {"name": "x", "versions": {"torch": "2"}, "searches": [], CONSENT: CODE.record()}
    assert not open_directory(tmp_path / "run", tmp_path / "space.yaml", resolved)
    return tmp_path / "run"


def test_what_was_written_is_read(run: Path, tmp_path: Path) -> None:
    assert read_resolved(run)["searches"] == []
    assert model_root(run) == tmp_path


def test_a_changed_specification_is_refused(run: Path) -> None:
    file = run / "spec.resolved.yaml"
    file.write_text(file.read_text().replace("searches: []", "searches: 3"))
    with pytest.raises(InvalidInput, match=r"spec.resolved.yaml: damaged or edited; restore"):
        read_resolved(run)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"space_file": 7}', "[" * 100_000])
def test_a_damaged_run_file_is_refused(run: Path, content: str) -> None:
    (run / "run.json").write_text(content)
    for read in (model_root, read_resolved):
        with pytest.raises(InvalidInput, match=r"run.json: .*restore the file from a copy"):
            read(run)


def test_consent_of_a_run_is_that_of_its_start(run: Path, tmp_path: Path) -> None:
    check_consent(run, CODE)
    check_consent(tmp_path / "no run yet", Consent())
    with pytest.raises(InvalidInput, match=r"started with --allow-task-code tasks: give it again"):
        check_consent(run, Consent())
    more = Consent(CODE.task_code, pickle=(Allowed("m", "/m", (("pytorch_model.bin", "2"),)),))
    with pytest.raises(InvalidInput, match=r"started without --allow-pickle m: leave it out"):
        check_consent(run, more)
    files = (("a.py", hashlib.sha256(b"").hexdigest()), ("c.py", "3" * 64))
    other = Consent(task_code=(Allowed("tasks", "/x/tasks", files),))
    with pytest.raises(InvalidInput) as caught:
        check_consent(run, other)
    assert [line.removeprefix(f"{run}: ").partition(":")[0] for line in caught.value.problems] == [
        "tasks/a.py",
        "tasks/b.py",
        "tasks/c.py",
    ]
