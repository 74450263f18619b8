from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import BuildFailed
from evomerge.weights.finite import assert_finite, is_finite

_DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@given(
    st.sampled_from(_DTYPES),
    st.integers(1, 300),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    st.data(),
)
@settings(deadline=None)
def test_one_bad_element_anywhere_is_found(
    dtype: torch.dtype, size: int, bad: float, data: st.DataObject
) -> None:
    tensor = torch.full((size,), torch.finfo(dtype).max, dtype=dtype)
    assert is_finite(tensor)
    tensor[data.draw(st.integers(0, size - 1))] = bad
    assert not is_finite(tensor)


@pytest.mark.parametrize("dtype", _DTYPES)
def test_large_sums_are_no_false_alarm(dtype: torch.dtype) -> None:
    assert is_finite(torch.full((2, 4096), torch.finfo(dtype).max, dtype=dtype))
    assert is_finite(torch.full((5,), torch.finfo(dtype).min, dtype=dtype))


def test_infinities_of_both_signs_do_not_cancel() -> None:
    assert not is_finite(torch.tensor([float("inf"), float("-inf"), 0.0]))


def test_empty_and_integer_tensors_are_finite() -> None:
    assert is_finite(torch.empty(0))
    assert is_finite(torch.ones(3, dtype=torch.int64))
    assert is_finite(torch.tensor(1.0))


def test_the_message_names_the_tensor() -> None:
    with pytest.raises(BuildFailed, match=r"merged tensor 'model\.norm\.weight' holds NaN or Inf"):
        assert_finite("model.norm.weight", torch.tensor([float("nan")]))
