"""The whole line on real, tiny models: search, kill, resume, engines, export, evaluate."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge import yaml12
from evomerge.candidate import Scored
from evomerge.errors import InvalidInput
from evomerge.mergekit_yaml import load_recipe
from evomerge.run.ledger import Ledger, LedgerReader
from tests.cli.conftest import Run
from tests.models import read_tensors

Space = Callable[..., Path]
SECONDS = 600
"""Seconds after which something has gone wrong: a busy machine is slow, not broken."""


def record(run: Path) -> tuple[object, ...]:
    """Everything a run decided, without times."""
    with LedgerReader.open(run) as reader:
        outcomes = {
            e.key: e.outcome.results if isinstance(e.outcome, Scored) else e.outcome
            for e in reader.evaluations()
        }
        return reader.candidates(), outcomes, reader.meta("decision"), reader.meta("winner")


def test_search_to_the_end_and_all_that_follows(
    evomerge: Run, space: Space, tmp_path: Path, parents: Path
) -> None:
    path, run = space(), tmp_path / "run"
    command = ("search", "--space", path, "--out", run, "--engine", "inline")
    done = evomerge(*command)
    assert done.code == 0, done.err
    assert "Holdout: 120 items" in done.out
    assert str(run / "report.html") in done.out

    best = run / "best"
    model = AutoModelForCausalLM.from_pretrained(best / "model")
    assert torch.isfinite(model.lm_head.weight).all()
    assert load_recipe(best / "recipe.yaml").referenced_models()[0].startswith(str(parents))
    assert (best / "README.md").read_text().startswith("---")
    assert "<svg" in (run / "report.html").read_text()

    before = record(run)
    again = evomerge(*command, "--json")
    assert again.code == 0, again.err
    assert record(run) == before
    assert json.loads(again.out)["run"] == str(run)
    with Ledger.open(run):
        locked = evomerge(*command)
    assert locked.code == 6
    assert "another evomerge process drives this run" in locked.err

    status = json.loads(evomerge("status", run, "--json").out)
    assert status["state"] == "finished"
    assert status["spending"]["candidates"] == 34
    assert evomerge("best", run).out.count("merge_method") == 1
    assert evomerge("best", run, "--top", "3").out.count("merge_method") == 3

    for kind in ("recipe", "mergekit", "card"):
        assert evomerge("export", run, tmp_path / kind, "--to", kind).code == 0
    assert evomerge("export", run, "20", tmp_path / "m20", "--to", "model").code == 0
    assert evomerge("merge", tmp_path / "recipe", tmp_path / "again").code == 0
    merged, saved = read_tensors(tmp_path / "again"), read_tensors(best / "model")
    assert all(torch.equal(merged[name], saved[name]) for name in saved)

    scored = json.loads(evomerge("evaluate", best / "model", "--suite", path, "--json").out)
    assert scored["tasks"]["pick"]["acc"]["n"] == 400


def test_a_changed_space_file_stops_with_the_differences(
    evomerge: Run, space: Space, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    arguments = ("--out", run, "--engine", "inline", "--budget", "20")
    assert evomerge("search", "--space", space(), *arguments).code == 0
    before = record(run)
    changed = space(strategy={"algorithm": "cma_es", "minibatch": 21}, seed=5)
    done = evomerge("search", "--space", changed, *arguments)
    assert done.code == 2
    assert "strategy.minibatch: the run has 20, now 21" in done.err
    assert "seed: the run has 0, now 5" in done.err
    assert record(run) == before


def start(path: Path, run: Path, engine: str, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "evomerge", "search", "--space", str(path), "--out", str(run)]
    return subprocess.Popen(
        [*command, "--engine", engine, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
    )


def evaluations(run: Path) -> int:
    try:
        with LedgerReader.open(run) as reader:
            return len(reader.tallies())
    except InvalidInput:  # not created yet
        return 0


def wait_for(process: subprocess.Popen[bytes], run: Path, count: int) -> None:
    """Wait until `count` evaluations are on record, or the process has ended."""
    deadline = time.monotonic() + SECONDS
    while evaluations(run) < count and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("the search makes no progress")
        time.sleep(0.2)


@pytest.mark.xdist_group("ray")
def test_processes_that_are_killed_and_stopped_continue_and_engines_agree(
    evomerge: Run, space: Space, tmp_path: Path
) -> None:
    """Inline, undisturbed, equals local workers, killed, stopped, and replaced by Ray's."""
    path, run = space(), tmp_path / "run"
    arguments = ("--engine", "inline", "--workers", "2")
    assert evomerge("search", "--space", path, "--out", tmp_path / "whole", *arguments).code == 0

    process = start(path, run, "local", 2)
    wait_for(process, run, 8)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=SECONDS)
    killed = evaluations(run)

    process = start(path, run, "local", 1)
    wait_for(process, run, killed + 4)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 75, err.decode()
    assert b"the same command continues" in err
    stopped = evaluations(run)
    assert killed + 4 <= stopped

    process = start(path, run, "ray", 1)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err.decode()
    assert evaluations(run) >= stopped + 8
    assert record(run) == record(tmp_path / "whole")


@pytest.mark.parametrize("name", ["ties", "dare_ties", "linear", "slerp", "method_choice"])
def test_examples_run(evomerge: Run, tmp_path: Path, parents: Path, tasks: Path, name: str) -> None:
    """The shipped spaces, on tiny parents and items in place of the quickstart's."""
    root = Path(__file__).resolve().parents[2]
    content = yaml12.load(root / "search_spaces" / f"{name}.yaml")
    text = yaml12.dumps(content["space"])
    for role, tiny in (("base", "base"), ("read", "a"), ("write", "b")):
        text = text.replace(f"../runs/quickstart-parents/seed-7/{role}", str(parents / tiny))
    content["space"] = yaml12.loads(text, name)
    content["objective"] |= {
        "include": [str(tasks)],
        "tasks": [{"task": "pick", "metric": "acc"}],
    }
    content["strategy"]["minibatch"] = 10
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml12.dumps(content))
    run = ("--out", tmp_path / "run", "--engine", "inline", "--budget", "19")
    done = evomerge("search", "--space", path, *run)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "best" / "model" / "model.safetensors").exists()
