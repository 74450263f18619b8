"""What one worker needs of a machine, and how people write it. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.errors import InvalidInput

_SIZE = re.compile(r"^(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?$", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_EPSILON = 1e-6  # ten tenths of a GPU are one, whatever floats say


@dataclass(frozen=True)
class WorkerResources:
    """What is set aside for one worker.

    Attributes:
        cpus: cores, which are also its threads.
        gpus: a whole GPU or a share of one; None is a whole one where there are any.
        memory: bytes of main memory; None is not declared.
    """

    cpus: int = 1
    gpus: float | None = None
    memory: int | None = None

    def with_gpus(self, gpus: float) -> WorkerResources:
        """The same with GPUs decided."""
        return WorkerResources(self.cpus, gpus, self.memory)

    def fits(self, offer: Mapping[str, float]) -> int:
        """How many workers fit into `offer`, in Ray's names: CPU, GPU, and memory in bytes."""
        wanted = {"CPU": float(self.cpus), "GPU": self.gpus or 0.0, "memory": self.memory or 0.0}
        counts = [
            int(offer.get(name, 0.0) / amount + _EPSILON)
            for name, amount in wanted.items()
            if amount
        ]
        return min(counts)

    def __str__(self) -> str:
        """For people: "2 CPUs, 0.5 GPUs, 8.0 GB"."""
        memory = "" if self.memory is None else f", {in_gigabytes(self.memory)}"
        return f"{self.cpus} CPUs, {self.gpus or 0:g} GPUs{memory}"


def worker_resources(cpus: int, gpus: float | None, memory: str | None) -> WorkerResources:
    """The resources that a command line asks for.

    Raises:
        InvalidInput: a share of a GPU that is none, or a size that cannot be read.
    """
    if gpus is not None and not 0.0 <= gpus <= 1.0:
        raise InvalidInput(
            f"--gpus-per-worker {gpus:g}: expected 0, 1 or a share such as 0.5: a worker keeps its "
            "model on one GPU"
        )
    size = None if memory is None else memory_bytes(memory, "--memory-per-worker")
    return WorkerResources(cpus, gpus, size)


def memory_bytes(text: str, where: str) -> int:
    """Bytes of a size such as 8GB, 512MB (powers of 1000) or 8GiB (powers of 1024).

    Args:
        text: the size.
        where: what the message calls the place of the text.

    Raises:
        InvalidInput: it is not a size, or it is zero.
    """
    match = _SIZE.match(text.strip())
    if match:
        number, unit, binary = match.groups()
        size = int(float(number) * (1024 if binary else 1000) ** _POWERS[unit.lower()])
        if size:
            return size
    raise InvalidInput(f"{where} {text}: expected a size such as 8GB, 512MB or 7.5GiB")


def in_gigabytes(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.1f} GB"
