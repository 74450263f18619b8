"""Methods on compiled kernels: what they hand to a pass is what the pass can take."""

from __future__ import annotations

import pytest
import torch

from evomerge.merge.method import Values
from tests.merge import cases
from tests.merge.merging import merged_by

DENSITIES = (0.0, 1e-6, 0.3, 1.0)


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
def test_every_pair_of_densities(name: str) -> None:
    parents = cases.random_parents(2, 3000, dtype=torch.bfloat16)
    for first in DENSITIES:
        for second in DENSITIES:
            values = cases.values([0.7, -0.4], [first, second])
            one, two = (merged_by(k, name, parents, values) for k in ("blockwise", "compiled"))
            assert torch.equal(one, two), (first, second)


@pytest.mark.parametrize(
    "name", ["slerp", "karcher", "nuslerp", "multislerp", "model_stock", "sce"]
)
def test_methods_of_angles_and_energies(name: str) -> None:
    count = 1 if name == "slerp" else 2
    parents = cases.random_parents(count, 3000, dtype=torch.bfloat16)
    values: Values = cases.declared(name, count)
    one, two = (merged_by(k, name, parents, values).float() for k in ("blockwise", "compiled"))
    torch.testing.assert_close(one, two, rtol=2.0**-7, atol=0.0)
    assert float((one != two).float().mean()) < 1e-3
