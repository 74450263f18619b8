"""Methods that add a weighted sum of task vectors with weights from their norms and angles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, final

import torch
from torch import Tensor

from evomerge.merge.blocks import Walk, difference_, store_, working_dtype
from evomerge.merge.method import Parents, State, Values


class Along(Enum):
    """Which elements of a tensor form one vector: all, a row (last axis) or a column (first)."""

    WHOLE = "whole"
    LAST = "last"
    FIRST = "first"

    def count(self, shape: torch.Size) -> int:
        """How many vectors a tensor of this shape holds."""
        if self is Along.WHOLE or not shape:
            return 1
        return shape.numel() // max(shape[-1 if self is Along.LAST else 0], 1)

    def vector_of(self, indices: slice, like: Tensor) -> Tensor:
        """The number of the vector of every flat index of a block; int64."""
        index_B = torch.arange(indices.start, indices.stop, device=like.device)
        count = self.count(like.shape)
        if self is Along.LAST:
            return index_B.div_(like.numel() // count, rounding_mode="floor")
        return index_B.remainder_(count)


@dataclass(frozen=True)
class Grams:
    """Inner products of the task vectors, for each way to cut tensors into G vectors.

    float64, shape (K, K, G) for K task vectors, on the parents' device.
    """

    by: Mapping[Along, Tensor]


@dataclass(frozen=True)
class Weights:
    """What a rule decides: the vectors it means, and the factor of each; float64, shape (K, G)."""

    along: Along
    factors: Tensor


SpanRule: TypeAlias = Callable[[Values, Grams], Weights]


@final
class SpanOfTaskVectors:
    """base + sum_i c_i (x_i - base), c_i one number per vector; without a base, sum_i c_i x_i."""

    def __init__(self, rule: SpanRule, *along: Along) -> None:
        """Merge with the weights of `rule`, which may ask for the Gram matrices `along` lists."""
        self._rule = rule
        self._along = along

    def prepare(self, parents: Parents) -> State:
        """The Gram matrices."""
        return Grams({along: _gram(parents, along) for along in self._along})

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write the weighted sum; see `MergeMethod.merge`."""
        assert isinstance(state, Grams), "the state comes from this method's prepare"
        weights = self._rule(values, state)
        dtype = working_dtype(parents)
        factors_KG = weights.factors.to(dtype)
        base = None if parents.base is None else parents.base.reshape(-1)
        target = out.view(-1)
        flats = [tensor.reshape(-1) for tensor in parents.others]
        for block, (base_B, total_B, delta_B) in Walk(out, rows=3, dtype=dtype):
            total_B.copy_(base_B.zero_() if base is None else base_B.copy_(base[block]))
            factors_KB = factors_KG
            if weights.along is not Along.WHOLE:
                factors_KB = factors_KG[:, weights.along.vector_of(block, out)]
            for flat, factor_B in zip(flats, factors_KB, strict=True):
                total_B.addcmul_(difference_(delta_B, flat[block], base_B), factor_B)
            store_(target[block], total_B)


def _gram(parents: Parents, along: Along) -> Tensor:
    flats = [tensor.reshape(-1) for tensor in parents.others]
    like = parents.tensors[0]
    size, dtype = len(flats), working_dtype(parents)
    shape = (size, size, along.count(like.shape))
    gram_KKG = torch.zeros(shape, dtype=torch.float64, device=like.device)
    anchor = None if parents.base is None else parents.base.reshape(-1)
    for block, (base_B, row_B) in Walk(like, rows=2, dtype=dtype):
        if anchor is None:
            base_B.zero_()
        else:
            base_B.copy_(anchor[block])
        deltas = [
            difference_(row_B, flat[block], base_B).to(torch.float64, copy=True) for flat in flats
        ]
        vector_B = None if along is Along.WHOLE else along.vector_of(block, like)
        for i, left_B in enumerate(deltas):
            for j, right_B in enumerate(deltas[: i + 1]):
                if vector_B is None:
                    gram_KKG[i, j] += torch.dot(left_B, right_B)
                else:
                    gram_KKG[i, j].index_add_(0, vector_B, left_B * right_B)
                gram_KKG[j, i] = gram_KKG[i, j]
    return gram_KKG
