"""Methods whose result is a weighted sum of the parents, at most by way of their Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from evomerge.merge.blockwise.walk import block_length
from evomerge.merge.gram import Gram, GramStatistic, Matrix
from evomerge.merge.kernels import Kernels
from evomerge.merge.method import NOTHING_TO_LEARN, Parents, State, Statistic, Values
from evomerge.merge.precision import sum_in, working_dtype

_COLLINEAR = 0.9995
_TINY_NORM = 1e-8


@dataclass(frozen=True)
class Coefficients:
    """One factor per parent (base first), the sum divided by the sum of factors if `normalize`."""

    factors: tuple[float, ...]
    normalize: bool = False


Rule: TypeAlias = Callable[[Values], Coefficients]
GramRule: TypeAlias = Callable[[Values, Matrix], Coefficients]


@final
class WeightedSum:
    """A method that needs to know nothing about the parents."""

    def __init__(self, rule: Rule, kernels: Kernels) -> None:
        """Merge with the coefficients that `rule` finds from the parameters."""
        self._rule = rule
        self._kernels = kernels

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """Nothing."""
        return NOTHING_TO_LEARN

    def merge(
        self,
        parents: Parents,
        state: State,  # noqa: ARG002 - None
        values: Values,
        out: Tensor,
    ) -> None:
        """Write the weighted sum; see `MergeMethod.merge`."""
        _weighted_sum(self._kernels, parents, self._rule(values), out)


@final
class ScaledCopy:
    """The only parent times its scale, plus its shift."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """Nothing."""
        return NOTHING_TO_LEARN

    def merge(
        self,
        parents: Parents,
        state: State,  # noqa: ARG002 - None
        values: Values,
        out: Tensor,
    ) -> None:
        """Write scale x + shift; see `MergeMethod.merge`."""
        (scale,), (shift,) = values.numbers("scale"), values.numbers("shift")
        (parent,), flat = parents.flat, out.view(-1)
        if shift == 0.0:
            self._kernels.weighted_sum((parent,), (scale,), 1.0, flat)
            return
        length = block_length(len(flat), flat.device)
        one_B = torch.ones(length, dtype=working_dtype((parent,)), device=flat.device)
        for start in range(0, len(flat), length):
            block = slice(start, start + length)
            pair = (parent[block], one_B[: len(flat[block])])
            self._kernels.weighted_sum(pair, (scale, shift), 1.0, flat[block])


@final
class SpanOfParents:
    """A method whose coefficients depend on the norms of the parents and their angles."""

    def __init__(self, rule: GramRule, kernels: Kernels) -> None:
        """Merge with the coefficients that `rule` finds from parameters and Gram matrix."""
        self._rule = rule
        self._kernels = kernels
        self._statistic = GramStatistic(kernels)

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """The Gram matrix."""
        return self._statistic

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write the weighted sum; see `MergeMethod.merge`."""
        assert isinstance(state, Gram), "the state comes from this method's statistic"
        _weighted_sum(self._kernels, parents, self._rule(values, state.of_parents), out)


def linear(values: Values) -> Coefficients:
    """Weights as given; a sum of weights of 0 makes a normalised result Inf or NaN.

    Wortsman et al. 2022, Model soups, arXiv:2203.05482, section 2 (there with equal weights).
    """
    return Coefficients(values.numbers("weight"), values.flag("normalize"))


def slerp(values: Values, gram_PP: Matrix) -> Coefficients:
    """Spherical interpolation from the base (t = 0) to the other parent (t = 1).

    Shoemake 1985, Animating rotation with quaternion curves, section 3.3, on the whole tensor as
    one vector; the original vectors are combined, not unit vectors. Nearly parallel or opposite
    vectors are interpolated linearly, where the formula would divide by almost zero.
    """
    t = values.number("t")
    (aa, ab), (_, bb) = gram_PP.tolist()
    cosine = ab / (_norm(aa) * _norm(bb))
    if abs(cosine) > _COLLINEAR:
        return Coefficients((1.0 - t, t))
    theta = math.acos(cosine)
    return Coefficients(
        (math.sin((1.0 - t) * theta) / math.sin(theta), math.sin(t * theta) / math.sin(theta))
    )


def _norm(square: float) -> float:
    """The norm from its square; a vanishing one counts as 1."""
    norm = math.sqrt(max(square, 0.0))
    return 1.0 if norm <= _TINY_NORM else norm


def _weighted_sum(
    kernels: Kernels, parents: Parents, coefficients: Coefficients, out: Tensor
) -> None:
    factors = coefficients.factors
    divisor = 1.0
    if coefficients.normalize:
        divisor = sum_in(working_dtype(parents.flat), factors)
    kernels.weighted_sum(parents.flat, factors, divisor, out.view(-1))
