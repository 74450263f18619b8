"""Random draws by flat index, the same on every device; see `evomerge.merge.kernels.Chances`."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from evomerge.merge.blockwise.walk import block_length

_WORDS = 1 << 32
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)


@final
class Draws:
    """Working memory for draws; torch has 32-bit words only as signed integers, which wrap."""

    def __init__(self, count: int, device: torch.device) -> None:
        """For the blocks of a tensor of `count` elements."""
        index_B = torch.arange(block_length(count, device), dtype=torch.int32, device=device)
        # i = start ^ offset for aligned blocks and xor-shifts are linear over xor, so the first
        # one splits into a table over offsets and a number per block.
        self._folded_B = index_B ^ (index_B >> 16)
        self._word_B = torch.empty_like(index_B)
        self._shifted_B = torch.empty_like(index_B)
        # Python integers would be converted to int32 tensors again in every call.
        self._fifteen, self._sixteen = _word(15), _word(16)
        self._low_17, self._low_16 = _word(0x1FFFF), _word(0xFFFF)
        self._half, self._second = _word(1 << 15), _word(_MULTIPLIERS[1])

    def of(self, key: tuple[int, int], start: int, length: int, *, low_half: bool) -> Tensor:
        """The draws of `length` flat indices from `start`.

        Returns:
            int32 from 0 to 65535, shape (length,); overwritten by the next call.
        """
        word_B, shifted_B = self._word_B[:length], self._shifted_B[:length]
        first = (start ^ key[0]) % _WORDS
        torch.bitwise_xor(self._folded_B[:length], _word(first ^ (first >> 16)), out=word_B)
        torch.add(_word(key[1]), word_B, alpha=_MULTIPLIERS[0], out=word_B)
        # Shifts of signed integers keep the sign, hence the & after each.
        torch.bitwise_right_shift(word_B, self._fifteen, out=shifted_B)
        word_B.bitwise_xor_(shifted_B.bitwise_and_(self._low_17)).mul_(self._second)
        torch.bitwise_right_shift(word_B, self._sixteen, out=shifted_B)
        if low_half:
            word_B.bitwise_xor_(shifted_B).bitwise_and_(self._low_16)
            return word_B.bitwise_xor_(self._half)
        # + 2^15 makes the signed upper half count from 0.
        return shifted_B.add_(self._half)


def _word(value: int) -> Tensor:
    """The 32-bit word `value` as a scalar tensor; torch's int32 is two's complement and wraps."""
    return torch.tensor((value + (_WORDS >> 1)) % _WORDS - (_WORDS >> 1), dtype=torch.int32)
