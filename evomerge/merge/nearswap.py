"""NearSwap: elements of the other parent move in where they are close to the base's."""

from __future__ import annotations

from typing import final

from torch import Tensor

from evomerge.merge.blocks import Walk, difference_, store_, working_dtype
from evomerge.merge.method import Parents, State, Values

_TINY_DISTANCE = 1e-6


@final
class NearSwap:
    """base + w d with w = t / |d|, at most 1: each element moves by at most t; t <= 0 moves none.

    A distance below 1e-6 counts as 1e-6. The method has no paper.
    """

    def prepare(self, parents: Parents) -> State:  # noqa: ARG002 - nothing depends on them
        """Nothing to prepare."""
        return None

    def merge(
        self,
        parents: Parents,
        state: State,  # noqa: ARG002 - None
        values: Values,
        out: Tensor,
    ) -> None:
        """Write the base with the moves; see `MergeMethod.merge`."""
        assert parents.base is not None, "a distance needs a base"
        (other,) = (tensor.reshape(-1) for tensor in parents.others)
        base, target, t = parents.base.reshape(-1), out.view(-1), values.number("t")
        for block, (base_B, delta_B, share_B) in Walk(out, rows=3, dtype=working_dtype(parents)):
            difference_(delta_B, other[block], base_B.copy_(base[block]))
            share_B.copy_(delta_B).abs_().clamp_min_(_TINY_DISTANCE).reciprocal_().mul_(t)
            store_(target[block], base_B.addcmul_(delta_B, share_B.clamp_(0.0, 1.0)))
