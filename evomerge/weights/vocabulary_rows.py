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
from evomerge.weights.content import content_digest
from evomerge.weights.expansion import Input
from evomerge.weights.layout import is_head, is_token_embedding
from evomerge.weights.pool import ParentPool
from evomerge.weights.vocabulary import NOWHERE, Alignment, TensorCache

_BLOCK_ROWS = 4096
_NAME = "rows"
_VERSION = 1
"""Part of the keys in the cache: to be counted up when equal parents give other rows."""


@final
class AlignedRows:
    """The aligned matrices of one pool's parents (stateful: keeps digests of their tensors)."""

    def __init__(self, pool: ParentPool, cache: Callable[[], TensorCache]) -> None:
        """Borrow `pool`; `cache` is asked for when needed. Its keys stand for all that goes in."""
        self._pool = pool
        self._cache = cache
        self._digests: dict[tuple[str, str], str] = {}

    def get(self, item: Input, alignment: Alignment) -> Tensor:
        """The tensor of `item` with the output's rows, in its stored dtype: borrowed, read only.

        Raises:
            PreflightFailed: a model that gives rows lacks the tensor.
        """
        names = {model: self._counterpart(model, item) for model in alignment.fallback}
        key = self._key(item, alignment, names)

        def build() -> Mapping[str, Tensor]:
            tensors = {model: self._pool.get(model, name) for model, name in names.items()}
            return {_NAME: aligned(item.model, alignment, tensors)}

        return self._cache().tensors(key, build)[_NAME]

    def _counterpart(self, model: str, item: Input) -> str:
        name = item.info.name if model == item.model else _like(self._pool.parent(model), item.name)
        if name is None:
            raise PreflightFailed(
                f"model '{model}': it has no tensor like '{item.name}' of '{item.model}', so its "
                "rows cannot be aligned: replace the model"
            )
        return name

    def _key(self, item: Input, alignment: Alignment, names: Mapping[str, str]) -> str:
        mine = list(names).index(item.model)
        origins = [self._digest(model, name) for model, name in names.items()]
        text = ";".join([f"{_VERSION}:{mine}", alignment.digest, *origins])
        return f"vocabulary-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _digest(self, model: str, name: str) -> str:
        if (model, name) not in self._digests:
            self._digests[model, name] = content_digest(self._pool.get(model, name))
        return self._digests[model, name]


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
    main = parent.towers.main
    if tensor in parent.checkpoint.infos():
        return tensor
    if is_token_embedding(tensor):
        return main.token_embedding
    if is_head(tensor) and main.head is not None:
        return main.stored[main.head]
    return main.token_embedding if is_head(tensor) and parent.is_tied else None
