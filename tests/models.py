"""Tiny random checkpoints on disk, seeded and fast: the parents that tests merge."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

VOCABULARY = 64
HIDDEN = 32
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
WORDS = (*SPECIAL, *(f"w{index}" for index in range(VOCABULARY - len(SPECIAL))))


def llama(
    path: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    hidden: int = HIDDEN,
    dtype: str = "float32",
    tied: bool = False,
    shard_bytes: int | None = None,
) -> Path:
    """A Llama with grouped attention and a word-level tokenizer; returns `path`."""
    config = LlamaConfig(tie_word_embeddings=tied, **_shape(layers, hidden))
    return _save(config, path, seed=seed, dtype=dtype, shard_bytes=shard_bytes)


def qwen2(
    path: Path, *, seed: int = 0, layers: int = 2, dtype: str = "float32", tied: bool = True
) -> Path:
    """A Qwen2: biases in attention, `layer_types` in the config; every other layer windowed."""
    types = ["full_attention" if i % 2 else "sliding_attention" for i in range(layers)]
    window = {"use_sliding_window": True, "sliding_window": 4, "layer_types": types}
    config = Qwen2Config(tie_word_embeddings=tied, **window, **_shape(layers, HIDDEN))
    return _save(config, path, seed=seed, dtype=dtype)


def gpt2(path: Path, *, seed: int = 0, layers: int = 2, dtype: str = "float32") -> Path:
    """A GPT-2: position embeddings, transposed matrices, other names for everything."""
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=HIDDEN, n_layer=layers, n_head=2, n_positions=32
    )
    return _save(config, path, seed=seed, dtype=dtype)


def perturbed(base: Path, out: Path, *, seed: int, scale: float = 0.02) -> Path:
    """A copy of the checkpoint `base` with noise of standard deviation `scale` on every weight."""
    shutil.copytree(base, out)
    generator = torch.Generator().manual_seed(seed)
    for file in sorted(out.glob("*.safetensors")):
        changed = {}
        for name, tensor in read_tensors(file).items():
            noise = torch.randn(tensor.shape, generator=generator) * scale
            changed[name] = (tensor.float() + noise).to(tensor.dtype)
        save_file(changed, file, metadata={"format": "pt"})
    return out


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Private copies of all tensors of a safetensors file or of a directory of such files."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as store:
            tensors |= {name: store.get_tensor(name).clone() for name in store.keys()}  # noqa: SIM118
    return tensors


def rewrite(directory: Path, changes: Mapping[str, torch.Tensor | None]) -> None:
    """Replace, add or (None) remove tensors of a checkpoint in a single file."""
    file = directory / "model.safetensors"
    tensors = {**read_tensors(file), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, file, metadata={"format": "pt"})


def save_tokenizer(path: Path, words: tuple[str, ...] = WORDS) -> None:
    """A tokenizer with one token per word and a chat template."""
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
    )
    fast.chat_template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    fast.save_pretrained(path)


def _shape(layers: int, hidden: int) -> dict[str, int]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    }


def _save(
    config: PretrainedConfig,
    path: Path,
    *,
    seed: int,
    dtype: str,
    shard_bytes: int | None = None,
) -> Path:
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Not the library's start values: biases of 0 and norms of 1 would hide mistakes.
            noise = torch.randn(weight.shape, generator=generator) * 0.2
            is_norm = "norm" in name or ".ln_" in name
            weight.copy_(1.0 + noise if is_norm and name.endswith("weight") else noise)
    limit = {} if shard_bytes is None else {"max_shard_size": shard_bytes}
    model.save_pretrained(path, **limit)
    save_tokenizer(path)
    return path
