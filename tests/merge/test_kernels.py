"""One contract for all kernels: the compiled passes give the bits of the blockwise ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.compiled.blocks import BLOCK
from evomerge.merge.compiled.kernels import COMPILED
from evomerge.merge.kernels import (
    ALL_DIGITS,
    EVERYTHING,
    NOTHING,
    Band,
    Bands,
    Chances,
    Cut,
    Deltas,
    Kernels,
    Leading,
    Masks,
    RankedChances,
)
from tests.merge import cases

# One length that ends within a block, and one with several: most of what can go wrong is there.
SIZES = (BLOCK * 2 + 777, 5, 1, 0)
FACTORS = (0.7, -0.3, 1.1)
KEYS = ((123456789, 987654321), (5, 4_000_000_000))


def _deltas(size: int, count: int, dtypes: Sequence[torch.dtype]) -> Deltas:
    """Task vectors on a grid of few values, so that many magnitudes are equal; signs conflict."""
    rng = np.random.default_rng(size + count)
    base = cases.tensor(rng.integers(-40, 40, size) / 64).to(dtypes[0])
    others = tuple(
        (base.double() + cases.tensor(rng.integers(-6, 7, size) / 256)).to(dtypes[1 + i])
        for i in range(count)
    )
    return Deltas(base, others)


def _masks(kind: str, deltas: Deltas) -> Masks | None:
    size = deltas.base.numel()
    step = 1 / 256
    if kind == "trimmed":
        cuts = [Cut(2 * step, size // 9), Cut(3 * step, 0), EVERYTHING]
        return Bands(tuple(Band(cut) for cut in cuts))
    if kind == "banded":
        bands = [
            Band(Cut(step, size // 7), Cut(5 * step, size // 50)),
            Band(Cut(2 * step), Cut(4 * step)),
            Band(EVERYTHING, NOTHING),
        ]
        return Bands(tuple(bands))
    if kind == "drawn":
        return Chances(KEYS, (20_000, 65_536, 0))
    if kind in ("ranked", "unbiased"):
        rng = np.random.default_rng(1)
        ranks = [torch.from_numpy(rng.integers(0, 256, size).astype(np.uint8)) for _ in range(3)]
        chances = (0.2, 1.0, -0.1), (0.9, 1.0, 1.1)
        return RankedChances(KEYS, tuple(ranks), *chances, kind == "unbiased")
    return None


def _same(run: Callable[[Kernels, torch.Tensor], None], size: int, dtype: torch.dtype) -> None:
    found = []
    for kernels in (BLOCKWISE, COMPILED):
        out = torch.full((size,), torch.nan, dtype=dtype)
        run(kernels, out)
        found.append(out)
    torch.testing.assert_close(found[1], found[0], rtol=0.0, atol=0.0, equal_nan=True)
    assert not found[0].isnan().any()


BF16 = (torch.bfloat16,) * 4
MASKS = ("none", "trimmed", "banded", "drawn", "ranked", "unbiased")


@pytest.mark.parametrize("kind", MASKS)
def test_sums(kind: str) -> None:
    for size in SIZES:
        plain = _deltas(size, 3, BF16)
        deltas = Deltas(plain.base, plain.others, _masks(kind, plain))
        _same(lambda k, out, d=deltas: k.add_sum(d, FACTORS, 1.0, out), size, torch.bfloat16)


@pytest.mark.parametrize("kind", ["trimmed", "drawn", "ranked", "unbiased"])
def test_elections(kind: str) -> None:
    for size in SIZES:
        plain = _deltas(size, 3, BF16)
        deltas = Deltas(plain.base, plain.others, _masks(kind, plain))

        def run(kernels: Kernels, out: torch.Tensor, deltas: Deltas = deltas) -> None:
            kernels.add_elected(deltas, FACTORS, FACTORS, -1.3, out)

        _same(run, size, torch.bfloat16)


@pytest.mark.parametrize("kind", ["none", "drawn", "ranked"])
def test_l1_norms(kind: str) -> None:
    for size in SIZES:
        plain = _deltas(size, 3, BF16)
        deltas = Deltas(plain.base, plain.others, _masks(kind, plain))
        norms = [kernels.l1_norms(deltas) for kernels in (BLOCKWISE, COMPILED)]
        assert norms[1] == pytest.approx(norms[0], rel=1e-6)


@pytest.mark.parametrize("divisor", [1.0, 1.7])
def test_weighted_sums_and_means(divisor: float) -> None:
    for size in SIZES:
        d = _deltas(size, 3, BF16)

        def combine(kernels: Kernels, out: torch.Tensor, d: Deltas = d) -> None:
            kernels.weighted_sum((d.base, *d.others), (0.2, *FACTORS), divisor, out)

        _same(combine, size, torch.bfloat16)
        _same(lambda k, out, d=d: k.add_sum(d, FACTORS, divisor, out), size, torch.bfloat16)


def test_elections_without_division() -> None:
    for size in SIZES:
        plain = _deltas(size, 3, BF16)
        deltas = Deltas(plain.base, plain.others, _masks("drawn", plain))
        _same(
            lambda k, out, d=deltas: k.add_elected(d, FACTORS, (), 0.4, out), size, torch.bfloat16
        )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_floats_and_counts(count: int, dtype: torch.dtype) -> None:
    deltas = _deltas(SIZES[0], count, (dtype,) * 4)
    bands = Bands(tuple(Band(Cut(2 / 256, 100)) for _ in range(count)))
    kept = Deltas(deltas.base, deltas.others, bands)
    factors = FACTORS[:count]
    _same(lambda k, out, f=factors: k.add_elected(kept, f, f, 1.0, out), SIZES[0], dtype)


def test_mixed_floats_and_many_parents() -> None:
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float32, torch.bfloat16)
    deltas = _deltas(SIZES[0], 4, dtypes)
    factors = (*FACTORS, 0.5)
    _same(lambda k, out: k.add_sum(deltas, factors, 1.0, out), SIZES[0], torch.float16)


def test_float64_is_left_to_the_blockwise_kernels() -> None:
    deltas = _deltas(100, 2, (torch.bfloat16, torch.float64, torch.bfloat16))
    _same(lambda k, out: k.add_sum(deltas, (0.1, 0.2), 1.0, out), 100, torch.float64)


@pytest.mark.parametrize("spare", [0, 1, 40, 10**6])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_selections(spare: int, dtype: torch.dtype) -> None:
    deltas = _deltas(SIZES[0], 3, (dtype,) * 4)
    shares = (0.5, 0.3, 0.2)
    counts = BLOCKWISE.variance_digits(deltas).counts
    common = int(counts.argmax())
    assert int(counts[common]) > 50
    for digit in (-1, 0, common, 0x7F80):
        selected = Leading(digit, spare)
        _same(lambda k, out, s=selected: k.add_selected(deltas, s, shares, out), SIZES[0], dtype)


@pytest.mark.parametrize("kernels", [BLOCKWISE, COMPILED], ids=["blockwise", "compiled"])
def test_a_selection_has_an_exact_size(kernels: Kernels) -> None:
    deltas = _deltas(SIZES[0], 3, (torch.float32,) * 4)
    counts = kernels.variance_digits(deltas).counts
    digit = int(counts.argmax())
    above, out = int(counts[digit + 1 :].sum()), torch.empty(SIZES[0])
    for spare in (0, 1, int(counts[digit])):
        kernels.add_selected(deltas, Leading(digit, spare), (0.5, 0.3, 0.2), out)
        assert int((out != deltas.base).sum()) == above + spare


def test_gram_matrices() -> None:
    for size in SIZES:
        deltas = _deltas(size, 3, BF16)
        one, two = (kernels.gram(deltas) for kernels in (BLOCKWISE, COMPILED))
        torch.testing.assert_close(two, one, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("prefix", [None, 0x3B80 << 16])
def test_histograms(prefix: int | None) -> None:
    shift = 16 if prefix is None else 0
    for dtype in (torch.bfloat16, torch.float32):
        d = _deltas(SIZES[0], 3, (dtype,) * 4)
        one, two = (k.magnitude_digits(d.base, d.others[0], shift, prefix) for k in KERNELS)
        assert torch.equal(one.counts, two.counts)
        assert int(one.counts.sum()) > 0
        torch.testing.assert_close(two.sums[1::2], one.sums[1::2], rtol=1e-13, atol=0.0)


def test_histograms_of_variances() -> None:
    d = _deltas(SIZES[0], 3, BF16)
    one, two = (k.variance_digits(d) for k in KERNELS)
    assert int(one.counts.sum()) == SIZES[0]
    assert torch.equal(one.counts, two.counts)
    torch.testing.assert_close(two.sums, one.sums, rtol=1e-13, atol=0.0)


KERNELS = (BLOCKWISE, COMPILED)


@given(bits=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=40))
@settings(deadline=None, max_examples=60)
def test_every_16_bit_float_survives_the_way_to_float32_and_back(bits: list[int]) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        pattern = torch.from_numpy(np.array(bits, np.uint16).view(np.int16)).view(dtype)
        finite = torch.where(pattern.isfinite(), pattern, torch.zeros_like(pattern))
        _same(lambda k, out, x=finite: k.weighted_sum((x,), (1.0,), 1.0, out), len(bits), dtype)


@given(values=st.lists(st.floats(width=32), min_size=1, max_size=40))
@settings(deadline=None, max_examples=150)
def test_rounding_to_16_bits_is_torchs(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        out = torch.empty(len(values), dtype=dtype)
        COMPILED.weighted_sum((x,), (1.0,), 1.0, out)
        torch.testing.assert_close(out, x.to(dtype), rtol=0.0, atol=0.0, equal_nan=True)


@pytest.mark.parametrize("kernels", KERNELS, ids=["blockwise", "compiled"])
@pytest.mark.parametrize("kind", MASKS)
def test_nan_in_a_parent_reaches_the_result(kind: str, kernels: Kernels) -> None:
    plain = _deltas(100, 3, BF16)
    for index in range(3):
        others = [other.clone() for other in plain.others]
        others[index][40] = torch.nan
        deltas = Deltas(plain.base, tuple(others), _masks(kind, plain))
        out, seen = torch.empty(100, dtype=torch.bfloat16), []
        kernels.add_sum(deltas, FACTORS, 1.0, out)
        seen.append(out.clone())
        kernels.add_elected(deltas, FACTORS, FACTORS, 1.0, out)
        seen.append(out.clone())
        if kind in ("none", "trimmed", "banded"):
            assert [int(found.isnan().nonzero()[0]) for found in seen] == [40, 40]
        kernels.add_selected(plain, ALL_DIGITS, (0.5, 0.3, 0.2), out)
        assert not out.isnan().any()
        kernels.add_selected(Deltas(plain.base, tuple(others)), Leading(5), (0.5, 0.3, 0.2), out)
        assert out.isnan().nonzero().flatten().tolist() == [40]
