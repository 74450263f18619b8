"""Edits of paths that most stacks survive: what changes little, in the middle, at the right depth.

An edit knows the space but not its limits; it may come to nothing (None) or to a path that has no
genotype. Blocks and where they are repeated: RYS, see `first_paths`; hence not the first or last
quarter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from evomerge.stack import Hop, Path, Segment, hops, path_along
from evomerge.stack_space import GAIN_DIGITS, StackSpace

LONGEST_BLOCK = 8
JITTER = 0.15
"""Standard deviation of a change of log gain."""

Rng = np.random.Generator
Edit = Callable[[Path, StackSpace, Rng], Path | None]


def repeat_block(path: Path, _: StackSpace, rng: Rng) -> Path | None:
    """A block of the middle half comes twice."""
    along = hops(path)
    low, high = len(along) // 4, len(along) - len(along) // 4
    length = int(rng.integers(1, min(LONGEST_BLOCK, max((high - low) // 2, 1)) + 1))
    begin = int(rng.integers(low, high - length + 1))
    end = begin + length
    return _tidy([*along[:end], *along[begin:end], *along[end:]])


def shift_seam(path: Path, space: StackSpace, rng: Rng) -> Path | None:
    """A segment ends, the next begins, or both do, one or two layers earlier or later."""
    if len(path) < 2:
        return None
    seam = int(rng.integers(1, len(path)))
    step = int(rng.choice((-2, -1, 1, 2)))
    ends, begins = ((True, True), (True, False), (False, True))[int(rng.integers(3))]
    left, right = path[seam - 1], path[seam]
    end = left.end + step * ends
    start = right.start + step * begins
    if not (left.start <= end <= space.slots.depth(left.model) and 0 <= start <= right.end):
        return None
    changed = (replace(left, end=end), replace(right, start=start))
    return _settled((*path[: seam - 1], *changed, *path[seam + 1 :]))


def switch_source(path: Path, space: StackSpace, rng: Rng) -> Path | None:
    """A part of a segment comes from another model, at the same relative depth."""
    place = int(rng.integers(len(path)))
    segment = path[place]
    others = [model for model in space.parents if model != segment.model]
    if not others:
        return None
    other = others[int(rng.integers(len(others)))]
    begin, end = sorted(int(cut) for cut in rng.integers(segment.start, segment.end + 1, 2))
    part = aligned(segment.model, begin, end, other, space)
    if begin == segment.start:
        part = replace(part, gain=segment.gain)
    changed = (replace(segment, end=begin), part, Segment(segment.model, end, segment.end))
    return _settled((*path[:place], *changed, *path[place + 1 :]))


def aligned(model: str, begin: int, end: int, other: str, space: StackSpace) -> Segment:
    """The layers of `other` that lie as deep as layers `begin` to `end` of `model`."""
    ratio = space.slots.depth(other) / space.slots.depth(model)
    return Segment(other, round(begin * ratio), round(end * ratio))


def drop_or_undo(path: Path, _: StackSpace, rng: Rng) -> Path | None:
    """One layer goes, or one comes back where the path skips layers of a model."""
    along = hops(path)
    skips = [
        place
        for place in range(1, len(along))
        if along[place].model == along[place - 1].model
        and along[place].layer > along[place - 1].layer + 1
    ]
    if skips and rng.random() < 0.5:
        place = skips[int(rng.integers(len(skips)))]
        before = along[place - 1]
        return _tidy([*along[:place], Hop(before.model, before.layer + 1), *along[place:]])
    if len(along) < 3:
        return None
    place = int(rng.integers(1, len(along) - 1))
    return _tidy([*along[:place], *along[place + 1 :]])


def jitter_gain(path: Path, space: StackSpace, rng: Rng) -> Path | None:
    """The gain of one seam changes by a log-normal factor."""
    if len(path) < 2:
        return None
    place = int(rng.integers(1, len(path)))
    low, high = space.gains
    factor = float(np.exp(rng.normal(0.0, JITTER)))
    gain = min(max(round(path[place].gain * factor, GAIN_DIGITS), low), high)
    return _settled((*path[:place], replace(path[place], gain=gain), *path[place + 1 :]))


def crossover(path: Path, other: Path, space: StackSpace, rng: Rng) -> Path:
    """`path` with its end, or with a part of its middle, from `other`; cuts are at equal depth."""
    one, two = hops(path), hops(other)
    if rng.random() < 0.5:
        cut = int(rng.integers(1, len(one))) if len(one) > 1 else 0
        return _tidy([*one[:cut], *two[_as_deep(one[cut], two, space, rng) :]])
    begin, end = sorted(int(cut) for cut in rng.integers(0, len(one), 2))
    first, last = (_as_deep(one[cut], two, space, rng) for cut in (begin, end))
    return _tidy([*one[:begin], *two[first:last], *one[end:]])


def _as_deep(hop: Hop, along: Sequence[Hop], space: StackSpace, rng: Rng) -> int:
    """A hop of `along` that is as deep in its model as `hop` in its own; any of several."""
    depth = _depth(hop, space)
    away = [round(abs(_depth(one, space) - depth), 9) for one in along]
    nearest = [place for place, distance in enumerate(away) if distance == min(away)]
    return nearest[int(rng.integers(len(nearest)))]


def _depth(hop: Hop, space: StackSpace) -> float:
    return (hop.layer + 0.5) / space.slots.depth(hop.model)


def _settled(path: Path) -> Path:
    return _tidy(hops(path))


def _tidy(along: Iterable[Hop]) -> Path:
    """The path along these hops, without gains where there is no seam any more."""
    found: list[Hop] = []
    for hop in along:
        follows = not found or found[-1][:2] == (hop.model, hop.layer - 1)
        found.append(hop._replace(gain=1.0) if follows else hop)
    return path_along(found)


EDITS: tuple[tuple[Edit, float], ...] = (
    (repeat_block, 0.35),
    (shift_seam, 0.2),
    (switch_source, 0.2),
    (drop_or_undo, 0.1),
    (jitter_gain, 0.05),
)
"""Each edit with how often it is drawn; crossover has the rest."""
