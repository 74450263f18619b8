"""Where a Ray cluster is: the forms of an address, and whether anyone answers there. No Ray."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.run.pools.serving import one_line

LOCAL = "local"
AUTO = "auto"
VARIABLE = "RAY_ADDRESS"
_PROBE_SECONDS = 5.0


def find_cluster(address: str, environment: Mapping[str, str] = os.environ) -> str:
    """The host:port of `address`, which may be "auto"; fails in seconds where Ray takes minutes.

    "auto" is RAY_ADDRESS, else the cluster that `ray start` left a note of on this machine.

    Raises:
        InvalidInput: the address is malformed.
        PreflightFailed: "auto" finds no cluster, or no cluster answers.
    """
    said_by = ""
    if address == AUTO:
        address, said_by = _found(environment)
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise InvalidInput(
            f"Ray address '{address}'{said_by}: expected 'local', 'auto' or host:port of the head "
            "node, such as 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise PreflightFailed(
            f"no Ray cluster answers at {address}{said_by} ({one_line(error)}); start one with "
            "'ray start --head', or correct the address"
        ) from error
    return address


def has_token(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this machine has a token for clusters, where Ray looks for one."""
    if environment.get("RAY_AUTH_TOKEN"):
        return True
    chosen = environment.get("RAY_AUTH_TOKEN_PATH")
    try:
        path = Path(chosen) if chosen else Path.home() / ".ray" / "auth_token"
    except RuntimeError:  # no home folder
        return False
    return path.is_file()


def _found(environment: Mapping[str, str]) -> tuple[str, str]:
    """The address that "auto" stands for, and where it was found."""
    named = environment.get(VARIABLE)
    if named and named != AUTO:
        return named, f" (from {VARIABLE})"
    note = Path(environment.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    try:
        return note.read_text(encoding="utf-8").strip(), f" (from {note})"
    except OSError as error:
        raise PreflightFailed(
            f"--address auto: no Ray cluster on this machine: {VARIABLE} is not set and there is "
            f"no {note}; start one with 'ray start', or give --address HOST:PORT"
        ) from error
