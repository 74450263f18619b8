from __future__ import annotations

import pytest

from evomerge.weights.layout import Layout, Section, at_layer, layer_count, place_of
from evomerge.weights.model_config import hidden_size, ties_embeddings, vocabulary_size


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("model.embed_tokens.weight", Section.PRE),
        ("transformer.wte.weight", Section.PRE),
        ("wpe.weight", Section.PRE),
        ("gpt_neox.embed_in.weight", Section.PRE),
        ("transformer.word_embeddings_layernorm.weight", Section.PRE),
        ("model.norm.weight", Section.POST),
        ("transformer.ln_f.bias", Section.POST),
        ("lm_head.weight", Section.POST),
        ("embed_out.weight", Section.POST),
        ("model.layers.3.mlp.experts.7.w1.weight", Section.LAYER),
        ("h.11.attn.c_attn.bias", Section.LAYER),
    ],
)
def test_sections(name: str, section: Section) -> None:
    assert place_of(name).section is section


def test_the_first_number_is_the_layer() -> None:
    place = place_of("model.layers.3.mlp.experts.7.w1.weight")
    assert (place.stack, place.layer, place.rest) == ("model.layers", 3, "mlp.experts.7.w1.weight")


def test_renumbering_changes_only_the_layer() -> None:
    assert at_layer("model.layers.3.experts.3.w", 12) == "model.layers.12.experts.3.w"
    assert at_layer("lm_head.weight", 12) == "lm_head.weight"


def test_a_layout_counts_the_layers_of_each_stack() -> None:
    layout = Layout.of(
        ["v.blocks.0.w", "v.blocks.1.w", "m.layers.0.a", "m.layers.2.b", "wte.weight", "norm.w"]
    )
    assert dict(layout.stacks) == {"v.blocks": 2, "m.layers": 3}
    assert layout.layers["m.layers", 2] == {"b"}
    assert ("m.layers", 1) not in layout.layers
    assert layout.unnumbered(Section.PRE) == ("wte.weight",)
    assert layout.unnumbered(Section.POST) == ("norm.w",)
    assert layout.token_embedding == "wte.weight"
    assert layout.head is None


@pytest.mark.parametrize(
    ("config", "count"),
    [
        ({"num_hidden_layers": 30}, 30),
        ({"n_layer": 12}, 12),
        ({"num_layers": 6}, 6),
        ({"num_hidden_layers": 1, "text_config": {"num_hidden_layers": 26}}, 26),
        ({"num_hidden_layers": "30"}, None),
        ({"num_hidden_layers": True}, None),
        ({}, None),
    ],
)
def test_layer_count(config: dict[str, object], count: int | None) -> None:
    assert layer_count(config) == count


def test_numbers_of_nested_and_old_configs() -> None:
    nested = {"text_config": {"hidden_size": 8, "vocab_size": 9, "tie_word_embeddings": False}}
    assert (hidden_size(nested), vocabulary_size(nested)) == (8, 9)
    assert (hidden_size({"n_embd": 4}), vocabulary_size({"n_embd": 4})) == (4, None)
    assert not ties_embeddings(nested)
    assert not ties_embeddings({"text_config": {}, "tie_word_embeddings": False})
    assert ties_embeddings({})
