"""Tiny random models of all families whose stacks can be folded, and stacks of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    PhiConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from evomerge.recipe import Recipe
from evomerge.stack import Hop, path_along, recipe_of

VOCABULARY = 96
DEPTHS = (5, 4)
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = _SHAPE | {"num_key_value_heads": 2, "head_dim": 8}
_WINDOWS = ["sliding_attention", "full_attention", "full_attention"]


def _windows(layers: int) -> list[str]:
    return [_WINDOWS[layer % len(_WINDOWS)] for layer in range(layers)]


def _qwen2(layers: int) -> PretrainedConfig:
    kinds = {"use_sliding_window": True, "sliding_window": 4, "layer_types": _windows(layers)}
    shape = _SHAPE | {"num_key_value_heads": 2}
    return Qwen2Config(**shape, **kinds, num_hidden_layers=layers, tie_word_embeddings=True)


def _gemma2(layers: int) -> PretrainedConfig:
    kinds = {"sliding_window": 4, "layer_types": _windows(layers), "query_pre_attn_scalar": 8}
    return Gemma2Config(**_GROUPED, **kinds, num_hidden_layers=layers)


def _gemma3(layers: int) -> PretrainedConfig:
    kinds = {"sliding_window": 4, "layer_types": _windows(layers), "query_pre_attn_scalar": 8}
    return Gemma3TextConfig(**_GROUPED, **kinds, num_hidden_layers=layers)


def _gpt2(layers: int) -> PretrainedConfig:
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=layers, n_head=4, n_positions=64, **ids
    )


FAMILIES: Mapping[str, Callable[[int], PretrainedConfig]] = MappingProxyType(
    {
        "llama": lambda n: LlamaConfig(**_GROUPED, num_hidden_layers=n),
        "llama-biases": lambda n: LlamaConfig(
            **_GROUPED, num_hidden_layers=n, attention_bias=True, mlp_bias=True
        ),
        "mistral": lambda n: MistralConfig(**_GROUPED, num_hidden_layers=n, sliding_window=5),
        "qwen2": _qwen2,
        "qwen3": lambda n: Qwen3Config(**_GROUPED, num_hidden_layers=n, tie_word_embeddings=True),
        "mixtral": lambda n: MixtralConfig(
            **_GROUPED, num_hidden_layers=n, num_local_experts=3, num_experts_per_tok=2
        ),
        "gemma2": _gemma2,
        "gemma3_text": _gemma3,
        "olmo2": lambda n: Olmo2Config(
            **_SHAPE, num_key_value_heads=2, num_hidden_layers=n, attention_bias=True
        ),
        "gpt_neox": lambda n: GPTNeoXConfig(**_SHAPE, num_hidden_layers=n),
        "phi": lambda n: PhiConfig(**_SHAPE, num_hidden_layers=n),
        "gpt2": _gpt2,
    }
)
"""Configs by number of layers."""


def write(config: PretrainedConfig, path: Path, *, seed: int) -> Path:
    """A model with random weights of realistic size: embeddings of 0.05, logits of about 1.

    Every norm and bias is random, too: those of a new model would hide mistakes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            one_d = weight.dim() == 1
            if one_d and "norm" in name.lower() + ("norm" if ".ln_" in name else ""):
                centre = 0.0 if config.model_type.startswith("gemma") else 1.0
                centre = 0.0 if name.endswith("bias") else centre
                weight.copy_(centre + 0.1 * noise)
            else:
                weight.copy_(noise * (0.05 if one_d or _is_embedding(name) else 0.18))
    model.generation_config.use_cache = True
    model.save_pretrained(path)
    return path


def _is_embedding(name: str) -> bool:
    return any(part in name for part in ("embed_tokens", "embed_in", "wte", "wpe"))


def parents(family: str, root: Path) -> tuple[Path, Path]:
    """Models "a" and "b" of one family in `root`."""
    first, second = (
        write(FAMILIES[family](depth), root / name, seed=seed)
        for seed, (name, depth) in enumerate(zip("ab", DEPTHS, strict=True))
    )
    return first, second


def tangled(scale_mode: str, *, seed: int = 0, donor: str = "a", scaled: bool = True) -> Recipe:
    """Eleven hops of "a" and "b" with repeats, out of order, with scales of 0.4 to 1.5."""
    draw = random.Random(seed)
    order = [("a", 0), ("a", 1), ("b", 1), ("b", 2), ("a", 3), ("a", 1), ("a", 2), ("b", 0)]
    order += [("a", 1), ("b", 3), ("a", 4)]
    gains = [1.0, *(draw.uniform(0.4, 1.5) for _ in order[1:])]
    layers = [
        Hop(model, layer, gain if scaled else 1.0)
        for (model, layer), gain in zip(order, gains, strict=True)
    ]
    return recipe_of(path_along(layers), donor=donor, scale_mode=scale_mode, dtype=None)


def texts() -> torch.Tensor:
    """Token ids [3, 12]."""
    return torch.randint(3, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(5))


def logits(model: PreTrainedModel) -> torch.Tensor:
    """What the model makes of `texts`, [3, 12, VOCABULARY]."""
    with torch.no_grad():
        found: torch.Tensor = model(texts()).logits
    return found
