"""How a tensor is walked: aligned blocks in index order, one rounding at the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor

# Powers of two, so that block starts and offsets within a block share no bits. The rows of a block
# should stay in a CPU core's cache; on an accelerator launches cost more than cache misses.
_CPU_BLOCK = 1 << 17
_DEVICE_BLOCK = 1 << 22


def block_length(count: int, device: torch.device) -> int:
    """Elements per block for a tensor of `count` elements; all blocks but the last have it."""
    return min(max(count, 1), _CPU_BLOCK if device.type == "cpu" else _DEVICE_BLOCK)


@final
class Walk:
    """The blocks of one tensor in index order, with rows of working memory as long as a block."""

    def __init__(self, like: Tensor, *, rows: int, dtype: torch.dtype) -> None:
        """Reserve `rows` rows of `dtype` for walking over a tensor of `like`'s size and device."""
        self._count = like.numel()
        self._length = block_length(self._count, like.device)
        self._rows = torch.empty((rows, self._length), dtype=dtype, device=like.device)

    def __iter__(self) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
        """Yield (flat indices, rows); every turn reuses the same memory for the rows."""
        for start in range(0, self._count, self._length):
            stop = min(start + self._length, self._count)
            yield slice(start, stop), self._rows[:, : stop - start].unbind()


def difference_(row_B: Tensor, parent_B: Tensor, base_B: Tensor) -> Tensor:
    """Fill `row_B` with parent - base, both in working precision before the subtraction."""
    # torch.sub on mixed dtypes would allocate a converted copy on every call.
    exact_B = parent_B if parent_B.dtype == row_B.dtype else row_B.copy_(parent_B)
    return torch.sub(exact_B, base_B, out=row_B)


def store_(out_B: Tensor, row_B: Tensor) -> None:
    """Round a block to `out_B`'s dtype, to nearest even and only once."""
    if row_B.dtype == torch.float64 and out_B.dtype in (torch.bfloat16, torch.float16):
        row_B = _rounded_to_odd(row_B)
    out_B.copy_(row_B)


def _rounded_to_odd(row_B: Tensor) -> Tensor:
    """A float32 block that rounds to 16 bits as its float64 source would.

    torch converts float64 to 16 bits by way of float32, which rounds twice. Rounding to odd in
    between makes that harmless (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded
    sums", theorem 3: two extra bits are enough; float32 has at least 13).
    """
    nearest_B = row_B.float()
    back_B = nearest_B.double()
    bits_B = nearest_B.view(torch.int32)
    bits_B -= (back_B.abs() > row_B.abs()).int()
    bits_B |= (back_B != row_B).int()
    return nearest_B
