"""Embeddings, heads and head biases whose rows follow the output's vocabulary: built once, kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.errors import PreflightFailed
from evomerge.weights.compatibility import Parent
from evomerge.weights.expansion import Input
from evomerge.weights.layout import is_head, is_token_embedding
from evomerge.weights.pool import ParentPool
from evomerge.weights.vocabulary import NOWHERE, Alignment, TensorCache

_BLOCK_ROWS = 4096
_NAME = "rows"


@final
class MemoryCache:
    """A TensorCache that lasts as long as its owner (stateful)."""

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self._kept: dict[str, Mapping[str, Tensor]] = {}

    def tensors(
        self, key: str, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """Call `compute` for a new key only."""
        if key not in self._kept:
            self._kept[key] = compute()
        return self._kept[key]


@final
class AlignedRows:
    """The aligned matrices of one pool's parents (stateful: keeps digests of their files)."""

    def __init__(self, pool: ParentPool, cache: TensorCache) -> None:
        """Borrow `pool`; `cache` keeps what is computed, under keys that stand for all inputs."""
        self._pool = pool
        self._cache = cache
        self._fingerprints: dict[str, str] = {}

    def get(self, item: Input, alignment: Alignment) -> Tensor:
        """The tensor of `item` with the output's rows, in its stored dtype: borrowed, read only.

        Raises:
            PreflightFailed: a model that gives rows lacks the tensor.
        """
        names = {model: self._counterpart(model, item) for model in alignment.fallback}
        key = self._key(item, alignment, names)
        return self._cache.tensors(key, lambda: {_NAME: self._build(item, alignment, names)})[_NAME]

    def _counterpart(self, model: str, item: Input) -> str:
        name = item.info.name if model == item.model else _like(self._pool.parent(model), item.name)
        if name is None:
            raise PreflightFailed(
                f"model '{model}': it has no tensor like '{item.name}' of '{item.model}', so its "
                "rows cannot be aligned: replace the model"
            )
        return name

    def _key(self, item: Input, alignment: Alignment, names: Mapping[str, str]) -> str:
        """A hash of everything that the matrix depends on."""
        origins = [f"{self._fingerprint(model)} {name}" for model, name in names.items()]
        mine = list(names).index(item.model)
        text = "\n".join(["vocabulary 1", alignment.digest, str(mine), *origins])
        return f"vocabulary-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _fingerprint(self, model: str) -> str:
        if model not in self._fingerprints:
            self._fingerprints[model] = self._pool.fingerprint(model)
        return self._fingerprints[model]

    def _build(self, item: Input, alignment: Alignment, names: Mapping[str, str]) -> Tensor:
        tensors = {model: self._pool.get(model, name) for model, name in names.items()}
        return aligned(item.model, alignment, tensors)


def aligned(model: str, alignment: Alignment, tensors: Mapping[str, Tensor]) -> Tensor:
    """The matrix of `model` with the output's rows, in its own dtype.

    Means are computed in float32 (float64 if any tensor is) and rounded once.

    Args:
        model: whose matrix is wanted.
        alignment: where rows come from.
        tensors: the same tensor of every model, vocabulary along the first axis.
    """
    mine = tensors[model]
    double = any(tensor.dtype == torch.float64 for tensor in tensors.values())
    wide = torch.float64 if double else torch.float32
    out = mine.new_empty((alignment.rows, *mine.shape[1:]))
    total = torch.zeros(mine.shape[1:], dtype=torch.float64)
    for start in range(0, alignment.rows, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        own = alignment.own[model][block]
        borrowed = {name: rows[block] for name, rows in alignment.fallback.items()}
        out[block] = _means(tensors, borrowed, own == NOWHERE, wide).to(mine.dtype)
        _copy_rows(mine, own, out[block])
        total += out[block][_mask(~alignment.blank[block])].double().sum(dim=0)
    if alignment.blank.any():
        out[_mask(alignment.blank)] = (total / int((~alignment.blank).sum())).to(mine.dtype)
    return out


def _means(
    tensors: Mapping[str, Tensor],
    rows: Mapping[str, NDArray[np.int64]],
    wanted: NDArray[np.bool_],
    dtype: torch.dtype,
) -> Tensor:
    """Where `wanted`, the mean of the rows that the models give; zeros where none gives one."""
    first = next(iter(tensors.values()))
    total = torch.zeros((len(wanted), *first.shape[1:]), dtype=dtype)
    count = np.zeros(len(wanted), dtype=np.int64)
    for model, numbers in rows.items():
        taken = wanted & (numbers != NOWHERE)
        if taken.any():
            total[_mask(taken)] += tensors[model][torch.from_numpy(numbers[taken])].to(dtype)
            count += taken
    divisor = torch.from_numpy(np.maximum(count, 1)).to(dtype)
    return total.div_(divisor.view(-1, *[1] * (total.dim() - 1)))


def _copy_rows(source: Tensor, numbers: NDArray[np.int64], out: Tensor) -> None:
    has = numbers != NOWHERE
    if has.any():
        out[_mask(has)] = source[torch.from_numpy(numbers[has])]


def _mask(flags: NDArray[np.bool_]) -> Tensor:
    return torch.from_numpy(flags)


def _like(parent: Parent, tensor: str) -> str | None:
    """The stored tensor of `parent` with the role of another model's `tensor`."""
    if tensor in parent.checkpoint.infos():
        return tensor
    if is_token_embedding(tensor):
        return parent.layout.token_embedding
    if is_head(tensor):
        return parent.layout.head or (parent.layout.token_embedding if parent.is_tied else None)
    return None
