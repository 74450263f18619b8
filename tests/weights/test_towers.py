from __future__ import annotations

from collections.abc import Mapping

import pytest

from evomerge.weights.model_config import (
    has_head,
    is_causal,
    is_multimodal,
    promised_layers,
    ties_embeddings,
)
from evomerge.weights.towers import Towers

_LAYERS = tuple(f"layers.{layer}.mlp.up_proj.weight" for layer in range(2))
_BODY = ("embed_tokens.weight", *_LAYERS, "norm.weight")


def _below(prefix: str, *names: str) -> list[str]:
    return [f"{prefix}.{name}" for name in names]


SEEING: Mapping[str, tuple[list[str], list[str], tuple[str, ...]]] = {
    "language_model.model": (
        [*_below("language_model.model", *_BODY), "language_model.lm_head.weight"],
        ["vision_tower.encoder.layers.0.w", "multi_modal_projector.linear.weight"],
        ("vision_tower", "multi_modal_projector"),
    ),
    "model.language_model": (
        [*_below("model.language_model", *_BODY), "lm_head.weight"],
        ["model.visual.blocks.0.w", "model.visual.merger.mlp.0.weight", "model.image_newline"],
        ("model.visual", "model.image_newline"),
    ),
    "model": (
        [*_below("model", *_BODY), "lm_head.weight"],
        ["model.vision_tower.blocks.0.w", "model.mm_projector.0.weight", "visual.proj"],
        ("model.vision_tower", "model.mm_projector", "visual"),
    ),
    "model.text_model": (
        [*_below("model.text_model", *_BODY), "lm_head.weight"],
        ["model.vision_model.encoder.layers.0.w", "model.connector.proj.weight"],
        ("model.vision_model", "model.connector"),
    ),
    "thinker.model": (
        [*_below("thinker.model", *_BODY), "thinker.lm_head.weight"],
        ["thinker.audio_tower.layers.0.w", "talker.model.embed_tokens.weight"],
        ("thinker.audio_tower", "talker"),
    ),
    "language_model.model.decoder": (
        [*_below("language_model.model.decoder", *_BODY), "language_model.lm_head.weight"],
        ["qformer.encoder.layer.0.w", "query_tokens", "language_projection.weight"],
        ("qformer", "query_tokens", "language_projection"),
    ),
}


@pytest.mark.parametrize("prefix", SEEING)
def test_language_towers(prefix: str) -> None:
    spoken, seen, others = SEEING[prefix]
    towers = Towers.of([*seen, *spoken], multimodal=True)
    assert towers.is_multimodal
    assert set(towers.main.stored.values()) == set(spoken)
    assert towers.others == others
    assert towers.main.prefix == prefix
    assert set(_BODY) <= towers.main.stored.keys()
    assert dict(towers.main.layout.stacks) == {"layers": 2}
    for name in ("text_decoder", "language_model", None):
        assert towers.tower(name) is towers.main
    assert towers.tower("default") is None


def test_all_names_of_one_tensor_meet() -> None:
    towers = [Towers.of(spoken, multimodal=True).main for spoken, _, _ in SEEING.values()]
    plain = Towers.of([*_below("model", *_BODY), "lm_head.weight"], multimodal=False).main
    for tower in towers:
        if "lm_head.weight" in tower.stored:
            assert tower.stored.keys() == plain.stored.keys()
        for local in _BODY:
            assert plain.full_name(local, tower) == f"model.{local}"
            assert tower.full_name(local, plain) == f"{tower.prefix}.{local}"
        assert tower.full_name("layers.9.w", plain) == f"{tower.prefix}.layers.9.w"


@pytest.mark.parametrize(
    ("module", "prefix"),
    [
        ("vision_tower", "model.visual"),
        ("visual", "model.visual"),
        ("model.visual", "model.visual"),
        ("model.visual.merger", "model.visual.merger"),
        ("model.image_newline", "model.image_newline"),
    ],
)
def test_modules_by_mergekits_names_and_by_prefix(module: str, prefix: str) -> None:
    spoken, seen, _ = SEEING["model.language_model"]
    tower = Towers.of([*seen, *spoken], multimodal=True).tower(module)
    assert tower is not None
    assert list(tower.stored.values()) == [name for name in seen if name.startswith(prefix)]


def test_a_plain_model_is_its_own_language_tower() -> None:
    towers = Towers.of(_below("model", *_BODY), multimodal=False)
    assert towers.module_names == ("default",)
    assert towers.tower("default") is towers.tower("text_decoder") is towers.main
    assert towers.tower("vision_tower") is None


def test_encoder_decoders_have_parts_but_are_merged_whole() -> None:
    names = ["shared.weight", "encoder.block.0.w", "decoder.block.0.w", "lm_head.weight"]
    towers = Towers.of(names, multimodal=False)
    assert list(towers.main.stored) == names
    assert towers.module_names == ("default", "shared", "encoder", "decoder", "lm_head")
    decoder = towers.tower("decoder")
    assert decoder is not None
    assert dict(decoder.stored) == {"block.0.w": "decoder.block.0.w"}
    assert towers.tower("text_decoder") is None
    deep = Towers.of([f"model.{name}" for name in names], multimodal=False)
    assert deep.others == ("model.shared", "model.encoder", "model.decoder", "model.lm_head")
    assert deep.tower("encoder") is not None


def test_names_that_would_collide_are_not_shortened() -> None:
    names = [*_below("model", *_BODY), "norm.weight"]
    tower = Towers.of(names, multimodal=False).main
    assert dict(tower.stored) == {name: name for name in names}


@pytest.mark.parametrize(
    ("config", "causal", "head", "multimodal"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, True, True, False),
        ({"architectures": ["GPT2LMHeadModel"]}, True, True, False),
        ({"architectures": ["BertForMaskedLM"]}, False, True, False),
        ({"architectures": ["BertModel"]}, False, False, False),
        ({"architectures": ["LlamaForSequenceClassification"]}, False, False, False),
        ({"architectures": ["T5ForConditionalGeneration"]}, False, True, False),
        ({"architectures": ["Phi3VForCausalLM"], "vision_config": {"n": 1}}, False, True, True),
        (
            {"architectures": ["Qwen2VLForConditionalGeneration"], "vision_config": {"depth": 1}},
            False,
            True,
            True,
        ),
        (
            {"architectures": ["LlavaLlamaForCausalLM"], "mm_vision_tower": "clip"},
            False,
            True,
            True,
        ),
        (
            {"architectures": ["Qwen2AudioForConditionalGeneration"], "audio_config": {"d": 1}},
            False,
            True,
            True,
        ),
        ({"architectures": ["ViTForImageClassification"], "image_size": 224}, False, False, False),
        ({}, True, True, False),
    ],
)
def test_what_an_architecture_can_do(
    config: dict[str, object], causal: bool, head: bool, multimodal: bool
) -> None:
    assert (is_causal(config), has_head(config), is_multimodal(config)) == (
        causal,
        head,
        multimodal,
    )


@pytest.mark.parametrize(
    ("config", "stacks"),
    [
        ({"num_hidden_layers": 4}, ((4,),)),
        ({"text_config": {"num_hidden_layers": 4}, "vision_config": {"depth": 9}}, ((4,),)),
        ({"num_hidden_layers": 4, "num_nextn_predict_layers": 1}, ((4, 5),)),
        ({"num_hidden_layers": 12, "num_hidden_groups": 1}, ((1,),)),
        ({"num_layers": 2, "num_decoder_layers": 3}, ((2,), (3,))),
        ({"encoder_layers": 2, "decoder_layers": 6}, ((2,), (6,))),
        ({"hidden_size": 4}, ()),
    ],
)
def test_promised_stacks(config: dict[str, object], stacks: tuple[tuple[int, ...], ...]) -> None:
    assert promised_layers(config) == stacks


def test_the_whole_model_decides_whether_its_head_is_tied() -> None:
    text = {"tie_word_embeddings": False}
    assert ties_embeddings({"text_config": text, "tie_word_embeddings": True})
    assert not ties_embeddings({"text_config": text})
