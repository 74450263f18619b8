from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.method import Parents, Values
from evomerge.signatures import SIGNATURES, Base
from tests.merge import cases
from tests.merge.merging import merge

OPTIONAL = [s.name for s in SIGNATURES.values() if s.base is Base.OPTIONAL]


def test_two_methods_may_do_without_a_base() -> None:
    assert OPTIONAL == ["nuslerp", "multislerp"]


@pytest.mark.parametrize("name", OPTIONAL)
@given(data=st.data(), flatten=st.booleans(), row_wise=st.booleans())
@settings(max_examples=25)
def test_no_base_means_a_base_of_zeros(
    name: str, data: st.DataObject, flatten: bool, row_wise: bool
) -> None:
    parents = data.draw(cases.parents(base=False, low=2, high=2))
    shared = {"nuslerp_flatten": flatten, "nuslerp_row_wise": row_wise}
    if name == "multislerp":
        shared = {"normalize_weights": flatten, "eps": 1e-8}
    weights = data.draw(st.lists(st.floats(0.25, 2.0), min_size=2, max_size=2))
    values = Values(shared, tuple({"weight": weight} for weight in weights))
    zeros = torch.zeros_like(parents.others[0])
    based = Parents(zeros, parents.others, parents.streams)
    assert torch.equal(merge(name, parents, values), merge(name, based, values))


def test_nuslerp_walks_the_arc_between_the_tensors_themselves() -> None:
    angle = 0.7
    first = torch.tensor([2.0, 0.0], dtype=torch.float64)
    second = 2.0 * torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    values = Values(
        {"nuslerp_flatten": True, "nuslerp_row_wise": False}, ({"weight": 3.0}, {"weight": 1.0})
    )
    got = merge("nuslerp", Parents(None, (first, second), (0, 1)), values)
    expected = 2.0 * torch.tensor([math.cos(angle / 4), math.sin(angle / 4)], dtype=torch.float64)
    torch.testing.assert_close(got, expected)
