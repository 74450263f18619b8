"""Which elements of task vectors survive, one block after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final

import torch
from torch import Tensor

from evomerge.merge.blockwise.draws import Draws
from evomerge.merge.kernels import (
    EVERYTHING,
    NOTHING,
    Band,
    Bands,
    Chances,
    Cut,
    Deltas,
    RankedChances,
)


class Mask(Protocol):
    """Which elements of one task vector survive; lives for one walk over the tensor."""

    def apply_(self, delta_B: Tensor, start: int) -> None:
        """Zero the dropped elements of a block beginning at flat index `start`; NaN stays NaN.

        Blocks come in index order, each once, as `Walk` cuts them.
        """
        ...


def masks_of(deltas: Deltas, dtype: torch.dtype) -> Sequence[Mask | None]:
    """A mask per task vector, ready for one walk; None keeps everything."""
    masks = deltas.masks
    if masks is None:
        return (None,) * len(deltas.others)
    if isinstance(masks, Bands):
        return tuple(_band(band, dtype) for band in masks.bands)
    draws = Draws(deltas.base.numel(), deltas.base.device)
    if isinstance(masks, Chances):
        keyed = enumerate(masks.limits)
        return tuple(Drawn(draws, masks.keys[i // 2], i % 2 == 1, limit) for i, limit in keyed)
    return tuple(RankDrawn(draws, masks, index) for index in range(len(deltas.others)))


def _band(band: Band, dtype: torch.dtype) -> Mask | None:
    if band.outliers != NOTHING:
        return Middle(band, dtype)
    return None if band.kept == EVERYTHING else Trim(band.kept, dtype)


@final
class Trim:
    """Applies a cut block by block, counting down the equal magnitudes that are still admitted."""

    def __init__(self, cut: Cut, dtype: torch.dtype) -> None:
        """Start at flat index 0."""
        self._floor = cut.floor
        # Keeping or dropping zeros makes no difference, so a floor of zero admits none.
        self._spare = cut.spare if cut.floor != 0.0 else 0
        below = torch.nextafter(torch.tensor(cut.floor, dtype=dtype), torch.zeros((), dtype=dtype))
        self._below_floor = below.item()

    def apply_(self, delta_B: Tensor, start: int) -> None:  # noqa: ARG002 - counts instead
        """Zero what the cut drops; see `Mask.apply_`."""
        admitted = self._admit(delta_B) if self._spare else 0
        # hardshrink keeps what is strictly above its bound, and NaN; one pass, no boolean mask.
        for part_B, bound in (
            (delta_B[:admitted], self._below_floor),
            (delta_B[admitted:], self._floor),
        ):
            if part_B.numel():
                torch.hardshrink(part_B, bound, out=part_B)

    def _admit(self, delta_B: Tensor) -> int:
        """The length of the block's beginning in which elements equal to the floor are kept."""
        equal_B = delta_B.abs().eq_(self._floor)
        count = int(equal_B.sum())
        if count <= self._spare:
            self._spare -= count
            return delta_B.numel()
        admitted = int(equal_B.nonzero()[self._spare])
        self._spare = 0
        return admitted


@final
class Middle:
    """What one cut keeps and a smaller one does not."""

    def __init__(self, band: Band, dtype: torch.dtype) -> None:
        """Start at flat index 0."""
        self._kept = Trim(band.kept, dtype)
        self._outliers = Trim(band.outliers, dtype)

    def apply_(self, delta_B: Tensor, start: int) -> None:
        """Zero outliers and small magnitudes; see `Mask.apply_`."""
        outliers_B = delta_B.clone()
        self._kept.apply_(delta_B, start)
        self._outliers.apply_(outliers_B, start)
        # The outliers are among the kept, so that each difference is x - x or x - 0: exact.
        delta_B.sub_(outliers_B)


@final
class Drawn:
    """Keeps an element when its draw is below a limit."""

    def __init__(self, draws: Draws, key: tuple[int, int], low_half: bool, limit: int) -> None:
        """`draws` is working memory that several masks may share."""
        self._draws = draws
        self._key = key
        self._low_half = low_half
        self._limit = limit

    def apply_(self, delta_B: Tensor, start: int) -> None:
        """Zero the dropped elements of a block; see `Mask.apply_`."""
        draw_B = self._draws.of(self._key, start, delta_B.numel(), low_half=self._low_half)
        delta_B.mul_(draw_B.lt_(self._limit))


@final
class RankDrawn:
    """Keeps an element when its draw is below the limit of its rank."""

    def __init__(self, draws: Draws, masks: RankedChances, index: int) -> None:
        """The mask of task vector `index`."""
        self._draws = draws
        self._key, self._low_half = masks.keys[index // 2], index % 2 == 1
        self._ranks, self._unbiased = masks.ranks[index], masks.unbiased
        start, step = masks.lines()[index]
        rank_R = torch.arange(256, dtype=torch.int32)
        self._limits_R = ((start + step * rank_R) >> 8).to(self._ranks.device)
        self._chances_R = self._limits_R.clamp(1, 1 << 16) * 2.0**-16

    def apply_(self, delta_B: Tensor, start: int) -> None:
        """Zero the dropped elements of a block; see `Mask.apply_`."""
        rank_B = self._ranks[start : start + delta_B.numel()].int()
        draw_B = self._draws.of(self._key, start, delta_B.numel(), low_half=self._low_half)
        if self._unbiased:
            delta_B.div_(self._chances_R[rank_B])
        delta_B.mul_(draw_B.lt(self._limits_R[rank_B]))
