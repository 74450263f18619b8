"""The pool of a cluster: Ray actors, of which only recipes and outcomes travel; the door to Ray."""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Sequence
from typing import Any, final

from evomerge.candidate import Assignment
from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.run.pool import Deadline, EvaluatingWorker, WorkerFactory, WorkerPool
from evomerge.run.pools.serving import Message, StartFailure, answer, one_line, start, started
from evomerge.run.pools.supervised import START_DEADLINE, Gone, SupervisedPool

LOCAL = "local"
_OBJECT_STORE_BYTES = 200 << 20  # Ray's default is 30 % of the memory; only small values travel
_PROBE_SECONDS = 5.0


def ray_pool(
    factory: WorkerFactory,
    size: int,
    *,
    address: str = LOCAL,
    threads: int = 1,
    deadline: Deadline,
    start_deadline: float = START_DEADLINE,
) -> SupervisedPool[RayMember]:
    """Ask a Ray cluster for `size` workers; those that do not fit yet join when there is room.

    Every node needs evomerge and the parents under the same paths.

    Args:
        factory: makes a worker in its process.
        size: how many workers to keep asking for; each takes a whole GPU if the cluster has any.
        address: "local" starts Ray on this machine and ends it with the pool; "host:port" joins
            a running cluster. A Ray that this process has already joined is used as it is.
        threads: CPUs that each worker reserves.
        deadline: after which a worker that has not answered is killed.
        start_deadline: seconds until a worker must be placed and ready.

    Raises:
        InvalidInput: Ray is not installed, or the address is malformed.
        PreflightFailed: no cluster at the address, or none of its nodes can hold a worker.
    """
    transport = RayTransport(factory, address, size=size, threads=threads)
    return SupervisedPool(transport, size, deadline=deadline, start_deadline=start_deadline)


@final
class RemoteWorker:
    """The actor: a worker in a process of the cluster (stateful)."""

    def __init__(self, factory: bytes) -> None:
        """Does nothing that can fail: errors of an actor's constructor reach nobody intact."""
        self._factory = factory
        self._worker: EvaluatingWorker | None = None

    def start(self) -> Message:
        """Make the worker, or just say that it is there."""
        if self._worker is None:
            made = start(self._factory)
            if isinstance(made, StartFailure):
                return made
            self._worker = made
        return started()

    def evaluate(self, assignment: bytes) -> Message:
        """Carry out one assignment."""
        assert self._worker is not None, "it gets work only after it has started"
        return answer(self._worker, pickle.loads(assignment))


@final
class RayMember:
    """The driver's view of one actor, and the answer that is awaited from it."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray = ray
        self._actor = actor
        self.awaited: Any = actor.start.remote()

    def give(self, assignment: Assignment) -> bool:
        """Call the actor; that it is gone shows in the answer."""
        self.awaited = self._actor.evaluate.remote(pickle.dumps(assignment))
        return True

    def check(self) -> None:
        """Ask the actor whether it is there."""
        self.awaited = self._actor.start.remote()

    def heard(self) -> Message | Gone | None:
        """The awaited answer, if it has arrived."""
        if self.awaited is None or not self._ray.wait([self.awaited], timeout=0)[0]:
            return None
        awaited, self.awaited = self.awaited, None
        try:
            message: Message = self._ray.get(awaited)
        except self._ray.exceptions.RayError as error:
            # Whatever the actor itself can catch comes as a message: this is the infrastructure.
            return Gone(_epitaph(error))
        return message

    def kill(self) -> None:
        """End the actor; also one that still waits for a place."""
        self._ray.kill(self._actor, no_restart=True)


@final
class RayTransport:
    """Asks for actors and waits on their answers."""

    def __init__(self, factory: WorkerFactory, address: str, *, size: int, threads: int) -> None:
        self._factory = pickle.dumps(factory)
        self._ray, self._ours = connect(address, cpus=size * threads)
        try:
            gpus = _gpus_per_worker(self._ray, address, threads)
        except BaseException:
            self.close()
            raise
        # Ray's own restarts and retries wait for ever once capacity is gone: the pool does both.
        self._actor = self._ray.remote(RemoteWorker).options(
            num_cpus=threads,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )

    def launch(self, place: int) -> RayMember:  # noqa: ARG002 - Ray finds the place
        """Ask for an actor."""
        return RayMember(self._ray, self._actor.remote(self._factory))

    def wait(self, members: Sequence[RayMember], timeout: float) -> Sequence[RayMember]:
        """The members whose answer has arrived."""
        asked = {member.awaited: member for member in members if member.awaited is not None}
        if not asked:
            time.sleep(timeout)
            return ()
        wanted = 1 if timeout else len(asked)
        ready, _ = self._ray.wait(list(asked), num_returns=wanted, timeout=timeout)
        return [asked[reference] for reference in ready]

    def close(self) -> None:
        """End Ray if it was started for this pool."""
        if self._ours:
            self._ours = False
            self._ray.shutdown()


def connect(address: str, *, cpus: int) -> tuple[Any, bool]:
    """Ray, connected; and whether this call did it, so that the caller must shut it down.

    Raises:
        InvalidInput: Ray is not installed, or the address is malformed.
        PreflightFailed: no cluster answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == LOCAL:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # what Ray does anyway, with a warning
    else:
        _probe(address)
    try:
        import ray  # noqa: PLC0415 - an optional dependency that takes half a second
    except ImportError as error:
        raise InvalidInput(
            f"the ray engine needs Ray, which is not installed ({one_line(error)}); "
            "run: pip install 'evomerge[ray]'"
        ) from error
    if ray.is_initialized():
        return ray, False
    quiet = {"logging_level": "error", "log_to_driver": False}
    if address == LOCAL:
        # An explicit "local": without it Ray joins whatever cluster it finds on this machine.
        ray.init(
            address=LOCAL,
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            **quiet,
        )
        return ray, True
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError) as error:
        raise PreflightFailed(
            f"Ray at {address} refused the connection ({one_line(error)}); expected the same Ray "
            "version and the same token: if the cluster uses tokens, set RAY_AUTH_MODE=token and "
            "copy the head's ~/.ray/auth_token or set RAY_AUTH_TOKEN"
        ) from error
    return ray, True


def _epitaph(error: Exception) -> str:
    """What Ray knows about the death of an actor, without its page of general advice."""
    detail = str(error).partition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return f"{type(error).__name__}: {detail}" if detail else one_line(error)


def _probe(address: str) -> None:
    """Fail in seconds where `ray.init` would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise InvalidInput(
            f"Ray address '{address}': expected 'local' or host:port of the head node, such as "
            "10.0.0.1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise PreflightFailed(
            f"no Ray cluster answers at {address} ({one_line(error)}); start one with 'ray start "
            "--head', or correct the address"
        ) from error


def _gpus_per_worker(ray: Any, address: str, threads: int) -> int:
    """1 if any node has a GPU; raises PreflightFailed if a worker fits on no node, ever."""
    offers = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = 1 if any(offer.get("GPU", 0) >= 1 for offer in offers) else 0
    if any(offer.get("CPU", 0) >= threads and offer.get("GPU", 0) >= gpus for offer in offers):
        return gpus
    seen = "; ".join(f"{o.get('CPU', 0):g} CPUs, {o.get('GPU', 0):g} GPUs" for o in offers)
    raise PreflightFailed(
        f"Ray at {address}: no node can hold a worker: expected {threads} CPUs and {gpus} GPUs on "
        f"one node, got {seen or 'no nodes'}; add a node, or lower the threads per worker"
    )


_conforms: type[WorkerPool] = SupervisedPool[RayMember]
