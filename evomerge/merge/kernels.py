"""The few passes over tensors that all merge methods are made of, and their vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

DRAW_BITS = 16
"""Survival chances count in steps of 2**-16."""

RANK_STEPS = 255
"""Ranks within a row are kept as 0 (the smallest magnitude) to 255 (the largest)."""


@dataclass(frozen=True)
class Cut:
    """Magnitudes above `floor`, and of those equal to it the first `spare` by flat index."""

    floor: float
    spare: int = 0


NOTHING = Cut(float("inf"))
"""The cut that no magnitude passes."""
EVERYTHING = Cut(-1.0)
"""The cut that all magnitudes pass."""


@dataclass(frozen=True)
class Band:
    """Keeps the elements within `kept` that are not within `outliers`; a subset of `kept`."""

    kept: Cut
    outliers: Cut = NOTHING


@dataclass(frozen=True)
class Bands:
    """One band per task vector."""

    bands: tuple[Band, ...]


@dataclass(frozen=True)
class Chances:
    """Keeps an element when its draw is below the task vector's limit.

    Draws are 16-bit halves of 32-bit words. With the key (a, b) the word of flat index i is, modulo
    2^32, `x = i ^ a; x ^= x >> 16; x = x * 0x7feb352d + b; x ^= x >> 15; x = x * 0x846ca68b`, then
    2^31 is added: lowbias32 of Wellons 2018 under a 64-bit key. Task vector 2j draws the upper half
    of the word of key j, task vector 2j + 1 the lower half after `x ^= x >> 16`, lowbias32's last
    step, with 2^15 added to that half.

    Attributes:
        keys: two 32-bit numbers for every two task vectors.
        limits: one per task vector, from 0 (keeps nothing) to 65536 (keeps everything).
    """

    keys: tuple[tuple[int, int], ...]
    limits: tuple[int, ...]


@dataclass(frozen=True)
class RankedChances:
    """Keeps an element of rank q in its row with the chance lowest + (highest - lowest) q / 255.

    Chances are cut off at 0 and 1 and compared with the draws of `Chances`; the limit of rank q is
    (a + b q) >> 8 with a = round(lowest 2^24) and b = round((highest - lowest) 2^24 / 255).

    Attributes:
        keys: as in `Chances`.
        ranks: for each task vector uint8, flat; 0 is a row's smallest magnitude, 255 its largest.
        lowest: for each task vector the chance at q = 0.
        highest: for each task vector the chance at q = 255.
        unbiased: divide each survivor by its own chance, limit / 65536.
    """

    keys: tuple[tuple[int, int], ...]
    ranks: tuple[Tensor, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    unbiased: bool

    def lines(self) -> list[tuple[int, int]]:
        """The numbers (a, b) of each task vector."""
        pairs = zip(self.lowest, self.highest, strict=True)
        return [(round(lo * 2**24), round((hi - lo) * 2**24 / 255)) for lo, hi in pairs]


Masks: TypeAlias = Bands | Chances | RankedChances


@dataclass(frozen=True)
class Deltas:
    """x_i - base of one tensor, without the elements that `masks` (None: nothing) drops.

    All tensors are flat, contiguous and of one length and device.
    """

    base: Tensor
    others: tuple[Tensor, ...]
    masks: Masks | None = None


@dataclass(frozen=True)
class Leading:
    """Numbers with leading digits above `digit`, and of those with this digit the first `spare`.

    The leading digit of a number from 0 up is the upper half of its float32 bit pattern: 16 bits,
    so that numbers with equal digits differ by less than 1/128. First is by flat index.
    """

    digit: int
    spare: int = 0


ALL_DIGITS = Leading(-1)
"""The selection of all numbers."""


@dataclass(frozen=True)
class Digits:
    """A histogram over digits or, for magnitudes, over the keys of `evomerge.merge.digits`.

    Attributes:
        counts: int64, CPU, shape (keys,).
        sums: float64, CPU, shape (keys, S): what was summed up per key.
    """

    counts: Tensor
    sums: Tensor


class Kernels(Protocol):
    """The passes over flat, contiguous tensors of one length; `out` shares memory with none.

    Arithmetic is float32 (float64 if any input is), every operation rounded: no fused
    multiply-add, so that all kernels give the same bits. Results are rounded once, at the store.
    NaN and Inf pass through. Sums over elements are float64, l1_norms' within a block float32.
    """

    def weighted_sum(
        self, tensors: Sequence[Tensor], factors: Sequence[float], divisor: float, out: Tensor
    ) -> None:
        """Write (sum_i f_i x_i) / divisor, added up in order."""
        ...

    def add_sum(
        self, deltas: Deltas, factors: Sequence[float], divisor: float, out: Tensor
    ) -> None:
        """Write base + (sum_i f_i s_i) / divisor over the masked task vectors s_i."""
        ...

    def add_elected(
        self,
        deltas: Deltas,
        factors: Sequence[float],
        weights: Sequence[float],
        scale: float,
        out: Tensor,
    ) -> None:
        """Write base + scale (sum of f_i s_i with the elected sign) / (sum of their weights).

        The sign of sum_i f_i s_i wins, an exact zero elects plus, a zero never agrees; weights that
        sum to 0 count as 1. Without `weights` nothing is divided.
        """
        ...

    def add_selected(
        self, deltas: Deltas, selected: Leading, shares: Sequence[float], out: Tensor
    ) -> None:
        """Write base + (sum of c_i d_i with the elected sign) / (sum of their c_i).

        Only where the variance of the d_i over i is `selected`; the sign of sum_i d_i wins, and
        divisors below 1e-6 count as 1e-6.
        """
        ...

    def l1_norms(self, deltas: Deltas) -> tuple[float, ...]:
        """The sum of magnitudes of each masked task vector."""
        ...

    def gram(self, deltas: Deltas) -> Tensor:
        """Inner products of base, d_1, ..., d_K (masks ignored); float64, CPU, (1 + K, 1 + K)."""
        ...

    def magnitude_digits(
        self, base: Tensor, other: Tensor, shift: int, prefix: int | None
    ) -> Digits:
        """The digits of |other - base|, which are also what is summed (S = 1)."""
        ...

    def variance_digits(self, deltas: Deltas) -> Digits:
        """Leading digits of the variance of the d_i over i; summed are the squares of each d_i."""
        ...
