from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge import yaml12
from evomerge.errors import InvalidInput
from evomerge.mergekit_reader import from_mapping
from evomerge.mergekit_yaml import dump_recipe, to_mapping
from evomerge.recipe import Clause, Gradient, Module, Parameters, Recipe, Setting, Slice, Source
from evomerge.tokenizer_policy import ModelRow, TokenizerPolicy, TokenRule, ZeroRow

numbers = st.floats(-3, 3, allow_nan=False)
values = st.one_of(numbers, st.lists(numbers, min_size=1, max_size=4).map(tuple).map(Gradient))
filters = st.sampled_from([None, "*", "self_attn", "layers.1.", ""])
settings_ = st.one_of(
    values.map(lambda v: Setting((Clause(v),))),
    st.lists(st.builds(Clause, values, filters), min_size=2, max_size=4).map(
        lambda clauses: Setting(tuple(clauses))
    ),
)
parameters = st.dictionaries(st.sampled_from(["weight", "density", "lambda"]), settings_).map(
    lambda found: Parameters.of(found.items())
)
names = st.sampled_from(["org/base", "a", "b", "../c", "1e3", "no"])
sources = st.builds(Source, names, st.none(), parameters)
ranged = st.builds(Source, names, st.sampled_from([(0, 0), (0, 4), (2, 3)]), parameters)
slices = st.builds(
    Slice, st.lists(ranged, min_size=1, max_size=3).map(tuple), parameters, st.none() | names
)
dtypes = st.sampled_from([None, "bfloat16", "float32"])
tokens = st.sampled_from(["<|im_start|>", "the", "no", "1", "int"])
rows = st.one_of(
    st.none(),
    st.just(ZeroRow()),
    st.builds(ModelRow, names),
    st.builds(ModelRow, names, tokens),
    st.builds(ModelRow, names, token_id=st.integers(0, 9)),
)
rules = st.lists(
    st.builds(TokenRule, tokens, rows, st.booleans()), max_size=3, unique_by=lambda rule: rule.token
)
policies = st.builds(
    TokenizerPolicy,
    st.sampled_from(["base", "union", "a"]),
    rules.map(tuple),
    st.sampled_from([None, 1, 64]),
)


@st.composite
def modules(draw: st.DrawFn) -> Module:
    name = draw(st.sampled_from(["text_decoder", "vision_tower", "model.visual", "no"]))
    if draw(st.booleans()):
        listed = draw(st.lists(sources, min_size=1, max_size=2).map(tuple))
        return Module(name, models=listed, parameters=draw(parameters))
    return Module(name, slices=(draw(slices),), parameters=draw(parameters))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    form = draw(st.sampled_from(["models", "slices", "modules"]))
    entries = {"models": sources, "slices": slices, "modules": modules()}[form]
    unique = (lambda module: module.name) if form == "modules" else None
    found = draw(st.lists(entries, min_size=1, max_size=3, unique_by=unique).map(tuple))
    return Recipe(
        merge_method=draw(st.sampled_from(["ties", "linear", "dare_ties"])),
        models=found if form == "models" else (),
        slices=found if form == "slices" else (),
        modules=found if form == "modules" else (),
        base_model=draw(st.none() | names),
        parameters=draw(parameters),
        dtype=draw(dtypes),
        out_dtype=draw(dtypes),
        tokenizer=draw(st.none() | policies),
        chat_template=draw(st.none() | st.text(max_size=20)),
    )


@given(recipes())
def test_round_trip_through_text(recipe: Recipe) -> None:
    again = from_mapping(yaml12.loads(dump_recipe(recipe), "text"), "text")
    assert again == recipe
    assert again.digest == recipe.digest


@given(recipes(), recipes())
def test_digest_tells_recipes_apart(one: Recipe, other: Recipe) -> None:
    assert (one.digest == other.digest) == (one == other)


def test_a_policy_without_rules_takes_the_short_form() -> None:
    long = from_mapping(_recipe({"weight": 1}) | {"tokenizer": {"source": "a"}}, "f")
    assert long == from_mapping(_recipe({"weight": 1}) | {"tokenizer_source": "a"}, "f")
    assert to_mapping(long)["tokenizer_source"] == "a"
    assert from_mapping(_recipe({"weight": 1}) | {"tokenizer": {}}, "f").tokenizer == (
        TokenizerPolicy("union")
    )


def test_order_of_parameters_does_not_matter() -> None:
    one = from_mapping(_recipe({"weight": 1, "density": 0.5}), "f")
    other = from_mapping(_recipe({"density": 0.5, "weight": 1.0}), "f")
    assert one == other


def _rule(value: dict[str, Any]) -> dict[str, Any]:
    return {"tokenizer": {"tokens": {"x": value}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge_methd": "ties"}, "unknown key 'merge_methd'; did you mean 'merge_method'"),
        ({"merge_method": "dare-ties"}, "unknown method 'dare-ties'; did you mean 'dare_ties'"),
        ({"merge_method": "tie"}, "unknown method 'tie'; did you mean 'ties'"),
        ({"parameters": {"weigth": 1}}, "unknown parameter 'weigth'; did you mean 'weight'"),
        ({"parameters": {"weight": "heavy"}}, "expected a number or true/false, got 'heavy'"),
        ({"parameters": {"weight": [1, {"value": 2}]}}, "cannot be mixed"),
        ({"dtype": "fp16"}, "unknown dtype 'fp16'; known: bfloat16"),
        ({"slices": [{"sources": [{"model": "a"}]}]}, "expected .start, end., start <= end"),
        ({"models": None}, "expected exactly one of 'models', 'slices' and 'mod"),
        ({"models": [{"modl": "a"}]}, "unknown key 'modl'; did you mean 'model'"),
        ({"models": {"model": "a"}}, "models: expected a list"),
        ({"base_model": 7}, "base_model: expected a text, got 7"),
        ({"tokenizer_source": {}}, "tokenizer_source: expected a text, got {}"),
        ({"tokenizer": {"sorce": "a"}}, "tokenizer: unknown key 'sorce'; did you mean 'source'"),
        ({"tokenizer": {}, "tokenizer_source": "base"}, "either 'tokenizer' or 'tokenizer_source'"),
        ({"tokenizer": "base"}, "tokenizer: expected a mapping, got 'base'"),
        ({"tokenizer": {"tokens": ["x"]}}, "tokenizer.tokens: expected a mapping"),
        ({"tokenizer": {"pad_to_multiple_of": 0}}, "pad_to_multiple_of: expected a whole number"),
        (_rule({"forc": True}), "tokens.x: unknown key 'forc'; did you mean 'force'"),
        (_rule({"force": "yes please"}), "x.force: expected true or false, got 'yes please'"),
        (_rule({"source": 7}), "x.source: expected a model or a mapping with kind: model_token or"),
        (_rule({"source": {"kind": "zeros"}}), "unknown kind 'zeros'; did you mean 'zero'"),
        (
            _rule({"source": {"kind": "model_token", "token": "x"}}),
            "x.source.model: expected a text",
        ),
        (_rule({"source": {"kind": "model_token", "model": "a"}}), "'token_id', got neither"),
        (
            _rule({"source": {"kind": "model_token", "model": "a", "token": "x", "token_id": 1}}),
            "x.source: expected either 'token' or 'token_id', got both",
        ),
    ],
)
def test_bad_recipes_are_explained(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_mapping(_recipe({"weight": 1}) | change, "file.yaml")


def test_all_problems_come_in_one_report() -> None:
    bad = {"merge_method": "tis", "models": [{"model": "a"}], "dtyp": 1, "dtype": "int8"}
    with pytest.raises(InvalidInput) as caught:
        from_mapping(bad, "file.yaml")
    assert len(caught.value.problems) == 3
    assert all(line.startswith("file.yaml") and "\n" not in line for line in caught.value.problems)


def test_texts_of_yaml_1_1_become_numbers_and_flags() -> None:
    recipe = from_mapping(_recipe({"weight": "0.5", "normalize": "yes", "density": "1e-1"}), "f")
    assert to_mapping(recipe)["parameters"] == {"weight": 0.5, "normalize": True, "density": 0.1}


def test_gradient_interpolates_and_steps() -> None:
    assert Gradient((0.0, 1.0, 0.0)).at(0.25) == 0.5
    assert Gradient((0.0, 1.0, 0.0)).at(1.0) == 0.0
    assert Gradient((3.0,)).at(0.7) == 3.0
    assert Gradient((True, False)).at(0.99) is True


def test_first_matching_clause_wins() -> None:
    setting = Setting((Clause(1.0, "mlp"), Clause(2.0, "layers.1."), Clause(3.0)))
    assert setting.at("layers.1.mlp.w", 0.0) == 1.0
    assert setting.at("layers.1.attn.w", 0.0) == 2.0
    assert setting.at("layers.11.attn.w", 0.0) == 3.0
    assert Setting((Clause(1.0, "mlp"),)).at("norm", 0.0) is None


def _recipe(parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "merge_method": "ties",
        "base_model": "base",
        "models": [{"model": "a"}],
        "parameters": parameters,
    }
