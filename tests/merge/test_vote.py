"""The sign election and its divisors, by hand."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge.method import Parents, Values
from tests.merge import cases
from tests.merge.merging import merge


def _change(deltas: list[float], values: Values, name: str = "ties") -> float:
    base = torch.zeros(1, dtype=torch.float64)
    others = tuple(torch.tensor([d], dtype=torch.float64) for d in deltas)
    return float(merge(name, Parents(base, others, cases.STREAMS[: len(deltas)]), values))


@pytest.mark.parametrize("name", ["ties", "dare_ties"])
def test_an_exact_tie_elects_plus(name: str) -> None:
    for deltas in ([2.0, -2.0], [-2.0, 2.0]):
        assert _change(deltas, cases.values([1.0, 1.0]), name) == 2.0


@pytest.mark.parametrize("weight", [0.3, 0.7, 1 / 3])
def test_equal_weights_on_opposite_float32_deltas_cancel_exactly(weight: float) -> None:
    delta = 1e-3 * torch.randn(1000, generator=torch.Generator().manual_seed(0))
    parents = Parents(torch.zeros(1000), (delta, -delta), (1, 2))
    out = merge("ties", parents, cases.values([weight, weight]))
    torch.testing.assert_close(out, weight * delta.abs())


def test_the_vote_sees_weighted_values() -> None:
    assert _change([3.0, -1.0], cases.values([0.25, 1.0])) == -1.0
    assert _change([3.0, 1.0], cases.values([-1.0, 1.0])) == -3.0


def test_the_divisor_counts_only_weights_that_agree() -> None:
    assert _change([4.0, -1.0, 0.0], cases.values([0.5, 0.25, 1.0], normalize=True)) == 4.0
    assert _change([4.0, 1.0], cases.values([0.5, 0.25], normalize=True)) == 3.0


def test_normalising_weights_of_mixed_sign_can_amplify() -> None:
    assert _change([1.0, -1.0], cases.values([1.0, -0.5], normalize=True)) == 3.0


def test_agreeing_weights_that_cancel_divide_by_one() -> None:
    assert _change([1.0, -1.0], cases.values([0.5, -0.5], normalize=True)) == 1.0


def test_nobody_agrees_where_all_deltas_are_zero() -> None:
    assert _change([0.0, 0.0], cases.values([1.0, 1.0], normalize=True)) == 0.0


def test_without_a_vote_weights_that_cancel_divide_by_one() -> None:
    values = cases.values([0.5, -0.5], normalize=True)
    assert _change([1.0, -1.0], values, "task_arithmetic") == 1.0


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_reaches_the_result(name: str, bad: float) -> None:
    base = torch.zeros(5)
    broken = torch.tensor([1.0, 2.0, bad, 0.5, 0.1])
    parents = Parents(base, (broken, torch.ones(5)), (1, 2))
    # NaN survives every mask; an infinite element does when it is kept.
    density = 0.4 if name == "ties" else 1.0
    values = cases.values([1.0, 1.0], [density, 1.0], rescale=True, normalize=True)
    assert not merge(name, parents, values).isfinite().all()
