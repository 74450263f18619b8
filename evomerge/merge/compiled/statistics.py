"""What is learned about parents once per search: inner products and histograms of bit patterns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import overload

from evomerge.merge.compiled.elements import U32, wide
from evomerge.merge.compiled.jit import compiled, reordered
from evomerge.merge.compiled.tuples import differences, slices

_ROW = 1 << 11
_FEW = 64


@compiled
def gram(base: Any, others: Any, products: Any) -> None:
    """Add the inner products of base and task vectors to `products`, float64, (1 + K, 1 + K)."""
    rows = np.empty((1 + len(others), _ROW), np.float32)
    for start in range(0, base.size, _ROW):
        stop = min(start + _ROW, base.size)
        fill(others, base, start, stop, rows)
        for i in range(len(rows)):
            for k in range(i + 1):
                found = _dot(rows[i, : stop - start], rows[k, : stop - start])
                products[i, k] += found
                if i != k:
                    products[k, i] += found


@reordered
def _dot(left: Any, right: Any) -> float:
    found = 0.0
    for j in range(left.size):
        found += np.float64(left[j]) * np.float64(right[j])
    return found


def fill(others: Any, base: Any, start: Any, stop: Any, rows: Any) -> Any:
    """Write base and task vectors of a block into the rows."""


@overload(fill, strict=False)
def _fill(others: Any, base: Any, start: Any, stop: Any, rows: Any) -> Callable[..., Any]:
    k = len(others)
    if k == 0:
        return lambda others, base, start, stop, rows: _copy(base[start:stop], rows[0])

    def one(others: Any, base: Any, start: Any, stop: Any, rows: Any) -> None:
        _subtract(others[-1][start:stop], base[start:stop], rows[k])
        fill(others[:-1], base, start, stop, rows)

    return one


@compiled
def _copy(base: Any, row: Any) -> None:
    for j in range(base.size):
        row[j] = wide(base[j])


@compiled
def _subtract(other: Any, base: Any, row: Any) -> None:
    for j in range(base.size):
        row[j] = wide(other[j]) - wide(base[j])


@compiled
def _keys(patterns: Any, shift: Any, prefix: Any, mine: Any, keys: Any) -> None:
    """The key of each bit pattern as `evomerge.merge.digits` defines it; -1 without the prefix."""
    low = U32((U32(1) << shift) - U32(1))
    for j in range(patterns.size):
        rest = U32(patterns[j] - prefix)
        digit = U32(rest >> shift)
        key = np.int32(U32(U32(digit + digit) + (U32(1) if U32(rest & low) else U32(0))))
        keys[j] = key if U32(patterns[j] & mine) == prefix else np.int32(-1)


@compiled
def _matching(keys: Any, where: Any) -> Any:
    """Write the indices of the keys that are not -1 to `where`; how many there are."""
    found = 0
    for start in range(0, keys.size, _FEW):
        stop = min(start + _FEW, keys.size)
        # Second digits are asked for of few numbers: most groups hold none.
        if _largest(keys[start:stop]) >= 0:
            for j in range(start, stop):
                where[found] = j
                found += keys[j] >= 0
    return found


@compiled
def _largest(keys: Any) -> Any:
    largest = np.int32(-1)
    for j in range(keys.size):
        largest = max(largest, keys[j])
    return largest


@compiled
def magnitude_digits(
    base: Any, other: Any, shift: Any, prefix: Any, mine: Any, counts: Any, sums: Any
) -> None:
    """Count and sum up |other - base| by digit.

    Args:
        base: the base.
        other: the other model.
        shift: uint32, where the digit begins.
        prefix: uint32, the pattern above the digit.
        mine: uint32, the bits that must be those of the prefix.
        counts: int64, one per key; added to.
        sums: float64, shape (keys, 1); added to.
    """
    row, keys = np.empty(_ROW, np.float32), np.empty(_ROW, np.int32)
    where = np.empty(_ROW + 1, np.int32)
    for start in range(0, base.size, _ROW):
        stop = min(start + _ROW, base.size)
        _distances(base[start:stop], other[start:stop], row)
        _keys(row.view(np.uint32)[: stop - start], shift, prefix, mine, keys)
        for at in where[: _matching(keys[: stop - start], where)]:
            counts[keys[at]] += 1
            # Even keys stand for one magnitude: their sums follow from the counts.
            if keys[at] & 1:
                sums[keys[at], 0] += row[at]


@compiled
def _distances(base: Any, other: Any, row: Any) -> None:
    for j in range(base.size):
        row[j] = abs(wide(other[j]) - wide(base[j]))


def spread(deltas: Any) -> Any:
    """(mean, sum of squared distances to it), updated one by one: equal numbers give 0."""


@overload(spread, strict=False)
def _spread(deltas: Any) -> Callable[..., Any]:
    count = len(deltas)
    if count == 1:
        return lambda deltas: (deltas[0], np.float32(0.0))
    share, rest = np.float32(1.0 / count), np.float32((count - 1) / count)

    def one(deltas: Any) -> Any:
        mean, squares = spread(deltas[:-1])
        gap = deltas[-1] - mean
        return mean + gap * share, squares + gap * gap * rest

    return one


def variance(deltas: Any) -> Any:
    """The population variance of the numbers."""


@overload(variance, strict=False)
def _variance(deltas: Any) -> Callable[..., Any]:
    share = np.float32(1.0 / len(deltas))
    return lambda deltas: spread(deltas)[1] * share


@compiled
def variance_digits(base: Any, others: Any, counts: Any, sums: Any) -> None:
    """Count the variances over task vectors by leading digit, sum up each one's squares."""
    row = np.empty(_ROW, np.float32)
    for start in range(0, base.size, _ROW):
        stop = min(start + _ROW, base.size)
        _variances(base[start:stop], slices(others, start, stop), row)
        digits = (row.view(np.uint32)[: stop - start] >> U32(16)) & U32(0x7FFF)  # no sign of NaN
        for at in range(stop - start):
            counts[digits[at]] += 1
            deltas = differences(others, start + at, wide(base[start + at]))
            add_squares(deltas, sums[digits[at]])


@compiled
def _variances(base: Any, others: Any, row: Any) -> None:
    for j in range(base.size):
        row[j] = variance(differences(others, j, wide(base[j])))


def add_squares(deltas: Any, sums: Any) -> Any:
    """sums[k] += delta_k squared, in float64."""


@overload(add_squares, strict=False)
def _add_squares(deltas: Any, sums: Any) -> Callable[..., Any]:
    k = len(deltas) - 1
    if k < 0:
        return lambda deltas, sums: None

    def one(deltas: Any, sums: Any) -> None:
        sums[k] += np.float64(deltas[k]) * np.float64(deltas[k])
        add_squares(deltas[:-1], sums)

    return one
