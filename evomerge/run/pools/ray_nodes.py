"""What the nodes of a Ray cluster offer, asked once before a run."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.run.pools.ray_cluster import RayCluster


@dataclass(frozen=True)
class Node:
    """A living node: its name, CPUs, GPUs, and the bytes of memory that Ray gives to workers."""

    name: str
    cpus: int
    gpus: int
    memory: int


def cluster_nodes(address: str) -> tuple[Node, ...]:
    """The living nodes of the cluster at `address`.

    Raises:
        InvalidInput, PreflightFailed: see `RayCluster.join`.
    """
    cluster = RayCluster.join(address)
    try:
        return tuple(
            Node(
                str(node["NodeManagerHostname"]),
                int(node["Resources"].get("CPU", 0)),
                int(node["Resources"].get("GPU", 0)),
                int(node["Resources"].get("memory", 0)),
            )
            for node in cluster.ray.nodes()
            if node["Alive"]
        )
    finally:
        cluster.close()


def room(node: Node, threads: int, worker_bytes: int) -> int:
    """How many workers a node holds: by its GPUs if it has any, else by CPUs, and by memory."""
    places = min(node.gpus, node.cpus // threads) if node.gpus else node.cpus // threads
    return min(places, node.memory // worker_bytes)
