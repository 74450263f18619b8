"""Every kind of bad input: one clear line each, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from evomerge.signatures import SIGNATURES
from tests.cli.conftest import Run
from tests.models import llama, read_tensors

Space = Callable[..., Path]
GENE = {"float": [0, 1]}


def check(evomerge: Run, path: Path, tmp_path: Path, code: int, message: str) -> None:
    run = tmp_path / "run"
    done = evomerge("search", "--space", path, "--out", run, "--engine", "inline")
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert all(line.startswith("evomerge: ") for line in done.err.strip().splitlines())
    assert not run.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spaec": {}}, "spaec: unknown key; did you mean 'space'"),
        ({"space": {"merge_method": "tie"}}, "unknown method 'tie'; did you mean 'ties'"),
        ({"space": {"parameters": {"weigth": GENE}}}, "did you mean 'weight'"),
        ({"space": {"parameters": {"weight": {"float": [1, 0]}}}}, "low 1 must be < high 0"),
        (
            {"space": {"parameters": {"weight": GENE, "density": 1.5}, "merge_method": "ties"}},
            "density",
        ),
        (
            {"space": {"parameters": {"weight": GENE, "density": {"float": [0, 1.5]}}}},
            "expected a number in [0, 1], got 1.5",
        ),
        ({"space": {"layer_groups": 9}}, "expected 1 to 4 (the parents' layers), got 9"),
        ({"space": {"layer_groups": [[0, 1], [2, 4]]}}, "expected [1, end]"),
        ({"space": {"parameters": {"weight": 1.0}}}, "no value is a gene"),
        ({"objective": {"tasks": [{"task": "pikc", "metric": "acc"}]}}, "did you mean 'pick'"),
        ({"objective": {"include": ["nowhere"]}}, "no folder"),
        ({"objective": {"tasks": []}}, "objective.tasks"),
        ({"objective": {"splits": {"search": 0.9, "selection": 0.9, "holdout": 0.1}}}, "sum to 1"),
        ({"budget": {"candidates": 0}}, "budget.candidates"),
        ({"budget": {"candidates": 5}}, "expected more than"),
        ({"version": 2}, "expected 1, got 2"),
        ({"strategy": {"algorithm": "cmaes"}}, "strategy.algorithm"),
    ],
)
def test_invalid_files(
    evomerge: Run, space: Space, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    check(evomerge, space(**changes), tmp_path, 2, message)


def test_unknown_metric(evomerge: Run, space: Space, tmp_path: Path) -> None:
    path = space(objective={"tasks": [{"task": "pick", "metric": "acccuracy"}]})
    check(evomerge, path, tmp_path, 3, "acccuracy")


def test_budget_0_on_the_command_line(evomerge: Run, space: Space) -> None:
    done = evomerge("search", "--space", space(), "--budget", "0")
    assert done.code == 2
    assert "budget.candidates" in done.err


def test_missing_space_file(evomerge: Run, tmp_path: Path) -> None:
    check(evomerge, tmp_path / "none.yaml", tmp_path, 2, "cannot be read")


def parent(space: Space, directory: Path) -> Path:
    return space(space={"models": [{"model": str(directory)}]})


def test_parent_without_config(evomerge: Run, space: Space, tmp_path: Path, parents: Path) -> None:
    shutil.copytree(parents / "a", tmp_path / "x")
    (tmp_path / "x" / "config.json").unlink()
    check(evomerge, parent(space, tmp_path / "x"), tmp_path, 2, "config.json")


def test_parent_that_is_a_pickle(
    evomerge: Run, space: Space, tmp_path: Path, parents: Path
) -> None:
    shutil.copytree(parents / "a", tmp_path / "x")
    (tmp_path / "x" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "x" / "pytorch_model.bin")
    check(evomerge, parent(space, tmp_path / "x"), tmp_path, 2, "pickle")


def test_truncated_parent(evomerge: Run, space: Space, tmp_path: Path, parents: Path) -> None:
    shutil.copytree(parents / "a", tmp_path / "x")
    file = tmp_path / "x" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    check(evomerge, parent(space, tmp_path / "x"), tmp_path, 2, "model.safetensors")


def test_corrupt_parent(evomerge: Run, space: Space, tmp_path: Path, parents: Path) -> None:
    shutil.copytree(parents / "a", tmp_path / "x")
    (tmp_path / "x" / "model.safetensors").write_bytes(b"\xff" * 5000)
    check(evomerge, parent(space, tmp_path / "x"), tmp_path, 2, "model.safetensors")


def test_parent_with_nan(evomerge: Run, space: Space, tmp_path: Path, parents: Path) -> None:
    shutil.copytree(parents / "a", tmp_path / "x")
    tensors = read_tensors(parents / "a")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, tmp_path / "x" / "model.safetensors", metadata={"format": "pt"})
    check(evomerge, parent(space, tmp_path / "x"), tmp_path, 2, "'model.norm.weight' holds NaN")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hidden": 64}, "hidden"), ({"layers": 3}, "layer")],
)
def test_parents_that_do_not_fit(
    evomerge: Run, space: Space, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    other = llama(tmp_path / "other", seed=5, **({"layers": 4} | options))
    check(evomerge, parent(space, other), tmp_path, 3, message)


def test_output_that_is_something_else(evomerge: Run, space: Space, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = evomerge("search", "--space", space(), "--out", tmp_path / "mine")
    assert done.code == 2
    assert "not empty and not a run of evomerge" in done.err
    assert [f.name for f in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_bad_set_option(evomerge: Run, space: Space) -> None:
    done = evomerge("validate", space(), "--set", "seed")
    assert done.code == 2
    assert "expected KEY=VALUE" in done.err


def test_status_of_nothing(evomerge: Run, tmp_path: Path) -> None:
    for command in ("status", "best", "report"):
        done = evomerge(command, tmp_path)
        assert done.code == 2
        assert "not a run" in done.err


def test_merge_refuses_an_existing_directory(evomerge: Run, tmp_path: Path, parents: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"merge_method: passthrough\nmodels: [{{model: {parents / 'a'}}}]\n")
    assert evomerge("merge", recipe, tmp_path / "out").code == 0
    done = evomerge("merge", recipe, tmp_path / "out")
    assert done.code == 2
    assert "out" in done.err


def test_methods_are_listed_and_misspelt_ones_explained(evomerge: Run) -> None:
    listed = json.loads(evomerge("methods", "--json").out)["methods"]
    assert {entry["name"] for entry in listed} == set(SIGNATURES)
    assert "density" in evomerge("methods", "ties").out
    done = evomerge("methods", "tis")
    assert done.code == 2
    assert "did you mean 'ties'" in done.err
