"""The arithmetic of LoRA and DoRA on one weight, exact up to one rounding at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 2**18


@dataclass(frozen=True)
class LowRankUpdate:
    """What an adapter adds to one weight.

    Attributes:
        a: matrix A, (r, in).
        b: matrix B, (out, r).
        scale: the factor of B A.
        magnitude: m of a DoRA, (out,), else None.
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None


def updated(
    weight: Tensor, update: LowRankUpdate, *, transposed: bool, dtype: torch.dtype
) -> Tensor:
    """A new tensor W + s B A of the shape of `weight`: (out, in), or (in, out) when transposed.

    LoRA: Hu et al. 2021 (arXiv 2106.09685), eq. 3. DoRA: Liu et al. 2024 (arXiv 2402.09353), eq. 5,
    W' = m (W + s B A) / ||W + s B A||_c with the Euclidean norm of the weights of each output.

    Computed in float64 in blocks of rows, whatever the type: the result then does not depend on
    the number of threads, and every process that computes it gets the same bits.
    """
    result = torch.empty(weight.shape, dtype=dtype)
    old, new = (weight.T, result.T) if transposed else (weight, result)
    a, b = update.a.double(), update.b.double()
    rows = max(1, _CHUNK // max(1, old.shape[1]))
    for first in range(0, old.shape[0], rows):
        span = slice(first, first + rows)
        block = torch.addmm(old[span].double(), b[span], a, alpha=update.scale)
        if update.magnitude is not None:
            norms = torch.linalg.vector_norm(block, dim=1)
            block *= (update.magnitude[span].double() / norms).unsqueeze(1)
        new[span] = block
    return result
