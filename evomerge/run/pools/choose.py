"""Which pool an engine's name stands for, and how many workers there is room for."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, final

from evomerge.errors import InvalidInput
from evomerge.run.fetch import Fetching
from evomerge.run.pool import Deadline, WorkerFactory, WorkerPool
from evomerge.run.pools.inline import InlinePool
from evomerge.run.pools.local import local_pool
from evomerge.run.pools.ray import ray_pool
from evomerge.run.pools.ray_address import LOCAL, VARIABLE, find_cluster
from evomerge.run.pools.ray_cluster import RayCluster
from evomerge.run.pools.supervised import START_DEADLINE
from evomerge.run.resources import WorkerResources

_FETCH_DEADLINE = 6 * 3600.0  # a start may include copying the parents to the node


@dataclass(frozen=True)
class EngineChoice:
    """An engine and, for Ray, where it is.

    Attributes:
        name: "inline", "local" or "ray".
        address: of Ray: "local", "auto" or host:port; None for the other engines.
    """

    name: str
    address: str | None = None

    @property
    def is_cluster(self) -> bool:
        """Whether other machines may take part."""
        return self.address not in (None, LOCAL)


def choose_engine(engine: str, address: str | None, resources: WorkerResources) -> EngineChoice:
    """The engine called "inline", "local", "ray" or "auto".

    "auto" is Ray when an address is given or RAY_ADDRESS names a cluster, else local processes.

    Raises:
        InvalidInput: an address or a declaration of resources for an engine without such.
    """
    named = address or os.environ.get(VARIABLE)
    if engine == "auto":
        engine = "ray" if named else "local"
    if engine == "ray":
        return EngineChoice(engine, named or LOCAL)
    problems = []
    if address is not None:
        problems.append(f"--address {address}: only the ray engine has one; use --engine ray")
    if resources.gpus is not None:
        problems.append("--gpus-per-worker: only the ray engine has it; use --engine ray")
    if resources.memory is not None and engine == "inline":
        problems.append("--memory-per-worker: not with the inline engine; use local or ray")
    if problems:
        raise InvalidInput(problems)
    return EngineChoice(engine)


@final
class Workplace:
    """Where workers will be; a cluster is joined when it is first needed (stateful)."""

    def __init__(
        self,
        engine: EngineChoice,
        resources: WorkerResources,
        *,
        fetch: tuple[str, ...] | None = None,
    ) -> None:
        """Workers take `resources`; `fetch` completes the folders of a node, see `Fetching`."""
        self._engine = engine
        self._resources = resources
        self._fetch = fetch
        self._cluster: RayCluster | None = None

    def find(self) -> None:
        """Fail now if no cluster answers: before anything is read or written.

        Raises:
            InvalidInput, PreflightFailed: see `find_cluster`.
        """
        if self._engine.is_cluster:
            assert self._engine.address is not None, "clusters have addresses"
            find_cluster(self._engine.address)

    @property
    def room(self) -> Callable[[int], int] | None:
        """Given the bytes of one worker, how many fit on the cluster; None without a cluster.

        The function raises like `RayCluster.join` and `RayCluster.room`.
        """
        return self._room if self._engine.is_cluster else None

    def open_pool(
        self,
        factory: WorkerFactory,
        workers: int,
        *,
        deadline: Deadline,
        mapped: int,
        logs: Path,
        folders: tuple[str, ...] = (),
        root: str = "",
    ) -> WorkerPool:
        """Start `workers` workers.

        Args:
            factory: makes one.
            workers: how many.
            deadline: after which one that has not answered is replaced.
            mapped: bytes of files that each maps and all share, which the kernel counts as its own.
            logs: folder for what they print, where they are processes of this machine.
            folders: what workers read, to be fetched where it is missing; see `Fetching`.
            root: see `Fetching`.

        Raises:
            InvalidInput, PreflightFailed: see `RayCluster.join` and `ray_pool`.
        """
        start_deadline = START_DEADLINE
        if self._fetch is not None:
            factory = Fetching(factory, self._fetch, folders, root)
            start_deadline = _FETCH_DEADLINE
        if self._engine.name == "inline":
            return InlinePool(factory)
        if self._engine.name == "local":
            threads = self._resources.cpus
            return local_pool(
                factory,
                workers,
                threads=threads,
                memory=None if self._resources.memory is None else self._resources.memory + mapped,
                deadline=deadline,
                start_deadline=start_deadline,
                logs=logs,
            )
        cluster = self._joined(workers * self._resources.cpus)
        return ray_pool(
            factory,
            workers,
            cluster=cluster,
            resources=self._resources,
            deadline=deadline,
            start_deadline=start_deadline,
        )

    def close(self) -> None:
        """Leave the cluster."""
        if self._cluster is not None:
            self._cluster.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _room(self, size: int) -> int:
        return self._joined(1).room(self._resources, size)

    def _joined(self, cpus: int) -> RayCluster:
        if self._cluster is None:
            assert self._engine.address is not None, "only Ray is joined"
            self._cluster = RayCluster.join(self._engine.address, cpus=cpus)
        return self._cluster
