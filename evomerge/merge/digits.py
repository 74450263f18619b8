"""Exact order statistics without sorting: float bit patterns counted digit by digit.

The bit patterns of floats from 0 up order like the floats, so counting the leading digits (of 16
bits) of the patterns finds any order statistic up to that digit. Key 2v stands for the numbers that
have digit v and then only zeros, key 2v + 1 for the others with digit v: differences of 16-bit
floats are nearly all of the first kind, which needs no further digits.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evomerge.merge.kernels import EVERYTHING, Cut, Digits

_DIGIT = 16
_PATTERN = {torch.float32: torch.int32, torch.float64: torch.int64}
TOP_SHIFT = {torch.float32: 16, torch.float64: 48}
"""Where the leading digit begins; its top bit is the sign and always 0."""

CountDigits: TypeAlias = Callable[[int, int | None], Digits]
"""Counts the digits at a shift of the numbers that have a prefix above it; one pass."""


@dataclass(frozen=True)
class DigitTable:
    """How many numbers have which digits, and their sums; largest first, empty keys left out.

    Attributes:
        dtype: float32 or float64, of the numbers.
        shift: where the digit begins.
        prefix: the pattern that all numbers have above the digit.
        keys: integers, descending.
        reach: integers; how many numbers have this key or a larger one.
        odd_sums: float64; the sums of the numbers with odd keys, in the order of `keys`. Those of
            even keys follow from the counts.
    """

    dtype: torch.dtype
    shift: int
    prefix: int
    keys: npt.NDArray[np.integer]
    reach: npt.NDArray[np.integer]
    odd_sums: npt.NDArray[np.float64]

    @staticmethod
    def of(digits: Digits, dtype: torch.dtype, shift: int, prefix: int = 0) -> DigitTable:
        """The table of a histogram in which the numbers themselves were summed."""
        counts = digits.counts.numpy()
        keys = counts.nonzero()[0][::-1]
        reach = counts[keys].cumsum()
        if not len(reach) or reach[-1] < 2**31:
            reach = reach.astype(np.int32)
        odd_sums = digits.sums.numpy()[keys[keys & 1 == 1], 0]
        return DigitTable(dtype, shift, prefix, keys, reach, odd_sums)

    def tensors(self) -> dict[str, Tensor]:
        """What has to be kept of a table of leading digits, whose keys have 16 bits."""
        arrays = {
            "keys": self.keys.astype(np.uint16),
            "reach": self.reach,
            "odd_sums": self.odd_sums,
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @staticmethod
    def load(tensors: Mapping[str, Tensor], prefix: str, dtype: torch.dtype) -> DigitTable:
        """The table of leading digits from its `tensors`, whose names begin with `prefix`."""
        keys, reach, odd = (tensors[prefix + n].numpy() for n in ("keys", "reach", "odd_sums"))
        return DigitTable(dtype, TOP_SHIFT[dtype], 0, keys, reach, odd)

    def position(self, rank: int) -> int:
        """The entry that holds the `rank`-th largest number, 1 being the largest."""
        return bisect_left(self._reach, rank)

    def key(self, position: int) -> int:
        """The key at `position`."""
        return self._keys[position]

    def before(self, position: int) -> int:
        """How many numbers have larger keys than the entry at `position`."""
        return self._reach[position - 1] if position else 0

    def sum_before(self, position: int) -> float:
        """The sum of the numbers with larger keys than the entry at `position`."""
        return self._sums[position]

    @property
    def total(self) -> float:
        """The sum of all numbers."""
        return self._sums[-1]

    @cached_property
    def _reach(self) -> memoryview[int]:
        # Reading single entries of an array as Python numbers is slow; thresholds read a dozen.
        return self.reach.data

    @cached_property
    def _keys(self) -> memoryview[int]:
        return self.keys.data

    @cached_property
    def _sums(self) -> array[float]:
        odd = self.keys & 1 == 1
        patterns = torch.from_numpy((self.keys >> 1).astype(np.int64))
        patterns = ((patterns << self.shift) + self.prefix).to(_PATTERN[self.dtype])
        sums = patterns.view(self.dtype).double().numpy() * np.diff(self.reach, prepend=0)
        sums[odd] = self.odd_sums
        return array("d", np.concatenate(([0.0], sums.cumsum())).tobytes())


@dataclass(frozen=True)
class Largest:
    """The largest numbers of a series, an exact count of them, and their sum."""

    cut: Cut
    sum: float


def largest(table: DigitTable, keep: int, count: CountDigits) -> Largest:
    """The `keep` largest numbers, of equal ones those with lower indices.

    Args:
        table: of the leading digits.
        keep: how many, from 1 to all of them.
        count: asked only if `table` leaves the threshold open.
    """
    above = 0.0
    while True:
        position = table.position(keep)
        key, rest = table.key(position), keep - table.before(position)
        of = table.before(position + 1) - table.before(position)
        above += table.sum_before(position)
        pattern = _pattern(table, key)
        if not key & 1 or rest == of:
            entry = table.sum_before(position + 1) - table.sum_before(position)
            # The numbers of an entry that is needed in part are equal.
            cut = _cut(table.dtype, key, pattern, rest if rest < of else None)
            return Largest(cut, above + entry * (rest / of))
        table, keep = _next(table, pattern, count), rest


def order_statistic(table: DigitTable, rank: int, count: CountDigits) -> float:
    """The `rank`-th largest number, 1 being the largest; `count` as for `largest`."""
    while True:
        position = table.position(rank)
        key, rank = table.key(position), rank - table.before(position)
        pattern = _pattern(table, key)
        if not key & 1:
            return _number(pattern, table.dtype)
        table = _next(table, pattern, count)


def _pattern(table: DigitTable, key: int) -> int:
    """The bits, down to the table's digit, of the numbers with this key."""
    return table.prefix + ((key >> 1) << table.shift)


def _next(table: DigitTable, pattern: int, count: CountDigits) -> DigitTable:
    """The table of the next digit of the numbers that have the pattern."""
    shift = table.shift - _DIGIT
    return DigitTable.of(count(shift, pattern), table.dtype, shift, pattern)


def _cut(dtype: torch.dtype, key: int, pattern: int, spare: int | None) -> Cut:
    """What is above an entry and all of it, or its first `spare`."""
    if spare is not None:
        return Cut(_number(pattern, dtype), spare)
    # An odd key's numbers are above the pattern, an even key's equal it.
    if key & 1:
        return Cut(_number(pattern, dtype))
    return Cut(_number(pattern - 1, dtype)) if pattern else EVERYTHING


def _number(pattern: int, dtype: torch.dtype) -> float:
    """The float with this bit pattern."""
    layouts = ("I", "f") if dtype == torch.float32 else ("Q", "d")
    number: float = struct.unpack(layouts[1], struct.pack(layouts[0], pattern))[0]
    return number
