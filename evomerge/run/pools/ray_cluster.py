"""A Ray cluster that this process has joined: what its nodes offer; the door to Ray."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, final

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.run.pools.ray_address import LOCAL, find_cluster, has_token
from evomerge.run.pools.serving import one_line
from evomerge.run.resources import WorkerResources, in_gigabytes

_OBJECT_STORE_BYTES = 200 << 20  # Ray's default is 30 % of the memory; only small values travel
_FOR_ANY = {
    "RAY_USAGE_STATS_ENABLED": "0",
}
_FOR_LOCAL = {
    "RAY_AUTH_MODE": "token",  # what Ray does anyway, with a warning
    # Despite its name, off means everywhere: listen on the loopback address only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_TOKEN = (
    "if the cluster uses tokens, set RAY_AUTH_MODE=token and copy the head's ~/.ray/auth_token or "
    "set RAY_AUTH_TOKEN"
)

_log = logging.getLogger(__name__)


@final
class RayCluster:
    """The connection of this process to Ray, of which there is one at a time (stateful)."""

    def __init__(self, ray: Any, address: str, *, ours: bool) -> None:
        """Use `join`."""
        self.ray = ray
        self.address = address
        self._ours = ours

    @staticmethod
    def join(address: str = LOCAL, *, cpus: int = 1) -> RayCluster:
        """Start Ray here ("local", with `cpus`), or join it at "auto" or "host:port".

        A Ray that this process has already joined is used as it is, and outlives the result.

        Raises:
            InvalidInput: Ray is not installed, or the address is malformed.
            PreflightFailed: no cluster answers at the address, or it refuses.
        """
        found = address if address == LOCAL else find_cluster(address)
        ray = _import_ray(local=found == LOCAL)
        if ray.is_initialized():
            return RayCluster(ray, found, ours=False)
        quiet = {"logging_level": "error", "log_to_driver": False}
        if found == LOCAL:
            # An explicit "local": without it Ray joins whatever cluster it finds on this machine.
            here = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
            ray.init(address=LOCAL, num_cpus=cpus, **here, **quiet)
            return RayCluster(ray, found, ours=True)
        try:
            ray.init(address=found, **quiet)
        except (ConnectionError, RuntimeError) as error:
            raise PreflightFailed(_refusal(found, error)) from error
        return RayCluster(ray, found, ours=True)

    def offers(self) -> dict[str, Mapping[str, float]]:
        """What each living node has in all, by Ray's id of the node."""
        return {n["NodeID"]: n["Resources"] for n in self.ray.nodes() if n["Alive"]}

    def decided(self, wanted: WorkerResources) -> WorkerResources:
        """The resources with as many GPUs as the cluster makes sensible."""
        if wanted.gpus is not None:
            return wanted
        some = any(offer.get("GPU", 0) >= 1 for offer in self.offers().values())
        return wanted.with_gpus(1.0 if some else 0.0)

    def room(self, wanted: WorkerResources, size: int) -> int:
        """How many workers fit on the cluster.

        Args:
            wanted: what each reserves.
            size: bytes that each will use; counts on nodes without GPUs if nothing is declared.

        Raises:
            InvalidInput: the cluster changes its size by itself, so that nobody knows.
            PreflightFailed: none fits.
        """
        if self.autoscaling():
            raise InvalidInput(
                f"Ray at {self.address} starts nodes as they are needed: say with --workers how "
                "many workers there may be"
            )
        wanted = self.decided(wanted)
        self.check(wanted)
        memory = wanted.memory or (None if wanted.gpus else size)
        declared = WorkerResources(wanted.cpus, wanted.gpus, memory)
        return max(1, sum(declared.fits(offer) for offer in self.offers().values()))

    def check(self, wanted: WorkerResources) -> None:
        """Be sure that a worker fits on some node; on an autoscaling cluster, say if it must wait.

        Raises:
            PreflightFailed: it fits on none, and no others will come by themselves.
        """
        offers = list(self.offers().values())
        if any(wanted.fits(offer) for offer in offers):
            return
        line = (
            f"Ray at {self.address}: no node can hold a worker: expected {wanted} on one node, "
            f"got {_shown(offers)}"
        )
        if not self.autoscaling():
            raise PreflightFailed(f"{line}; add a node, or ask for less per worker")
        _log.warning("%s; waiting for the cluster to start one that can", line)

    def autoscaling(self) -> bool:
        """Whether the cluster starts nodes by itself when workers wait for them.

        Every head reports to its key-value store; one that only watches calls each node a type.
        """
        from ray.experimental.internal_kv import internal_kv_get_gcs_client  # noqa: PLC0415

        client = internal_kv_get_gcs_client()
        if client.internal_kv_get(b"__autoscaler_v2_enabled", namespace=b"__autoscaler") == b"1":
            return True
        return starts_nodes(client.internal_kv_get(b"__autoscaling_status", namespace=None))

    def close(self) -> None:
        """Leave Ray, and end it if it was started here."""
        if self._ours:
            self._ours = False
            self.ray.shutdown()


def starts_nodes(report: bytes | None) -> bool:
    """Whether the report of a cluster's monitor is that of an autoscaler."""
    if not report:
        return False
    said = json.loads(report).get("autoscaler_report") or {}
    types = {*(said.get("active_nodes") or {}), *(said.get("node_type_mapping") or {}).values()}
    return any(not name.startswith("node_") for name in types)


def _import_ray(*, local: bool) -> Any:
    """Ray, which reads these settings when it is imported."""
    for name, value in {**_FOR_ANY, **(_FOR_LOCAL if local else {})}.items():
        os.environ.setdefault(name, value)
    if not local and has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray  # noqa: PLC0415 - an optional dependency that takes half a second
    except ImportError as error:
        raise InvalidInput(
            f"the ray engine needs Ray, which is not installed ({one_line(error)}); "
            "run: pip install 'evomerge[ray]'"
        ) from error
    return ray


def _refusal(address: str, error: Exception) -> str:
    if "token" in str(error.__cause__ or error).lower():
        return f"Ray at {address} did not accept the token of this machine; {_TOKEN}"
    return (
        f"Ray at {address} refused the connection ({one_line(error)}); expected the same Ray "
        f"version and the same token: {_TOKEN}"
    )


def _shown(offers: Sequence[Mapping[str, float]]) -> str:
    nodes = [
        f"{o.get('CPU', 0):g} CPUs, {o.get('GPU', 0):g} GPUs, {in_gigabytes(o.get('memory', 0))}"
        for o in offers
    ]
    kinds = {node: nodes.count(node) for node in nodes}
    return "; ".join(f"{n} nodes with {k}" if n > 1 else k for k, n in kinds.items()) or "no nodes"
