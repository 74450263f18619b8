"""What a search refuses, and what it says on every result that proves less than it seems to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.mergekit_yaml import load_recipe
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


SAID = ("# UNVERIFIED: not scored on held-back items", "# TUNED ON THE TEST SPLIT OF pick")


def test_what_a_result_does_not_prove_stands_everywhere(
    evomerge: Run, space: Space, tmp_path: Path, tested: Path
) -> None:
    shares = {"search": 0.7, "selection": 0.3, "holdout": 0.0}
    path = space(
        objective={"include": [str(tested)], "allow_test_split": True, "splits": shares},
        budget={"candidates": 20},
    )
    run = tmp_path / "run"
    search = ("search", "--space", path, "--out", run, "--engine", "inline")
    done = evomerge(*search)
    assert done.code == 0, done.err
    stamp = "UNVERIFIED. TUNED ON THE TEST SPLIT OF pick. Nobody has checked this result"
    for out in (done.out, evomerge("status", run).out):
        assert stamp in out
        assert "Careful: The recipe was tuned on items of the test split of pick" in out
        assert "Careful: There is no holdout" in out
    assert "used to choose the winner; unverified" in done.out
    for said in (
        json.loads(evomerge(*command, "--json").out) for command in (search, ("status", run))
    ):
        assert not said["verified"]
        assert said["stamps"] == ["UNVERIFIED", "TUNED ON THE TEST SPLIT OF pick"]
    assert "test_splits:\n  pick: test" in (run / "spec.resolved.yaml").read_text()

    page, card = (run / "report.html").read_text(), (run / "best" / "README.md").read_text()
    assert (
        page.index(">UNVERIFIED<")
        < page.index(">TUNED ON THE TEST SPLIT OF pick<")
        < page.index("<table")
    )
    assert card.index("> **UNVERIFIED**") < card.index("> **TUNED ON THE TEST SPLIT OF pick**")
    assert (run / "best" / "model" / "README.md").read_text() == card

    best = evomerge("best", run, "--top", "2").out
    assert all(best.count(line) == 2 for line in SAID)
    caveats = [line.removeprefix("# ") for line in SAID]
    (entry,) = json.loads(evomerge("best", run, "--json").out)["candidates"]
    assert entry["caveats"] == caveats
    for kind in ("recipe", "mergekit", "card", "model"):
        exported = evomerge("export", run, tmp_path / kind, "--to", kind)
        assert exported.code == 0
        assert exported.err.splitlines() == [f"notice: {line}" for line in caveats]
    for file in (tmp_path / "recipe", tmp_path / "mergekit", *(run / "best").glob("*.yaml")):
        assert tuple(file.read_text().splitlines()[:2]) == SAID
        assert load_recipe(file)


def test_a_holdout_must_be_one(evomerge: Run, space: Space, tmp_path: Path) -> None:
    path = space(objective={"splits": {"search": 0.7, "selection": 0.26, "holdout": 0.04}})
    done = evomerge("search", "--space", path, "--out", tmp_path / "run", "--engine", "inline")
    assert done.code == 3
    assert done.err.startswith("evomerge: objective.splits: the holdout has 16 items, and fewer")
    assert len(done.err.splitlines()) == 1
    path = space(objective={"splits": {"search": 0.7, "selection": 0.2, "holdout": 0.1}})
    done = evomerge("plan", "--quick", path)
    assert (
        "the holdout has 40 items: a true lead of less than about 12 points would often" in done.out
    )
