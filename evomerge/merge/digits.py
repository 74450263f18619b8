"""Exact order statistics without sorting: float bit patterns counted digit by digit.

The bit patterns of floats from 0 up order like the floats, so counting the leading digits (of 16
bits) of the patterns finds any order statistic up to that digit. Key 2v stands for the numbers that
have digit v and then only zeros, key 2v + 1 for the others with digit v: differences of 16-bit
floats are nearly all of the first kind, which needs no further digits.
"""

from __future__ import annotations

import struct
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
    """How many numbers have which leading digits, largest first; empty keys left out.

    Attributes:
        dtype: float32 or float64, of the numbers.
        shift: where the digit begins.
        prefix: the pattern that all numbers have above the digit.
        keys: int32, descending.
        reach: integers; how many numbers have this key or a larger one.
        odd_sums: float64, shape (odd keys, S), in the order of `keys`; what was summed per key.
        even_sums: the same for the even keys; None when sums are those of the numbers themselves.
    """

    dtype: torch.dtype
    shift: int
    prefix: int
    keys: npt.NDArray[np.int32]
    reach: npt.NDArray[np.integer]
    odd_sums: npt.NDArray[np.float64]
    even_sums: npt.NDArray[np.float64] | None

    @staticmethod
    def of(
        digits: Digits, dtype: torch.dtype, shift: int, prefix: int = 0, *, of_numbers: bool
    ) -> DigitTable:
        """The table of a histogram; `of_numbers` says that the numbers themselves were summed."""
        counts = digits.counts.numpy()
        keys = counts.nonzero()[0][::-1]
        reach = counts[keys].cumsum()
        if not len(reach) or reach[-1] < 2**31:
            reach = reach.astype(np.int32)
        sums = digits.sums.numpy()
        odd = keys & 1 == 1
        even_sums = None if of_numbers else sums[keys[~odd]]
        return DigitTable(
            dtype, shift, prefix, keys.astype(np.int32), reach, sums[keys[odd]], even_sums
        )

    def tensors(self) -> dict[str, Tensor]:
        """What has to be kept of a table of leading digits."""
        arrays = {"keys": self.keys, "reach": self.reach, "odd_sums": self.odd_sums}
        if self.even_sums is not None:
            arrays["even_sums"] = self.even_sums
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    @staticmethod
    def load(tensors: Mapping[str, Tensor], prefix: str, dtype: torch.dtype) -> DigitTable:
        """The table of leading digits from its `tensors`, whose names begin with `prefix`."""
        keys, reach, odd = (tensors[prefix + n].numpy() for n in ("keys", "reach", "odd_sums"))
        even = tensors.get(f"{prefix}even_sums")
        return DigitTable(
            dtype, TOP_SHIFT[dtype], 0, keys, reach, odd, None if even is None else even.numpy()
        )

    def position(self, rank: int) -> int:
        """The entry that holds the `rank`-th largest number, 1 being the largest."""
        return bisect_left(self._reach, rank)

    def entry(self, position: int) -> tuple[int, int]:
        """The key at `position`, and how many numbers have it or a larger one."""
        return self._keys[position], self._reach[position]

    def before(self, position: int) -> int:
        """How many numbers have larger keys than the entry at `position`."""
        return self._reach[position - 1] if position else 0

    @cached_property
    def _reach(self) -> memoryview[int]:
        # Reading single entries of an array as Python integers is slow; thresholds read a dozen.
        return self.reach.data

    @cached_property
    def _keys(self) -> memoryview[int]:
        return self.keys.data

    @cached_property
    def sums(self) -> npt.NDArray[np.float64]:
        """What was summed per key, float64, shape (keys, S)."""
        found = np.empty((len(self.keys), self.odd_sums.shape[1]))
        odd = self.keys & 1 == 1
        found[odd] = self.odd_sums
        if self.even_sums is None:
            patterns = torch.from_numpy((self.keys >> 1).astype(np.int64))
            patterns = (patterns << self.shift) + self.prefix
            numbers = patterns.to(_PATTERN[self.dtype]).view(self.dtype).double().numpy()
            counts = np.diff(self.reach, prepend=0)
            found[~odd, 0] = (numbers * counts)[~odd]
        else:
            found[~odd] = self.even_sums
        return found

    @property
    def total(self) -> npt.NDArray[np.float64]:
        """What was summed, over all numbers; shape (S,)."""
        found: npt.NDArray[np.float64] = self.sums.sum(0)
        return found


@dataclass(frozen=True)
class Largest:
    """The largest numbers of a series, an exact count of them.

    Attributes:
        cut: which they are.
        found: per digit that was looked at the table and the entry that the threshold is in.
        rest: how many of the last entry's `of` numbers are among the largest.
        of: see `rest`.
    """

    cut: Cut
    found: tuple[tuple[DigitTable, int], ...]
    rest: int
    of: int

    @property
    def sums(self) -> npt.NDArray[np.float64]:
        """What was summed, over the largest numbers; the last entry counts in proportion.

        Exact where the numbers themselves were summed, as those of the last entry are equal.
        """
        parts = [table.sums[:position].sum(0) for table, position in self.found]
        table, position = self.found[-1]
        found: npt.NDArray[np.float64] = sum(parts) + table.sums[position] * (self.rest / self.of)
        return found


def largest(table: DigitTable, keep: int, count: CountDigits) -> Largest:
    """The `keep` largest numbers, of equal ones those with lower indices.

    Args:
        table: of the leading digits.
        keep: how many, from 1 to all of them.
        count: asked only if `table` leaves the threshold open.
    """
    entry = _reach(table, keep, count)
    return Largest(_cut(entry, table.dtype), entry.found, entry.rest, entry.of)


def _cut(entry: _Entry, dtype: torch.dtype) -> Cut:
    if entry.rest < entry.of:
        return Cut(_number(entry.pattern, dtype), entry.rest)
    # All of the entry is kept. An odd key's numbers are above the pattern, an even key's equal it.
    if entry.key & 1:
        return Cut(_number(entry.pattern, dtype))
    return Cut(_number(entry.pattern - 1, dtype)) if entry.pattern else EVERYTHING


def order_statistic(table: DigitTable, rank: int, count: CountDigits) -> float:
    """The `rank`-th largest number, 1 being the largest."""
    entry = _reach(table, rank, count, whole=False)
    return _number(entry.pattern, table.dtype)


@dataclass(frozen=True)
class _Entry:
    """Where a rank lies: an entry's key, its full bit pattern, and the rank within the entry."""

    key: int
    pattern: int
    rest: int
    of: int
    found: tuple[tuple[DigitTable, int], ...]


def _reach(table: DigitTable, rank: int, count: CountDigits, *, whole: bool = True) -> _Entry:
    """Follow the digits until the entry holds one number only, or (`whole`) is needed whole."""
    found: list[tuple[DigitTable, int]] = []
    pattern = 0
    while True:
        position = table.position(rank)
        before = table.before(position)
        key, of = table.entry(position)
        of -= before
        rank -= before
        pattern += (key >> 1) << table.shift
        found.append((table, position))
        if not key & 1 or (whole and rank == of):
            return _Entry(key, pattern, rank, of, tuple(found))
        shift = table.shift - _DIGIT
        of_numbers = table.even_sums is None
        digits = count(shift, pattern)
        table = DigitTable.of(digits, table.dtype, shift, pattern, of_numbers=of_numbers)


def _number(pattern: int, dtype: torch.dtype) -> float:
    """The float with this bit pattern."""
    single = dtype == torch.float32
    number: float = struct.unpack(
        "f" if single else "d", struct.pack("I" if single else "Q", pattern)
    )[0]
    return number
