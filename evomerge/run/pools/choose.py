"""Which pool an engine's name stands for."""

from __future__ import annotations

import os
from pathlib import Path

from evomerge.errors import InvalidInput
from evomerge.run.pool import Deadline, WorkerFactory, WorkerPool
from evomerge.run.pools.inline import InlinePool
from evomerge.run.pools.local import local_pool
from evomerge.run.pools.ray import LOCAL, ray_pool


def open_pool(
    engine: str,
    factory: WorkerFactory,
    *,
    workers: int,
    threads: int,
    deadline: Deadline,
    address: str | None,
    logs: Path,
) -> WorkerPool:
    """The pool called "inline", "local", "ray" or "auto".

    "auto" is Ray when an address is given or RAY_ADDRESS names a cluster, else local processes.

    Raises:
        InvalidInput: an address for an engine that has none, or Ray is not installed.
        PreflightFailed: there is no cluster at the address.
    """
    cluster = address or os.environ.get("RAY_ADDRESS")
    if engine == "auto":
        engine = "ray" if cluster else "local"
    if address is not None and engine != "ray":
        raise InvalidInput(f"--address {address}: only the ray engine has one; use --engine ray")
    if engine == "ray":
        return ray_pool(
            factory, workers, address=cluster or LOCAL, threads=threads, deadline=deadline
        )
    if engine == "inline":
        return InlinePool(factory)
    return local_pool(factory, workers, threads=threads, deadline=deadline, logs=logs)
