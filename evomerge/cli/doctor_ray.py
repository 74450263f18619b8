"""What the doctor finds out about Ray; it joins a cluster only if one is named."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from evomerge.cli.doctor_finding import GB, Finding, Level, note, problem
from evomerge.errors import EvomergeError
from evomerge.run.pools.ray_nodes import Node, cluster_nodes

HEAD_PORT = 6379
OBJECT_STORE_BYTES = 200 << 20
"""What a search asks for in shared memory."""
_SOCKET_BYTES = 107
_SOCKET_TAIL = len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
_INSTALL = "pip install 'evomerge[ray]'"


def ray(version: str | None, address: str | None) -> Finding:
    """Whether Ray is there."""
    if version is not None:
        return Finding("ray", version)
    if address is not None:
        return problem("ray", f"not installed, needed for {address}", _INSTALL)
    return Finding("ray", f"not installed; only clusters need it: {_INSTALL}")


def cluster(
    address: str, nodes: Callable[[str], tuple[Node, ...]] = cluster_nodes
) -> Iterator[Finding]:
    """The nodes at `address`: reached, of the same version, with the same token."""
    try:
        found = nodes(address)
    except EvomergeError as error:
        for line in error.problems:
            what, _, fix = line.rpartition("; ")
            yield problem("cluster", what or line, fix or "correct the address")
        return
    cpus, gpus = sum(n.cpus for n in found), sum(n.gpus for n in found)
    yield Finding("cluster", f"{address}: {len(found)} nodes, {cpus} CPUs, {gpus} GPUs")
    for node in found:
        text = f"{node.name}: {node.cpus} CPUs, {node.gpus} GPUs, {node.memory / GB:.1f} GB"
        yield Finding("node", text)


def shared_memory(folder: Path, free: Callable[[Path], int]) -> Finding:
    """Whether Ray's object store finds room where it wants to be."""
    fix = "Ray keeps objects on disk instead; in a container: docker run --shm-size=1g"
    if not folder.is_dir():
        return note("shared memory", f"{folder} is missing", fix)
    available = free(folder)
    text = f"{folder}, {available / GB:.1f} GB free"
    if available < OBJECT_STORE_BYTES:
        return note("shared memory", text, f"{OBJECT_STORE_BYTES / GB:.1f} GB are used; {fix}")
    return Finding("shared memory", text)


def socket_path(environment: Mapping[str, str], temporary: Path) -> Finding:
    """Whether the names of Ray's sockets fit into what the kernel allows."""
    folder = Path(environment.get("RAY_TMPDIR") or temporary) / "ray"
    length = len(os.fsencode(folder)) + _SOCKET_TAIL
    text = f"{folder}, {length} of {_SOCKET_BYTES} bytes"
    if length > _SOCKET_BYTES:
        return note("ray sockets", text, "Ray cannot start here: set RAY_TMPDIR=/tmp")
    return Finding("ray sockets", text)


def token(
    environment: Mapping[str, str], home: Path | None, *, writable: bool, address: str | None
) -> Finding:
    """Whether there is a token to join a cluster with, or a place for a new one."""
    mode = environment.get("RAY_AUTH_MODE", "").lower()
    if mode == "disabled":
        return note("ray token", "off (RAY_AUTH_MODE)", "anybody on the network can run code there")
    given = next((n for n in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if environment.get(n)), None)
    if given is not None:
        return Finding("ray token", f"in {given}")
    file = None if home is None else home / ".ray" / "auth_token"
    if file is not None and file.is_file():
        return Finding("ray token", str(file))
    if address is not None:
        fix = "copy the head's ~/.ray/auth_token or set RAY_AUTH_TOKEN, if the cluster uses tokens"
        return note("ray token", "none", fix)
    if file is None or not writable:
        fix = "set RAY_AUTH_TOKEN_PATH to a file in a folder that can be written"
        return note("ray token", f"{file} cannot be written", fix)
    return Finding("ray token", f"none yet; Ray makes one in {file}")


def head_port(port: int = HEAD_PORT) -> Finding:
    """Whether a head could be started here with its usual port."""
    with suppress(OSError), socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return Finding("ray head", f"port {port} is free")
    return note(
        "ray head",
        f"something listens on port {port}",
        f"if it is a Ray head, join it with --address 127.0.0.1:{port}; else start one with --port",
    )


def usage_statistics(environment: Mapping[str, str]) -> Finding:
    """Whether Ray reports home."""
    if environment.get("RAY_USAGE_STATS_ENABLED", "0") == "0":
        return Finding(
            "ray statistics",
            "off in searches; `ray start` sends some without RAY_USAGE_STATS_ENABLED=0",
        )
    fix = "set RAY_USAGE_STATS_ENABLED=0 to send none"
    return Finding("ray statistics", "sent to Ray's makers", fix, Level.NOTE)
