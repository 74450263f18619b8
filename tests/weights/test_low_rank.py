from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.weights import low_rank
from evomerge.weights.low_rank import LowRankUpdate, updated

DTYPES = ("float64", "float32", "bfloat16", "float16")


def _case(seed: int, outs: int, ins: int, rank: int, stored: str) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((outs, ins), (rank, ins), (outs, rank), (outs,))
    weight, a, b, m = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    dtype = getattr(torch, stored)
    return weight.to(dtype), a.to(dtype), b.to(dtype), m.abs().to(dtype)


def _exact(
    weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, m: torch.Tensor | None
) -> torch.Tensor:
    """The formula, element by element in float64."""
    exact = torch.zeros(weight.shape, dtype=torch.float64)
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            product = sum(float(b[i, k]) * float(a[k, j]) for k in range(a.shape[0]))
            exact[i, j] = float(weight[i, j]) + scale * product
        if m is not None:
            norm = sum(float(value) ** 2 for value in exact[i]) ** 0.5
            exact[i] *= float(m[i]) / norm
    return exact


@given(
    seed=st.integers(0, 1000),
    outs=st.integers(1, 7),
    ins=st.integers(1, 7),
    rank=st.integers(1, 4),
    stored=st.sampled_from(DTYPES),
    scale=st.sampled_from([1.5, -0.25, 0.0]),
    with_magnitude=st.booleans(),
    transposed=st.booleans(),
    chunk=st.sampled_from([1, 8, 2**18]),
)
def test_the_formula_and_one_rounding(
    seed: int,
    outs: int,
    ins: int,
    rank: int,
    stored: str,
    scale: float,
    with_magnitude: bool,
    transposed: bool,
    chunk: int,
) -> None:
    weight, a, b, m = _case(seed, outs, ins, rank, stored)
    magnitude = m if with_magnitude else None
    given_weight = weight.T.contiguous() if transposed else weight
    before = given_weight.clone()
    dtype = getattr(torch, stored)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(low_rank, "_CHUNK", chunk)
        update = LowRankUpdate(a, b, scale, magnitude)
        got = updated(given_weight, update, transposed=transposed, dtype=dtype)
    assert got.is_contiguous()
    assert got.dtype == dtype
    assert torch.equal(given_weight, before)
    exact = _exact(weight, a, b, scale, magnitude)
    got = got.T if transposed else got
    if stored == "float64":
        torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)
    else:
        # Rounded once: except for sums that fall on a border, the nearest number of the type.
        nearest = exact.to(dtype)
        assert (got != nearest).sum() <= 1
        torch.testing.assert_close(got, nearest)


def test_other_types_of_weight_matrices_and_result_may_differ() -> None:
    weight, a, b, _ = _case(0, 5, 3, 2, "float32")
    update = LowRankUpdate(a.bfloat16(), b.half(), 2.0, None)
    got = updated(weight, update, transposed=False, dtype=torch.bfloat16)
    exact = weight.double() + 2.0 * (b.half().double() @ a.bfloat16().double())
    assert torch.equal(got, exact.bfloat16())


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("transposed", [False, True])
def test_the_number_of_threads_does_not_matter(transposed: bool) -> None:
    weight, a, b, m = _case(1, 700, 700, 64, "float32")
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        update = LowRankUpdate(a, b, 0.3, m)
        found.append(updated(weight, update, transposed=transposed, dtype=torch.float32))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
