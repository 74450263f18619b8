"""One number at a time: 16-bit floats to float32 and back, magnitudes' bits, random draws.

Arrays hold bfloat16 as uint16 and float16 as int16, for which numpy and numba have no arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload, register_jitable

U32 = np.uint32
_HALF_EXPONENT = np.float32(2.0**112)  # from float16's exponent bias to float32's


@intrinsic
def as_float(_context: Any, bits: Any) -> Any:
    """The float32 with these bits."""

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], context.get_value_type(types.float32))

    return types.float32(types.uint32), generate


@intrinsic
def as_bits(_context: Any, value: Any) -> Any:
    """The bits of a float32."""

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


def wide(x: Any) -> Any:
    """The stored number `x` as float32, exactly."""


@overload(wide, strict=False)
def _wide(x: Any) -> Callable[..., Any]:
    if x == types.uint16:
        return lambda x: as_float(U32(x) << U32(16))
    if x == types.int16:
        return _from_half
    return lambda x: x


def _from_half(x: Any) -> Any:
    bits = U32(x)
    sign = (bits & U32(0x8000)) << U32(16)
    # Subnormal numbers come out right because the multiplication normalises them.
    finite = as_bits(as_float((bits & U32(0x7FFF)) << U32(13)) * _HALF_EXPONENT)
    special = ((bits & U32(0x3FF)) << U32(13)) | U32(0x7F800000)
    return as_float(sign | (special if (bits & U32(0x7C00)) == U32(0x7C00) else finite))


def put(y: Any, i: Any, value: Any) -> Any:
    """Store the float32 `value` as element i of y, rounded to nearest even."""


@overload(put, strict=False)
def _put(y: Any, i: Any, value: Any) -> Callable[..., Any]:
    if y.dtype == types.uint16:
        return _put_bfloat16
    if y.dtype == types.int16:
        return _put_half
    return _put_float


def _put_float(y: Any, i: Any, value: Any) -> None:
    y[i] = value


def _put_bfloat16(y: Any, i: Any, value: Any) -> None:
    bits = as_bits(value)
    rounded = (bits + U32(0x7FFF) + ((bits >> U32(16)) & U32(1))) >> U32(16)
    y[i] = np.uint16(U32(0x7FC0) if value != value else rounded)  # noqa: PLR0124 - NaN


def _put_half(y: Any, i: Any, value: Any) -> None:
    bits = as_bits(value)
    size = bits & U32(0x7FFFFFFF)
    # Below 2^-14 adding 0.5 shifts the number to where float32's own rounding is float16's.
    small = as_bits(as_float(size) + np.float32(0.5)) - U32(0x3F000000)
    normal = (size - U32(0x38000000) + U32(0xFFF) + ((size >> U32(13)) & U32(1))) >> U32(13)
    large = U32(0x7E00) if size > U32(0x7F800000) else U32(0x7C00)
    found = small if size < U32(0x38800000) else normal
    found = large if size >= U32(0x47800000) else found
    y[i] = np.int16(found | ((bits >> U32(16)) & U32(0x8000)))


# Products and sums of 32-bit integers are 64 bits wide in numba, hence the U32 around each.


@register_jitable
def folded(key: Any, start: Any) -> Any:
    """What the first step of a draw adds to indices of a block; `start` is a multiple of 2^15.

    x ^= x >> 16 for x = (start + j) ^ key with j < 2^15 is j ^ (this number).
    """
    first = U32(U32(start) ^ key)
    return U32(first ^ U32(first >> U32(16)))


@register_jitable
def _word(j: Any, fold: Any, added: Any) -> Any:
    x = U32(U32(U32(U32(j) ^ fold) * U32(0x7FEB352D)) + added)
    return U32(U32(x ^ U32(x >> U32(15))) * U32(0x846CA68B))


@register_jitable
def high_draw(j: Any, fold: Any, added: Any) -> Any:
    """The draw of an even task vector at offset j, in the upper half of an int32.

    See `evomerge.merge.kernels.Chances`; the lower half is arbitrary.
    """
    return np.int32(_word(j, fold, added))


@register_jitable
def low_draw(j: Any, fold: Any, added: Any) -> Any:
    """The draw of an odd task vector at offset j, in the upper half of an int32."""
    x = _word(j, fold, added)
    return np.int32(U32(U32(x ^ U32(x >> U32(16))) << U32(16)))
