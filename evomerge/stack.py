"""The path of a token through the layers of several models, and the recipe that says the same.

No torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from evomerge.recipe import STACK, Parameters, Recipe, Slice, Source

SCALE = "scale"
"""The parameter of a slice that holds its segment's gain."""


class Hop(NamedTuple):
    """One layer on a path; `gain` is 1 except where a segment begins."""

    model: str
    layer: int
    gain: float = 1.0


@dataclass(frozen=True)
class Segment:
    """Layers `start` to `end` (exclusive) of a model in order; `gain` acts where they begin."""

    model: str
    start: int
    end: int
    gain: float = 1.0

    def __post_init__(self) -> None:
        assert 0 <= self.start <= self.end, "a segment is a range of layers"
        assert self.gain > 0, "a gain is positive"


Path = tuple[Segment, ...]


def normal(path: Path) -> Path:
    """The only form of a path: what merely continues the segment before it belongs to it.

    Empty segments go. Nothing comes before the first hop that could be scaled: its gain is 1.
    """
    joined: list[Segment] = []
    for segment in path:
        if segment.start == segment.end:
            continue
        last = joined[-1] if joined else None
        if last is None:
            joined.append(replace(segment, gain=1.0))
        elif segment.gain == 1.0 and (last.model, last.end) == (segment.model, segment.start):
            joined[-1] = replace(last, end=segment.end)
        else:
            joined.append(segment)
    return tuple(joined)


def hops(path: Path) -> tuple[Hop, ...]:
    """Every layer in the order in which a token meets them."""
    return tuple(
        Hop(segment.model, layer, segment.gain if layer == segment.start else 1.0)
        for segment in normal(path)
        for layer in range(segment.start, segment.end)
    )


def path_along(layers: Iterable[Hop]) -> Path:
    """The path with these hops, in normal form."""
    return normal(tuple(Segment(hop.model, hop.layer, hop.layer + 1, hop.gain) for hop in layers))


def path_of(recipe: Recipe) -> Path:
    """The path of a valid stack recipe, in normal form."""
    assert recipe.merge_method == STACK, "only stacks have a path"
    return normal(tuple(_segment(part) for part in recipe.slices))


def _segment(part: Slice) -> Segment:
    (source,) = part.sources
    assert source.layer_range is not None, "a slice has layer ranges"
    settings = (scope.get(SCALE) for scope in (source.parameters, part.parameters))
    gains = [setting.at("", 0.0) for setting in settings if setting is not None]
    return Segment(source.model, *source.layer_range, float(gains[0] or 1.0) if gains else 1.0)


def recipe_of(
    path: Path,
    *,
    donor: str,
    scale_mode: str,
    dtype: str | None,
    nested: tuple[tuple[str, Recipe], ...] = (),
) -> Recipe:
    """The recipe of a path in normal form; a gain of 1 is not written.

    `donor` gives what is no layer. Of `nested`, only recipes whose results are used are kept.
    """
    slices = tuple(Slice((_source(segment),)) for segment in normal(path))
    used = {donor, *(source.model for part in slices for source in part.sources)}
    return Recipe(
        STACK,
        slices=slices,
        base_model=donor,
        dtype=dtype,
        scale_mode=scale_mode,
        nested=tuple(sorted(pair for pair in nested if pair[0] in used)),
    )


def _source(segment: Segment) -> Source:
    parameters = (
        Parameters() if segment.gain == 1.0 else Parameters.constants({SCALE: segment.gain})
    )
    return Source(segment.model, (segment.start, segment.end), parameters)
