"""What merge methods learn about the parents: once per search, kept on disk for all workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import final

from torch import Tensor

from evomerge.merge.kernels import RANK_STEPS
from evomerge.merge.method import Parents, State, Statistic
from evomerge.weights.content import content_digest
from evomerge.weights.disk_cache import DiskCache

_VERSION = 2
"""Part of the keys in the cache: to be counted up when equal parents give other tensors."""
WORTH_KEEPING = 20_000_000
"""Elements of all tensors together from which reading a file is quicker than computing again."""


@final
class Learned:
    """The states of merge methods for the tensors of one kind of recipe (stateful).

    Tensors are known by their contents, so that an entry on disk is never out of date.
    """

    def __init__(self, parents: Mapping[str, Parents], cache: Callable[[], DiskCache]) -> None:
        """For these parents, by the name of the output tensor; `cache` is asked for when needed."""
        self._parents = parents
        self._cache = cache
        self._digests: dict[int, str] = {}
        self._states: dict[tuple[str, str], State] = {}
        self._lock = Lock()  # several threads write tensors of one model

    def state(self, statistic: Statistic, tensor: str) -> State:
        """What `statistic` says about the parents of the output tensor called `tensor`."""
        if not statistic.name:
            return statistic.load({})
        key = (statistic.name, tensor)
        if key not in self._states:
            with self._lock:
                if key not in self._states:
                    self._learn(statistic, tensor)
        return self._states[key]

    def _learn(self, statistic: Statistic, tensor: str) -> None:
        names = (tensor,) if statistic.large else tuple(self._parents)
        for name, tensors in self._tensors(statistic, names).items():
            self._states[(statistic.name, name)] = statistic.load(tensors)

    def _tensors(
        self, statistic: Statistic, names: tuple[str, ...]
    ) -> dict[str, dict[str, Tensor]]:
        """The statistic's tensors for every output tensor in `names`."""

        def compute() -> Mapping[str, Tensor]:
            return {
                f"{index}/{key}": value
                for index, name in enumerate(names)
                for key, value in statistic.compute(self._parents[name]).items()
            }

        if sum(p.tensors[0].numel() for p in self._parents.values()) < WORTH_KEEPING:
            kept = compute()
        else:
            kept = self._cache().tensors(self._key(statistic, names), compute)
        found: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for full, value in kept.items():
            index, _, key = full.partition("/")
            found[names[int(index)]][key] = value
        return found

    def _key(self, statistic: Statistic, names: Iterable[str]) -> str:
        parts = [f"{_VERSION}:{statistic.name}:{RANK_STEPS}"]
        parts += [self._digest(t) for name in names for t in self._parents[name].tensors]
        digest = hashlib.sha256(";".join(parts).encode()).hexdigest()
        return f"{statistic.name}-{digest[:32]}"

    def _digest(self, tensor: Tensor) -> str:
        if id(tensor) not in self._digests:
            self._digests[id(tensor)] = content_digest(tensor)
        return self._digests[id(tensor)]
