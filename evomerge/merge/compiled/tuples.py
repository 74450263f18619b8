"""Loops over parents that the compiler unrolls: recursion over tuples, whose length is a type.

A loop over an array of parents would keep the loop over elements from being vectorised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba.extending import overload

from evomerge.merge.compiled.elements import wide


def total(xs: Any) -> Any:
    """((x0 + x1) + x2) + ..."""


@overload(total, strict=False)
def _total(xs: Any) -> Callable[..., Any]:
    if len(xs) == 1:
        return lambda xs: xs[0]
    return lambda xs: total(xs[:-1]) + xs[-1]


def products(xs: Any, ys: Any) -> Any:
    """x0 * y0, x1 * y1, ..."""


@overload(products, strict=False)
def _products(xs: Any, ys: Any) -> Callable[..., Any]:
    if len(xs) == 0:
        return lambda xs, ys: ()
    return lambda xs, ys: (*products(xs[:-1], ys[:-1]), xs[-1] * ys[-1])


def sums(xs: Any, ys: Any) -> Any:
    """x0 + y0, x1 + y1, ..."""


@overload(sums, strict=False)
def _sums(xs: Any, ys: Any) -> Callable[..., Any]:
    if len(xs) == 0:
        return lambda xs, ys: ()
    return lambda xs, ys: (*sums(xs[:-1], ys[:-1]), xs[-1] + ys[-1])


def from_array(array: Any, like: Any) -> Any:
    """The first entries of `array`, as many as the tuple `like` has."""


@overload(from_array, strict=False)
def _from_array(array: Any, like: Any) -> Callable[..., Any]:
    last = len(like) - 1
    if last < 0:
        return lambda array, like: ()
    return lambda array, like: (*from_array(array, like[:-1]), array[last])


def to_array(array: Any, xs: Any) -> Any:
    """Write the numbers into the first entries of `array`."""


@overload(to_array, strict=False)
def _to_array(array: Any, xs: Any) -> Callable[..., Any]:
    last = len(xs) - 1
    if last < 0:
        return lambda array, xs: None

    def write(array: Any, xs: Any) -> None:
        array[last] = xs[last]
        to_array(array, xs[:-1])

    return write


def slices(arrays: Any, start: Any, stop: Any) -> Any:
    """Elements from start to stop of each array."""


@overload(slices, strict=False)
def _slices(arrays: Any, start: Any, stop: Any) -> Callable[..., Any]:
    if len(arrays) == 0:
        return lambda arrays, start, stop: ()
    return lambda arrays, start, stop: (*slices(arrays[:-1], start, stop), arrays[-1][start:stop])


def elements(arrays: Any, i: Any) -> Any:
    """Element i of each array as float32."""


@overload(elements, strict=False)
def _elements(arrays: Any, i: Any) -> Callable[..., Any]:
    if len(arrays) == 0:
        return lambda arrays, i: ()
    return lambda arrays, i: (*elements(arrays[:-1], i), wide(arrays[-1][i]))


def differences(arrays: Any, i: Any, base: Any) -> Any:
    """Element i of each array minus the number `base`, as float32."""


@overload(differences, strict=False)
def _differences(arrays: Any, i: Any, base: Any) -> Callable[..., Any]:
    if len(arrays) == 0:
        return lambda arrays, i, base: ()
    return lambda arrays, i, base: (
        *differences(arrays[:-1], i, base),
        wide(arrays[-1][i]) - base,
    )
