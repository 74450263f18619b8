"""What a config.json says about a model's shape, whatever the architecture calls it; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evomerge.weights.layout import layer_count, text_config

_HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
VOCABULARY_KEYS = ("vocab_size", "n_vocab")
_STACK_KEYS = ("num_decoder_layers", "encoder_layers", "decoder_layers")
_SENSES = ("vision", "visual", "image", "vit", "audio", "speech")
_CAUSAL = ("ForCausalLM", "LMHeadModel")
_WITH_HEAD = (*_CAUSAL, "ForConditionalGeneration", "ForMaskedLM", "ForPreTraining")


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


def is_causal(config: Mapping[str, Any]) -> bool:
    """Whether the model class predicts the next token, and reads nothing but text."""
    name = architecture(config)
    return name is None or (name.endswith(_CAUSAL) and not is_multimodal(config))


def causal_problem(model: str, config: Mapping[str, Any]) -> str | None:
    """Why lm-eval cannot score the model, as one line; None when it can."""
    if is_causal(config):
        return None
    return (
        f"model '{model}': lm-eval scores causal language models, got {architecture(config)}: "
        "use a ...ForCausalLM model; `evomerge merge` merges the other kinds, too"
    )


def has_head(config: Mapping[str, Any]) -> bool:
    """Whether the model class scores tokens, be its head stored or tied to the embedding.

    Encoders and classifiers do not. A file that names no class is taken for a language model.
    """
    name = architecture(config)
    return name is None or name.endswith(_WITH_HEAD)


def is_multimodal(config: Mapping[str, Any]) -> bool:
    """Whether the model sees or hears: its config describes a second tower."""
    described = [key for key, value in config.items() if isinstance(value, Mapping) and value]
    return "mm_vision_tower" in config or any(
        sense in key for key in described for sense in _SENSES
    )


def promised_layers(config: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    """The sizes of the stacks of layers that the file promises for the language model.

    One entry per stack: the counts that keep the promise. Layers that predict further tokens may
    be stored behind the others; layers that share their weights are stored once.
    """
    text = text_config(config)
    extra, first = text.get("num_nextn_predict_layers"), layer_count(config)
    if type(text.get("num_hidden_groups")) is int:
        return ((text["num_hidden_groups"],),)
    stacks = [] if first is None else [(first, first + extra) if type(extra) is int else (first,)]
    stacks += [(text[key],) for key in _STACK_KEYS if type(text.get(key)) is int]
    return tuple(dict.fromkeys(stacks))


def ties_embeddings(config: Mapping[str, Any]) -> bool:
    """Whether a model without a stored head uses its embedding as head.

    The whole model's word counts, then that of its language model. Silence means yes:
    architectures that tie by default leave the key out.
    """
    text = text_config(config)
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True)))


def quantization(config: Mapping[str, Any]) -> str | None:
    """The name of the quantisation method, or None for plain weights."""
    found = config.get("quantization_config")
    return str(found.get("quant_method", "unknown")) if isinstance(found, dict) else None


def _number(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    text = text_config(config)
    return next((text[key] for key in keys if type(text.get(key)) is int), None)
