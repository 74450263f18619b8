"""Tiny random models of many families: encoders, encoder-decoders, experts, vision-language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from transformers import (
    AlbertConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    CLIPVisionConfig,
    DistilBertConfig,
    FalconConfig,
    Gemma3Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlavaConfig,
    MambaConfig,
    Mistral3Config,
    MistralConfig,
    MixtralConfig,
    PixtralVisionConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    RobertaConfig,
    SiglipVisionConfig,
    T5Config,
)

VOCABULARY = 48
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = _SHAPE | {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_ENCODER = _SHAPE | {"max_position_embeddings": 34}
_MROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
_QWEN_VISION = {
    "depth": 2,
    "embed_dim": 16,
    "hidden_size": 16,
    "num_heads": 2,
    "mlp_ratio": 2,
    "patch_size": 8,
}
_SEQ2SEQ = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}


@dataclass(frozen=True)
class Family:
    """How models of one family are made and loaded."""

    auto: Any
    config: Callable[[], PretrainedConfig]

    def write(self, path: Path, seed: int) -> Path:
        """A model whose every weight is random, norms and biases, too."""
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.auto.from_config(self.config())
        with torch.no_grad():
            for name, weight in model.named_parameters():
                noise = torch.randn(weight.shape, generator=generator) * 0.3
                weight.copy_(1.0 + noise if "norm" in name.lower() else noise)
        model.save_pretrained(path)
        return path

    def load(self, path: Path) -> PreTrainedModel:
        """The model in evaluation mode."""
        model: PreTrainedModel = self.auto.from_pretrained(path, dtype="auto").eval()
        return model


def outputs(model: PreTrainedModel) -> torch.Tensor:
    """What the model makes of a fixed text."""
    ids = torch.tensor([[1, 7, 12, 30, 5, 2], [1, 9, 9, 40, 21, 2]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.is_encoder_decoder:
        inputs |= {"decoder_input_ids": ids.flip(1)}
    with torch.no_grad():
        found: torch.Tensor = model(**inputs)[0]
    return found


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": Family(AutoModel, lambda: BertConfig(**_ENCODER)),
        "bert-classifier": Family(
            AutoModelForSequenceClassification, lambda: BertConfig(**_ENCODER, num_labels=3)
        ),
        "bert-masked": Family(AutoModelForMaskedLM, lambda: BertConfig(**_ENCODER)),
        "roberta-masked": Family(AutoModelForMaskedLM, lambda: RobertaConfig(**_ENCODER)),
        "distilbert-classifier": Family(
            AutoModelForSequenceClassification,
            lambda: DistilBertConfig(
                vocab_size=VOCABULARY, dim=16, hidden_dim=24, n_layers=2, n_heads=2
            ),
        ),
        "albert": Family(AutoModelForMaskedLM, lambda: AlbertConfig(**_ENCODER, embedding_size=8)),
        "llama-classifier": Family(
            AutoModelForSequenceClassification, lambda: LlamaConfig(**_GROUPED, num_labels=3)
        ),
        "t5": Family(
            AutoModelForSeq2SeqLM,
            lambda: T5Config(
                **_SEQ2SEQ, d_kv=8, d_ff=24, num_layers=2, num_decoder_layers=3, num_heads=2
            ),
        ),
        "bart": Family(
            AutoModelForSeq2SeqLM,
            lambda: BartConfig(
                **_SEQ2SEQ,
                encoder_layers=2,
                decoder_layers=1,
                encoder_ffn_dim=24,
                decoder_ffn_dim=24,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                max_position_embeddings=32,
                forced_eos_token_id=None,
            ),
        ),
        "gpt2": Family(
            AutoModelForCausalLM,
            lambda: GPT2Config(
                vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=32
            ),
        ),
        "gpt-neox": Family(
            AutoModelForCausalLM, lambda: GPTNeoXConfig(**_SHAPE, max_position_embeddings=32)
        ),
        "falcon": Family(
            AutoModelForCausalLM,
            lambda: FalconConfig(
                vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
            ),
        ),
        "llama": Family(AutoModelForCausalLM, lambda: LlamaConfig(**_GROUPED)),
        "mamba": Family(
            AutoModelForCausalLM,
            lambda: MambaConfig(
                vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=2, state_size=4
            ),
        ),
        "mixtral": Family(
            AutoModelForCausalLM, lambda: MixtralConfig(**_GROUPED, num_local_experts=2)
        ),
        "qwen3": Family(AutoModelForCausalLM, lambda: Qwen3Config(**_GROUPED)),
        "qwen3-moe": Family(
            AutoModelForCausalLM,
            lambda: Qwen3MoeConfig(
                **_GROUPED, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=16
            ),
        ),
        "gemma3-text": Family(AutoModelForCausalLM, lambda: Gemma3TextConfig(**_GROUPED)),
    }
)
"""Text models: every tensor takes part in a merge."""


SEEING: Mapping[str, Family] = MappingProxyType(
    {
        "llava": Family(
            AutoModelForImageTextToText,
            lambda: LlavaConfig(
                vision_config=CLIPVisionConfig(**_VISION, projection_dim=16),
                text_config=LlamaConfig(**_GROUPED),
                image_token_index=47,
                tie_word_embeddings=False,
            ),
        ),
        "gemma3": Family(
            AutoModelForImageTextToText,
            lambda: Gemma3Config(
                text_config=Gemma3TextConfig(**_GROUPED).to_dict(),
                vision_config=SiglipVisionConfig(**_VISION).to_dict(),
                mm_tokens_per_image=4,
                image_token_index=47,
            ),
        ),
        "mistral3": Family(
            AutoModelForImageTextToText,
            lambda: Mistral3Config(
                text_config=MistralConfig(**_GROUPED).to_dict(),
                vision_config=PixtralVisionConfig(**_VISION).to_dict(),
                image_token_index=47,
            ),
        ),
        "qwen2-vl": Family(
            AutoModelForImageTextToText,
            lambda: Qwen2VLConfig(
                text_config=_GROUPED | {"rope_parameters": _MROPE, "head_dim": 8},
                vision_config=_QWEN_VISION,
                tie_word_embeddings=False,
            ),
        ),
    }
)
"""Vision-language models: recipes without modules merge their language towers."""
