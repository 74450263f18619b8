"""The parents of tensor-level parity on disk: Llama checkpoints whose layers have any shapes.

Neither program looks at the shapes, so that one merge with a slice for each case compares a
thousand tensors for one process start.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from tests.merge.layers import OTHERS, WEIGHTS, Array, Layer, layers, tensor_name, values


@dataclass(frozen=True)
class Parents:
    """Where the checkpoints lie and what is in them; model 0 is the base.

    Attributes:
        folder: with a checkpoint for each model.
        layers: alike in all models.
        tensors: by model and name.
        half: whether the models are mostly of 16-bit types.
    """

    folder: Path
    layers: tuple[Layer, ...]
    tensors: tuple[dict[str, torch.Tensor], ...]
    half: bool

    @property
    def label(self) -> str:
        """The types of the parents, for people."""
        return "16-bit" if self.half else "float32"

    def model(self, index: int) -> str:
        """The path of model `index` as a recipe names it."""
        return str(self.folder / model_name(index))


def saved_parents(folder: Path, *, half: bool) -> Parents:
    """Write the checkpoints of one group of types into `folder`."""
    kinds = layers(half=half)
    _save_parents(folder, kinds)
    stored = (
        load_file(folder / model_name(index) / "model.safetensors") for index in range(OTHERS + 1)
    )
    return Parents(folder, kinds, tuple(stored), half)


def _save_parents(folder: Path, kinds: tuple[Layer, ...]) -> None:
    """Write the base and the others, `base` and `other-1` to `other-6`, into `folder`."""
    models: list[dict[str, torch.Tensor]] = [{} for _ in range(OTHERS + 1)]
    for layer in kinds:
        for name, arrays in _tensors(layer):
            for index, array in enumerate(arrays):
                models[index][name] = torch.as_tensor(array).to(layer.dtype_of(index))
    for index, tensors in enumerate(models):
        save_checkpoint(folder / model_name(index), tensors, len(kinds), seed=index)


def model_name(index: int) -> str:
    """The folder of model 0 (the base), 1, 2 ..."""
    return f"other-{index}" if index else "base"


def save_checkpoint(path: Path, tensors: dict[str, torch.Tensor], count: int, *, seed: int) -> None:
    """A Llama checkpoint with these layers and a head of its own."""
    path.mkdir(parents=True)
    noise = torch.Generator().manual_seed(seed)
    ends = {
        "model.embed_tokens.weight": torch.randn((8, 4), generator=noise),
        "model.norm.weight": torch.randn(4, generator=noise),
        "lm_head.weight": torch.randn((8, 4), generator=noise),
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "num_hidden_layers": count,
        "vocab_size": 8,
        "max_position_embeddings": 16,
        "tie_word_embeddings": False,
    }
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file({**ends, **tensors}, path / "model.safetensors", metadata={"format": "pt"})


def _tensors(layer: Layer) -> Iterator[tuple[str, list[Array]]]:
    """Name and values in every model, base first."""
    for position, (weight, shape) in enumerate(zip(WEIGHTS, layer.shapes, strict=True)):
        rng = np.random.default_rng([layer.number, position])
        yield tensor_name(layer.number, weight), values(layer.kind, shape, rng)
