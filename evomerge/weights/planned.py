"""One tensor of a merged model before it is computed: its name, its shape, and how to write it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of a merged model that is computed when it is asked for."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    _write: Callable[[Tensor], None] = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def write(self, out: Tensor) -> None:
        """Compute the tensor into `out`: contiguous, on the CPU, of this shape and dtype."""
        assert tuple(out.shape) == self.shape, "out has another shape than planned"
        assert out.dtype == self.dtype, "out has another dtype than planned"
        assert out.is_contiguous(), "out must be contiguous"
        self._write(out)
