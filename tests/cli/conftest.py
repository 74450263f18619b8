"""A small world on disk: three parents that fit, a task, a space file; and the command line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from evomerge import yaml12
from evomerge.cli import main
from evomerge.seeding import generator
from tests.models import llama, perturbed

TASK = """
task: pick
dataset_path: json
dataset_kwargs: {data_files: {validation: pick.jsonl}}
output_type: multiple_choice
validation_split: validation
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0}
"""


@dataclass(frozen=True)
class Done:
    """What one call of the command line did."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, `a` and `b`."""
    root = tmp_path_factory.mktemp("parents")
    llama(root / "base", layers=4, seed=1)
    perturbed(root / "base", root / "a", seed=2, scale=0.05)
    perturbed(root / "base", root / "b", seed=3, scale=0.05)
    return root


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task `pick`: 400 questions with two choices."""
    root = tmp_path_factory.mktemp("tasks")
    (root / "pick.yaml").write_text(TASK)
    rng = generator(0, "pick")
    lines = [json.dumps(question(rng)) for _ in range(400)]
    (root / "pick.jsonl").write_text("\n".join(lines) + "\n")
    return root


def question(rng: np.random.Generator) -> dict[str, Any]:
    words = [f"w{index}" for index in rng.permutation(59)[:6]]
    return {"question": " ".join(words[:4]), "choices": words[4:], "answer": int(rng.integers(2))}


@pytest.fixture
def space(tmp_path: Path, parents: Path, tasks: Path) -> Callable[..., Path]:
    """Writes a space file; keyword arguments replace whole sections or, in `space`, keys."""

    def write(name: str = "space.yaml", **changes: Any) -> Path:
        content = {
            "version": 1,
            "space": {
                "merge_method": "task_arithmetic",
                "base_model": str(parents / "base"),
                "models": [{"model": str(parents / "a")}, {"model": str(parents / "b")}],
                "layer_groups": 2,
                "parameters": {
                    "weight": {"float": [-0.3, 1.5], "init": 0.5, "per": ["model", "layer_group"]}
                },
                "dtype": "float32",
            },
            "objective": {
                "include": [str(tasks)],
                "tasks": [{"task": "pick", "metric": "acc"}],
                "splits": {"search": 0.5, "selection": 0.2, "holdout": 0.3},
            },
            "strategy": {"algorithm": "cma_es", "minibatch": 20},
            "budget": {"candidates": 34},
        }
        for key, value in changes.items():
            if key in ("space", "objective"):
                content[key] |= value  # type: ignore[operator]
            else:
                content[key] = value
        path = tmp_path / name
        path.write_text(yaml12.dumps(content))
        return path

    return write


@pytest.fixture
def evomerge(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["evomerge", *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            with patch.dict(os.environ):  # it tells its own children where not to import from
                main()
        except SystemExit as ended:
            code = ended.code
        captured = capsys.readouterr()
        return Done(code if isinstance(code, int) else 0, captured.out, captured.err)

    return run
