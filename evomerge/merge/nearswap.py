"""NearSwap: elements of the other parent move in where they are close to the base's."""

from __future__ import annotations

from typing import final

from torch import Tensor

from evomerge.merge.blockwise.walk import Walk, difference_, store_
from evomerge.merge.method import NOTHING_TO_LEARN, Parents, State, Statistic, Values
from evomerge.merge.precision import working_dtype

_TINY_DISTANCE = 1e-6


@final
class NearSwap:
    """base + w d with w = t / |d|, at most 1: each element moves by at most t; t <= 0 moves none.

    A distance below 1e-6 counts as 1e-6. The method has no paper.
    """

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
        """Write the base with the moves; see `MergeMethod.merge`."""
        base, other = parents.flat
        target, t, dtype = out.view(-1), values.number("t"), working_dtype(parents.flat)
        for block, (base_B, delta_B, share_B) in Walk(out, rows=3, dtype=dtype):
            difference_(delta_B, other[block], base_B.copy_(base[block]))
            share_B.copy_(delta_B).abs_().clamp_min_(_TINY_DISTANCE).reciprocal_().mul_(t)
            store_(target[block], base_B.add_(delta_B.mul_(share_B.clamp_(0.0, 1.0))))
