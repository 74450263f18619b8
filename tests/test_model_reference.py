from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge import yaml12
from evomerge.errors import InvalidInput
from evomerge.mergekit_reader import from_mapping
from evomerge.mergekit_yaml import dump_recipe
from evomerge.model_reference import ModelReference, in_text_form
from evomerge.space_file import read_space
from evomerge.weights.recipe_rules import validate_recipe

paths = st.from_regex(r"[a-z./~][a-z./_-]{0,8}(@[a-z0-9]{1,4})?", fullmatch=True)


@given(paths, st.none() | paths)
def test_a_reference_is_its_text(base: str, adapter: str | None) -> None:
    reference = ModelReference(base, adapter)
    assert ModelReference.parse(reference.text) == reference
    renamed = reference.renamed(str.upper)
    assert renamed == ModelReference(base.upper(), adapter and adapter.upper())


def test_space_around_the_plus_does_not_count() -> None:
    assert ModelReference.parse(" base + ../a ") == ModelReference("base", "../a")


@pytest.mark.parametrize("text", ["", "+", "base+", "+adapter", " + "])
def test_incomplete_references_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"expected 'base\+adapter'"):
        ModelReference.parse(text)


def test_a_second_plus_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"at most one '\+', .* got 2: link folders"):
        ModelReference.parse("base+a+b")


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ({"model": "m"}, "m"),
        ({"model": {"path": "m"}}, "m"),
        ({"model": {"path": "m", "revision": None}, "lora": None}, "m"),
        ({"model": {"path": "m", "revision": "v1"}}, "m@v1"),
        ({"model": {"path": "m"}, "lora": "a"}, "m+a"),
        ({"model": "m", "lora": {"path": "a", "revision": "r"}}, "m+a@r"),
        (
            {"model": {"path": "m", "revision": "v1"}, "lora": {"path": "a", "revision": "v2"}},
            "m@v1+a@v2",
        ),
    ],
)
def test_mappings_become_text_wherever_models_are_named(mapping: Any, text: str) -> None:
    plain = {
        "merge_method": "linear",
        "base_model": mapping,
        "slices": [
            {
                "base_model": mapping,
                "sources": [
                    {"model": mapping, "layer_range": [0, 2], "parameters": {"weight": 1.0}}
                ],
            }
        ],
    }
    recipe = from_mapping(plain, "r.yaml")
    assert recipe.base_model == text
    assert recipe.slices[0].base_model == text
    assert recipe.slices[0].sources[0].model == text
    assert from_mapping(yaml12.loads(dump_recipe(recipe), "text"), "text") == recipe
    assert isinstance(plain["base_model"], dict), "the input is not changed"


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"model": "m", "override_architecture": "X"}, "expected a path, a hub name or {model"),
        ({"model": "m", "lora": {"revision": "r"}}, "expected a path, a hub name or {model"),
        ({"model": {"path": 3}}, "expected a path, a hub name or {model"),
        ({"model": {"path": "m", "revison": "r"}}, "expected a path, a hub name or {model"),
        ({"model": ["m"]}, "expected a path, a hub name or {model"),
    ],
)
def test_mappings_of_another_form_are_one_line_with_their_place(mapping: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        from_mapping({"merge_method": "linear", "models": [{"model": mapping}]}, "r.yaml")
    (line,) = caught.value.problems
    assert line.startswith(f"r.yaml: models[0].model: {message}")


def test_a_space_takes_references_and_leaves_genes_alone() -> None:
    adapted = {"model": {"path": "base"}, "lora": {"path": "a"}}
    space = read_space(
        {
            "merge_method": "task_arithmetic",
            "base_model": {"model": "base"},
            "models": [{"model": adapted}, {"model": "base+b"}],
            "parameters": {"weight": {"float": [0.0, 1.0], "per": "model"}},
        },
        "s.yaml: space",
        None,
    )
    assert space.parents == ("base+a", "base+b")
    assert [gene.name for gene in space.genes] == ["weight[base+a]", "weight[base+b]"]
    recipe = space.decode(space.start)
    assert recipe.referenced_models() == ("base", "base+a", "base+b")


def test_a_space_explains_wrong_references() -> None:
    space = {
        "merge_method": "linear",
        "models": [{"model": "a"}, {"model": {"model": {"path": 1}}}],
        "parameters": {"weight": {"float": [0.0, 1.0]}},
    }
    with pytest.raises(InvalidInput) as caught:
        read_space(space, "s.yaml: space", None)
    (line,) = caught.value.problems
    assert line.startswith("s.yaml: space.models[1].model: expected a path, a hub name or {model")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("m+a+b", "model 'm+a+b': expected at most one '+'"),
        ({"model": "m+a", "lora": "b"}, "model 'm+a+b': expected at most one '+'"),
        ("m++a", "model 'm++a': expected at most one '+'"),
        ("m+", "model 'm+': expected 'base+adapter'"),
    ],
)
def test_a_recipe_with_a_wrong_text_can_be_read_but_is_not_valid(model: Any, message: str) -> None:
    plain = {"merge_method": "passthrough", "models": [{"model": model}]}
    (line,) = validate_recipe(from_mapping(plain, "r.yaml"))
    assert line.startswith(message)


@given(st.text(min_size=1, max_size=8))
def test_texts_are_kept_to_the_letter(text: str) -> None:
    plain = {"merge_method": "passthrough", "models": [{"model": text}]}
    assert from_mapping(plain, "r.yaml").models[0].model == text


def test_other_values_stay_as_they_are() -> None:
    value = {"models": [1, None, "x"], "model": {"choice": ["a", "b"]}, 3: {"lora": {}}}
    problems: list[str] = []
    assert in_text_form(value, lambda path, text: problems.append(path + text)) == value
    assert problems == []
