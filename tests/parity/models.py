"""The parents of whole recipes: little random models, and fine-tunes of SmolLM2 in bfloat16."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config

from tests import models

SMOLLM2_VARIABLE = "SMOLLM2_PARENTS"
NO_SMOLLM2 = f"no fine-tunes of SmolLM2: make them, or name their folder in {SMOLLM2_VARIABLE}"
SMOLLM2 = Path(__file__).parents[2] / "experiments" / "smollm2" / "parents"


def smollm2_parents() -> Path | None:
    """The folder with the fine-tunes that experiments/smollm2 makes, or None."""
    folder = Path(os.environ.get(SMOLLM2_VARIABLE, SMOLLM2))
    return folder if (folder / "write" / "model.safetensors").is_file() else None


def bfloat16_copy(model: Path, out: Path) -> Path:
    """A copy of a checkpoint with weights rounded to bfloat16; returns `out`."""
    shutil.copytree(model, out, ignore=shutil.ignore_patterns("*.safetensors"))
    stored = load_file(model / "model.safetensors")
    rounded = {name: tensor.bfloat16() for name, tensor in stored.items()}
    save_file(rounded, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    (out / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}), encoding="utf-8")
    return out


def little_models(folder: Path) -> dict[str, Path]:
    """The models that the recipes of little ones name."""
    three = models.llama(folder / "three", layers=3)
    return {
        "THREE": three,
        "FIVE": models.llama(folder / "five", seed=1, layers=5),
        "OTHER": models.perturbed(three, folder / "other", seed=2),
        "THIRD": models.perturbed(three, folder / "third", seed=3),
        "TIED": models.llama(folder / "tied", seed=4, layers=3, tied=True),
        "SHARDED": models.llama(folder / "sharded", layers=3, shard_bytes=20_000),
        "QWEN": _qwen3(folder / "qwen"),
    }


def _qwen3(path: Path) -> Path:
    """Four layers, whose types the config lists."""
    types = ["full_attention", "sliding_attention"] * 2
    config = Qwen3Config(
        vocab_size=models.VOCABULARY,
        hidden_size=models.HIDDEN,
        intermediate_size=2 * models.HIDDEN,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=1,
        layer_types=types,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(path)
    models.save_tokenizer(path)
    return path
