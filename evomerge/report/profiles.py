"""What a recipe says over depth: one series of values per parameter, model and filter."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.recipe import STACK, Gradient, Parameters, Recipe, Scalar, Setting
from evomerge.report.summary import DepthProfile

Series = dict[tuple[str, str], dict[str, float]]


def depth_profiles(recipe: Recipe) -> tuple[DepthProfile, ...]:
    """The numeric parameters of every model, slice by slice or along gradients."""
    series: Series = {}
    if recipe.merge_method == STACK:
        return ()  # a path is drawn as one
    if recipe.slices:
        _from_slices(recipe, series)
    else:
        for source in recipe.models:
            for name, parameters in ((source.model, source.parameters), ("", recipe.parameters)):
                _add(series, name, parameters, None)
    return tuple(
        DepthProfile(parameter, model, tuple(points), tuple(points.values()))
        for (parameter, model), points in series.items()
    )


def _from_slices(recipe: Recipe, series: Series) -> None:
    last = len(recipe.slices) - 1
    for index, part in enumerate(recipe.slices):
        start, end = part.sources[0].layer_range or (0, 0)
        label = "embeddings" if index == 0 and start == end else "head"
        if start < end:
            label = f"{start}" if end == start + 1 else f"{start}-{end - 1}"
        assert start < end or index in (0, last), "only the outer slices may be empty"
        for source in part.sources:
            _add(series, source.model, source.parameters, label)
        _add(series, "", part.parameters, label)
        _add(series, "", recipe.parameters, label)


def _add(series: Series, model: str, parameters: Parameters, label: str | None) -> None:
    for name, setting in parameters:
        for suffix, place, value in _values(setting, label):
            if isinstance(value, bool | str):
                continue
            series.setdefault((f"{name}{suffix}", model), {})[place] = float(value)


def _values(setting: Setting, label: str | None) -> Iterator[tuple[str, str, Scalar]]:
    for clause in setting.clauses:
        suffix = "" if clause.filter is None else f" ({clause.filter})"
        if isinstance(clause.value, Gradient):
            count = len(clause.value.values)
            for index, value in enumerate(clause.value.values):
                depth = f"{100 * index // max(count - 1, 1)} % deep"
                yield suffix, depth if label is None else f"{label}, {depth}", value
        else:
            yield suffix, label or "all layers", clause.value
