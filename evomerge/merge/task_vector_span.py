"""Methods that add a weighted sum of task vectors with weights from their norms and angles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evomerge.merge.blockwise.walk import Walk, difference_, store_
from evomerge.merge.gram import Gram, GramStatistic
from evomerge.merge.kernels import Deltas, Kernels
from evomerge.merge.method import Parents, State, Statistic, Values
from evomerge.merge.precision import working_dtype

Array: TypeAlias = npt.NDArray[np.float64]


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
class SpanRule:
    """How a method finds the factor of each task vector.

    Attributes:
        along: which vectors it means.
        factors: from parameters and the inner products of the task vectors (of the parents
            themselves without a base; float64, shape (K, K, G) for G vectors per tensor) to one
            factor per vector, float64, shape (K, G).
    """

    along: Callable[[Values], Along]
    factors: Callable[[Values, Array], Array]


@final
class PartGramStatistic:
    """The Gram matrices of the rows or columns of task vectors, in torch."""

    large = True

    def __init__(self, along: Along) -> None:
        """Cut tensors along `along`."""
        self._along = along
        self.name = f"gram.{along.value}"

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """The matrices, (K, K, G)."""
        return {"gram": _gram(parents, self._along)}

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """An array."""
        return tensors["gram"].numpy()


@final
class SpanOfTaskVectors:
    """base + sum_i c_i (x_i - base), c_i one number per vector; without a base sum_i c_i x_i."""

    def __init__(self, rule: SpanRule, kernels: Kernels) -> None:
        """Merge with the factors of `rule`."""
        self._rule = rule
        self._kernels = kernels
        self._whole: Statistic = GramStatistic(kernels)

    def statistic(self, values: Values) -> Statistic:
        """The Gram matrix, or those of the vectors that the rule means."""
        along = self._rule.along(values)
        return self._whole if along is Along.WHOLE else PartGramStatistic(along)

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write the weighted sum; see `MergeMethod.merge`."""
        if not isinstance(state, Gram):
            assert isinstance(state, np.ndarray), "the state comes from this method's statistic"
            along = self._rule.along(values)
            _merge_vectors(parents, along, _factors(self._rule, values, state), out)
            return
        gram_KK = state.of_parents if parents.base is None else state.of_task_vectors
        factors = _factors(self._rule, values, gram_KK[:, :, None])[:, 0].tolist()
        if parents.base is None:
            self._kernels.weighted_sum(parents.flat, factors, 1.0, out.view(-1))
        else:
            deltas = Deltas(parents.flat[0], parents.flat[1:])
            self._kernels.add_sum(deltas, factors, 1.0, out.view(-1))


def _factors(rule: SpanRule, values: Values, gram_KKG: Array) -> Array:
    """The rule's factors; Inf and NaN of weights that cancel reach the result without a word."""
    with np.errstate(all="ignore"):
        return rule.factors(values, gram_KKG)


def _merge_vectors(parents: Parents, along: Along, factors_KG: Array, out: Tensor) -> None:
    dtype = working_dtype(parents.flat)
    weight_KG = torch.from_numpy(np.ascontiguousarray(factors_KG)).to(out.device, dtype)
    target = out.view(-1)
    for block, (total_B, *deltas) in _differences(parents, dtype):
        factors_KB = weight_KG[:, along.vector_of(block, out)]
        for delta_B, factor_B in zip(deltas, factors_KB, strict=True):
            total_B.add_(delta_B.mul_(factor_B))
        store_(target[block], total_B)


def _gram(parents: Parents, along: Along) -> Tensor:
    like, size = parents.tensors[0], len(parents.others)
    shape = (size, size, along.count(like.shape))
    gram_KKG = torch.zeros(shape, dtype=torch.float64, device=like.device)
    for block, (_, *rows) in _differences(parents, working_dtype(parents.flat)):
        deltas = [row_B.double() for row_B in rows]
        vector_B = along.vector_of(block, like)
        for i, left_B in enumerate(deltas):
            for j, right_B in enumerate(deltas[: i + 1]):
                gram_KKG[i, j].index_add_(0, vector_B, left_B * right_B)
                gram_KKG[j, i] = gram_KKG[i, j]
    return gram_KKG.cpu()


def _differences(parents: Parents, dtype: torch.dtype) -> Iterator[tuple[slice, Sequence[Tensor]]]:
    """Blocks of (flat indices, base or 0 followed by every task vector or parent)."""
    others = parents.flat[-len(parents.others) :]
    for block, (base_B, *rows) in Walk(others[0], rows=1 + len(others), dtype=dtype):
        if parents.base is None:
            base_B.zero_()
        else:
            base_B.copy_(parents.flat[0][block])
        for row_B, other in zip(rows, others, strict=True):
            difference_(row_B, other[block], base_B)
        yield block, (base_B, *rows)
