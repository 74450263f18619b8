"""The rank of each magnitude of a task vector among those of its row, in 256 steps."""

from __future__ import annotations

import torch
from torch import Tensor

from evomerge.merge.kernels import RANK_STEPS
from evomerge.merge.precision import working_dtype

_ROWS_AT_ONCE = 1 << 22


def row_ranks(base: Tensor, other: Tensor) -> Tensor:
    """round(255 r / (m - 1)) for the element of rank r (0: smallest) of m in its row.

    Rows run along the second axis; a vector is one row, and an element alone in its row has 128. Of
    equal magnitudes the one with the higher flat index ranks higher.

    Returns:
        uint8, flat, one entry per element.
    """
    shape = other.shape if other.ndim > 1 else torch.Size((1, other.numel()))
    length, dtype = max(shape[1], 1), working_dtype((base, other))
    slab = max(torch.Size(shape[1:]).numel(), 1)
    step_R = torch.arange(length, dtype=torch.float64) / max(length - 1, 1)
    step_R = (step_R * RANK_STEPS).round_() if length > 1 else torch.full((1,), 128.0)
    found = torch.empty(other.numel(), dtype=torch.uint8, device=other.device)
    step_R = step_R.to(torch.uint8).to(other.device)
    flat, anchor = other.reshape(-1), base.reshape(-1)
    chunk = max(_ROWS_AT_ONCE // slab, 1) * slab
    for start in range(0, other.numel(), chunk):
        rows = slice(start, start + chunk)
        size_XRY = (flat[rows].to(dtype) - anchor[rows].to(dtype)).abs_()
        size_XRY = size_XRY.view(-1, length, slab // length)
        order_XRY = size_XRY.argsort(dim=1, stable=True)
        rank_XRY = torch.empty(size_XRY.shape, dtype=torch.uint8, device=other.device)
        rank_XRY.scatter_(1, order_XRY, step_R.view(1, -1, 1).expand_as(rank_XRY))
        found[rows] = rank_XRY.view(-1)
    return found
