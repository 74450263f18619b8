"""Every method against the slow float64 reference, over shapes, dtypes and odd task vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evomerge.merge.method import Parents, Values
from evomerge.recipe import STACK
from evomerge.signatures import SIGNATURES, Base
from tests.merge import cases, reference
from tests.merge.merging import METHODS, merge

pytestmark = pytest.mark.usefixtures("block_size")
out_dtypes = st.sampled_from([*cases.FLOATS, torch.float64])


def test_every_signature_has_arithmetic_and_every_arithmetic_a_signature() -> None:
    assert set(METHODS) == set(SIGNATURES) - {STACK}


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
@given(data=st.data(), parents=cases.parents(), dtype=out_dtypes)
@settings(deadline=None, max_examples=50)
def test_task_vectors(name: str, data: st.DataObject, parents: Parents, dtype: torch.dtype) -> None:
    values = data.draw(cases.task_vector_values(len(parents.others)))
    reference.check(
        merge(name, parents, values, dtype), reference.task_vectors(name, parents, values)
    )


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
@given(data=st.data(), parents=cases.parents(floats=(torch.float64,)), dtype=out_dtypes)
@settings(deadline=None, max_examples=15)
def test_task_vectors_of_float64(
    name: str, data: st.DataObject, parents: Parents, dtype: torch.dtype
) -> None:
    values = data.draw(cases.task_vector_values(len(parents.others)))
    out = merge(name, parents, values, dtype)
    expected = reference.task_vectors(name, parents, values)
    if name in cases.VOTING_METHODS:
        # The reference sums in float64 too, so it cannot call a vote decided at its own last bits.
        assume(np.array_equal(expected.value, expected.other))
    reference.check(out, expected, work=torch.float64)


@given(data=st.data(), parents=cases.parents(base=False), dtype=out_dtypes)
@settings(deadline=None, max_examples=60)
def test_linear(data: st.DataObject, parents: Parents, dtype: torch.dtype) -> None:
    weights = data.draw(st.lists(cases.weights, min_size=len(parents.others), max_size=4))
    weights = weights[: len(parents.others)]
    normalize = data.draw(st.booleans())
    values = Values({"normalize": normalize}, tuple({"weight": w} for w in weights))
    out = merge("linear", parents, values, dtype)
    if normalize and sum(weights) == 0.0:
        assert not out.isfinite().any()
        return
    divisor = sum(weights) if normalize else 1.0
    want = reference.weighted_sum(parents, weights, divisor)
    finite = np.abs(want.value).max() < torch.finfo(dtype).max
    assume(finite)
    reference.check(out, want)


_FACTORS = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-2.0, 2.0))


@given(parents=cases.parents(base=False, high=1), scale=_FACTORS, shift=_FACTORS, dtype=out_dtypes)
@settings(deadline=None, max_examples=40)
def test_passthrough(parents: Parents, scale: float, shift: float, dtype: torch.dtype) -> None:
    values = Values({}, ({"scale": scale, "shift": shift},))
    out = merge("passthrough", parents, values, dtype)
    ones = torch.ones_like(parents.others[0])
    both = Parents(None, (parents.others[0], ones), (0, 1))
    reference.check(out, reference.weighted_sum(both, [scale, shift]))
    if (scale, shift) == (1.0, 0.0):
        assert torch.equal(out, parents.others[0].to(dtype))


def test_a_shift_is_added_before_the_only_rounding() -> None:
    # 2^-9 is half of what bfloat16 can tell from 1; added after a rounding it would be lost.
    parents = Parents(None, (torch.tensor([2.0**-9], dtype=torch.bfloat16),), (0,))
    values = Values({}, ({"scale": 1.5, "shift": 1.0},))
    assert float(merge("passthrough", parents, values, torch.float32)) == 1.0 + 1.5 * 2.0**-9
    assert float(merge("passthrough", parents, values, torch.bfloat16)) == 1.0
    doubled = Values({}, ({"scale": 3.0, "shift": 1.0},))
    assert float(merge("passthrough", parents, doubled, torch.bfloat16)) == 1.0 + 2.0**-7


@given(parents=cases.parents(high=1), t=st.floats(-0.5, 1.5), dtype=out_dtypes)
@settings(deadline=None, max_examples=80)
def test_slerp(parents: Parents, t: float, dtype: torch.dtype) -> None:
    factors, cosine = reference.slerp_factors(parents, t)
    assume(abs(abs(cosine) - 0.9995) > 1e-9)
    out = merge("slerp", parents, Values({"t": t}, ({},)), dtype)
    reference.check(out, reference.weighted_sum(parents, factors))


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_slerp_of_opposite_equal_zero_and_vanishing_tensors(t: float) -> None:
    a = torch.tensor([3.0, -4.0])
    values = Values({"t": t}, ({},))
    for b in (-a, a, torch.zeros(2), 1e-10 * a):
        parents = Parents(a, (b,), (0,))
        factors, _ = reference.slerp_factors(parents, t)
        reference.check(merge("slerp", parents, values), reference.weighted_sum(parents, factors))
    half = merge("slerp", Parents(torch.zeros(2), (a,), (0,)), Values({"t": 0.5}, ({},)))
    torch.testing.assert_close(half, a * 0.5**0.5)


def test_slerp_keeps_the_norm_of_unit_vectors() -> None:
    rng = np.random.default_rng(0)
    a, b = (cases.tensor(v / np.linalg.norm(v)) for v in rng.standard_normal((2, 50)))
    out = merge("slerp", Parents(a, (b,), (0,)), Values({"t": 0.37}, ({},)))
    assert float(out.norm()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
def test_without_other_parents_the_base_is_copied(name: str) -> None:
    base = torch.tensor([1.0, 2.5, -3.0], dtype=torch.bfloat16)
    assert torch.equal(merge(name, Parents(base, (), ()), cases.values([])), base)


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
def test_an_empty_tensor_stays_empty(name: str) -> None:
    parents = Parents(torch.empty(0, 3), (torch.empty(0, 3),), (1,))
    values = cases.values([1.0], [0.5], rescale=True)
    assert merge(name, parents, values).shape == (0, 3)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_memory_layout_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(1)
    signature = SIGNATURES[name]
    count = max(1, signature.minimum)
    tensors = [cases.tensor(rng.standard_normal((6, 5))).float() for _ in range(count + 1)]
    turned = [tensor.T.contiguous().T for tensor in tensors]
    plain, strided = (
        Parents(
            None if signature.base is Base.IGNORED else first, tuple(rest), cases.STREAMS[:count]
        )
        for first, *rest in (tensors, turned)
    )
    values = cases.declared(name, count)
    assert not strided.others[0].is_contiguous()
    assert torch.equal(merge(name, plain, values), merge(name, strided, values))
