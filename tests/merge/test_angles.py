"""The methods with norms and angles, and NearSwap, against the reference and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.method import Parents, Values
from evomerge.recipe import Scalar
from tests.merge import cases, reference, reference_angles
from tests.merge.merging import merge

pytestmark = pytest.mark.usefixtures("block_size")
SPANS = ("model_stock", "nuslerp", "multislerp")
FLAGS = {"filter_wise": True, "nuslerp_flatten": False, "nuslerp_row_wise": False}


def _values(name: str, weights: list[float], flags: dict[str, bool]) -> Values:
    plain = cases.declared(name, len(weights))
    shared: dict[str, Scalar] = {k: flags.get(k, v) for k, v in plain.shared.items()}
    named = "weight" in (plain.models[0] if plain.models else {})
    return Values(shared, tuple({"weight": w} if named else {} for w in weights))


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("flags", [{}, FLAGS, FLAGS | {"nuslerp_row_wise": True}])
@given(
    data=st.data(),
    shape=st.sampled_from([(40,), (5, 40), (40, 6), (3, 20, 30)]),
    dtype=st.sampled_from(cases.FLOATS),
)
@settings(deadline=None, max_examples=12)
def test_spans(
    name: str,
    flags: dict[str, bool],
    data: st.DataObject,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    count = 2 if name == "nuslerp" else data.draw(st.integers(2, 4))
    weights = data.draw(st.lists(st.floats(0.1, 2.0), min_size=count, max_size=count))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    tensors = [cases.tensor(rng.standard_normal(shape)).to(dtype) for _ in range(count + 1)]
    parents = Parents(tensors[0], tuple(tensors[1:]), cases.STREAMS[:count])
    values = _values(name, weights, flags)
    want = reference_angles.expected(name, parents, values)
    reference.check(merge(name, parents, values, torch.float32), want)


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize("flags", [{}, FLAGS, FLAGS | {"nuslerp_row_wise": True}])
@pytest.mark.parametrize(
    "deltas",
    [
        [[0.0, 0.0], [0.0, 0.0]],
        [[1.0, 2.0], [0.0, 0.0]],
        [[1.0, 2.0], [1.0, 2.0]],
        [[1.0, 2.0], [-1.0, -2.0]],
        [[1e-4, 0.0], [1e-4, 1e-4]],
        [[3.0, 4.0], [-4.0, 3.0]],
    ],
)
def test_odd_task_vectors(name: str, flags: dict[str, bool], deltas: list[list[float]]) -> None:
    base = torch.tensor([[0.5, -0.25]], dtype=torch.float64)
    others = tuple(base + torch.tensor([d], dtype=torch.float64) for d in deltas)
    parents = Parents(base, others, (1, 2))
    values = _values(name, [0.5, 0.5], flags)
    want = reference_angles.expected(name, parents, values)
    np.testing.assert_allclose(reference.flat(merge(name, parents, values)), want.value, rtol=1e-9)


def _change(name: str, deltas: list[list[float]], weights: list[float]) -> list[float]:
    base = torch.zeros(len(deltas[0]), dtype=torch.float64)
    others = tuple(torch.tensor(d, dtype=torch.float64) for d in deltas)
    parents = Parents(base, others, cases.STREAMS[: len(others)])
    found: list[float] = merge(name, parents, _values(name, weights, {})).tolist()
    return found


def test_model_stock_extrapolates_from_task_vectors_that_oppose() -> None:
    # The cosine is -0.6, so that t = 2 (-0.6) / (1 - 0.6) = -3.
    assert _change("model_stock", [[1.0, 0.0], [-0.6, 0.8]], [1, 1]) == pytest.approx([-0.6, -1.2])


def test_model_stock_of_exact_opposites_is_the_base() -> None:
    assert _change("model_stock", [[1.0, 2.0], [-1.0, -2.0]], [1, 1]) == [0.0, 0.0]


def test_model_stock_of_tiny_task_vectors_shrinks_to_the_base() -> None:
    # Norms of 1e-4 multiply to a hundredth of the floor: the cosine counts as 0.01.
    t = 2 * 0.01 / 1.01
    assert _change("model_stock", [[1e-4], [1e-4]], [1, 1]) == pytest.approx([t * 1e-4])


def test_nuslerp_weights_that_cancel_meet_halfway() -> None:
    half = 0.5**0.5
    assert _change("nuslerp", [[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]) == pytest.approx([half, half])


def test_nuslerp_rows_and_columns() -> None:
    base = torch.zeros(2, 2)
    one, two = torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor([[0.0, 1.0], [2.0, 0.0]])
    parents = Parents(base, (one, two), (1, 2))
    half = 0.5**0.5
    rows = merge("nuslerp", parents, _values("nuslerp", [1.0, 1.0], FLAGS))
    torch.testing.assert_close(rows, torch.tensor([[half, half], [2.0, 0.0]]))
    columns = _values("nuslerp", [1.0, 1.0], FLAGS | {"nuslerp_row_wise": True})
    theta = np.arccos(2.0 / 5**0.5)
    share = np.sin(theta / 2) / np.sin(theta)
    torch.testing.assert_close(
        merge("nuslerp", parents, columns),
        torch.tensor([[share, half], [4 * share, 0.0]], dtype=torch.float32),
    )


def test_multislerp_of_one_parent_copies_it() -> None:
    assert _change("multislerp", [[3.0, 4.0]], [0.25]) == [3.0, 4.0]


@pytest.mark.parametrize(
    ("deltas", "weights", "change"),
    [
        ([[2.0, 0.0], [-4.0, 0.0]], [0.5, 0.5], [-1.0, 0.0]),
        ([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [1.0, 1.0, 1.0], [0.0, 0.0]),
        ([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]], [1.0, 1.0, 1.0], [0.0, 0.0]),
    ],
)
def test_multislerp_without_a_mean_direction_adds_the_weighted_sum(
    deltas: list[list[float]], weights: list[float], change: list[float]
) -> None:
    assert _change("multislerp", deltas, weights) == pytest.approx(change, abs=1e-12)


def test_multislerp_is_the_step_in_the_tangent_space() -> None:
    parents = cases.random_parents(3, 200, dtype=torch.float64)
    values = _values("multislerp", [0.2, 0.7, 0.4], {})
    want = reference_angles.multislerp_by_tangents(parents, values)
    np.testing.assert_allclose(
        reference.flat(merge("multislerp", parents, values)), want, rtol=1e-9
    )


@pytest.mark.parametrize("max_iter", [0, 1, 10])
@pytest.mark.parametrize("tol", [1e-5, 0.3, 1e9])
@given(seed=st.integers(0, 10**6), count=st.integers(1, 4), dtype=st.sampled_from(cases.FLOATS))
@settings(deadline=None, max_examples=12)
def test_karcher(max_iter: int, tol: float, seed: int, count: int, dtype: torch.dtype) -> None:
    # Away from collinear parents, where the result hangs on the last bits of the cosines.
    rng = np.random.default_rng(seed)
    others = tuple(cases.tensor(rng.standard_normal((6, 7))).to(dtype) for _ in range(count))
    parents = Parents(None, others, cases.STREAMS[:count])
    values = Values({"max_iter": max_iter, "tol": tol}, ({},) * len(parents.others))
    want = reference_angles.karcher(parents, values)
    reference.check(merge("karcher", parents, values, dtype), want)


def test_karcher_of_two_is_half_of_the_great_circle() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0])
    values = cases.declared("karcher", 2)
    found = merge("karcher", Parents(None, (a, b), (1, 2)), values)
    torch.testing.assert_close(found, torch.tensor([3.0, 3.0]) * 0.5**0.5)
    opposite = merge("karcher", Parents(None, (a, -a), (1, 2)), values)
    torch.testing.assert_close(opposite, a)


@given(
    parents=cases.parents(high=1),
    t=st.sampled_from([-1.0, 0.0, 1e-7, 1e-3, 0.05, 2.0]),
    dtype=st.sampled_from(cases.FLOATS),
)
@settings(deadline=None, max_examples=60)
def test_nearswap(parents: Parents, t: float, dtype: torch.dtype) -> None:
    out = merge("nearswap", parents, Values({"t": t}, ({},)), dtype)
    reference.check(out, reference_angles.nearswap(parents, t))
    if t <= 0.0:
        assert parents.base is not None
        assert torch.equal(out, parents.base.to(dtype))


def test_nearswap_moves_by_at_most_t() -> None:
    base = torch.tensor([1.0, 1.0, 1.0])
    other = torch.tensor([1.5, 0.75, 1.125])
    out = merge("nearswap", Parents(base, (other,), (1,)), Values({"t": 0.25}, ({},)))
    assert out.tolist() == [1.25, 0.75, 1.125]
