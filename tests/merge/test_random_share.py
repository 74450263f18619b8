"""DARE's masks: the words behind them, their statistics, and the rescaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evomerge.merge.blockwise import walk
from evomerge.merge.blockwise.draws import Draws
from evomerge.merge.drawing import mask_key
from evomerge.merge.method import Parents
from tests.merge import cases, reference
from tests.merge.merging import merge

SIZE = 300_001


def _kept(density: float, *, seed: int = 0, stream: int = 7, size: int = SIZE) -> torch.Tensor:
    parents = Parents(torch.zeros(size), (torch.ones(size),), (stream,))
    out = merge("dare_linear", parents, cases.values([1.0], [density], seed=seed))
    assert bool(((out == 0.0) | (out == 1.0)).all())
    return out.bool()


FROZEN = {
    # (seed, stream, parent, flat index): draw
    (0, 0, 0, 0): 0x8358,
}


@pytest.mark.parametrize(("place", "expected"), FROZEN.items())
def test_draws_are_frozen(place: tuple[int, int, int, int], expected: int) -> None:
    seed, stream, index, element = place
    assert reference.draw(seed, (stream,), index, element) == expected
    draws = Draws(1 << 17, torch.device("cpu"))
    offset = element % (1 << 17)
    found = draws.of(mask_key(seed, stream), element - offset, 1 << 17, low_half=index == 1)
    assert int(found[offset]) == expected


@pytest.mark.parametrize("stream", cases.STREAMS)
@pytest.mark.parametrize("density", [1e-3, 0.3, 0.5, 0.9])
def test_masks_compare_draws_with_the_density(stream: int, density: float) -> None:
    size = 2000
    expected = reference.random_keep(4, (stream,), 0, density, size)
    assert np.array_equal(_kept(density, seed=4, stream=stream, size=size).numpy(), expected)


def test_masks_beyond_the_first_block_follow_the_flat_index() -> None:
    kept = _kept(0.5, seed=2)
    for index in (0, 131_071, 131_072, 262_143, 262_144, SIZE - 1):
        assert bool(kept[index]) == (reference.draw(2, (7,), 0, index) < 2**15)


def test_masks_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = _kept(0.3, size=5000)
    for size in (8, 1024):
        monkeypatch.setattr(walk, "_CPU_BLOCK", size)
        assert torch.equal(_kept(0.3, size=5000), kept)


def test_masks_are_reproducible_and_differ_between_seeds_and_streams() -> None:
    kept = _kept(0.5)
    assert torch.equal(kept, _kept(0.5))
    for other in (_kept(0.5, seed=1), _kept(0.5, stream=8), _kept(0.5, stream=7 + 2**32)):
        agreement = float((kept == other).double().mean())
        assert agreement == pytest.approx(0.5, abs=4 * 0.5 / SIZE**0.5)


def test_masks_of_neighbours_are_unrelated() -> None:
    kept = _kept(0.5).double() - 0.5
    for lag in (1, 2, 3, 64, 576, 4096, 131_072):
        correlation = 4 * float((kept[lag:] * kept[:-lag]).mean())
        assert abs(correlation) < 4 / (SIZE - lag) ** 0.5, lag


def test_masks_are_nested_in_the_density() -> None:
    smaller = torch.zeros(SIZE, dtype=torch.bool)
    for density in (1e-6, 1e-3, 0.1, 0.3, 0.30078125, 0.9, 1 - 1e-5, 1.0):
        larger = _kept(density)
        assert not (smaller & ~larger).any()
        smaller = larger
    assert smaller.all()
    assert not _kept(0.0).any()


@pytest.mark.parametrize("density", [1e-4, 0.1, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_that_survives(density: float, dtype: torch.dtype) -> None:
    ones = torch.ones(SIZE, dtype=dtype)
    kept = 0.0
    for seed in range(4):
        parents = Parents(torch.zeros_like(ones), (ones,), (seed,))
        kept += float(
            merge("dare_linear", parents, cases.values([1.0], [density], seed=seed)).double().sum()
        )
    sigma = (density * (1 - density) / (4 * SIZE)) ** 0.5
    assert kept / (4 * SIZE) == pytest.approx(density, abs=4 * sigma)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rescaling_gives_the_l1_norm_back(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    delta = cases.tensor(1e-3 * rng.standard_normal(SIZE)).to(dtype)
    parents = Parents(torch.zeros_like(delta), (delta,), (7,))
    values = cases.values([1.0], [0.3], rescale=True)
    out = merge("dare_linear", parents, values, torch.float64)
    assert float(out.abs().sum()) == pytest.approx(float(delta.double().abs().sum()), rel=3e-7)
    assert torch.equal(out != 0, _kept(0.3) & (delta != 0))


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties"])
def test_the_mean_over_seeds_is_the_task_vector(name: str) -> None:
    delta = cases.tensor(np.random.default_rng(1).standard_normal(500))
    parents = Parents(torch.zeros_like(delta), (delta,), (7,))
    draws = 400
    total = torch.zeros_like(delta)
    for seed in range(draws):
        total += merge(name, parents, cases.values([1.0], [0.4], rescale=True, seed=seed))
    slope = float((total / draws * delta).sum() / (delta * delta).sum())
    assert slope == pytest.approx(1.0, abs=0.02)
    # One element's mean has a standard deviation of |d| sqrt((1-p)/(p draws)) = 0.061 |d|.
    assert float(((total / draws - delta) / delta).abs().max()) < 5 * 0.061 + 0.01
