"""Which value a parameter has where: against a second implementation that reads the YAML itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.mergekit_reader import from_mapping
from evomerge.parameter import Parameter, Scope
from evomerge.recipe import STACK, Gradient, Scalar
from evomerge.signatures import SIGNATURES, Base
from evomerge.weights.expansion import Target, expand
from evomerge.weights.pool import ParentPool
from evomerge.weights.recipe_rules import validate_recipe
from evomerge.weights.values import ValueLookup

_RANGES = [{"math": (0, 3), "code": (1, 4)}, {"math": (3, 4), "code": (0, 1)}]
_DEFAULTS: dict[str, Scalar] = {"lambda": 1.0, "normalize": False, "seed": 0, "density": 1.0}
_FILTERS = st.sampled_from(["*", "", "mlp", "self_attn", "layers.1.", "layers.3.", "norm", "x"])


def _spec(scalar: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nothing, a value, a gradient, one clause or several."""
    value = st.one_of(scalar, st.lists(scalar, min_size=1, max_size=4))
    clause = st.fixed_dictionaries({"value": value}, optional={"filter": _FILTERS})
    return st.one_of(st.none(), value, clause, st.lists(clause, min_size=1, max_size=3))


_NUMBERS = _spec(st.floats(0.0, 1.0, width=16))
_FLAGS = _spec(st.booleans())
_STEPS = st.sampled_from([None, 3, [0, 6], [6, 0, 6], {"filter": "mlp", "value": [0, 6]}])
_PER_MODEL = {"weight": _NUMBERS, "density": _NUMBERS}
_SHARED = {"lambda": _NUMBERS, "normalize": _FLAGS, "seed": _STEPS}


def _scope(**specs: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    drawn = st.fixed_dictionaries(specs)
    return drawn.map(lambda found: {k: v for k, v in found.items() if v is not None})


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """Two slices of two models and their base, all of it in a module or not."""
    slices = []
    for ranges in _RANGES:
        sources = [
            {"model": m, "layer_range": [*r], "parameters": draw(_scope(**_PER_MODEL))}
            for m, r in ranges.items()
        ]
        sources.append({"model": "base", "layer_range": [*ranges["math"]]})
        slices.append({"sources": sources, "parameters": draw(_scope(**_PER_MODEL, **_SHARED))})
    top = draw(_scope(**_PER_MODEL, **_SHARED)) | {"weight": [{"filter": "mlp", "value": 0.25}]}
    top["weight"] += [{"value": 0.5}]
    recipe = {"merge_method": "dare_ties", "base_model": "base", "parameters": top}
    if draw(st.booleans()):
        module = {"slices": slices, "parameters": draw(_scope(**_PER_MODEL, **_SHARED))}
        return recipe | {"modules": {"default": module}}
    return recipe | {"slices": slices}


def _at(spec: Any, name: str, depth: float) -> Scalar | None:
    clauses = [spec] if isinstance(spec, dict) else spec
    if not (isinstance(clauses, list) and isinstance(clauses[0], dict)):
        clauses = [{"value": spec}]
    for clause in clauses:
        part = clause.get("filter", "*")
        if part == "*" or part in name:
            return _interpolated(clause["value"], depth)
    return None


def _interpolated(value: Any, depth: float) -> Scalar:
    if not isinstance(value, list):
        return value  # type: ignore[no-any-return]
    position = depth * (len(value) - 1)
    left = int(position)
    if isinstance(value[0], bool):
        return value[left]
    right, fraction = min(left + 1, len(value) - 1), position - left
    return (1.0 - fraction) * float(value[left]) + fraction * float(value[right])


def _place(name: str) -> tuple[int, int | None, float]:
    """The slice of an output tensor, its layer within the slice, and its depth there."""
    layer = re.search(r"layers\.(\d+)\.", name)
    if layer is None:
        return (0 if "embed" in name else 1), None, 0.0
    number = int(layer[1])
    return (0, number, number / 2) if number < 3 else (1, number - 3, 1.0)


def _expected(recipe: dict[str, Any], target: Target, parameter: str, model: str | None) -> Scalar:
    index, layer, depth = _place(target.name)
    module = recipe.get("modules", {}).get("default", {})
    part = (recipe.get("slices") or module["slices"])[index]
    scopes = [part["parameters"], module.get("parameters", {}), recipe["parameters"]]
    name = target.name
    if model is not None:
        source = next(s for s in part["sources"] if s["model"] == model)
        scopes.insert(0, source["parameters"])
        if layer is not None:
            start = source["layer_range"][0]
            name = re.sub(r"layers\.\d+", f"layers.{start + layer}", name)
    for scope in scopes:
        found = _at(scope[parameter], name, depth) if parameter in scope else None
        if found is not None:
            return found
    return _DEFAULTS[parameter]


@pytest.fixture(scope="module")
def pool(llamas: Path) -> ParentPool:
    return ParentPool.open(["base", "math", "code"], llamas)


@given(recipe=recipes())
@settings(max_examples=60)
def test_the_most_specific_scope_with_a_value_wins(
    pool: ParentPool, recipe: dict[str, Any]
) -> None:
    parsed = from_mapping(recipe, "test")
    lookup = ValueLookup(parsed)
    for target in expand(parsed, pool):
        shared, (math, code) = lookup.shared(target), lookup.models(target)
        for name in _SHARED:
            assert shared[name] == pytest.approx(_expected(recipe, target, name, None))
            assert isinstance(shared[name], {"normalize": bool, "seed": int}.get(name, float))
        for model, values in (("math", math), ("code", code)):
            for name in _PER_MODEL:
                assert values[name] == pytest.approx(_expected(recipe, target, name, model))
    assert lookup.problems == []


@given(count=st.integers(2, 200), step=st.integers(1, 5), low=st.integers(0, 50))
@settings(max_examples=60)
def test_whole_numbers_along_a_gradient_come_out_whole(count: int, step: int, low: int) -> None:
    parameter = SIGNATURES["karcher"].parameter("max_iter")
    assert parameter is not None
    gradient = Gradient((low, low + step * (count - 1)))
    for layer in range(count):
        value = gradient.at(layer / (count - 1))
        assert parameter.problem(value) is None
        assert parameter.convert(value) == low + step * layer
        assert type(parameter.convert(value)) is int


@pytest.mark.parametrize("name", sorted(SIGNATURES.keys() - {STACK}))
def test_every_method_takes_filters_gradients_and_slices(pool: ParentPool, name: str) -> None:
    signature = SIGNATURES[name]
    models = ["math", "code"][: signature.maximum or 2]
    based = signature.base is not Base.IGNORED
    setting = {p.name: _varied(p) for p in signature.parameters}
    sources = [{"model": m, "layer_range": [0, 4]} for m in (*models, *(["base"] if based else []))]
    recipe = {"merge_method": name, "slices": [{"sources": sources}], "parameters": setting}
    parsed = from_mapping(recipe | ({"base_model": "base"} if based else {}), "test")
    assert validate_recipe(parsed) == []
    lookup = ValueLookup(parsed)
    for target in expand(parsed, pool):
        found = [(lookup.shared(target), Scope.SHARED)]
        found += [(values, Scope.MODEL) for values in lookup.models(target)]
        assert len(found) == len(models) + 1
        for values, scope in found:
            declared = {p.name: p for p in signature.parameters if p.scope is scope}
            assert values.keys() == declared.keys()
            for key, parameter in declared.items():
                layer = re.search(r"layers\.(\d)", target.name)
                last = layer is not None and int(layer[1]) == 3
                low, high = _ends(parameter)
                expected = low if "mlp" in target.name or not last else high
                between = layer is not None and int(layer[1]) in (1, 2) and "mlp" not in target.name
                assert low <= values[key] <= high if between else values[key] == expected
    assert lookup.problems == []


def _ends(parameter: Parameter) -> tuple[Any, Any]:
    if parameter.kind is bool:
        return False, True
    if parameter.kind is int:
        return 0, 6
    return (0.5, 0.75) if parameter.name == "density" else (0.125, 0.2)


def _varied(parameter: Parameter) -> Any:
    low, high = _ends(parameter)
    return [{"filter": "mlp", "value": low}, {"value": [low, high]}]
