"""Stacks that are worth a try in any space: what people built by hand, and what sweeps found.

Depth up-scaling: Kim et al. 2023, SOLAR 10.7B, arXiv:2312.15166, section 2. Interleaved models:
Goliath 120B, blocks of 16 of 80 layers that overlap by half. Repeated middle blocks: RYS-XLarge, 7
of 80 layers twice; sweeps found the best of them to begin at 0.3 to 0.6 of the depth.
"""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.search.stack_edits import aligned
from evomerge.stack import Path, Segment, normal
from evomerge.stack_space import StackSpace

MOST_BLOCKS = 9
"""Goliath's number of blocks."""
_BLOCK_STARTS = (0.45, 0.3, 0.6)
_BLOCK_LENGTHS = (4, 7)


def first_paths(space: StackSpace) -> tuple[Path, ...]:
    """The start of the space, then of the known patterns those that it holds, without repetition.

    The order is that of promise: a search with a small population begins with the front.
    """
    depth = space.slots.depth(space.donor)
    others = [model for model in space.parents if model != space.donor]
    found = [space.path(space.start)]
    found += [_switched(space, other) for other in others]
    found += _repeats(space.donor, depth)
    found += [path for other in others for path in _interleaves(space, other)]
    found.append((Segment(space.donor, 0, depth * 3 // 4), Segment(space.donor, depth // 4, depth)))
    distinct = dict.fromkeys(normal(path) for path in found)
    return tuple(path for path in distinct if space.encode(path) is not None)


def _switched(space: StackSpace, other: str) -> Path:
    """All of another model but the ends."""
    last = space.slots.depth(space.donor) - 1
    inner = aligned(space.donor, 1, max(last, 1), other, space)
    return (Segment(space.donor, 0, 1), inner, Segment(space.donor, last, last + 1))


def _repeats(model: str, depth: int) -> Iterator[Path]:
    """A middle block twice."""
    for length in _BLOCK_LENGTHS:
        for begin in _BLOCK_STARTS:
            start = round(begin * depth)
            end = start + min(length, max(depth // 4, 1))
            if end < depth:
                yield (Segment(model, 0, end), Segment(model, start, depth))


def _interleaves(space: StackSpace, other: str) -> Iterator[Path]:
    """Blocks of the donor and another model in turn: as many as possible with overlap and without.

    More blocks need more repeats, overlap needs a higher limit.
    """
    for overlap in (0.5, 0.0):
        found = (_interleave(space, other, count, overlap) for count in range(MOST_BLOCKS, 1, -2))
        yield from [path for path in found if space.encode(path) is not None][:1]


def _interleave(space: StackSpace, other: str, count: int, overlap: float) -> Path:
    """`count` blocks, the first and the last the donor's, each with `overlap` of the one before."""
    depth = space.slots.depth(space.donor)
    length = depth / (count - (count - 1) * overlap)
    found: list[Segment] = []
    for block in range(count):
        start = round(block * length * (1.0 - overlap))
        end = depth if block == count - 1 else round(block * length * (1.0 - overlap) + length)
        own = Segment(space.donor, start, end)
        found.append(own if block % 2 == 0 else aligned(space.donor, start, end, other, space))
    return tuple(found)
