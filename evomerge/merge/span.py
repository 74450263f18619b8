"""Methods whose result is a weighted sum of the parents, at most by way of their Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from evomerge.merge.blocks import Walk, store_, sum_in, working_dtype
from evomerge.merge.method import Parents, State, Values

_COLLINEAR = 0.9995
_TINY_NORM = 1e-8


@dataclass(frozen=True)
class Gram:
    """Inner products of the parents' tensors as flat vectors, base first; summed in float64."""

    entries: tuple[tuple[float, ...], ...]

    def norm(self, index: int) -> float:
        """The Euclidean norm of vector `index`; a vanishing one counts as 1."""
        norm = math.sqrt(self.entries[index][index])
        return 1.0 if norm <= _TINY_NORM else norm

    def cosine(self, left: int, right: int) -> float:
        """The cosine between two vectors, in [-1, 1]; 0 when one of them vanishes."""
        cosine = self.entries[left][right] / (self.norm(left) * self.norm(right))
        return max(-1.0, min(1.0, cosine))


@dataclass(frozen=True)
class Coefficients:
    """One factor per parent (base first), the sum divided by the sum of factors if `normalize`."""

    factors: tuple[float, ...]
    normalize: bool = False


Rule: TypeAlias = Callable[[Values], Coefficients]
GramRule: TypeAlias = Callable[[Values, Gram], Coefficients]


@final
class WeightedSum:
    """A method that needs to know nothing about the parents."""

    def __init__(self, rule: Rule) -> None:
        """Merge with the coefficients that `rule` finds from the parameters."""
        self._rule = rule

    def prepare(self, parents: Parents) -> State:  # noqa: ARG002 - coefficients ignore them
        """Nothing to prepare."""
        return None

    def merge(
        self,
        parents: Parents,
        state: State,  # noqa: ARG002 - None
        values: Values,
        out: Tensor,
    ) -> None:
        """Write the weighted sum; see `MergeMethod.merge`."""
        _weighted_sum(parents, self._rule(values), out)


@final
class SpanOfParents:
    """A method whose coefficients depend on the norms of the parents and their angles."""

    def __init__(self, rule: GramRule) -> None:
        """Merge with the coefficients that `rule` finds from parameters and Gram matrix."""
        self._rule = rule

    def prepare(self, parents: Parents) -> State:
        """The Gram matrix of base and others."""
        return gram(parents.tensors)

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write the weighted sum; see `MergeMethod.merge`."""
        assert isinstance(state, Gram), "the state comes from this method's prepare"
        _weighted_sum(parents, self._rule(values, state), out)


def linear(values: Values) -> Coefficients:
    """Weights as given; a sum of weights of 0 makes a normalised result Inf or NaN.

    Wortsman et al. 2022, Model soups, arXiv:2203.05482, section 2 (there with equal weights).
    """
    return Coefficients(values.numbers("weight"), values.flag("normalize"))


def passthrough(values: Values) -> Coefficients:
    """The only parent times its scale."""
    return Coefficients(values.numbers("scale"))


def slerp(values: Values, parents: Gram) -> Coefficients:
    """Spherical interpolation from the base (t = 0) to the other parent (t = 1).

    Shoemake 1985, Animating rotation with quaternion curves, section 3.3, on the whole tensor as
    one vector; the original vectors are combined, not unit vectors. Nearly parallel or opposite
    vectors are interpolated linearly, where the formula would divide by almost zero.
    """
    t = values.number("t")
    cosine = parents.cosine(0, 1)
    if abs(cosine) > _COLLINEAR:
        return Coefficients((1.0 - t, t))
    theta = math.acos(cosine)
    return Coefficients(
        (math.sin((1.0 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta))
    )


def gram(tensors: Sequence[Tensor]) -> Gram:
    """The Gram matrix of tensors of one shape, each taken as one vector."""
    flats = [tensor.reshape(-1) for tensor in tensors]
    size = len(flats)
    total_PP = torch.zeros((size, size), dtype=torch.float64, device=flats[0].device)
    for block, rows in Walk(flats[0], rows=size, dtype=torch.float64):
        for row_B, flat in zip(rows, flats, strict=True):
            row_B.copy_(flat[block])
        for i, left_B in enumerate(rows):
            for j, right_B in enumerate(rows[: i + 1]):
                total_PP[i, j] += torch.dot(left_B, right_B)
    lower = total_PP.tolist()
    return Gram(tuple(tuple(lower[max(i, j)][min(i, j)] for j in range(size)) for i in range(size)))


def _weighted_sum(parents: Parents, coefficients: Coefficients, out: Tensor) -> None:
    dtype = working_dtype(parents)
    flats = [tensor.reshape(-1) for tensor in parents.tensors]
    terms = list(zip(flats, coefficients.factors, strict=True))
    target = out.view(-1)
    # Weights are rounded to the working precision before they are summed, as they are when used.
    divisor = sum_in(dtype, coefficients.factors) if coefficients.normalize else 1.0
    for block, (total_B, row_B) in Walk(out, rows=2, dtype=dtype):
        total_B.copy_(terms[0][0][block]).mul_(terms[0][1])
        for flat, factor in terms[1:]:
            total_B.add_(row_B.copy_(flat[block]), alpha=factor)
        store_(target[block], total_B if divisor == 1.0 else total_B.div_(divisor))
