"""Stacks from the command line: searches of one and of two stages, and what they refuse."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge import yaml12
from evomerge.candidate import Assignment, ItemSelection, Scored
from evomerge.recipe import Recipe, Source
from evomerge.run.build import evaluator_spec
from evomerge.run.config import read_objective
from evomerge.run.ledger import LedgerReader
from evomerge.run.workers import WorkerSpec
from evomerge.weights.pool import ParentPool
from tests.cli.conftest import Run
from tests.cli.test_bad_input import check
from tests.models import WORDS, llama, save_tokenizer

Space = Callable[..., Path]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A worker in this process sets the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def stacks(space: Space, parents: Path) -> Callable[..., Path]:
    """Writes a space file of stacks of `a` and `b`; keyword arguments replace keys of the space."""

    def write(**changes: Any) -> Path:
        models = [{"model": str(parents / name)} for name in ("a", "b")]
        path = space()
        content = yaml12.load(path)
        content["space"] = {"merge_method": "stack", "models": models, "layers": [2, 7]} | changes
        content["budget"] = {"candidates": 24}
        path.write_text(yaml12.dumps(content))
        return path

    return write


def test_a_search_over_stacks_hands_over_a_plain_model(
    evomerge: Run, stacks: Callable[..., Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = evomerge("search", "--space", stacks(), "--out", run, "--engine", "inline", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["better"] in (True, False, None)
    model = AutoModelForCausalLM.from_pretrained(run / "best" / "model")
    recipe = yaml12.load(run / "best" / "recipe.yaml")
    ranges = [part["sources"][0]["layer_range"] for part in recipe["slices"]]
    assert model.config.num_hidden_layers == sum(end - start for start, end in ranges)
    built = tmp_path / "built"
    assert evomerge("merge", run / "best" / "recipe.yaml", built).code == 0
    ours, again = (
        (folder / "model.safetensors").read_bytes() for folder in (run / "best" / "model", built)
    )
    assert ours == again
    for export in ("mergekit", "recipe"):
        assert evomerge("export", run, tmp_path / export, "--to", export).code == 0


@pytest.mark.usefixtures("one_thread")
def test_a_parent_with_another_vocabulary_and_depth_is_scored_with_its_own_tokenizer(
    evomerge: Run, stacks: Callable[..., Path], parents: Path, tmp_path: Path
) -> None:
    other = llama(tmp_path / "other", layers=3, seed=9)
    special = 4
    save_tokenizer(other, (*WORDS[:special], *reversed(WORDS[special:])))
    models = [{"model": str(parents / "a")}, {"model": str(other)}]
    path, run = stacks(models=models), tmp_path / "run"
    done = evomerge("search", "--space", path, "--out", run, "--engine", "inline", "--json")
    assert done.code == 0, done.err
    with LedgerReader.open(run) as reader:
        (held,) = (e for e in reader.evaluations("holdout") if e.candidate == 1)
        assert reader.candidates()[1].recipe.donor == str(other)
    assert isinstance(held.outcome, Scored)
    items = ItemSelection(tuple((found.task, found.items()) for found in held.outcome.results))
    alone = Recipe("passthrough", (Source(str(other)),), dtype="float32")
    spec = evaluator_spec(read_objective(path), tmp_path)
    parents = ((str(other), ParentPool.open((str(other),), tmp_path).contents(str(other))),)
    worker = WorkerSpec(parents, str(tmp_path), alone, spec, threads=1, merges=1)()
    again = worker.evaluate(Assignment(0, "holdout", alone, items))
    assert isinstance(again, Scored)
    assert again.results == held.outcome.results


def test_two_stages_in_one_run(
    evomerge: Run, stacks: Callable[..., Path], parents: Path, tmp_path: Path
) -> None:
    path = stacks()
    content = yaml12.load(path)
    merges = {
        "merge_method": "linear",
        "models": [{"model": str(parents / name)} for name in ("a", "b")],
        "parameters": {"weight": {"float": [0, 1], "per": "model"}},
    }
    second = content.pop("space") | {
        "models": [{"model": "$one.best"}, {"model": str(parents / "b")}]
    }
    content["stages"] = [{"name": "one", "space": merges}, {"name": "two", "space": second}]
    content["budget"] = {"candidates": 40}
    path.write_text(yaml12.dumps(content))
    assert "stage two" in evomerge("validate", path).out
    run = tmp_path / "run"
    done = evomerge("search", "--space", path, "--out", run, "--engine", "inline")
    assert done.code == 0, done.err
    recipe = run / "best" / "recipe.yaml"
    if "recipes" in yaml12.load(recipe):
        assert list(yaml12.load(recipe)["recipes"]) == ["$one.best"]
    built = tmp_path / "built"
    assert evomerge("merge", recipe, built).code == 0
    assert (built / "model.safetensors").read_bytes() == (
        run / "best" / "model" / "model.safetensors"
    ).read_bytes()
    assert "Stage after stage" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"base_model": "c"}, 2, "'c' gives the embeddings and must be one of the models"),
        ({"models": [{"model": "$ps.best"}]}, 2, "'$ps.best': no earlier stage has that result"),
        ({"repeats": 1000}, 2, "slots: expected at most 4096"),
        ({"layers": [90, 99]}, 2, "no stack has 90 to 99 layers"),
        ({"gains": [0, 2]}, 2, "a scale of 0 erases all"),
        ({"slots": 2}, 2, "unknown key 'slots'"),
    ],
)
def test_spaces_of_stacks_that_are_refused(
    evomerge: Run,
    stacks: Callable[..., Path],
    tmp_path: Path,
    changes: dict[str, Any],
    code: int,
    message: str,
) -> None:
    check(evomerge, stacks(**changes), tmp_path, code, message)


def test_parents_that_cannot_stand_in_one_stack(
    evomerge: Run, stacks: Callable[..., Path], parents: Path, tmp_path: Path
) -> None:
    wide = tmp_path / "wide"
    llama(wide, layers=4, seed=5, hidden=48)
    models = [{"model": str(parents / "a")}, {"model": str(wide)}]
    check(evomerge, stacks(models=models), tmp_path, 3, "one config.json holds for all")


def test_a_file_with_a_space_and_stages(
    evomerge: Run, stacks: Callable[..., Path], tmp_path: Path
) -> None:
    path = stacks()
    content = yaml12.load(path)
    content["stages"] = [{"name": "one", "space": content["space"]}]
    path.write_text(yaml12.dumps(content))
    check(evomerge, path, tmp_path, 2, "expected one of 'space' and 'stages', got both")


def test_a_recipe_with_a_scale_of_0(evomerge: Run, parents: Path, tmp_path: Path) -> None:
    slices = [
        {"sources": [{"model": str(parents / "a"), "layer_range": [0, 2]}]},
        {
            "sources": [
                {"model": str(parents / "b"), "layer_range": [2, 4], "parameters": {"scale": 0}}
            ]
        },
    ]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml12.dumps({"merge_method": "stack", "slices": slices}))
    done = evomerge("merge", recipe, tmp_path / "out")
    assert done.code == 2
    assert "scale: expected a number in [0.01, 100], got 0" in done.err
    assert not (tmp_path / "out").exists()


def test_a_stack_generates_with_a_cache(evomerge: Run, parents: Path, tmp_path: Path) -> None:
    donor = tmp_path / "donor"
    shutil.copytree(parents / "a", donor)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((donor / name).read_text())
        (donor / name).write_text(json.dumps(settings | {"use_cache": False}))
    slices = [{"sources": [{"model": str(donor), "layer_range": r}]} for r in ([0, 3], [1, 4])]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml12.dumps({"merge_method": "stack", "slices": slices}))
    assert evomerge("merge", recipe, tmp_path / "out").code == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 6
    assert model.config.use_cache
    assert model.generation_config.use_cache
