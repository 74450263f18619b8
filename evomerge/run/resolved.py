"""The resolved specification: everything that can change a score or the trajectory of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from evomerge.evaluate.catalog import Catalog
from evomerge.run.config import SpaceFile
from evomerge.run.plan import RunPlan
from evomerge.run.spaces import Stage
from evomerge.run.stage_plans import resolved_stage
from evomerge.weights.pool import ParentPool

_PACKAGES = ("evomerge", "torch", "transformers", "lm_eval", "cma", "numpy")


def resolved_run(
    file: SpaceFile,
    path: Path,
    plan: RunPlan,
    stages: Sequence[Stage],
    catalog: Catalog,
    parents: ParentPool,
) -> dict[str, Any]:
    """Everything that can change a score or the trajectory; a resumed run must have the same."""
    plain = file.model_dump(mode="json")
    plain["name"] = file.name or path.stem
    plain["searches"] = [
        resolved_stage(stage, found, plan.search_items)
        for stage, found in zip(stages, plan.stages, strict=True)
    ]
    plain["parents"] = {model: parents.fingerprint(model) for model in parents.models}
    plain["items"] = {task: _digest(ids) for task, ids in catalog.items.items()}
    plain["test_splits"] = dict(catalog.test_splits)
    plain["goals"] = [
        {
            "task": goal.task,
            "metric": goal.metric,
            "weight": goal.weight,
            "aggregation": goal.aggregation,
            "higher_is_better": goal.higher_is_better,
            "learn_from": goal.learn_from,
        }
        for goal in plan.objective.goals
    ]
    plain["constraints"] = [asdict(constraint) for constraint in plan.constraints]
    plain["splits"] = {
        name: {task: len(ids) for task, ids in selection.tasks}
        for name, selection in (
            ("search", plan.search_items),
            ("selection", plan.selection_items),
            ("holdout", plan.holdout_items),
        )
    }
    plain["versions"] = {name: _version(name) for name in _PACKAGES}
    return plain


def _digest(ids: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
