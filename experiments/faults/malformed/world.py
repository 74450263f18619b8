"""A small world on disk that is sound: parents, an adapter, a task, a space, a finished run."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from evomerge import yaml12
from evomerge.cli import main
from evomerge.seeding import generator
from tests.adapters import lora
from tests.models import llama, perturbed

TASK = {
    "task": "pick",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"validation": "pick.jsonl"}},
    "output_type": "multiple_choice",
    "validation_split": "validation",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "choices",
    "doc_to_target": "answer",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


@dataclass(frozen=True)
class World:
    """Where everything sound is."""

    root: Path

    @property
    def parent(self) -> Path:
        """A model."""
        return self.root / "a"

    @property
    def adapter(self) -> Path:
        """An adapter on `base`."""
        return self.root / "adapter"

    @property
    def tasks(self) -> Path:
        """A folder with the task `pick`."""
        return self.root / "tasks"

    @property
    def run(self) -> Path:
        """A finished run."""
        return self.root / "run"

    def space(self) -> dict[str, Any]:
        """The content of a space file."""
        return {
            "version": 1,
            "space": {
                "merge_method": "ties",
                "base_model": str(self.root / "base"),
                "models": [{"model": str(self.root / "a")}, {"model": str(self.root / "b")}],
                "layer_groups": 2,
                "parameters": {
                    "weight": {"float": [0.0, 1.5], "init": 0.5, "per": ["model", "layer_group"]},
                    "density": {"float": [0.1, 1.0], "init": 0.6},
                },
                "dtype": "float32",
            },
            "objective": self.objective(),
            "strategy": {"algorithm": "cma_es", "minibatch": 10},
            "budget": {"candidates": 28},
        }

    def objective(self) -> dict[str, Any]:
        """What is measured."""
        return {
            "include": [str(self.tasks)],
            "tasks": [{"task": "pick", "metric": "acc"}],
            "splits": {"search": 0.5, "selection": 0.2, "holdout": 0.3},
        }

    def recipe(self) -> dict[str, Any]:
        """The content of a recipe."""
        models = [
            {"model": str(self.root / name), "parameters": {"weight": 0.5, "density": 0.6}}
            for name in ("a", "b")
        ]
        base = str(self.root / "base")
        return {"merge_method": "ties", "base_model": base, "models": models, "dtype": "float32"}


def build(root: Path) -> World:
    """Make the world; the run takes some seconds."""
    world = World(root)
    llama(root / "base", layers=2, seed=1)
    perturbed(root / "base", root / "a", seed=2, scale=0.05)
    perturbed(root / "base", root / "b", seed=3, scale=0.05)
    lora(root / "base", world.adapter, seed=4)
    world.tasks.mkdir()
    (world.tasks / "pick.yaml").write_text(yaml12.dumps(TASK))
    rng = generator(0, "pick")
    with (world.tasks / "pick.jsonl").open("w") as file:
        for _ in range(120):
            words = [f"w{index}" for index in rng.permutation(59)[:6]]
            item = {"question": " ".join(words[:4]), "choices": words[4:]}
            file.write(json.dumps(item | {"answer": int(rng.integers(2))}) + "\n")
    (root / "space.yaml").write_text(yaml12.dumps(world.space()))
    done = called(["search", "--space", root / "space.yaml", "--out", world.run, *INLINE], 600)
    assert done.code == 0, done.err
    return world


INLINE = ("--engine", "inline")


@dataclass(frozen=True)
class Done:
    """What one call of the command line did; the code of a call that was stopped is "hung"."""

    code: int | str
    err: str
    seconds: float


class _Hung(BaseException):
    """Not an Exception, which somebody could catch."""


def called(arguments: list[object], seconds: float) -> Done:
    """Call the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    before, began = sys.argv, time.monotonic()
    sys.argv = ["evomerge", *map(str, arguments)]
    code: int | str = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _alarm(seconds):
            main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except _Hung:
        code = "hung"
    except Exception:  # what Python would print for a bug
        code = 1
        err.write(traceback.format_exc())
    finally:
        sys.argv = before
    return Done(code, err.getvalue(), time.monotonic() - began)


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise _Hung

    handler: Callable[..., Any] | int | None = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
