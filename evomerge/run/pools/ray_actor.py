"""The process of a Ray worker. Its source travels, so that it runs where evomerge is missing.

Nothing of evomerge is imported before `start`: a node without it, or with another version, has to
say so in words.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_PACKAGE = "evomerge"
_LIBRARIES = ("torch", "transformers", "lm_eval", "numpy")
"""Whose versions can change a score."""


def software() -> tuple[tuple[str, str], ...]:
    """Versions in this process: of evomerge by its source, of libraries by number.

    Builds of one version for several devices (2.6.0+cpu, 2.6.0+cu124) count as the same.
    """
    found = [(_PACKAGE, _source())]
    for name in _LIBRARIES:
        try:
            found.append((name, version(name).partition("+")[0]))
        except PackageNotFoundError:
            found.append((name, "nothing"))
    return tuple(found)


def _source() -> str:
    """A digest of all source files, since clones of different days have the same number."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        return "nothing"
    root = Path(spec.origin).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return f"source {digest.hexdigest()[:12]}"


class RemoteWorker:
    """The actor: a worker in a process of the cluster (stateful)."""

    def __init__(self) -> None:
        """Does nothing that can fail: errors of an actor's constructor reach nobody intact."""
        self._worker: Any = None

    def site(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """Where this is: Ray's id of the node, its name, and its `software`.

        Builtin types only: classes of this module are others at the driver.
        """
        import ray  # noqa: PLC0415 - the driver reads this module without it

        node = ray.get_runtime_context().get_node_id()
        return node, socket.gethostname(), software()

    def start(self, factory: bytes) -> Any:
        """Make the worker, or just say that it is there: a `serving.Message`."""
        from evomerge.run.pools.serving import StartFailure, start, started  # noqa: PLC0415

        if self._worker is None:
            made = start(factory)
            if isinstance(made, StartFailure):
                return made
            self._worker = made
        return started()

    def evaluate(self, assignment: bytes) -> Any:
        """Carry out one assignment: a `serving.Message`."""
        from evomerge.run.pools.serving import answer  # noqa: PLC0415

        assert self._worker is not None, f"process {os.getpid()} gets work only after its start"
        return answer(self._worker, pickle.loads(assignment))
