"""The kernels of `evomerge.merge.kernels` compiled for this CPU: one pass over memory each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.compiled import blocks, masks, passes, selection, statistics
from evomerge.merge.kernels import (
    NOTHING,
    Bands,
    Chances,
    Deltas,
    Digits,
    Kernels,
    Leading,
)

_VIEWS = {
    torch.float32: torch.float32,
    torch.bfloat16: torch.uint16,
    torch.float16: torch.int16,
}
_F32, _U32, _I32 = np.float32, np.uint32, np.int32


@final
class CompiledKernels:
    """float32 and the 16-bit floats on CPUs; hands everything else to the blockwise kernels."""

    def weighted_sum(
        self, tensors: Sequence[Tensor], factors: Sequence[float], divisor: float, out: Tensor
    ) -> None:
        """See `Kernels.weighted_sum`."""
        if not _fits(*tensors, out):
            BLOCKWISE.weighted_sum(tensors, factors, divisor, out)
        elif divisor == 1.0:
            passes.weighted_sum(_arrays(tensors), _floats(factors), _array(out))
        else:
            passes.weighted_mean(_arrays(tensors), _floats(factors), _F32(divisor), _array(out))

    def add_sum(
        self, deltas: Deltas, factors: Sequence[float], divisor: float, out: Tensor
    ) -> None:
        """See `Kernels.add_sum`."""
        if not _fits(deltas.base, *deltas.others, out):
            BLOCKWISE.add_sum(deltas, factors, divisor, out)
        elif divisor == 1.0:
            _walk(passes.Sum(_floats(factors)), deltas, out)
        else:
            _walk(passes.Mean(_floats(factors), _F32(divisor)), deltas, out)

    def add_elected(
        self,
        deltas: Deltas,
        factors: Sequence[float],
        weights: Sequence[float],
        scale: float,
        out: Tensor,
    ) -> None:
        """See `Kernels.add_elected`."""
        if not _fits(deltas.base, *deltas.others, out):
            BLOCKWISE.add_elected(deltas, factors, weights, scale, out)
        elif weights:
            what = passes.ElectedMean(_floats(factors), _F32(scale), _floats(weights))
            _walk(what, deltas, out)
        else:
            _walk(passes.Elected(_floats(factors), _F32(scale)), deltas, out)

    def add_selected(
        self, deltas: Deltas, selected: Leading, shares: Sequence[float], out: Tensor
    ) -> None:
        """See `Kernels.add_selected`."""
        if not _fits(deltas.base, *deltas.others, out):
            BLOCKWISE.add_selected(deltas, selected, shares, out)
            return
        selection.walk_selected(
            _array(deltas.base),
            _arrays(deltas.others),
            _floats(shares),
            _largest_with(selected.digit - 1),
            _largest_with(selected.digit),
            selected.spare,
            _array(out),
        )

    def l1_norms(self, deltas: Deltas) -> tuple[float, ...]:
        """See `Kernels.l1_norms`; float32 over parts of a block, float64 over blocks."""
        if isinstance(deltas.masks, Bands) or not _fits(deltas.base, *deltas.others):
            return BLOCKWISE.l1_norms(deltas)  # norms within bands follow from tables instead
        totals = np.zeros(len(deltas.others))
        _walk(passes.Norms(totals), deltas, deltas.base)
        return tuple(totals.tolist())

    def gram(self, deltas: Deltas) -> Tensor:
        """See `Kernels.gram`."""
        if not _fits(deltas.base, *deltas.others):
            return BLOCKWISE.gram(deltas)
        size = 1 + len(deltas.others)
        products = np.zeros((size, size))
        statistics.gram(_array(deltas.base), _arrays(deltas.others), products)
        return torch.from_numpy(products)

    def magnitude_digits(
        self, base: Tensor, other: Tensor, shift: int, prefix: int | None
    ) -> Digits:
        """See `Kernels.magnitude_digits`."""
        if not _fits(base, other):
            return BLOCKWISE.magnitude_digits(base, other, shift, prefix)
        counts, sums, place = _histogram(shift, prefix)
        statistics.magnitude_digits(_array(base), _array(other), *place, counts, sums)
        return Digits(torch.from_numpy(counts), torch.from_numpy(sums))

    def variance_digits(self, deltas: Deltas) -> Digits:
        """See `Kernels.variance_digits`."""
        if not _fits(deltas.base, *deltas.others):
            return BLOCKWISE.variance_digits(deltas)
        counts, sums = np.zeros(1 << 15, np.int64), np.zeros((1 << 15, len(deltas.others)))
        base, others = _array(deltas.base), _arrays(deltas.others)
        statistics.variance_digits(base, others, counts, sums)
        return Digits(torch.from_numpy(counts), torch.from_numpy(sums))


def _fits(*tensors: Tensor) -> bool:
    return all(tensor.dtype in _VIEWS and tensor.device.type == "cpu" for tensor in tensors)


def _array(tensor: Tensor) -> Any:
    return tensor.view(_VIEWS[tensor.dtype]).numpy()


def _arrays(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    return tuple(_array(tensor) for tensor in tensors)


def _floats(values: Sequence[float]) -> tuple[np.float32, ...]:
    return tuple(map(_F32, values))


def _walk(what: Any, deltas: Deltas, out: Tensor) -> None:
    """Visit the surviving elements with the walk that suits the masks."""
    kept, base, others, y = deltas.masks, _array(deltas.base), _arrays(deltas.others), _array(out)
    if kept is None:
        blocks.walk_everything(what, base, others, masks.Everything(0), y)
    elif isinstance(kept, Bands):
        _walk_bands(what, base, others, kept, y)
    elif isinstance(kept, Chances):
        firsts, added = _keys(kept.keys)
        # The draw is the upper half of a signed word whose lower half counts as ones.
        # A limit of 0 keeps one draw in 2^32, of a task vector whose factor is 0.
        bounds = tuple(
            _I32(max((limit << 16) - 1 - (1 << 31), -(1 << 31))) for limit in kept.limits
        )
        blocks.walk_chances(what, base, others, firsts, added, bounds, y)
    else:
        firsts, added = _keys(kept.keys)
        ranks = tuple(rank.numpy() for rank in kept.ranks)
        starts, steps = zip(*((_I32(a), _I32(b)) for a, b in kept.lines()), strict=True)
        kind = masks.Unbiased if kept.unbiased else masks.RankDrawn
        blocks.walk_ranked(what, base, others, kind(added, added, ranks, starts, steps), firsts, y)


def _walk_bands(what: Any, base: Any, others: Any, kept: Bands, out: Any) -> None:
    cuts = [band.kept for band in kept.bands]
    inner = all(band.outliers == NOTHING for band in kept.bands)
    if not inner:
        cuts += [band.outliers for band in kept.bands]
    shape = (-1, len(others))
    floors = np.array([cut.floor for cut in cuts], np.float32).reshape(shape)
    spare = np.array([cut.spare for cut in cuts], np.int64).reshape(shape)
    bounds = tuple(floors[0])
    like = masks.Above(bounds) if inner else masks.Between(bounds, bounds)
    below = np.nextafter(floors, _F32(0.0))
    blocks.walk_bands(what, base, others, like, floors, below, spare, out)


def _keys(keys: Sequence[tuple[int, int]]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    return tuple(_U32(first) for first, _ in keys), tuple(_U32(second) for _, second in keys)


def _histogram(shift: int, prefix: int | None) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """Zeros for counts and sums, and the place of the digit as the compiled pass wants it."""
    size = (1 if prefix is None else 2) << 16
    mine = 0 if prefix is None else (0xFFFFFFFF << (shift + 16)) & 0xFFFFFFFF
    place = (_U32(shift), _U32(prefix or 0), _U32(mine))
    return np.zeros(size, np.int64), np.zeros((size, 1)), place


def _largest_with(digit: int) -> Any:
    """The largest float32 with a leading digit up to `digit`; below 0 for digits below 0."""
    if digit < 0:
        return _F32(-1.0)
    infinity = 0x7F80
    pattern = (digit << 16 | 0xFFFF) if digit < infinity else infinity << 16
    return _U32(pattern).view(_F32)


COMPILED: Kernels = CompiledKernels()
