"""What a config.json says about a model's shape, whatever the architecture calls it; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.weights.layout import text_config

_HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
VOCABULARY_KEYS = ("vocab_size", "n_vocab")


def hidden_size(config: Mapping[str, Any]) -> int | None:
    """The width of the residual stream, or None when the file does not say."""
    return _number(config, _HIDDEN_KEYS)


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """The number of rows of the embedding, or None when the file does not say."""
    return _number(config, VOCABULARY_KEYS)


def architecture(config: Mapping[str, Any]) -> str | None:
    """The name of the model class, or None when the file does not say."""
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def ties_embeddings(config: Mapping[str, Any]) -> bool:
    """Whether a model without a stored head uses its embedding as head.

    Silence means yes: architectures that tie by default leave the key out.
    """
    text = text_config(config)
    return bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", True)))


def quantization(config: Mapping[str, Any]) -> str | None:
    """The name of the quantisation method, or None for plain weights."""
    found = config.get("quantization_config")
    return str(found.get("quant_method", "unknown")) if isinstance(found, dict) else None


def _number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    text = text_config(config)
    return next((text[key] for key in keys if type(text.get(key)) is int), None)
