"""Stencil: a recipe read once, in which each candidate changes no more than its genes' settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from evomerge.mergekit_reader import from_mapping, read_setting
from evomerge.recipe import Parameters, Recipe, Scalar, Slice, Source

_WHERE = "search space"
_AT_HAND = 64
"""Stencils that are kept: a search has few shapes, or so many that keeping them gains nothing."""
Values = tuple[Scalar, ...]
"""The value of every gene."""


@dataclass(frozen=True)
class Draw:
    """A place in a template that takes the value of one gene."""

    gene: int


@final
class Stencils:
    """The stencils of one template, made as they are needed (stateful: it remembers some).

    Genes that act elsewhere than on parameters, such as the choice of a method, shape the recipe;
    genotypes that agree on them share a stencil.
    """

    def __init__(self, template: Mapping[str, Any]) -> None:
        """`template` is a recipe in mergekit's form, with a `Draw` for every free value."""
        self._template = template
        self._shaping = tuple(sorted(set(_draws(_without_parameters(template)))))
        self._made: dict[tuple[tuple[type, Scalar], ...], Stencil] = {}

    def filled(self, values: Values) -> Recipe:
        """The recipe with these values in it.

        Raises:
            InvalidInput: every problem found, one line each.
        """
        shape = tuple((type(values[gene]), values[gene]) for gene in self._shaping)  # 1 is not True
        if shape not in self._made:
            if len(self._made) == _AT_HAND:
                self._made.clear()
            self._made[shape] = Stencil(self._template, values)
        return self._made[shape].filled(values)


@final
class Stencil:
    """What a template becomes for all genotypes that agree on the genes that shape it."""

    def __init__(self, template: Mapping[str, Any], values: Values) -> None:
        """Read the template with these values in it.

        Raises:
            InvalidInput: every problem found, one line each.
        """
        self._recipe = from_mapping(_fill(template, values), _WHERE)
        self._whole = _scope(template, "", self._recipe.parameters)
        self._models = _scopes(template.get("models"), "models", self._recipe.models)
        self._slices = _scopes(template.get("slices"), "slices", self._recipe.slices)
        self._sources = tuple(
            _scopes(entry["sources"], f"slices[{index}].sources", part.sources)
            for index, (entry, part) in enumerate(
                zip(template.get("slices") or (), self._recipe.slices, strict=True)
            )
        )

    def filled(self, values: Values) -> Recipe:
        """The recipe for these values, those of the shaping genes being the stencil's.

        Raises:
            InvalidInput: a value is not one that its parameter can have.
        """
        slices = zip(self._recipe.slices, self._slices, self._sources, strict=True)
        return replace(
            self._recipe,
            models=_filled_sources(self._recipe.models, self._models, values),
            slices=tuple(
                Slice(
                    _filled_sources(part.sources, sources, values),
                    scope.filled(values),
                    part.base_model,
                )
                for part, scope, sources in slices
            ),
            parameters=self._whole.filled(values),
        )


@dataclass(frozen=True)
class _Scope:
    """Parameters as they were read, and the templates of those with genes."""

    path: str
    read: Parameters
    free: Mapping[str, Any]

    def filled(self, values: Values) -> Parameters:
        if not self.free:
            return self.read
        return Parameters(
            tuple(
                (name, read_setting(_fill(self.free[name], values), name, _WHERE, self.path))
                if name in self.free
                else (name, setting)
                for name, setting in self.read
            )
        )


def _scope(template: Mapping[str, Any], path: str, read: Parameters) -> _Scope:
    free = {
        name: value
        for name, value in (template.get("parameters") or {}).items()
        if next(_draws(value), None) is not None
    }
    return _Scope(f"{path}.parameters" if path else "parameters", read, free)


def _scopes(
    templates: list[Mapping[str, Any]] | None, path: str, read: tuple[Source | Slice, ...]
) -> tuple[_Scope, ...]:
    entries = enumerate(zip(templates or (), read, strict=True))
    return tuple(
        _scope(template, f"{path}[{index}]", part.parameters) for index, (template, part) in entries
    )


def _filled_sources(
    sources: tuple[Source, ...], scopes: tuple[_Scope, ...], values: Values
) -> tuple[Source, ...]:
    return tuple(
        Source(source.model, source.layer_range, scope.filled(values)) if scope.free else source
        for source, scope in zip(sources, scopes, strict=True)
    )


def _fill(template: Any, values: Values) -> Any:
    if isinstance(template, Draw):
        return values[template.gene]
    if isinstance(template, str | int | float):  # before what is slow to tell
        return template
    if isinstance(template, Mapping):
        return {key: _fill(entry, values) for key, entry in template.items()}
    if isinstance(template, list):
        return [_fill(entry, values) for entry in template]
    return template


def _draws(template: Any) -> Iterator[int]:
    if isinstance(template, Draw):
        yield template.gene
    elif isinstance(template, Mapping | list):
        for entry in template.values() if isinstance(template, Mapping) else template:
            yield from _draws(entry)


def _without_parameters(template: Mapping[str, Any]) -> dict[str, Any]:
    """A template, or a model or slice of one, without what genes may decide in it."""
    own = {key: value for key, value in template.items() if key != "parameters"}
    for key in ("models", "slices", "sources"):
        if isinstance(own.get(key), list):
            own[key] = [
                _without_parameters(entry) if isinstance(entry, Mapping) else entry
                for entry in own[key]
            ]
    return own
