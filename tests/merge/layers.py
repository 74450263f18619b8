"""Tensors of all shapes, types and kinds of task vectors, nine of one kind to a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Shape: TypeAlias = tuple[int, ...]

OTHERS = 6
WEIGHTS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    "input_layernorm",
    "post_attention_layernorm",
)
WIDE: tuple[tuple[Shape, ...], ...] = (
    ((2,), (17,), (1, 7), (5, 9), (3, 4, 5), (2, 3, 4, 5), (64, 48), (1, 2), (257, 129)),
    ((33,), (4096,), (1, 64), (31, 33), (7, 2, 1), (2, 5, 1, 3), (128, 6), (9, 2), (300, 500)),
    ((3,), (1000,), (2, 2), (13, 11), (1, 3, 1), (1, 2, 1, 1), (6, 128), (3, 257), (2, 2, 2)),
)
NARROW: tuple[Shape, ...] = (
    (),
    (1,),
    (1, 1),
    (7, 1),
    (2, 1, 3),
    (1, 1, 1, 1),
    (4, 1),
    (3, 1, 2, 2),
    (129, 1),
)
"""Shapes whose second axis has one element: DELLA cannot rank those in mergekit."""
KINDS = (
    "dense",
    "sparse",
    "tenth",
    "outliers",
    "mixed",
    "tied",
    "opposite",
    "same",
    "zero",
    "nothing",
)
GRID = ("tied", "opposite")
"""Kinds on a grid of sixteenths, where magnitudes repeat and opposite numbers cancel exactly."""
HALF_DTYPES = ("bfloat16", "float16", "mixed")


@dataclass(frozen=True)
class Layer:
    """One layer of the checkpoints: `dtype` is one for all models, or "mixed"."""

    number: int
    kind: str
    shapes: tuple[Shape, ...]
    dtype: str

    @property
    def is_narrow(self) -> bool:
        """Whether rows have one element."""
        return self.shapes is NARROW

    def dtype_of(self, model: int) -> torch.dtype:
        """The type in model 0 (the base), 1, 2 ..."""
        mixed = (torch.bfloat16, torch.float16, torch.float32)
        if self.dtype == "mixed":
            return mixed[model % 3]
        found = getattr(torch, self.dtype)
        assert isinstance(found, torch.dtype)
        return found


def layers(*, half: bool) -> tuple[Layer, ...]:
    """Every kind with three sets of wide shapes and the narrow ones; float32, or 16-bit types."""
    found: list[Layer] = []
    for index, kind in enumerate(KINDS):
        for position, shapes in enumerate((*WIDE, NARROW)):
            turn = (position + (index if shapes is NARROW else 0)) % 3
            dtype = HALF_DTYPES[turn] if half else "float32"
            found.append(Layer(len(found), kind, shapes, dtype))
    return tuple(found)


def tensor_name(layer: int, weight: str) -> str:
    """The name of one tensor of a layer."""
    return f"model.layers.{layer}.{weight}.weight"


def values(kind: str, shape: Shape, rng: np.random.Generator) -> list[Array]:
    """Values of one tensor in the base and in every other model."""
    if kind == "nothing":
        return [np.zeros(shape)] * (OTHERS + 1)
    if kind in GRID:
        base = rng.integers(-16, 17, shape) / 16
        deltas = [rng.integers(-3, 4, shape) / 16 for _ in range(OTHERS)]
    else:
        size = rng.choice([1.0, 0.02])
        base = size * rng.standard_normal(shape)
        scale = size * rng.choice([1.0, 0.1, 0.01])
        deltas = [_delta(kind, shape, scale, rng) for _ in range(OTHERS)]
    if kind == "opposite":
        deltas = [-deltas[i - 1] if i % 2 else delta for i, delta in enumerate(deltas)]
    if kind == "same":
        deltas = deltas[:1] * OTHERS
    return [np.asarray(base), *(np.asarray(base + delta) for delta in deltas)]


def _delta(kind: str, shape: Shape, scale: float, rng: np.random.Generator) -> Array:
    if kind == "mixed":
        kind = rng.choice(["dense", "sparse", "outliers", "zero"])
    noise = scale * rng.uniform(0.5, 2.0) * rng.standard_normal(shape)
    if kind == "zero":
        return np.zeros(shape)
    if kind in ("sparse", "tenth"):
        return np.asarray(noise * (rng.random(shape) < (0.3 if kind == "sparse" else 0.9)))
    if kind == "outliers":
        return np.asarray(noise * np.where(rng.random(shape) < 0.02, 100.0, 1.0))
    return np.asarray(noise)
