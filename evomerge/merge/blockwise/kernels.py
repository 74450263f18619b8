"""The kernels of `evomerge.merge.kernels` in torch: every operation on a block in cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import final

import torch
from torch import Tensor

from evomerge.merge.blockwise.election import add_elected_, add_selected_, variance_
from evomerge.merge.blockwise.histograms import Histogram, keys_at, leading_digits
from evomerge.merge.blockwise.masks import Trim, masks_of
from evomerge.merge.blockwise.walk import Walk, difference_, store_
from evomerge.merge.kernels import Cut, Deltas, Digits, Kernels, Leading
from evomerge.merge.precision import working_dtype


@final
class BlockwiseKernels:
    """Runs on every device and for every float type; see `Kernels` for what each does."""

    def weighted_sum(
        self, tensors: Sequence[Tensor], factors: Sequence[float], divisor: float, out: Tensor
    ) -> None:
        """See `Kernels.weighted_sum`."""
        first, *rest = zip(tensors, factors, strict=True)
        for block, (total_B, row_B) in Walk(out, rows=2, dtype=working_dtype(tensors)):
            total_B.copy_(first[0][block]).mul_(first[1])
            for tensor, factor in rest:
                total_B.add_(row_B.copy_(tensor[block]).mul_(factor))
            store_(out[block], total_B if divisor == 1.0 else total_B.div_(divisor))

    def add_sum(
        self, deltas: Deltas, factors: Sequence[float], divisor: float, out: Tensor
    ) -> None:
        """See `Kernels.add_sum`."""
        for block, base_B, rows, _ in _masked(deltas, spare=0):
            for row_B, factor in zip(rows, factors, strict=True):
                row_B.mul_(factor)
            for row_B in rows[1:]:
                rows[0].add_(row_B)
            total_B = rows[0] if divisor == 1.0 else rows[0].div_(divisor)
            store_(out[block], base_B.add_(total_B))

    def add_elected(
        self,
        deltas: Deltas,
        factors: Sequence[float],
        weights: Sequence[float],
        scale: float,
        out: Tensor,
    ) -> None:
        """See `Kernels.add_elected`."""
        for block, base_B, rows, spare in _masked(deltas, spare=3):
            for row_B, factor in zip(rows, factors, strict=True):
                row_B.mul_(factor)
            add_elected_(base_B, rows, weights, scale, spare)
            store_(out[block], base_B)

    def add_selected(
        self, deltas: Deltas, selected: Leading, shares: Sequence[float], out: Tensor
    ) -> None:
        """See `Kernels.add_selected`."""
        # Digits count from 1 here, because trimming does not tell a kept 0 from a dropped one.
        trim = Trim(Cut(selected.digit + 1.0, selected.spare), torch.float32)
        for block, base_B, rows, (chosen_B, *spare) in _masked(deltas, spare=4):
            digit_B = leading_digits(variance_(rows, spare[0], spare[1], chosen_B)).add_(1).float()
            trim.apply_(digit_B, block.start)
            add_selected_(base_B, rows, shares, chosen_B.copy_(digit_B.ne_(0.0)), spare)
            store_(out[block], base_B)

    def l1_norms(self, deltas: Deltas) -> tuple[float, ...]:
        """See `Kernels.l1_norms`; pairwise within a block and in float64 over blocks."""
        device = deltas.base.device
        total_K = torch.zeros(len(deltas.others), dtype=torch.float64, device=device)
        for _, _, rows, _ in _masked(deltas, spare=0):
            for index, row_B in enumerate(rows):
                total_K[index] += row_B.abs_().sum()
        return tuple(total_K.tolist())

    def gram(self, deltas: Deltas) -> Tensor:
        """See `Kernels.gram`."""
        size = 1 + len(deltas.others)
        total_PP = torch.zeros((size, size), dtype=torch.float64, device=deltas.base.device)
        for _, base_B, rows, _ in _masked(Deltas(deltas.base, deltas.others), spare=0):
            wide = [row_B.double() for row_B in (base_B, *rows)]
            for i, left_B in enumerate(wide):
                for j, right_B in enumerate(wide[: i + 1]):
                    total_PP[i, j] += torch.dot(left_B, right_B)
                    total_PP[j, i] = total_PP[i, j]
        return total_PP.cpu()

    def magnitude_digits(
        self, base: Tensor, other: Tensor, shift: int, prefix: int | None
    ) -> Digits:
        """See `Kernels.magnitude_digits`."""
        # The sign bit is clear, which halves the leading digits; two keys per digit.
        histogram = Histogram((1 if prefix is None else 2) << 16, 1, base.device)
        for _, _, (row_B,), _ in _masked(Deltas(base, (other,)), spare=0):
            keys_B, near_B = keys_at(row_B.abs_(), shift, prefix)
            histogram.add(keys_B, (near_B,))
        return histogram.digits()

    def variance_digits(self, deltas: Deltas) -> Digits:
        """See `Kernels.variance_digits`."""
        count, device = len(deltas.others), deltas.base.device
        histogram = Histogram(1 << 15, count, device)
        for _, _, rows, spare in _masked(Deltas(deltas.base, deltas.others), spare=3):
            digit_B = leading_digits(variance_(rows, *spare))
            histogram.add(digit_B, [row_B.double().square_() for row_B in rows])
        return histogram.digits()


def _masked(
    deltas: Deltas, *, spare: int
) -> Iterator[tuple[slice, Tensor, Sequence[Tensor], Sequence[Tensor]]]:
    """Blocks of (flat indices, base, task vectors after their masks, `spare` rows to work in)."""
    dtype = working_dtype((deltas.base, *deltas.others))
    masks = masks_of(deltas, dtype)
    rows = 1 + spare + len(deltas.others)
    for block, (base_B, *work) in Walk(deltas.base, rows=rows, dtype=dtype):
        base_B.copy_(deltas.base[block])
        for delta_B, other, mask in zip(work[spare:], deltas.others, masks, strict=True):
            difference_(delta_B, other[block], base_B)
            if mask is not None:
                mask.apply_(delta_B, block.start)
        yield block, base_B, work[spare:], work[:spare]


BLOCKWISE: Kernels = BlockwiseKernels()
"""The reference."""
