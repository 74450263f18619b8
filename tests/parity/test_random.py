"""DARE and DELLA draw other random numbers, so they are compared in distribution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.merge.layers import WEIGHTS, tensor_name
from tests.merge.reference import Array, flat
from tests.parity.checkpoints import model_name, save_checkpoint
from tests.parity.merging import ours, theirs
from tests.parity.oracle import Oracle
from tests.parity.results import Results

ROWS, COLUMNS = 250, 800
SIZE = ROWS * COLUMNS * len(WEIGHTS)
OCTILES = 8
SIGMAS = 4.5


@dataclass(frozen=True)
class Draw:
    """One slice: two identical parents of weight 1, or one."""

    density: float
    rescale: bool
    epsilon: float = 0.0
    others: int = 1


DARE = (
    Draw(0.1, False),
    Draw(0.3, True),
    Draw(0.7, False),
    Draw(0.9, True),
    Draw(0.4, False, others=2),
)
DELLA = (
    Draw(0.5, False, 0.2),
    Draw(0.3, True, 0.25),
    Draw(0.6, False, 0.01),
    Draw(0.4, False, 0.2, others=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of zeros and two parents with the same task vector."""
    root = tmp_path_factory.mktemp("random")
    for index in range(3):
        rng = np.random.default_rng(0)
        tensors = {
            tensor_name(0, weight): torch.as_tensor(
                (index > 0) * rng.standard_normal((ROWS, COLUMNS)), dtype=torch.float32
            )
            for weight in WEIGHTS
        }
        save_checkpoint(root / model_name(index), tensors, 1, seed=index)
    return root


@pytest.mark.parametrize("method", ["dare_linear", "dare_ties", "della_linear", "della"])
def test_masks(method: str, folder: Path, oracle: Oracle, results: Results) -> None:
    draws = DELLA if method.startswith("della") else DARE
    recipe = _recipe(method, draws, folder)
    merged = {"ours": ours(recipe), "theirs": theirs(oracle, recipe)}
    delta = _whole(ours(_recipe("task_arithmetic", (Draw(1.0, False),), folder)), 0)
    for index, draw in enumerate(draws):
        entry: dict[str, float] = {"requested": draw.density}
        for who, tensors in merged.items():
            share = np.round(_whole(tensors, index) / delta, 6)
            if draw.others == 2:
                entry |= {f"kept_in_both_{who}": _both(method, share, draw)}
            else:
                entry |= {f"{key}_{who}": v for key, v in _one(share, delta, draw).items()}
        label = f"epsilon {draw.epsilon}, rescale {draw.rescale}, parents {draw.others}"
        results.add("random", f"{method}, density {draw.density}, {label}", entry)


def _recipe(method: str, draws: tuple[Draw, ...], folder: Path) -> dict[str, Any]:
    slices = []
    for draw in draws:
        values = {"weight": 1.0, "density": draw.density}
        values |= {"epsilon": draw.epsilon} if draw.epsilon else {}
        sources: list[dict[str, Any]] = [{"model": str(folder / "base"), "layer_range": [0, 1]}]
        sources += [
            {"model": str(folder / model_name(i)), "layer_range": [0, 1], "parameters": values}
            for i in range(1, draw.others + 1)
        ]
        parameters = {"rescale": draw.rescale, "normalize": False}
        slices.append({"sources": sources, "parameters": parameters})
    base = str(folder / "base")
    return {"merge_method": method, "base_model": base, "slices": slices, "dtype": "float32"}


def _whole(tensors: dict[str, torch.Tensor], index: int) -> Array:
    return np.concatenate([flat(tensors[tensor_name(index, weight)]) for weight in WEIGHTS])


def _one(share: Array, delta: Array, draw: Draw) -> dict[str, float]:
    """Kept rate, L1 ratio, and how far the kept rate of an octile of ranks is from its own."""
    kept = (share != 0.0).reshape(-1, COLUMNS)
    ranks = np.abs(delta).reshape(-1, COLUMNS).argsort(axis=1).argsort(axis=1)
    chance = draw.density - draw.epsilon + 2 * draw.epsilon * ranks / (COLUMNS - 1)
    sigma = (draw.density * (1 - draw.density) / SIZE) ** 0.5
    rate = float(kept.mean())
    assert rate == pytest.approx(draw.density, abs=SIGMAS * sigma)
    octile = ranks * OCTILES // COLUMNS
    gaps = [float(kept[octile == o].mean() - chance[octile == o].mean()) for o in range(OCTILES)]
    assert np.abs(gaps).max() < SIGMAS * sigma * OCTILES**0.5
    l1 = float(np.abs(share * delta).sum() / np.abs(delta).sum())
    wanted = 1.0 if draw.rescale else float((chance.reshape(-1) * np.abs(delta)).sum())
    wanted /= 1.0 if draw.rescale else float(np.abs(delta).sum())
    assert l1 == pytest.approx(wanted, abs=1e-5 if draw.rescale else 2 * SIGMAS * sigma)
    return {"kept": rate, "l1_ratio": l1, "worst_octile_gap": float(np.abs(gaps).max())}


def _both(method: str, share: Array, draw: Draw) -> float:
    """The share of elements that two parents' masks keep; masks must be independent."""
    assert set(np.unique(share)) == {0.0, 1.0, 2.0}
    ranks = np.arange(COLUMNS) / (COLUMNS - 1)
    chance = draw.density - draw.epsilon + 2 * draw.epsilon * ranks
    wanted = float((chance**2).mean())
    both = float((share == 2.0).mean())
    assert both == pytest.approx(wanted, abs=SIGMAS * (wanted / SIZE) ** 0.5), method
    return both
