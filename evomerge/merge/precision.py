"""The precision of arithmetic: float32, or float64 as soon as any tensor is float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def working_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    """float64 if any tensor is float64, else float32."""
    double = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if double else torch.float32


def sum_in(dtype: torch.dtype, values: Sequence[float]) -> float:
    """The sum of `values`, each rounded to `dtype`, added in order in that precision."""
    number = np.float64 if dtype == torch.float64 else np.float32
    total = number(0.0)
    for value in values:
        total = number(total + number(value))
    return float(total)
