from __future__ import annotations

from dataclasses import replace
from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe, Setting
from evomerge.stack import Segment, hops, path_of, recipe_of
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.stack_fold import folded
from evomerge.weights.stack_rules import FOLD_RULES

_O, _DOWN, _UP = (
    f"model.layers.3.{name}.weight" for name in ("self_attn.o_proj", "mlp.down_proj", "mlp.up_proj")
)


def _stack(*segments: Segment, donor: str = "a", mode: str = "stream") -> Recipe:
    return recipe_of(segments, donor=donor, scale_mode=mode, dtype="bfloat16")


def _value(recipe: Recipe, index: int, name: str, tensor: str) -> float:
    setting = recipe.slices[index].sources[0].parameters.get(name)
    value = (setting or Setting.constant(1.0 if name == "scale" else 0.0)).at(tensor, 0.0)
    assert isinstance(value, float)
    return value


def _ranges(recipe: Recipe) -> list[tuple[str, tuple[int, int] | None]]:
    return [(part.sources[0].model, part.sources[0].layer_range) for part in recipe.slices]


def test_products_of_scales_divide_what_layers_add() -> None:
    stack = _stack(Segment("a", 0, 2), Segment("b", 1, 3, 2.0), Segment("a", 3, 5, 0.25))
    recipe = folded(stack, "llama")
    assert _ranges(recipe) == [("a", (0, 2)), ("b", (1, 3)), ("a", (3, 5))]
    for index, factor in enumerate((1.0, 0.5, 2.0)):
        assert _value(recipe, index, "scale", _O) == factor
        assert _value(recipe, index, "scale", _DOWN) == factor
        assert _value(recipe, index, "scale", _UP) == 1.0
    assert (recipe.merge_method, recipe.base_model, recipe.dtype) == (
        "passthrough",
        "a",
        "bfloat16",
    )
    assert validate_recipe(recipe) == []


def test_in_the_other_mode_only_the_layer_before_the_seam_changes() -> None:
    stack = _stack(Segment("a", 0, 3), Segment("a", 1, 4, 1.5), mode="mlp_delta")
    recipe = folded(stack, "llama")
    assert _ranges(recipe) == [("a", (0, 2)), ("a", (2, 3)), ("a", (1, 4))]
    assert [_value(recipe, index, "scale", _DOWN) for index in range(3)] == [1.0, 1.5, 1.0]
    assert [_value(recipe, index, "scale", _O) for index in range(3)] == [1.0, 1.0, 1.0]


def test_gains_stored_as_distance_from_one_are_shifted() -> None:
    recipe = folded(_stack(Segment("a", 0, 2), Segment("a", 0, 2, 0.5)), "gemma2")
    gain = "model.layers.3.post_feedforward_layernorm.weight"
    before = "model.layers.3.pre_feedforward_layernorm.weight"
    assert [_value(recipe, 1, name, gain) for name in ("scale", "shift")] == [2.0, 1.0]
    assert [_value(recipe, 1, name, before) for name in ("scale", "shift")] == [1.0, 0.0]
    assert _value(recipe, 1, "scale", _DOWN) == 1.0


def test_without_a_norm_before_them_readers_grow() -> None:
    recipe = folded(_stack(Segment("a", 0, 2), Segment("a", 0, 2, 0.5)), "olmo2")
    assert _value(recipe, 1, "scale", _UP) == 0.5
    assert _value(recipe, 1, "scale", "model.layers.3.self_attn.q_proj.bias") == 1.0
    assert _value(recipe, 1, "scale", "model.layers.3.post_attention_layernorm.weight") == 2.0


def test_the_donor_frames_layers_of_others() -> None:
    recipe = folded(_stack(Segment("b", 0, 2), Segment("a", 1, 2), Segment("c", 1, 3)), "llama")
    assert _ranges(recipe)[0] == _ranges(recipe)[-1] == ("a", (0, 0))
    assert len(recipe.slices) == 5
    inside = folded(_stack(Segment("a", 0, 2), Segment("b", 1, 3), Segment("a", 3, 4)), "llama")
    assert len(inside.slices) == 3


@pytest.mark.parametrize("family", ["falcon", "cohere", "t5"])
def test_unknown_families_fold_without_scales_only(family: str) -> None:
    plain = _stack(Segment("a", 0, 2), Segment("a", 1, 3))
    assert _ranges(folded(plain, family)) == [("a", (0, 2)), ("a", (1, 3))]
    scaled = _stack(Segment("a", 0, 2), Segment("a", 1, 3, 0.9))
    with pytest.raises(PreflightFailed, match=rf"no rule .* '{family}' .*: leave .*llama.*gpt2"):
        folded(scaled, family)


@pytest.mark.parametrize("family", ["gpt_neox", "phi"])
def test_parallel_layers_have_no_mlp_of_their_own(family: str) -> None:
    segments = Segment("a", 0, 2), Segment("a", 1, 3, 0.9)
    assert folded(_stack(*segments), family).slices[1].sources[0].parameters
    with pytest.raises(PreflightFailed, match=rf"'{family}' layers add attention and MLP at once"):
        folded(_stack(*segments, mode="mlp_delta"), family)


_SEGMENTS = st.builds(
    lambda model, start, length, gain: Segment(model, start, start + length, gain),
    st.sampled_from("ab"),
    st.integers(0, 4),
    st.integers(1, 3),
    st.sampled_from((1.0, 0.5, 1.25, 0.7)),
)


@given(
    st.lists(_SEGMENTS, min_size=1, max_size=8),
    st.sampled_from(tuple(FOLD_RULES)),
    st.sampled_from(("stream", "mlp_delta")),
)
def test_any_stack_keeps_its_layers_in_order(
    segments: list[Segment], family: str, mode: str
) -> None:
    stack = _stack(*segments, donor=segments[-1].model, mode=mode)
    try:
        recipe = folded(stack, family)
    except PreflightFailed:
        assert FOLD_RULES[family].mlp_module is None
        return
    layers = [(model, layer) for model, span in _ranges(recipe) if span for layer in range(*span)]
    assert layers == [(hop.model, hop.layer) for hop in hops(path_of(stack))]
    assert validate_recipe(recipe) == []
    assert folded(replace(stack, dtype=None), family).dtype is None


@given(st.lists(st.sampled_from((0.5, 0.8, 1.3)), min_size=1, max_size=8))
def test_factors_are_the_products_of_all_scales_so_far(gains: list[float]) -> None:
    segments = [Segment("a", 0, 1), *(Segment("a", 0, 1, gain) for gain in gains)]
    recipe = folded(_stack(*segments), "llama")
    product = 1.0
    for index, gain in enumerate((1.0, *gains)):
        product *= gain
        assert isclose(_value(recipe, index, "scale", _O) * product, 1.0, rel_tol=1e-12)
