"""A plan as one mapping, for programs."""

from __future__ import annotations

from typing import Any

from evomerge.cli.outlook import Outlook
from evomerge.cli.plan_text import method_name
from evomerge.run.footprint import ParentFiles
from evomerge.run.plan import StagePlan
from evomerge.space import SearchSpace
from evomerge.stack_space import StackSpace

SCHEMA = "evomerge/plan/v1"


def as_mapping(outlook: Outlook) -> dict[str, Any]:
    """The plan with the schema "evomerge/plan/v1": bytes and seconds, null where unknown."""
    expected, place = outlook.expected, outlook.place
    return {
        "schema": SCHEMA,
        "space": str(outlook.space),
        "workers": expected.workers,
        "stages": [_stage(stage) for stage in outlook.built.plan.stages],
        "parents": [_parent(parent) for parent in outlook.built.needs.parents],
        "phases": [
            {"name": p.name, "evaluations": p.evaluations, "items": p.items, "seconds": p.seconds}
            for p in expected.phases
        ],
        "total": {
            "evaluations": expected.evaluations,
            "items": expected.items,
            "seconds": expected.seconds,
            "starting": expected.starting,
            "handing_over": expected.handing_over,
            "utilization": expected.utilization,
        },
        "calibration": _calibration(outlook),
        "memory": _memory(outlook),
        "gpus": [{"free": free} for free in place.gpus],
        "nodes": None if place.cluster is None else [vars(node) for node in place.cluster],
        "disk": _disk(outlook),
        "notices": list(outlook.notices),
        "warnings": list(outlook.warnings),
        "problems": list(outlook.problems),
    }


def _parent(parent: ParentFiles) -> dict[str, Any]:
    return {
        "model": parent.model,
        "folder": str(parent.folder),
        "bytes": parent.nbytes,
        "dtypes": list(parent.dtypes),
        "fingerprint": parent.fingerprint,
    }


def _memory(outlook: Outlook) -> dict[str, Any]:
    memory = outlook.memory
    return {
        "measured": memory.measured,
        "worker": memory.worker,
        "resident_model": outlook.built.needs.resident,
        "driver": memory.driver,
        "shared": memory.shared,
        "total": memory.total(outlook.expected.workers),
        "free": outlook.place.memory.free,
        "fitting_workers": outlook.fitting,
    }


def _disk(outlook: Outlook) -> dict[str, Any]:
    needs, place = outlook.built.needs, outlook.place
    return {
        "run": {
            "folder": str(place.run_dir),
            "model": needs.saved,
            "ledger": outlook.ledger,
            "free": place.run_free,
        },
        "cache": {
            "folder": None if place.cache is None else str(place.cache),
            "computed": needs.cache,
            "merged_models": needs.nested,
            "free": place.cache_free,
        },
    }


def _stage(stage: StagePlan) -> dict[str, Any]:
    space = stage.space
    assert isinstance(space, SearchSpace | StackSpace), "there are no other spaces"
    return {
        "name": stage.name,
        "method": method_name(stage),
        "dimensions": space.dimension,
        "algorithm": stage.algorithm,
        "population": stage.population,
        "schedule": stage.schedule.name,
        "ahead": stage.schedule.ahead,
        "minibatch": stage.batches.items or "all",
    }


def _calibration(outlook: Outlook) -> dict[str, Any] | None:
    found = outlook.calibration
    if found is None:
        return None
    return {
        "start": found.start,
        "first_build": dict(found.timings.first),
        "next_build": dict(found.timings.further),
        "scored": [{"items": items, "seconds": s} for items, s in found.timings.scores],
        "gpu_bytes": found.device,
    }
