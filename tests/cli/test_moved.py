"""A run that is moved with its parents, continued from elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evomerge import yaml12
from evomerge.run.ledger import Ledger
from tests.cli.conftest import Run
from tests.cli.test_search import record
from tests.cli.test_stopping import at_call, first
from tests.models import read_tensors


def world(root: Path, parents: Path, tasks: Path, written: Path) -> Path:
    """Parents, tasks and a space file with relative paths in one folder."""
    shutil.copytree(parents, root / "parents")
    shutil.copytree(tasks, root / "tasks")
    text = written.read_text().replace(str(parents), "parents").replace(str(tasks), "tasks")
    (root / "space.yaml").write_text(text)
    return root / "space.yaml"


def test_a_run_moves_with_its_parents(
    evomerge: Run,
    space: Callable[..., Path],
    tmp_path: Path,
    parents: Path,
    tasks: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, after = tmp_path / "before", tmp_path / "elsewhere" / "after"
    options = ("--engine", "inline", "--budget", "19")
    path = world(before, parents, tasks, space("original.yaml"))
    assert evomerge("search", "--space", path, "--out", tmp_path / "whole", *options).code == 0
    with monkeypatch.context() as patch:
        stop = at_call(9, lambda: os.kill(os.getpid(), signal.SIGTERM))
        patch.setattr(Ledger, "record", first(stop, Ledger.record))
        done = evomerge("search", "--space", path, "--out", before / "run", *options)
        assert done.code == 75, done.err

    after.parent.mkdir()
    before.rename(after)
    monkeypatch.chdir(tmp_path / "whole")
    assert evomerge("status", after / "run").code == 0
    assert evomerge("export", after / "run", "8", tmp_path / "m8", "--to", "model").code == 0
    done = evomerge(
        "search", "--space", "../elsewhere/after/space.yaml", "--out", "../elsewhere/after/run",
        *options,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert record(after / "run") == record(tmp_path / "whole")
    ours, theirs = (read_tensors(r / "best" / "model") for r in (after / "run", tmp_path / "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    shutil.move(after / "run", tmp_path / "run")  # without its space file
    assert evomerge("export", tmp_path / "run", tmp_path / "r", "--to", "recipe").code == 0
    shutil.rmtree(after)
    done = evomerge("export", tmp_path / "run", tmp_path / "again", "--to", "recipe")
    assert done.code == 2
    assert f"there is no folder {after} any more" in done.err
    assert evomerge("report", tmp_path / "run").code == 0


def test_parents_under_other_paths_are_recognized(
    evomerge: Run, space: Callable[..., Path], tmp_path: Path, parents: Path
) -> None:
    options = ("--out", tmp_path / "run", "--engine", "inline", "--budget", "19")
    assert evomerge("search", "--space", space(), *options).code == 0
    moved = tmp_path / "moved"
    shutil.copytree(parents, moved)
    content = yaml12.loads(space().read_text().replace(str(parents), str(moved)), "space")
    (tmp_path / "moved.yaml").write_text(yaml12.dumps(content | {"name": "space"}))
    done = evomerge("search", "--space", tmp_path / "moved.yaml", *options)
    assert done.code == 2
    assert "the parents are the same, but the run's recipes know them by other paths" in done.err
