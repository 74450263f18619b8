"""The methods that select elements by comparing parents: SCE, RAM and Arcee Fusion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.method import Parents, Values
from tests.merge import cases, reference, reference_elements
from tests.merge.merging import merge

pytestmark = pytest.mark.usefixtures("block_size")
seeds = st.integers(0, 10**6)
scales = st.sampled_from([1e-4, 0.1])


def _parents(
    seed: int, scale: float, count: int, *, dtype: torch.dtype = torch.float32, rows: int = 7
) -> Parents:
    """Gaussian task vectors with zeros among them, alike in all parents and in one only."""
    rng = np.random.default_rng(seed)
    base = cases.tensor(0.5 * rng.standard_normal((rows, 11)))
    common = rng.random(base.shape) < 0.1
    others = []
    for _ in range(count):
        noise = scale * rng.standard_normal(base.shape) * (rng.random(base.shape) < 0.7)
        others.append((base + cases.tensor(np.where(common, scale, noise))).to(dtype))
    return Parents(base.to(dtype), tuple(others), cases.STREAMS[:count])


def _change(name: str, deltas: list[list[float]], values: Values) -> list[float]:
    base = torch.zeros(len(deltas[0]), dtype=torch.float64)
    others = tuple(torch.tensor(d, dtype=torch.float64) for d in deltas)
    found: list[float] = merge(
        name, Parents(base, others, cases.STREAMS[: len(others)]), values
    ).tolist()
    return found


def _sce(topk: float, count: int) -> Values:
    return Values({"select_topk": topk, "energy_floor": 1e-6, "int8_mask": False}, ({},) * count)


@pytest.mark.parametrize("topk", [-1.0, 0.0, 0.01, 0.3, 0.9, 1.0, 1.5])
@given(seed=seeds, scale=scales, count=st.integers(1, 4))
@settings(deadline=None, max_examples=12)
def test_sce(topk: float, seed: int, scale: float, count: int) -> None:
    parents = _parents(seed, scale, count, dtype=torch.float64)
    out = merge("sce", parents, _sce(topk, count))
    reference.check(out, reference_elements.sce(parents, topk), work=torch.float64)


def test_sce_counts_elements_that_vary() -> None:
    # Four of eight elements vary; half of those are two, and of equal ones the first two.
    one = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    two = [1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 4.0]
    assert _change("sce", [one, two], _sce(0.5, 2))[:4] == [0.0] * 4
    assert _change("sce", [one, two], _sce(0.5, 2))[4:] == pytest.approx([3.6, 3.6, 0.0, 0.0])
    assert _change("sce", [one, one], _sce(0.5, 2)) == [0.0] * 8


def test_sce_with_small_task_vectors_weighs_parents_equally() -> None:
    found = _change("sce", [[1e-4, -3e-4], [3e-4, 1e-4]], _sce(1.0, 2))
    assert found == pytest.approx([2e-4, -3e-4])


def test_sce_of_equal_float32_task_vectors_sees_no_variance() -> None:
    parents = cases.random_parents(1, 100)
    three = Parents(parents.base, parents.others * 3, (1, 2, 3))
    assert parents.base is not None
    assert torch.equal(merge("sce", three, _sce(0.5, 3)), parents.base)


@pytest.mark.parametrize("name", ["ram", "ramplus_tl"])
@pytest.mark.parametrize("dtype", cases.FLOATS)
@given(seed=seeds, scale=scales, count=st.integers(1, 4), epsilon=st.sampled_from([0.0, 7.3e-5]))
@settings(deadline=None, max_examples=20)
def test_ram(
    name: str, dtype: torch.dtype, seed: int, scale: float, count: int, epsilon: float
) -> None:
    parents = _parents(seed, scale, count, dtype=dtype)
    values = Values({"epsilon": epsilon, "r": 0.5, "alpha": 2.0}, ({},) * count)
    want = reference_elements.ram(parents, values, plus=name == "ramplus_tl")
    reference.check(merge(name, parents, values, torch.float32), want)


def test_ramplus_gains_by_hand() -> None:
    deltas = [[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 3.0, 1.0]]
    shared = {"epsilon": 1e-5, "r": 0.5, "alpha": 0.8}
    found = _change("ramplus_tl", deltas, Values(shared, ({}, {})))
    assert found == pytest.approx([1.25, 1.25, 2.0, 1.4])
    assert _change("ram", deltas, Values(shared, ({}, {}))) == pytest.approx([1.0, 1.0, 2.0, 1.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@given(seed=seeds, scale=scales, rows=st.integers(1, 12))
@settings(deadline=None, max_examples=10)
def test_arcee_fusion(dtype: torch.dtype, seed: int, scale: float, rows: int) -> None:
    parents = _parents(seed, scale, 1, dtype=dtype, rows=rows)
    out = merge("arcee_fusion", parents, Values({}, ({},)))
    assert np.array_equal(reference.flat(out), reference_elements.arcee_fusion(parents).value)


def test_arcee_fusion_of_mostly_equal_tensors_takes_all() -> None:
    base = torch.zeros(100)
    other = base.clone()
    other[:10] = 1.0
    out = merge("arcee_fusion", Parents(base, (other,), (1,)), Values({}, ({},)))
    assert torch.equal(out, other)
