"""Counting the digits of `evomerge.merge.digits`, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from evomerge.merge.kernels import Digits

_DIGIT = 16
_PATTERN = {torch.float32: torch.int32, torch.float64: torch.int64}


@final
class Histogram:
    """Counts the keys at one digit, and sums up other numbers per key (stateful)."""

    def __init__(
        self, dtype: torch.dtype, device: torch.device, shift: int, prefix: int | None, *, sums: int
    ) -> None:
        """Of numbers of `dtype`; only of those with `prefix` above the digit, if it is given."""
        # The sign bit is clear, which halves the leading digits.
        size = (1 if prefix is None else 2) << _DIGIT
        self._counts = torch.zeros(size, dtype=torch.int64, device=device)
        self._sums = torch.zeros((size, sums), dtype=torch.float64, device=device)
        self._pattern, self._shift, self._prefix = _PATTERN[dtype], shift, prefix

    def add(self, numbers_B: Tensor, summed: Sequence[Tensor]) -> None:
        """Count a block of numbers from 0 up; `summed` has a block for each sum."""
        pattern_B = numbers_B.view(self._pattern)
        if self._prefix is not None:
            near_B = ((pattern_B - self._prefix) >> (self._shift + _DIGIT)).eq_(0).bool()
            pattern_B = pattern_B[near_B]
            summed = [row_B[near_B] for row_B in summed]
        rest_B = pattern_B - (self._prefix or 0)
        # Digit rounded down plus digit rounded up; they differ where lower bits are set.
        keys_B = (rest_B >> self._shift).sub_(rest_B.neg_().bitwise_right_shift_(self._shift))
        size = len(self._counts)
        self._counts += torch.bincount(keys_B, minlength=size)
        for index, row_B in enumerate(summed):
            weights_B = row_B.double()
            self._sums[:, index] += torch.bincount(keys_B, weights=weights_B, minlength=size)

    def digits(self) -> Digits:
        """What was counted and summed."""
        return Digits(self._counts.cpu(), self._sums.cpu())
