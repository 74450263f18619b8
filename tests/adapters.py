"""LoRA adapters in PEFT's format, written by hand: every tensor and setting is the test's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests import models

PREFIX = "base_model.model."
RANK = 4
ALPHA = 6.0


def lora(
    base: Path,
    out: Path,
    *,
    seed: int = 0,
    targets: tuple[str, ...] = ("q_proj", "down_proj"),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """An adapter with random matrices for the linear modules of `base` that end in `targets`."""
    return write(out, matrices(base, seed=seed, targets=targets), targets, settings)


def matrices(
    base: Path, *, seed: int = 0, targets: tuple[str, ...] = ("q_proj", "down_proj")
) -> dict[str, torch.Tensor]:
    """A (r, in) and B (out, r) for every (out, in) matrix of `base` that `targets` name."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for name, weight in sorted(models.read_tensors(base).items()):
        module = name.removesuffix(".weight")
        if module.endswith(targets) and name != module:
            outs, ins = weight.shape
            shapes = {"lora_A": (RANK, ins), "lora_B": (outs, RANK)}
            for part, shape in shapes.items():
                noise = torch.randn(shape, generator=generator) * 0.2
                found[f"{PREFIX}{module}.{part}.weight"] = noise
    return found


def write(
    out: Path,
    tensors: Mapping[str, torch.Tensor],
    targets: tuple[str, ...] = ("q_proj", "down_proj"),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A folder with these tensors and the settings that PEFT writes, changed by `settings`."""
    out.mkdir(parents=True)
    plain: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "somewhere/base",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": list(targets),
        "megatron_core": "megatron.core",
        "lora_dropout": 0.1,
        "bias": "none",
        "init_lora_weights": True,
    }
    text = json.dumps(plain | dict(settings or {}))
    (out / "adapter_config.json").write_text(text)
    save_file(dict(tensors), out / "adapter_model.safetensors", metadata={"format": "pt"})
    return out


def merged_by_hand(base: Path, adapter: Path, scale: float = ALPHA / RANK) -> dict[str, Any]:
    """The tensors W + scale B A of a plain adapter, in float64, rounded to the base's types."""
    found = models.read_tensors(base)
    stored = models.read_tensors(adapter / "adapter_model.safetensors")
    for name in [name for name in stored if ".lora_A." in name]:
        weight = name.removeprefix(PREFIX).replace(".lora_A.weight", ".weight")
        a, b = stored[name].double(), stored[name.replace("lora_A", "lora_B")].double()
        found[weight] = (found[weight].double() + scale * (b @ a)).to(found[weight].dtype)
    return found
