"""What a plan knows, and whether that is enough for a search: pure comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evomerge.run.build import BuiltRun
from evomerge.run.calibration import Calibration
from evomerge.run.forecast import Forecast
from evomerge.run.machine import Memory
from evomerge.run.needs import MemoryNeeds, disk_problem
from evomerge.run.pools.ray_nodes import Node, room

_GB = 1e9


@dataclass(frozen=True)
class Place:
    """Where a search would run, and what is free there, in bytes.

    `gpus` has the free memory of each; `cluster` is None without an address.
    """

    run_dir: Path
    run_free: int
    cache: Path | None
    cache_free: int | None
    memory: Memory
    cores: int
    threads: int
    gpus: tuple[int, ...]
    cluster: tuple[Node, ...] | None


@dataclass(frozen=True)
class Outlook:
    """A whole plan; `ledger` is in bytes, the last three are lines for people."""

    space: Path
    built: BuiltRun
    expected: Forecast
    calibration: Calibration | None
    memory: MemoryNeeds
    ledger: int
    place: Place
    notices: tuple[str, ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def fitting(self) -> int:
        """How many workers have room: in memory here, or on all nodes of the cluster."""
        place = self.place
        if place.cluster is not None:
            each = self.memory.worker
            return sum(room(node, place.threads, each) for node in place.cluster)
        fitting = self.memory.fitting(place.memory.free)
        return min(fitting, len(place.gpus)) if place.gpus else fitting


def judge(outlook: Outlook, problems: Sequence[str]) -> Outlook:
    """The same with what stands in the way, beside `problems`, and what may disappoint."""
    found = (*problems, *_problems(outlook))
    return replace(outlook, problems=found, warnings=tuple(_warnings(outlook)))


def _problems(outlook: Outlook) -> Iterator[str]:
    place, needs = outlook.place, outlook.memory
    disk = disk_problem(place.run_dir, outlook.built.needs.saved, outlook.ledger)
    if disk is not None:
        yield disk
    if place.cluster is None and needs.worker > place.memory.free:
        yield (
            f"memory: one worker needs {needs.worker / _GB:.2f} GB, "
            f"{place.memory.free / _GB:.2f} GB are free{_whose(place.memory)}: "
            "close other programs, merge smaller models, or lower objective.batch_size"
        )
    if place.cluster and not outlook.fitting:
        yield (
            f"cluster: no node holds a worker of {place.threads} CPUs and "
            f"{needs.worker / _GB:.2f} GB: add a larger node, or lower threads"
        )
    resident = outlook.built.needs.resident
    if place.gpus and resident > max(place.gpus):
        yield (
            f"GPU memory: a merged model needs {resident / _GB:.2f} GB, at most "
            f"{max(place.gpus) / _GB:.2f} GB are free on one GPU: use a smaller dtype or model"
        )


def _whose(memory: Memory) -> str:
    return "" if memory.limit is None else f" ({memory.limit} limits it)"


def _warnings(outlook: Outlook) -> Iterator[str]:
    place, workers = outlook.place, outlook.expected.workers
    if place.cluster is None and 0 < outlook.fitting < workers:
        yield (
            f"memory: {workers} workers do not fit, {outlook.fitting} do: use --workers "
            f"{outlook.fitting}"
        )
    elif place.cluster and outlook.fitting != workers and outlook.fitting:
        yield (
            f"cluster: {workers} workers are planned, its nodes have room for {outlook.fitting}: "
            f"use --workers {outlook.fitting}"
        )
    busy = workers * place.threads
    if place.cluster is None and not place.gpus and busy > place.cores:
        yield (
            f"cores: {workers} workers of {place.threads} threads on {place.cores} cores slow each "
            "other down, which the times do not show: use fewer workers"
        )
    needed = outlook.built.needs.cache + outlook.built.needs.nested
    if place.cache_free is not None and place.cache_free < needed:
        yield (
            f"cache: up to {needed / _GB:.2f} GB are kept in {place.cache}, "
            f"{place.cache_free / _GB:.2f} GB are free: set EVOMERGE_CACHE to a larger disk"
        )
