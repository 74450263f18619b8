"""Counting digits of float bit patterns, block by block."""

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
    """Counts keys, and sums up other numbers per key (stateful)."""

    def __init__(self, keys: int, sums: int, device: torch.device) -> None:
        """Of keys from 0 to `keys` - 1, with `sums` sums each."""
        self._counts = torch.zeros(keys, dtype=torch.int64, device=device)
        self._sums = torch.zeros((keys, sums), dtype=torch.float64, device=device)

    def add(self, keys_B: Tensor, summed: Sequence[Tensor]) -> None:
        """Count the keys of a block; `summed` has a block for each sum."""
        size = len(self._counts)
        self._counts += torch.bincount(keys_B, minlength=size)
        for index, row_B in enumerate(summed):
            weights_B = row_B.double()
            self._sums[:, index] += torch.bincount(keys_B, weights=weights_B, minlength=size)

    def digits(self) -> Digits:
        """What was counted and summed."""
        return Digits(self._counts.cpu(), self._sums.cpu())


def leading_digits(numbers_B: Tensor) -> Tensor:
    """The digits of numbers from 0 up that `Leading` means; int32."""
    # NaN may have a sign.
    return (numbers_B.float().view(torch.int32) >> _DIGIT).bitwise_and_(0x7FFF)


def keys_at(numbers_B: Tensor, shift: int, prefix: int | None) -> tuple[Tensor, Tensor]:
    """Keys, as `evomerge.merge.digits` defines them, of the digit at `shift`, and their numbers.

    Args:
        numbers_B: from 0 up, float32 or float64.
        shift: where the digit begins.
        prefix: only numbers that have it above the digit are taken; None takes all.
    """
    pattern_B = numbers_B.view(_PATTERN[numbers_B.dtype])
    if prefix is not None:
        near_B = ((pattern_B - prefix) >> (shift + _DIGIT)).eq_(0).bool()
        pattern_B, numbers_B = pattern_B[near_B], numbers_B[near_B]
    rest_B = pattern_B - (prefix or 0)
    # Digit rounded down plus digit rounded up; they differ where lower bits are set.
    return (rest_B >> shift).sub_(rest_B.neg_().bitwise_right_shift_(shift)), numbers_B
