"""Exact magnitude thresholds without sorting: float bit patterns counted digit by digit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.merge.blocks import Walk, difference_, working_dtype
from evomerge.merge.method import Parents

_DIGIT = 16
_PATTERN = {torch.float32: torch.int32, torch.float64: torch.int64}
_TOP_SHIFT = {torch.float32: 16, torch.float64: 48}


@dataclass(frozen=True)
class DigitTable:
    """How many magnitudes have which digit of 16 bits, largest first; empty entries left out.

    The magnitudes of floats order like their bit patterns, so counting the leading digits of the
    patterns finds any order statistic up to that digit. Key 2v counts the magnitudes that have
    digit v and then only zeros, key 2v + 1 the others with digit v: differences of 16-bit numbers
    are nearly all of the first kind, which needs no further digits.

    Attributes:
        keys: CPU, int32; descending.
        counts: CPU, int64; elements per key.
        sums: CPU, float64; sum of the magnitudes per key.
    """

    keys: Tensor
    counts: Tensor
    sums: Tensor

    def reach(self, rank: int) -> Step:
        """The key of the `rank`-th largest element, 1 being the largest."""
        position = int(torch.searchsorted(self.counts.cumsum(0), rank))
        return Step(
            key=int(self.keys[position]),
            need=rank - int(self.counts[:position].sum()),
            count=int(self.counts[position]),
            above_l1=float(self.sums[:position].sum()),
            l1=float(self.sums[position]),
        )


@dataclass(frozen=True)
class Step:
    """One digit of a threshold: `need` of the `count` elements with this key are to be kept.

    `above_l1` and `l1` are the L1 norms of the elements with larger keys and with this one.
    """

    key: int
    need: int
    count: int
    above_l1: float
    l1: float


@dataclass(frozen=True)
class Cut:
    """What to keep: magnitudes above `floor`; of those equal to it the first `spare` by index.

    `l1` is the L1 norm of what is kept.
    """

    floor: float
    spare: int
    l1: float


@dataclass(frozen=True)
class Series:
    """Numbers from 0 up that are walked over as often as it takes, never stored.

    Attributes:
        dtype: float32 or float64.
        device: of the blocks.
        blocks: begins a walk; the blocks, shape (B,), may be overwritten by the next.
    """

    dtype: torch.dtype
    device: torch.device
    blocks: Callable[[], Iterator[Tensor]]


def leading_digits(parents: Parents, index: int) -> DigitTable:
    """Count the leading digits of task vector `index` of `parents`; one walk."""
    return leading_digits_of(_sizes(parents, index))


def leading_digits_of(series: Series) -> DigitTable:
    """Count the leading digits of a series; one walk."""
    return _count(series, _TOP_SHIFT[series.dtype], prefix=None)


def largest(parents: Parents, index: int, table: DigitTable, keep: int) -> Cut:
    """The cut of task vector `index` of `parents`; see `largest_of`."""
    return largest_of(_sizes(parents, index), table, keep)


def largest_of(series: Series, table: DigitTable, keep: int) -> Cut:
    """The cut that keeps exactly the `keep` largest magnitudes, lower flat index first.

    Args:
        series: the magnitudes; walked over only if `table` leaves the threshold open.
        table: its leading digits.
        keep: how many elements, from 1 to all of them.
    """
    shift = _TOP_SHIFT[series.dtype]
    step = table.reach(keep)
    pattern, above_l1 = (step.key >> 1) << shift, step.above_l1
    while step.need < step.count and step.key & 1:
        shift -= _DIGIT
        step = _count(series, shift, prefix=pattern).reach(step.need)
        pattern += (step.key >> 1) << shift
        above_l1 += step.above_l1
    threshold = _value(pattern, series.dtype)
    if step.need < step.count:
        return Cut(threshold, step.need, above_l1 + step.need * threshold)
    if step.key & 1:
        return Cut(threshold, 0, above_l1 + step.l1)
    return Cut(_value(max(pattern - 1, 0), series.dtype), 0, above_l1 + step.l1)


def order_statistic(series: Series, table: DigitTable, rank: int) -> float:
    """The `rank`-th largest number of a series, 1 being the largest; at most 3 walks."""
    shift = _TOP_SHIFT[series.dtype]
    step = table.reach(rank)
    pattern = (step.key >> 1) << shift
    while step.key & 1:
        shift -= _DIGIT
        step = _count(series, shift, prefix=pattern).reach(step.need)
        pattern += (step.key >> 1) << shift
    return _value(pattern, series.dtype)


def _sizes(parents: Parents, index: int) -> Series:
    """The magnitudes of one task vector."""
    assert parents.base is not None, "task vectors need a base"
    base, other = parents.base.reshape(-1), parents.others[index].reshape(-1)
    dtype = working_dtype(parents)

    def blocks() -> Iterator[Tensor]:
        for block, (base_B, delta_B) in Walk(base, rows=2, dtype=dtype):
            yield difference_(delta_B, other[block], base_B.copy_(base[block])).abs_()

    return Series(dtype, base.device, blocks)


def _count(series: Series, shift: int, *, prefix: int | None) -> DigitTable:
    """Count keys at bit `shift`, only of magnitudes like the pattern `prefix` above that digit."""
    # The sign bit is clear, which halves the leading digits.
    size = (1 if prefix is None else 2) << _DIGIT
    counts = torch.zeros(size, dtype=torch.int64, device=series.device)
    sums = torch.zeros(size, dtype=torch.float64, device=series.device)
    for size_B in series.blocks():
        pattern_B = size_B.view(_PATTERN[series.dtype])
        if prefix is not None:
            pattern_B = pattern_B[((pattern_B - prefix) >> (shift + _DIGIT)).eq_(0).bool()]
        magnitude_B = pattern_B.view(series.dtype).double()
        rest_B = pattern_B - (prefix or 0)
        # Digit rounded down plus digit rounded up; they differ where lower bits are set.
        keys_B = (rest_B >> shift).sub_(rest_B.neg_().bitwise_right_shift_(shift))
        counts += torch.bincount(keys_B, minlength=size)
        sums += torch.bincount(keys_B, weights=magnitude_B, minlength=size)
    keys = counts.nonzero().flatten().flip(0)
    return DigitTable(keys.int().cpu(), counts[keys].cpu(), sums[keys].cpu())


def _value(pattern: int, dtype: torch.dtype) -> float:
    """The float with this bit pattern."""
    return torch.tensor(pattern, dtype=_PATTERN[dtype]).view(dtype).item()
