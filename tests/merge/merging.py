"""Runs one method on one tensor, and checks on the way that it only borrows its parents."""

from __future__ import annotations

import torch

from evomerge.merge.method import Parents, Values
from evomerge.merge.methods import METHODS


def merge(
    name: str, parents: Parents, values: Values, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The merged tensor in `dtype`, by default that of the first parent."""
    before = [tensor.clone() for tensor in parents.tensors]
    like = parents.tensors[0]
    out = torch.full(like.shape, torch.nan, dtype=dtype or like.dtype)
    method = METHODS[name]
    state = method.prepare(parents)
    method.merge(parents, state, values, out)
    first = out.clone()
    # A state serves any number of merges, and parents are borrowed.
    method.merge(parents, state, values, out)
    for old, now in zip([first, *before], [out, *parents.tensors], strict=True):
        torch.testing.assert_close(now, old, rtol=0.0, atol=0.0, equal_nan=True)
    return out
