"""Laws beyond single values: order of parents, nested masks, realised densities, equal bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.method import Parents, Values
from evomerge.recipe import Scalar
from evomerge.signatures import SIGNATURES, Base
from tests.merge import cases
from tests.merge.merging import merge

SYMMETRIC = ("sce", "model_stock", "multislerp", "karcher", "ram", "ramplus_tl", "nuslerp")
SPARSIFYING = tuple(name for name in cases.TASK_VECTOR_METHODS if name != "task_arithmetic")
EXACT = ("ties", "breadcrumbs", "breadcrumbs_ties")
RANDOM = ("dare_linear", "dare_ties", "della_linear", "della")
DENSITIES = (0.0, 1e-6, 0.05, 0.2, 0.201, 0.5, 0.8)


def _values(weights: list[float], density: float, *, seed: int = 0) -> Values:
    """Plain sums with DELLA's chances within 0.05 of the density."""
    plain = cases.values(weights, [density] * len(weights), gamma=0.0, seed=seed)
    return Values(plain.shared, tuple({**model, "epsilon": 0.05} for model in plain.models))


def _tied_bfloat16(size: int) -> Parents:
    """A fine-tune in bfloat16: a few hundred different magnitudes, none of them zero."""
    rng = np.random.default_rng(1)
    steps = rng.integers(1, 40, (size // 100, 100)) * rng.choice([-1, 1], (size // 100, 100))
    base = torch.zeros(steps.shape, dtype=torch.bfloat16)
    return Parents(base, (torch.as_tensor(steps / 1024).bfloat16(),), (5,))


@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_parents_changes_nothing_beyond_rounding(name: str, seed: int) -> None:
    count = 2 if name == "nuslerp" else 2 + seed
    parents = cases.random_parents(count, 210, dtype=torch.float64, seed=seed)
    order = np.random.default_rng(seed).permutation(count)
    if SIGNATURES[name].base is Base.IGNORED:
        parents = Parents(None, parents.others, parents.streams)
    swapped = Parents(
        parents.base,
        tuple(parents.others[i] for i in order),
        tuple(parents.streams[i] for i in order),
    )
    models: list[dict[str, Scalar]] = [
        {**model, "weight": 0.2 + 0.3 * index}
        for index, model in enumerate(cases.declared(name, count).models)
    ]
    shared = cases.declared(name, count).shared
    one = merge(name, parents, Values(shared, tuple(models)))
    two = merge(name, swapped, Values(shared, tuple(models[i] for i in order)))
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", cases.TASK_VECTOR_METHODS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_whole_task_vector_gives_the_bits_of_a_16_bit_parent(
    name: str, dtype: torch.dtype
) -> None:
    parents = cases.random_parents(1, 5000, dtype=dtype)
    assert torch.equal(merge(name, parents, cases.values([1.0])), parents.others[0])


@pytest.mark.parametrize("name", SPARSIFYING)
def test_masks_are_nested_in_the_density(name: str) -> None:
    parents = _tied_bfloat16(20_000)
    densities = [d for d in DENSITIES if name in EXACT or not 0.0 < d < 0.05]
    smaller = torch.zeros(parents.others[0].shape, dtype=torch.bool)
    for density in densities:
        larger = merge(name, parents, _values([1.0], density)) != 0.0
        assert not (smaller & ~larger).any(), density
        smaller = larger
    assert 0.75 < float(smaller.double().mean()) < 0.85


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("density", [0.05, 0.1, 1 / 3, 0.5, 0.777, 0.95])
@pytest.mark.parametrize("size", [10_000, 300_000])
def test_ties_in_magnitude_do_not_change_the_realised_density(
    name: str, density: float, size: int
) -> None:
    parents = _tied_bfloat16(size)
    kept = merge(name, parents, _values([1.0], density)) != 0.0
    assert float(kept.double().mean()) == pytest.approx(density, abs=1.0001 / size)


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("density", [0.1, 0.5, 0.8])
def test_random_masks_realise_the_density(name: str, density: float) -> None:
    size = 2_000_000
    kept = merge(name, _tied_bfloat16(size), _values([1.0], density)) != 0.0
    sigma = (density * (1 - density) / size) ** 0.5
    assert float(kept.double().mean()) == pytest.approx(density, abs=4 * sigma)


@pytest.mark.parametrize("name", RANDOM)
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(name: str) -> None:
    parents = cases.random_parents(3, 4000, dtype=torch.bfloat16)
    first, again, other = (
        merge(name, parents, _values([0.5, 0.8, 0.3], 0.4, seed=seed)) for seed in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
