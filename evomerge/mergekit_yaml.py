"""Recipe <-> mergekit YAML: the only place, with its reader, that knows the format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evomerge import yaml12
from evomerge.mergekit_reader import from_mapping
from evomerge.recipe import Gradient, Module, Parameters, Recipe, Setting, Slice, Source
from evomerge.tokenizer_yaml import tokenizer_mapping


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; raises InvalidInput listing every problem in it."""
    return from_mapping(yaml12.load(path), str(path))


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as mergekit YAML text."""
    return yaml12.dumps(to_mapping(recipe))


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values under mergekit's keys; the inverse of `from_mapping`."""
    mapping: dict[str, Any] = {"merge_method": recipe.merge_method}
    if recipe.base_model is not None:
        mapping["base_model"] = recipe.base_model
    if recipe.modules:
        mapping["modules"] = {module.name: _body(module) for module in recipe.modules}
    mapping |= _body(recipe)
    for key in ("scale_mode", "dtype", "out_dtype", "chat_template"):
        if getattr(recipe, key) is not None:
            mapping[key] = getattr(recipe, key)
    if recipe.nested:
        mapping["recipes"] = {name: to_mapping(inner) for name, inner in recipe.nested}
    return mapping | tokenizer_mapping(recipe.tokenizer)


def _body(body: Recipe | Module) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    if body.models:
        mapping["models"] = [_source(source) for source in body.models]
    if body.slices:
        mapping["slices"] = [_slice(part) for part in body.slices]
    if body.parameters:
        mapping["parameters"] = _parameters(body.parameters)
    return mapping


def _slice(part: Slice) -> dict[str, Any]:
    mapping: dict[str, Any] = {"sources": [_source(source) for source in part.sources]}
    if part.base_model is not None:
        mapping["base_model"] = part.base_model
    if part.parameters:
        mapping["parameters"] = _parameters(part.parameters)
    return mapping


def _source(source: Source) -> dict[str, Any]:
    mapping: dict[str, Any] = {"model": source.model}
    if source.layer_range is not None:
        mapping["layer_range"] = list(source.layer_range)
    if source.parameters:
        mapping["parameters"] = _parameters(source.parameters)
    return mapping


def _parameters(parameters: Parameters) -> dict[str, Any]:
    return {name: _setting(setting) for name, setting in parameters}


def _setting(setting: Setting) -> Any:
    plain = [
        list(clause.value.values) if isinstance(clause.value, Gradient) else clause.value
        for clause in setting.clauses
    ]
    if len(plain) == 1 and setting.clauses[0].filter is None:
        return plain[0]
    return [
        {"value": value} if clause.filter is None else {"filter": clause.filter, "value": value}
        for clause, value in zip(setting.clauses, plain, strict=True)
    ]
