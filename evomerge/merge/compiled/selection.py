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
    base: Any, others: Any, shares: Any, below: Any, floor: Any, spare: Any, out: Any
) -> None:
    """Write base plus what is selected: variances above `floor`, and the first `spare` at it.

    At the floor are variances above `below` and up to `floor`.
    """
    for first in range(0, base.size, BLOCK):
        start, stop = first, min(first + BLOCK, base.size)
        if spare > 0:
            # Most blocks admit all that is at the floor, which is only known once it is counted.
            near = slices(others, start, stop)
            count = _select(base[start:stop], near, shares, below, floor, out[start:stop])
            if count <= spare:
                spare -= count
                continue
            start += _admitted(base[start:stop], near, below, floor, spare)
            spare = 0
        near = slices(others, start, stop)
        _select(base[start:stop], near, shares, floor, floor, out[start:stop])


@compiled
def _admitted(base: Any, others: Any, below: Any, floor: Any, spare: Any) -> Any:
    """The index at which one more than `spare` variances are at the floor."""
    for j in range(base.size):
        found = variance(differences(others, j, wide(base[j])))
        if (found > below) & (found <= floor):
            if spare == 0:
                return j
            spare -= 1
    return base.size


@compiled
def _select(base: Any, others: Any, shares: Any, bound: Any, floor: Any, out: Any) -> Any:
    """Select variances above `bound`; how many of them are not above `floor`."""
    count = np.int32(0)
    for j in range(out.size):
        anchor = wide(base[j])
        deltas = differences(others, j, anchor)
        sign = _ONE if total(deltas) >= _ZERO else -_ONE
        agreed = agreeing(deltas, sign)
        divisor = max(total(present(agreed, shares)), _TINY_DIVISOR)
        change = total(products(agreed, shares)) / divisor * sign
        found = variance(deltas)
        count = np.int32(count + np.int32((found > bound) & (found <= floor)))
        # Written so that NaN stays.
        put(out, j, anchor + (_ZERO if found <= bound else change))
    return count
