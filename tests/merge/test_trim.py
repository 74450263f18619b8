"""TIES' trimming: exact counts and a defined choice among equal magnitudes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.digits import DigitTable, largest
from evomerge.merge.kernels import Kernels
from evomerge.merge.method import Parents
from evomerge.merge.trimming import Magnitudes, MagnitudeStatistic, counter
from tests.merge import cases, reference
from tests.merge.merging import KERNELS, merge

SIZES = (1, 2, 17, 4095, 300_001)


def _parents(delta: torch.Tensor, base: torch.Tensor | None = None) -> Parents:
    base = torch.zeros_like(delta) if base is None else base
    return Parents(base, (delta,), (3,))


def _few_magnitudes(size: int, dtype: torch.dtype) -> torch.Tensor:
    rng = np.random.default_rng(size)
    steps = rng.integers(1, 6, size) * rng.choice([-1, 1], size)
    return cases.tensor(steps / 1024).to(dtype)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("density", [1e-6, 0.1, 0.29, 0.5, 0.999])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_exactly_k_of_many_equal_magnitudes_survive_lower_indices_first(
    size: int, density: float, dtype: torch.dtype
) -> None:
    delta = _few_magnitudes(size, dtype)
    out = merge("ties", _parents(delta), cases.values([1.0], [density]))
    assert int((out != 0).sum()) == max(1, int(density * size))
    kept = reference.largest_keep(reference.flat(delta), density)
    assert np.array_equal(reference.flat(out), np.where(kept, reference.flat(delta), 0.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_set_is_that_of_a_stable_sort_on_fine_tune_like_deltas(dtype: torch.dtype) -> None:
    parents = cases.random_parents(1, 300_001, dtype=dtype)
    assert parents.base is not None
    work = torch.float64 if dtype == torch.float64 else torch.float32
    base, other = parents.base.to(work), parents.others[0].to(work)
    for density in (0.001, 0.35, 0.8):
        out = merge("ties", parents, cases.values([1.0], [density]), torch.float64)
        kept = reference.largest_keep(reference.flat(other - base), density)
        want = torch.where(torch.from_numpy(kept), (other - base) + base, base)
        assert torch.equal(out, want.double())


@given(
    count=st.integers(1, 60),
    share=st.floats(0.0, 1.0),
    kind=st.sampled_from(["gauss", "grid", "sparse", "zero"]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32, torch.float64]),
    seed=st.integers(0, 10**6),
)
@settings(deadline=None, max_examples=150)
def test_cut_and_its_l1_norm(
    count: int, share: float, kind: str, dtype: torch.dtype, seed: int
) -> None:
    parents = _parents(cases.delta(kind, (count,), np.random.default_rng(seed)).to(dtype))
    keep = max(1, int(share * count))
    for kernels in KERNELS.values():
        _check_cut(kernels, parents, keep)


def _check_cut(kernels: Kernels, parents: Parents, keep: int) -> None:
    found = largest(_tables(kernels, parents)[0], keep, counter(kernels, parents, 0))
    cut = found.cut
    ordered = sorted(np.abs(reference.flat(parents.others[0])), reverse=True)
    above = sum(value > cut.floor for value in ordered)
    equal = sum(value == cut.floor for value in ordered)
    assert above + cut.spare == keep
    assert cut.spare <= equal
    assert found.sum == pytest.approx(sum(ordered[:keep]), rel=1e-12)


def _tables(kernels: Kernels, parents: Parents) -> tuple[DigitTable, ...]:
    statistic = MagnitudeStatistic(kernels)
    state = statistic.load(statistic.compute(parents))
    assert isinstance(state, Magnitudes)
    return state.tables


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_digit_tables_count_every_element(dtype: torch.dtype) -> None:
    parents = cases.random_parents(2, 5000, dtype=dtype)
    assert parents.base is not None
    work = torch.float64 if dtype == torch.float64 else torch.float32
    pairs = [
        (other, table)
        for kernels in KERNELS.values()
        for other, table in zip(parents.others, _tables(kernels, parents), strict=True)
    ]
    for other, table in pairs:
        size = (other.to(work) - parents.base.to(work)).abs()
        bits, shift = (torch.int64, 48) if work == torch.float64 else (torch.int32, 16)
        pattern = size.view(bits)
        keys = 2 * (pattern >> shift) + ((pattern & ((1 << shift) - 1)) != 0)
        found, counts = np.unique(keys.numpy(), return_counts=True)
        assert table.keys.tolist() == found[::-1].tolist()
        assert table.reach.tolist() == counts[::-1].cumsum().tolist()
        assert table.total == pytest.approx(float(size.double().sum()), rel=1e-12)


def test_differences_in_the_last_bit_decide() -> None:
    one = torch.tensor(1.0)
    up = torch.nextafter(one, torch.tensor(2.0))
    delta = torch.stack([one, up, -up, one, -torch.nextafter(up, torch.tensor(2.0))])
    for keep, kept in ((1, [4]), (2, [1, 4]), (3, [1, 2, 4]), (4, [0, 1, 2, 4])):
        out = merge("ties", _parents(delta), cases.values([1.0], [(keep + 0.5) / 5]))
        assert out.nonzero().flatten().tolist() == kept


def test_rescaling_gives_the_l1_norm_back() -> None:
    parents = cases.random_parents(1, 10_000)
    parents = _parents(parents.others[0])
    out = merge("ties", parents, cases.values([1.0], [0.2], rescale=True), torch.float64)
    whole = float(parents.others[0].double().abs().sum())
    assert float(out.abs().sum()) == pytest.approx(whole, rel=1e-6)


def test_vanishing_task_vectors_are_not_rescaled() -> None:
    delta = torch.tensor([4e-8, 3e-8, 1e-9])
    out = merge("ties", _parents(delta), cases.values([1.0], [0.4], rescale=True))
    assert out.tolist() == [delta[0].item(), 0.0, 0.0]
