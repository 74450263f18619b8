"""Stencil: a recipe read once, in which each candidate changes no more than its genes' settings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from evomerge.mergekit_reader import from_mapping, read_setting
from evomerge.recipe import (
    Parameters,
    Recipe,
    Scalar,
    Setting,
    Slice,
    Source,
    canonical,
    written_as,
)

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
        self._holes: list[_Hole] = []
        parts = template.get("slices") or ()
        self._models = self._scopes(template.get("models"), "models", self._recipe.models)
        self._slices = self._scopes(parts, "slices", self._recipe.slices)
        self._sources = tuple(
            self._scopes(entry["sources"], f"slices[{index}].sources", part.sources)
            for index, (entry, part) in enumerate(zip(parts, self._recipe.slices, strict=True))
        )
        self._whole = self._scope(template, "", self._recipe.parameters)
        self._texts, self._order = self._around_holes()

    def filled(self, values: Values) -> Recipe:
        """The recipe for these values, those of the shaping genes being the stencil's.

        Raises:
            InvalidInput: a value is not one that its parameter can have.
        """
        settings = [hole.setting(values) for hole in self._holes]
        first, *others = self._texts
        inside = [_written(settings[hole]) for hole in self._order]
        pairs = [part for pair in zip(inside, others, strict=True) for part in pair]
        return written_as(self._with(settings), "".join([first, *pairs]))

    def _with(self, settings: Sequence[Setting]) -> Recipe:
        slices = zip(self._recipe.slices, self._slices, self._sources, strict=True)
        return replace(
            self._recipe,
            models=_filled_sources(self._recipe.models, self._models, settings),
            slices=tuple(
                Slice(
                    _filled_sources(part.sources, sources, settings),
                    scope.filled(settings),
                    part.base_model,
                )
                for part, scope, sources in slices
            ),
            parameters=self._whole.filled(settings),
        )

    def _around_holes(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The recipe's canonical text without the holes, and which of them stands in each gap."""
        marks = [Setting.constant(f"\0{hole}\0") for hole in range(len(self._holes))]
        text = canonical(self._with(marks))
        if not marks:
            return (text,), ()
        known = {canonical(mark): hole for hole, mark in enumerate(marks)}
        pattern = re.compile("|".join(map(re.escape, known)))
        return tuple(pattern.split(text)), tuple(known[found] for found in pattern.findall(text))

    def _scope(self, template: Mapping[str, Any], path: str, read: Parameters) -> _Scope:
        holes: dict[str, int] = {}
        for name, value in (template.get("parameters") or {}).items():
            if next(_draws(value), None) is not None:
                holes[name] = len(self._holes)
                self._holes.append(
                    _Hole(name, f"{path}.parameters" if path else "parameters", value)
                )
        return _Scope(read, holes)

    def _scopes(
        self,
        templates: Sequence[Mapping[str, Any]] | None,
        path: str,
        read: Sequence[Source | Slice],
    ) -> tuple[_Scope, ...]:
        pairs = enumerate(zip(templates or (), read, strict=True))
        return tuple(
            self._scope(entry, f"{path}[{index}]", part.parameters)
            for index, (entry, part) in pairs
        )


@dataclass(frozen=True)
class _Hole:
    """A parameter with genes, and the path to its scope."""

    name: str
    path: str
    template: Any

    def setting(self, values: Values) -> Setting:
        return read_setting(_fill(self.template, values), self.name, _WHERE, self.path)


@dataclass(frozen=True)
class _Scope:
    """Parameters as they were read, and the holes that some of them are."""

    read: Parameters
    holes: Mapping[str, int]

    def filled(self, settings: Sequence[Setting]) -> Parameters:
        if not self.holes:
            return self.read
        return Parameters(
            tuple(
                [
                    (name, settings[self.holes[name]] if name in self.holes else setting)
                    for name, setting in self.read.settings
                ]
            )
        )


def _filled_sources(
    sources: tuple[Source, ...], scopes: tuple[_Scope, ...], settings: Sequence[Setting]
) -> tuple[Source, ...]:
    return tuple(
        [
            Source(source.model, source.layer_range, scope.filled(settings))
            if scope.holes
            else source
            for source, scope in zip(sources, scopes, strict=True)
        ]
    )


_BEFORE, _AFTER = canonical(Setting.constant("\0")).split(canonical("\0"))


def _written(setting: Setting) -> str:
    """The canonical text of a setting; nearly all are one number."""
    clause = setting.clauses[0]
    plain = len(setting.clauses) == 1 and clause.filter is None and type(clause.value) is float
    if plain and math.isfinite(clause.value):  # type: ignore[arg-type]
        return f"{_BEFORE}{clause.value!r}{_AFTER}"
    return canonical(setting)


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
