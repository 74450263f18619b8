"""A base with an adapter on it, read like any other model: changed tensors are computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, final

from evomerge.weights.adapter_fit import Change, fit, foreign_base
from evomerge.weights.adapters import Adapter
from evomerge.weights.checkpoint import Checkpoint, StoredModel
from evomerge.weights.disk_cache import DiskCache
from evomerge.weights.headers import TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

_ARITHMETIC = "lora 1"
"""Part of the keys in the cache: to be counted up when the same files give other tensors."""


@final
class AdaptedCheckpoint:
    """The tensors of "base+adapter" (stateful: remembers the tensors that it has mapped).

    Tensors that the adapter leaves alone are borrowed from the base's files. The others come from
    the disk cache, one entry per tensor, so that only one of them is in memory while it is computed
    and all processes of a node share the mapped result.
    """

    def __init__(self, model: str, base: Checkpoint, adapter: Adapter, cache: DiskCache) -> None:
        """Find the place of every tensor of `adapter`; `model` is what recipes call the result.

        Raises:
            PreflightFailed: the adapter does not fit the base.
        """
        changes = fit(adapter, base, model)
        self.directory = base.directory
        self.config = base.config
        self.notices = tuple(foreign_base(adapter, base, model))
        self._base = base
        self._adapter = adapter
        self._cache = cache
        self._changes = {change.name: change for change in changes}
        infos = dict(base.infos())
        for change in changes:
            infos[change.name] = replace(infos[change.source], name=change.name)
        self._infos = MappingProxyType(infos)
        self._mapped: dict[str, Tensor] = {}

    def infos(self) -> Mapping[str, TensorInfo]:
        """The base's tensors, and a head where the adapter unties it from the embedding."""
        return self._infos

    @property
    def changed(self) -> tuple[str, ...]:
        """The tensors that are not the base's own."""
        return tuple(name for name, c in self._changes.items() if c.low_rank or c.replacement)

    def fingerprint(self) -> str:
        """A digest of the base's files, as far as it has one, and of all of the adapter's."""
        text = f"{self._base.fingerprint()}+{self._adapter.digest}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def contents(self) -> str:
        """A digest of every byte of the base's files and of the adapter's."""
        text = f"{self._base.contents()}+{self._adapter.digest}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def get(self, name: str) -> Tensor:
        """The tensor called `name`, a view into a mapped file on the CPU: borrowed, read only.

        Raises:
            KeyError: the model has no such tensor.
        """
        change = self._changes.get(name)
        if change is None:
            return self._base.get(name)
        if change.low_rank is None and change.replacement is None:
            return self._base.get(change.source)
        if name not in self._mapped:
            self._mapped[name] = self._changed(change)
        return self._mapped[name]

    def _changed(self, change: Change) -> Tensor:
        stored, dtype = change.replacement, self._infos[change.name].dtype
        if change.low_rank is None and stored and self._adapter.infos[stored].dtype == dtype:
            return self._adapter.get(stored)
        text = f"{_ARITHMETIC};{self._base_files};{self._adapter.digest};{change.name}"
        key = f"lora-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
        return self._cache.tensors(key, lambda: {"weight": self._computed(change)})["weight"]

    def _computed(self, change: Change) -> Tensor:
        """Start from the base's or the adapter's own tensor, and round once to the base's type."""
        import torch  # noqa: PLC0415 - plans are made without it

        from evomerge.weights.low_rank import LowRankUpdate, updated  # noqa: PLC0415

        adapter, low_rank = self._adapter, change.low_rank
        stored = change.replacement
        weight = self._base.get(change.source) if stored is None else adapter.get(stored)
        dtype = getattr(torch, self._infos[change.name].dtype)
        if low_rank is None:
            return weight.to(dtype)
        magnitude = None if low_rank.magnitude is None else adapter.get(low_rank.magnitude)
        a, b = adapter.get(low_rank.a), adapter.get(low_rank.b)
        update = LowRankUpdate(a, b, change.scale, magnitude)
        return updated(weight, update, transposed=change.transposed, dtype=dtype)

    @cached_property
    def _base_files(self) -> str:
        """What tells this base from any other on this node.

        The fingerprint reads samples only. A cached tensor outlives the run, so times count, too.
        """
        times = [f.stat().st_mtime_ns for f in sorted(self.directory.glob("*.safetensors"))]
        return f"{self._base.fingerprint()}:{times}"


if TYPE_CHECKING:
    _: type[StoredModel] = AdaptedCheckpoint
