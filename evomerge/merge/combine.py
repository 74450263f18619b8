"""How sparsified task vectors become one: a plain weighted sum or a vote on the sign."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, final

import torch
from torch import Tensor

from evomerge.merge.blocks import sum_in

_TINY_DIVISOR = 1e-8


@dataclass(frozen=True)
class Weighting:
    """How much of each task vector is added.

    Attributes:
        weights: of every parent, in recipe order.
        active: positions of the parents that have anything to add.
        coefficients: weight times sparsifier's scale, parallel to `active`.
        normalize: divide by the sum of the weights that take part.
        scale: factor on the merged task vector (lambda).
    """

    weights: tuple[float, ...]
    active: tuple[int, ...]
    coefficients: tuple[float, ...]
    normalize: bool
    scale: float


class Combination(Protocol):
    """Adds the merged task vector of one block to the base; built for one merge of one tensor."""

    spare_rows: ClassVar[int]

    def add_(self, base_B: Tensor, deltas: Sequence[Tensor], spare: Sequence[Tensor]) -> None:
        """Update `base_B` in place.

        Args:
            base_B: the base's block.
            deltas: sparsified task vectors of the active parents, not empty; overwritten.
            spare: `spare_rows` rows to work in.
        """
        ...


@final
class Sum:
    """base + lambda * sum_i w_i s_i, over sum_i w_i if normalised.

    Ilharco et al. 2022, Editing models with task arithmetic, arXiv:2212.04089, section 2.
    """

    spare_rows: ClassVar[int] = 0

    def __init__(self, weighting: Weighting, dtype: torch.dtype) -> None:
        """Work out the divisor; a sum of weights that vanishes divides by 1."""
        self._coefficients = weighting.coefficients
        self._scale = weighting.scale
        divisor = sum_in(dtype, weighting.weights) if weighting.normalize else 1.0
        self._divisor = 1.0 if abs(divisor) < _TINY_DIVISOR else divisor

    def add_(
        self,
        base_B: Tensor,
        deltas: Sequence[Tensor],
        spare: Sequence[Tensor],  # noqa: ARG002 - needs no rows
    ) -> None:
        """Add the weighted sum; see `Combination.add_`."""
        total_B = deltas[0].mul_(self._coefficients[0])
        for delta_B, coefficient in zip(deltas[1:], self._coefficients[1:], strict=True):
            total_B.add_(delta_B, alpha=coefficient)
        if self._divisor != 1.0:
            total_B.div_(self._divisor)
        base_B.add_(total_B, alpha=self._scale)


@final
class SignVote:
    """Only task vectors that agree with the elected sign are added, element by element.

    Yadav et al. 2023, TIES-Merging, arXiv:2306.01708, algorithm 1, steps 2 and 3, with weights: the
    sign of sum_i w_i s_i wins, an exact zero elects plus, a zero never agrees, and the divisor is
    the sum of the agreeing weights (1 where that is 0).
    """

    spare_rows: ClassVar[int] = 3

    def __init__(
        self,
        weighting: Weighting,
        dtype: torch.dtype,  # noqa: ARG002 - divisors are summed in the rows' own precision
    ) -> None:
        """Take the weights of the active parents; the others cannot agree with anything."""
        self._weighting = weighting
        self._weights = tuple(weighting.weights[index] for index in weighting.active)

    def add_(self, base_B: Tensor, deltas: Sequence[Tensor], spare: Sequence[Tensor]) -> None:
        """Add the agreeing part; see `Combination.add_`."""
        sign_B, agreeing_B, divisor_B = spare
        # Rounded products, not fused multiply-adds: equal weights on opposite deltas must cancel
        # to exactly zero.
        for delta_B, coefficient in zip(deltas, self._weighting.coefficients, strict=True):
            delta_B.mul_(coefficient)
        sign_B.copy_(deltas[0])
        for delta_B in deltas[1:]:
            sign_B.add_(delta_B)
        # Comparisons into a float tensor give 0.0 and 1.0 and are several times faster than into
        # a boolean one.
        sign_B.ge_(0.0).mul_(2.0).sub_(1.0)
        agreeing_B.zero_()
        for delta_B in deltas:
            agreeing_B.add_(delta_B.mul_(sign_B).clamp_min_(0.0))
        if self._weighting.normalize:
            self._divide_(agreeing_B, deltas, divisor_B)
        base_B.addcmul_(sign_B, agreeing_B, value=self._weighting.scale)

    def _divide_(self, agreeing_B: Tensor, deltas: Sequence[Tensor], divisor_B: Tensor) -> None:
        divisor_B.zero_()
        for delta_B, weight in zip(deltas, self._weights, strict=True):
            divisor_B.add_(delta_B.sign_(), alpha=weight)
        absent_B = deltas[0].copy_(divisor_B).eq_(0.0)
        agreeing_B.div_(divisor_B.add_(absent_B))
