"""Run directories of fake searches, with the specification that reports read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evomerge import yaml12
from tests.run.fakes import GENES, FakeWorkers, drive, plan

SPACE = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "models": [{"model": "a"}, {"model": "b"}],
    "layer_groups": 3,
    "parameters": {"weight": GENES},
    "dtype": "float32",
}


def resolved(combine: str) -> dict[str, Any]:
    """What is read of the specification of the fake searches."""
    baselines = [{"label": b.label, "kind": b.kind} for b in plan().stages[0].baselines]
    return {
        "name": "fake",
        "space": SPACE,
        "objective": {"combine": combine},
        "goals": [{"task": "task", "metric": "acc,none"}],
        "constraints": [],
        "searches": [{"name": "", "population": 8, "baselines": baselines}],
    }


def searched(
    run: Path,
    *,
    candidates: int,
    workers: FakeWorkers | None = None,
    steps: int | None = None,
    combine: str = "weighted_mean",
) -> Path:
    """A run directory after a whole fake search, or after so many steps of it."""
    run.mkdir(parents=True)
    (run / "spec.resolved.yaml").write_text(yaml12.dumps(json.loads(json.dumps(resolved(combine)))))
    for step, _ in enumerate(drive(run, plan(candidates=candidates), workers or FakeWorkers())):
        if step == steps:
            break
    return run
