"""What a search refuses, and what it says on every result that proves less than it seems to."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import TASK, Run

Space = Callable[..., Path]


@pytest.fixture
def tested(tasks: Path, tmp_path: Path) -> Path:
    """The task `pick` with a test split beside its validation split."""
    folder = Path(shutil.copytree(tasks, tmp_path / "tested"))
    files = "{data_files: {test: pick.jsonl, validation: pick.jsonl}}"
    text = TASK.replace("{data_files: {validation: pick.jsonl}}", files)
    (folder / "pick.yaml").write_text(f"{text}test_split: test\n")
    return folder


def test_tuning_on_a_test_split_is_refused(
    evomerge: Run, space: Space, tmp_path: Path, tested: Path
) -> None:
    path = space(objective={"include": [str(tested)]})
    for command in (("search", "--out", tmp_path / "run", "--space"), ("plan", "--quick")):
        done = evomerge(*command, path)
        assert done.code == 2
        assert done.err == (
            "evomerge: objective.tasks: 'pick' would be tuned on its test split 'test': scores on "
            "it would prove nothing any more; add split: validation to its entry, or set "
            "objective.allow_test_split: true\n"
        )
    assert not (tmp_path / "run").exists()


def test_another_split_is_tuned_on_without_permission(
    evomerge: Run, space: Space, tested: Path
) -> None:
    task = {"task": "pick", "metric": "acc", "split": "validation"}
    objective = {"include": [str(tested)], "tasks": [task]}
    assert evomerge("plan", "--quick", space(objective=objective)).code == 0
    objective["tasks"] = [task | {"split": "training"}]
    done = evomerge("plan", "--quick", space(objective=objective))
    assert done.code == 2
    assert "it has no training split but test and validation; choose one of them" in done.err
    objective["tasks"] = [task | {"split": "train"}]
    done = evomerge("plan", "--quick", space(objective=objective))
    assert "objective.tasks[0].split: " in done.err
    assert len(done.err.splitlines()) == 1
