"""Short ways to write recipes and to look at what they merge to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from evomerge.recipe import Parameters, Recipe, Scalar, Source
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool


def source(model: str, layers: tuple[int, int] | None = None, **values: Scalar) -> Source:
    """A source with constant parameters."""
    return Source(model, layers, Parameters.constants(values))


def linear(*sources: Source, normalize: bool = False, base: str | None = None) -> Recipe:
    """A weighted sum."""
    shared = Parameters.constants({"normalize": normalize})
    return Recipe("linear", sources, base_model=base, parameters=shared)


def materializer(root: Path, *models: str) -> Materializer:
    """A materializer over the checkpoints `models` in `root`."""
    return Materializer(ParentPool.open(models, root))


def merged(engine: Materializer, recipe: Recipe) -> dict[str, torch.Tensor]:
    """All tensors of a merge, in order."""
    found = {}
    for tensor in engine.merged_tensors(recipe):
        found[tensor.name] = torch.empty(tensor.shape, dtype=tensor.dtype)
        tensor.write(found[tensor.name])
    return found


def assert_same(got: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Same names in the same order, same types, close to the last bits of float32."""
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-6, atol=1e-6)
