"""SCE's pass: where parents differ most, a sum of those with the elected sign."""

from __future__ import annotations

from typing import Any

import numpy as np

from evomerge.merge.compiled.blocks import BLOCK
from evomerge.merge.compiled.elements import put, wide
from evomerge.merge.compiled.jit import compiled
from evomerge.merge.compiled.passes import agreeing, present
from evomerge.merge.compiled.statistics import variance
from evomerge.merge.compiled.tuples import differences, products, slices, total

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_TINY_DIVISOR = np.float32(1e-6)


@compiled
def walk_selected(
    base: Any, others: Any, shares: Any, floor: Any, below: Any, spare: Any, out: Any
) -> None:
    """Write base plus what is selected; of variances equal to `floor` the first `spare` are."""
    for first in range(0, base.size, BLOCK):
        start, stop = first, min(first + BLOCK, base.size)
        end = start
        if spare > 0:
            reach, spare = _admitted(base[start:stop], slices(others, start, stop), floor, spare)
            end = start + reach
            _select(base[start:end], slices(others, start, end), shares, below, out[start:end])
        _select(base[end:stop], slices(others, end, stop), shares, floor, out[end:stop])


@compiled
def _admitted(base: Any, others: Any, floor: Any, spare: Any) -> tuple[int, int]:
    """How much of a block admits variances equal to `floor`, and how many may still come."""
    count = np.int32(0)
    for j in range(base.size):
        equal = variance(differences(others, j, wide(base[j]))) == floor
        count = np.int32(count + np.int32(equal))
    if count <= spare:
        return base.size, spare - count
    for j in range(base.size):
        if variance(differences(others, j, wide(base[j]))) == floor:
            if spare == 0:
                return j, 0
            spare -= 1
    return base.size, 0


@compiled
def _select(base: Any, others: Any, shares: Any, floor: Any, out: Any) -> None:
    for j in range(out.size):
        anchor = wide(base[j])
        deltas = differences(others, j, anchor)
        sign = _ONE if total(deltas) >= _ZERO else -_ONE
        agreed = agreeing(deltas, sign)
        divisor = max(total(present(agreed, shares)), _TINY_DIVISOR)
        change = total(products(agreed, shares)) / divisor * sign
        put(out, j, anchor + (_ZERO if variance(deltas) <= floor else change))
