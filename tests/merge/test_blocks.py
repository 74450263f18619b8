"""Rounding happens once, at the store."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.blockwise.walk import store_
from evomerge.merge.method import Parents, Values
from evomerge.merge.precision import sum_in
from tests.merge import cases
from tests.merge.merging import merge


def _stored(value: float, dtype: torch.dtype) -> float:
    out = torch.empty(1, dtype=dtype)
    store_(out, torch.tensor([value], dtype=torch.float64))
    return float(out)


@pytest.mark.parametrize(("dtype", "bits"), [(torch.bfloat16, 8), (torch.float16, 11)])
@given(
    significand=st.integers(0, 1 << 11),
    nudge=st.sampled_from([0, 1, -1]),
    sign=st.sampled_from([1, -1]),
)
@settings(deadline=None, max_examples=200)
def test_float64_is_rounded_to_16_bits_once(
    dtype: torch.dtype, bits: int, significand: int, nudge: int, sign: int
) -> None:
    # Values at and next to the midpoints between two 16-bit numbers, where rounding twice fails.
    value = sign * (1.0 + (significand + 0.5) / 2 ** (bits + 3) + nudge * 2.0**-45)
    ulp = Fraction(1, 2 ** (bits - 1)) * (2 if abs(value) >= 2 else 1)
    assert _stored(value, dtype) == float(round(Fraction(value) / ulp) * ulp)


@given(value=st.floats(allow_nan=False, width=64))
@settings(deadline=None, max_examples=300)
def test_float64_to_float16_is_numpys(value: float) -> None:
    with np.errstate(over="ignore"):
        assert _stored(value, torch.float16) == float(np.float64(value).astype(np.float16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_is_not_finite_is_stored(dtype: torch.dtype) -> None:
    assert _stored(torch.inf, dtype) == torch.inf
    assert _stored(-1e300, dtype) == -torch.inf
    assert _stored(torch.nan, dtype) != _stored(torch.nan, dtype)


def test_a_merge_of_float64_rounds_once() -> None:
    x = torch.tensor([1.0 + 2.0**-8 + 2.0**-40], dtype=torch.float64)
    values = Values({}, ({"scale": 1.0, "shift": 0.0},))
    out = merge("passthrough", Parents(None, (x,), (0,)), values, torch.bfloat16)
    assert float(out) == 1.0 + 2.0**-7


def test_bfloat16_parents_are_summed_in_float32() -> None:
    # In bfloat16 each addition of 2^-8 to 1 would round to 1.
    base = torch.ones(4, dtype=torch.bfloat16)
    others = tuple(torch.full((4,), 2.0**-8, dtype=torch.bfloat16) for _ in range(4))
    values = Values({"normalize": False}, ({"weight": 1.0},) * 5)
    out = merge("linear", Parents(None, (base, *others), (0, 1, 2, 3, 4)), values)
    assert out.tolist() == [1.0 + 2.0**-6] * 4


def test_mixed_dtypes_keep_the_finer_parents_bits() -> None:
    fine = torch.tensor([1.0 + 2.0**-20])
    coarse = torch.tensor([1.0], dtype=torch.bfloat16)
    out = merge(
        "task_arithmetic", Parents(coarse, (fine,), (0,)), cases.values([1.0]), torch.float32
    )
    assert torch.equal(out, fine)


def test_coefficients_are_not_rounded_to_the_parents_dtype() -> None:
    one = torch.tensor([1.0], dtype=torch.bfloat16)
    values = Values({"normalize": False}, ({"weight": 0.3},))
    out = merge("linear", Parents(None, (one,), (0,)), values, torch.float32)
    assert float(out) == pytest.approx(0.3, rel=1e-7)


def test_sums_are_taken_in_the_asked_precision() -> None:
    assert sum_in(torch.float32, (1.0, 1e-9, -1.0)) == 0.0
    assert sum_in(torch.float64, (1.0, 1e-9, -1.0)) == pytest.approx(1e-9, rel=1e-6)
