"""Parents for the benchmarks: a base and fine-tunes with the shapes of a Llama model, bf16."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

_VOCABULARY = 49_152


def write_parents(folder: Path, *, count: int, elements: float, dtype: torch.dtype) -> list[str]:
    """A base and `count` fine-tunes of about `elements` elements each, as checkpoints in `folder`.

    Weights are normal, as wide as in a trained model of that size. A task vector has a low rank
    part, half of it common to all, 5 % heavy-tailed sparse changes, and noise: about 1 % of the
    weights' norm, like a full fine-tune.

    Returns:
        The names of the folders, the base's first.
    """
    layers, hidden = _shape(elements)
    names = ["base", *(f"tune{i}" for i in range(count))]
    tensors: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    generator = torch.Generator().manual_seed(0)
    for name, shape in _tensors(layers, hidden).items():
        base = torch.randn(shape, generator=generator) * 0.03
        if len(shape) == 1:
            base = base + 1.0
        tensors["base"][name] = base.to(dtype)
        common = _low_rank(shape, generator)
        for tune in names[1:]:
            delta = 0.5 * common + 0.5 * _low_rank(shape, generator) + _rest(shape, generator)
            tensors[tune][name] = (base + 3e-4 * delta).to(dtype)
    for name in names:
        (folder / name).mkdir(parents=True)
        save_file(tensors[name], folder / name / "model.safetensors", {"format": "pt"})
        config = _config(layers, hidden, str(dtype).removeprefix("torch."))
        (folder / name / "config.json").write_text(json.dumps(config))
    return names


def _shape(elements: float) -> tuple[int, int]:
    """Layers and hidden size: SmolLM2's proportions."""
    return min(
        ((layers, 64 * width) for layers in range(2, 61, 2) for width in range(1, 65)),
        key=lambda s: (abs(_count(*s) / elements - 1.0) > 0.05, abs(s[1] / s[0] - 576 / 30)),
    )


def _count(layers: int, hidden: int) -> int:
    return sum(torch.Size(s).numel() for s in _tensors(layers, hidden).values())


def _tensors(layers: int, hidden: int) -> dict[str, tuple[int, ...]]:
    wide, narrow = hidden * 8 // 3 // 64 * 64, hidden // 3 // 64 * 64 or 64
    vocabulary = min(_VOCABULARY, hidden * 85)
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        found |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.self_attn.q_proj.weight": (hidden, hidden),
            f"{at}.self_attn.k_proj.weight": (narrow, hidden),
            f"{at}.self_attn.v_proj.weight": (narrow, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, hidden),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.mlp.gate_proj.weight": (wide, hidden),
            f"{at}.mlp.up_proj.weight": (wide, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, wide),
        }
    found["model.norm.weight"] = (hidden,)
    return found


def _low_rank(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.randn(shape, generator=generator)
    left = torch.randn((shape[0], 8), generator=generator)
    right = torch.randn((8, shape[1]), generator=generator)
    return left @ right / 8**0.5


def _rest(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    chosen = torch.rand(shape, generator=generator) < 0.05
    heavy = torch.randn(shape, generator=generator).pow_(3)
    return 0.5 * noise + heavy * chosen


def _config(layers: int, hidden: int, dtype: str) -> dict[str, object]:
    tensors = _tensors(layers, hidden)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": tensors["model.layers.0.mlp.gate_proj.weight"][0],
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 64,
        "num_key_value_heads": tensors["model.layers.0.self_attn.k_proj.weight"][0] // 64,
        "head_dim": 64,
        "vocab_size": tensors["model.embed_tokens.weight"][0],
        "tie_word_embeddings": True,
        "dtype": dtype,
    }
