"""Realised densities on a real fine-tune in bfloat16, whose task vectors are full of ties."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.merge.reference import Array
from tests.models import read_tensors
from tests.parity.merging import ours, theirs
from tests.parity.models import NO_SMOLLM2, bfloat16_copy, smollm2_parents
from tests.parity.oracle import Oracle
from tests.parity.results import Results

SLICES = {0.1: (0, 8), 0.3: (8, 16), 0.5: (16, 24), 0.8: (24, 30)}
"""Which layers get which density."""
SMALLEST = 10_000
GAMMA, EPSILON = 0.01, 0.05
EXACT = ("ties", "breadcrumbs")
# Of some 200 tensors in a row.
SIGMAS = 4.5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    real = smollm2_parents()
    if real is None:
        pytest.skip(NO_SMOLLM2)
    root = tmp_path_factory.mktemp("models")
    return {role: bfloat16_copy(real / role, root / role) for role in ("base", "read")}


@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "dare_linear", "della_linear"])
def test_density(method: str, models: dict[str, Path], oracle: Oracle, results: Results) -> None:
    recipe = _recipe(method, models)
    merged = {"ours": ours(recipe), "theirs": theirs(oracle, recipe)}
    base, read = (read_tensors(models[role]) for role in ("base", "read"))
    for density, layers in SLICES.items():
        entry: dict[str, float] = {"requested": density}
        totals = ["size", "changeable", "expected", *merged]
        sums = dict.fromkeys(totals, 0.0)
        worst = dict.fromkeys(merged, 0.0)
        for name, delta in _deltas(base, read, layers):
            expected = _expected(method, density, delta)
            sums["size"] += delta.size
            sums["changeable"] += np.count_nonzero(delta)
            sums["expected"] += expected
            for who, tensors in merged.items():
                kept = int((tensors[name] != base[name].float()).sum())
                sums[who] += kept
                gap = abs(kept - expected)
                worst[who] = max(worst[who], gap / delta.size)
                allowed = 1.0 if method in EXACT else SIGMAS * (density * delta.size) ** 0.5
                assert gap <= allowed, (who, name, kept, expected)
        entry |= {f"share_{key}": value / sums["size"] for key, value in sums.items()}
        entry |= {f"worst_tensor_{who}": gap for who, gap in worst.items()}
        results.add("densities", f"{method}, density {density}", entry)


def _recipe(method: str, models: dict[str, Path]) -> dict[str, Any]:
    base, read = str(models["base"]), str(models["read"])
    more = {"breadcrumbs": {"gamma": GAMMA}, "della_linear": {"epsilon": EPSILON}}.get(method, {})
    slices = [
        {
            "sources": [
                {"model": base, "layer_range": list(layers)},
                {
                    "model": read,
                    "layer_range": list(layers),
                    "parameters": {"weight": 1.0, "density": density, **more},
                },
            ]
        }
        for density, layers in SLICES.items()
    ]
    return {
        "merge_method": method,
        "base_model": base,
        "slices": slices,
        "parameters": {"normalize": False, "rescale": False},
        "dtype": "float32",
    }


def _deltas(
    base: dict[str, torch.Tensor], read: dict[str, torch.Tensor], layers: tuple[int, int]
) -> Iterator[tuple[str, Array]]:
    """Task vectors of the larger tensors in a range of layers."""
    for layer in range(*layers):
        for name in (name for name in base if name.startswith(f"model.layers.{layer}.")):
            if base[name].numel() >= SMALLEST:
                yield name, (read[name].float() - base[name].float()).double().numpy()


def _expected(method: str, density: float, delta: Array) -> float:
    """How many elements differ from the base; keeping an unchanged one changes nothing."""
    keep, changed = int(density * delta.size), int(np.count_nonzero(delta))
    if method == "ties":
        return min(keep, changed)
    if method == "breadcrumbs":
        return min(keep, changed - int(GAMMA * delta.size))
    if method == "dare_linear":
        return density * changed
    # Unchanged elements have the lowest ranks of their row.
    length = delta.shape[1]
    unchanged = (delta == 0.0).sum(axis=1)
    chance = density - EPSILON + 2 * EPSILON * np.arange(length) / (length - 1)
    return float(sum(chance[count:].sum() for count in unchanged))
