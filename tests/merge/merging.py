"""Runs one method on one tensor, and checks on the way that it only borrows its parents."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.compiled.kernels import COMPILED
from evomerge.merge.kernels import Kernels
from evomerge.merge.method import MergeMethod, Parents, Values, learn
from evomerge.merge.methods import merge_methods

KERNELS: Mapping[str, Kernels] = {"blockwise": BLOCKWISE, "compiled": COMPILED}
METHODS = merge_methods(BLOCKWISE)
_TABLES: Mapping[str, Mapping[str, MergeMethod]] = {
    name: merge_methods(kernels) for name, kernels in KERNELS.items()
}


def merge(
    name: str, parents: Parents, values: Values, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The merged tensor by the blockwise kernels, in `dtype` or that of the first parent."""
    return merged_by("blockwise", name, parents, values, dtype)


def merged_by(
    kernels: str, name: str, parents: Parents, values: Values, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The merged tensor by the kernels called `kernels`, "blockwise" or "compiled"."""
    before = [tensor.clone() for tensor in parents.tensors]
    like = parents.tensors[0]
    out = torch.full(like.shape, torch.nan, dtype=dtype or like.dtype)
    method = _TABLES[kernels][name]
    state = learn(method, parents, values)
    method.merge(parents, state, values, out)
    first = out.clone()
    # A state serves any number of merges, and parents are borrowed.
    method.merge(parents, state, values, out)
    for old, now in zip([first, *before], [out, *parents.tensors], strict=True):
        torch.testing.assert_close(now, old, rtol=0.0, atol=0.0, equal_nan=True)
    return out
