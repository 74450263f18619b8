"""How a tensor is walked: blocks that stay in a core's cache, masks made ready for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from evomerge.merge.compiled.elements import folded, wide
from evomerge.merge.compiled.jit import compiled
from evomerge.merge.compiled.masks import Above, Between, Counting, Drawn
from evomerge.merge.compiled.passes import visit
from evomerge.merge.compiled.tuples import from_array, slices, to_array

BLOCK = 1 << 15
"""Elements; a power of two up to 2^15, for `folded`."""
_STRIDE = 1 << 9


@compiled
def walk_everything(what: Any, base: Any, others: Any, mask: Any, out: Any) -> None:
    """Visit all elements."""
    for start in range(0, base.size, BLOCK):
        stop = min(start + BLOCK, base.size)
        visit(what, base[start:stop], slices(others, start, stop), mask, out[start:stop])


@compiled
def walk_bands(
    what: Any, base: Any, others: Any, like: Any, floors: Any, below: Any, spare: Any, out: Any
) -> None:
    """Visit what lies within bands.

    Args:
        what: see `visit`.
        base: the base.
        others: the other models.
        like: a mask of the kind that is wanted, `Above` or `Between`.
        floors: float32, shape (S, K): for each task vector the floor of what is kept, then (S = 2)
            that of the outliers.
        below: float32, shape (S, K): the next smaller numbers.
        spare: int64, shape (S, K): how many equals of the floors are kept; counted down.
        out: written.
    """
    ends = np.zeros(spare.shape, np.int64)
    bounds = np.empty(floors.shape, np.float32)
    counts = np.zeros(spare.size, np.int64)
    for start in range(0, base.size, BLOCK):
        stop = min(start + BLOCK, base.size)
        if spare.max() > 0:
            # Most blocks admit all equals or none, which is only known once they are counted.
            for side in range(len(floors)):
                for k in range(len(others)):
                    still = spare[side, k] > 0
                    bounds[side, k] = below[side, k] if still else floors[side, k]
            mask = counting(like, bounds, floors, others)
            near = slices(others, start, stop)
            to_array(counts, visit(what, base[start:stop], near, mask, out[start:stop]))
            wanted = counts.reshape(spare.shape)
            if np.all((wanted <= spare) | (spare == 0)):
                spare -= np.minimum(wanted, spare)
                continue
            admit(others, base[start:stop], start, floors, spare, ends)
        _walk_parts(what, base, others, like, (floors, below, ends), start, stop, out)


@compiled
def _walk_parts(
    what: Any, base: Any, others: Any, like: Any, limits: Any, start: Any, stop: Any, out: Any
) -> None:
    """Visit a block in parts: up to the nearest index at which a bound admits no more equals."""
    floors, below, ends = limits
    bounds = np.empty(floors.shape, np.float32)
    while start < stop:
        end = stop
        for side in range(len(floors)):
            for k in range(len(others)):
                still = ends[side, k] > start
                bounds[side, k] = below[side, k] if still else floors[side, k]
                end = min(end, ends[side, k]) if still else end
        mask = bounded(like, bounds, others)
        visit(what, base[start:end], slices(others, start, end), mask, out[start:end])
        start = end


def counting(like: Any, bounds: Any, floors: Any, others: Any) -> Any:
    """A mask of the kind of `like` that counts magnitudes equal to the floors."""


@overload(counting, strict=False)
def _counting(like: Any, bounds: Any, floors: Any, others: Any) -> Callable[..., Any]:
    if like.instance_class is Above:
        return lambda like, bounds, floors, others: Counting(
            Above(from_array(bounds[0], others)), from_array(floors[0], others)
        )
    return lambda like, bounds, floors, others: Counting(
        Between(from_array(bounds[0], others), from_array(bounds[1], others)),
        (*from_array(floors[0], others), *from_array(floors[1], others)),
    )


def bounded(like: Any, bounds: Any, others: Any) -> Any:
    """The mask of the kind of `like` with these bounds."""


@overload(bounded, strict=False)
def _bounded(like: Any, bounds: Any, others: Any) -> Callable[..., Any]:
    if like.instance_class is Above:
        return lambda like, bounds, others: Above(from_array(bounds[0], others))
    return lambda like, bounds, others: Between(
        from_array(bounds[0], others), from_array(bounds[1], others)
    )


def admit(others: Any, base: Any, start: Any, floors: Any, spare: Any, ends: Any) -> Any:
    """Find up to which index of the block that begins at `start` equals of the floors are kept."""


@overload(admit, strict=False)
def _admit(
    others: Any, base: Any, start: Any, floors: Any, spare: Any, ends: Any
) -> Callable[..., Any]:
    k = len(others) - 1
    if k < 0:
        return lambda others, base, start, floors, spare, ends: None

    def one(others: Any, base: Any, start: Any, floors: Any, spare: Any, ends: Any) -> None:
        for side in range(len(floors)):
            if spare[side, k] > 0:
                block = others[k][start : start + base.size]
                reach, left = _admitted(block, base, floors[side, k], spare[side, k])
                ends[side, k], spare[side, k] = start + reach, left
        admit(others[:-1], base, start, floors, spare, ends)

    return one


@compiled
def _admitted(other: Any, base: Any, floor: Any, spare: Any) -> tuple[int, int]:
    """How much of a block admits magnitudes equal to `floor`, and how many may still come."""
    for start in range(0, base.size, _STRIDE):
        stop = min(start + _STRIDE, base.size)
        count = _equals(other[start:stop], base[start:stop], floor)
        if count > spare:
            for j in range(start, stop):
                if abs(wide(other[j]) - wide(base[j])) == floor:
                    if spare == 0:
                        return j, 0
                    spare -= 1
        spare -= count
    return base.size, spare


@compiled
def _equals(other: Any, base: Any, floor: Any) -> Any:
    count = np.int32(0)
    for j in range(base.size):
        # In 32 bits, half the vector registers that Python's integers would take.
        count = np.int32(count + np.int32(abs(wide(other[j]) - wide(base[j])) == floor))
    return count


@compiled
def walk_chances(
    what: Any, base: Any, others: Any, keys: Any, added: Any, bounds: Any, out: Any
) -> None:
    """Visit what draws at most `bounds`; the keys' halves are uint32."""
    for start in range(0, base.size, BLOCK):
        stop = min(start + BLOCK, base.size)
        mask = Drawn(folds(keys, start), added, bounds)
        visit(what, base[start:stop], slices(others, start, stop), mask, out[start:stop])


@compiled
def walk_ranked(what: Any, base: Any, others: Any, like: Any, keys: Any, out: Any) -> None:
    """Visit what draws less than its rank's limit.

    Args:
        what: see `visit`.
        base: the base.
        others: the other models.
        like: the mask, `RankDrawn` or `Unbiased`, for the whole tensor; its folds are not read.
        keys: the keys' first halves, uint32.
        out: written.
    """
    for start in range(0, base.size, BLOCK):
        stop = min(start + BLOCK, base.size)
        mask = ranked_block(like, folds(keys, start), slices(like.ranks, start, stop))
        visit(what, base[start:stop], slices(others, start, stop), mask, out[start:stop])


def ranked_block(like: Any, folds: Any, ranks: Any) -> Any:
    """The mask `like` for one block."""


@overload(ranked_block, strict=False)
def _ranked_block(like: Any, folds: Any, ranks: Any) -> Callable[..., Any]:
    kind = like.instance_class
    return lambda like, folds, ranks: kind(folds, like.added, ranks, like.starts, like.steps)


def folds(keys: Any, start: Any) -> Any:
    """Each key folded with the block's start."""


@overload(folds, strict=False)
def _folds(keys: Any, start: Any) -> Callable[..., Any]:
    if len(keys) == 0:
        return lambda keys, start: ()
    return lambda keys, start: (*folds(keys[:-1], start), folded(keys[-1], start))
