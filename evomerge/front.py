"""Fronts: which of several points are dominated, how much a front covers, and how to thin one.

A point has one number per objective, and more is better in each.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, ...]


def dominates(one: Point, other: Point) -> bool:
    """Whether `one` is at least as good in everything and better in something."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def front(points: Sequence[Point]) -> tuple[int, ...]:
    """The places of the points that no other dominates, ascending; equal points all stay."""
    return tuple(
        place
        for place, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    )


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume of what at least one point dominates, above `reference`.

    Exact, by slices along the last objective (Zitzler & Thiele 1998, Multiobjective optimization
    using evolutionary algorithms); made for tens of points and up to four objectives.
    """
    above = [p for p in points if all(a > b for a, b in zip(p, reference, strict=True))]
    if not above:
        return 0.0
    if len(reference) == 1:
        return max(point[0] for point in above) - reference[0]
    above.sort(key=lambda point: -point[-1])
    lower = [*(point[-1] for point in above[1:]), reference[-1]]
    return sum(
        (point[-1] - floor) * hypervolume([p[:-1] for p in above[: place + 1]], reference[:-1])
        for place, (point, floor) in enumerate(zip(above, lower, strict=True))
        if point[-1] > floor
    )


def spread(points: Sequence[Point], count: int) -> tuple[int, ...]:
    """The places of `count` points: front after front, the last one thinned, best spread first.

    Of the front that does not fit, the point that adds most hypervolume comes first (greedily),
    measured from one range below the worst point, so that the ends count, too.
    """
    left = list(range(len(points)))
    chosen: list[int] = []
    scaled = _scaled(points)
    while left and len(chosen) < count:
        layer = [left[place] for place in front([points[index] for index in left])]
        left = [index for index in left if index not in layer]
        room = count - len(chosen)
        chosen += layer if len(layer) <= room else _thinned(scaled, chosen, layer, room)
    return tuple(chosen)


def worst(points: Sequence[Point]) -> Point:
    """The least of the points in every objective; there is at least one point."""
    return tuple(min(values) for values in zip(*points, strict=True))


def _thinned(
    scaled: Sequence[Point], chosen: Sequence[int], layer: list[int], room: int
) -> list[int]:
    reference = (0.0,) * len(scaled[0])
    kept: list[int] = []
    while len(kept) < room:
        found = [scaled[index] for index in (*chosen, *kept)]
        rest = [index for index in layer if index not in kept]
        kept.append(max(rest, key=lambda i: hypervolume([*found, scaled[i]], reference)))
    return kept


def _scaled(points: Sequence[Point]) -> list[Point]:
    """The points in [1, 2], every objective in units of its range."""
    columns = list(zip(*points, strict=True))
    lows = [min(column) for column in columns]
    spans = [max(column) - low or 1.0 for column, low in zip(columns, lows, strict=True)]
    return [
        tuple(1.0 + (v - low) / span for v, low, span in zip(point, lows, spans, strict=True))
        for point in points
    ]
