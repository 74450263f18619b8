"""When and how a search begins with whole parts of the depth: fewer numbers, found sooner."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evomerge.candidate import Genotype
from evomerge.genes import Axis
from evomerge.search.coarse_to_fine import Blocks, CoarseToFine, Make
from evomerge.search.strategy import Strategy
from evomerge.space import SearchSpace

PARTS = 4
"""Parts of the depth that move as one at first."""
SHARE = 0.15
"""Of the candidates, for the coarse search. Twice as much gains a point where layers are alike and
costs one or two where they differ (experiments/search)."""
MOST_GENERATIONS = 40
"""Of the coarse search, where nobody knows how many candidates there will be."""
PAYS_FROM = 3
"""Times as many genes as blocks, at least, for a search of its own."""


def coarse_blocks(space: SearchSpace) -> Blocks | None:
    """The parts that move as one at first; None where they are hardly fewer than the genes."""
    blocks = Blocks(space.blocks(PARTS))
    return blocks if PAYS_FROM * blocks.count <= space.dimension else None


def coarse_to_fine(
    blocks: Blocks, axes: Sequence[Axis], make: Make, population: int
) -> Callable[[Genotype, int], Strategy]:
    """Makes the strategy from where it starts and how many candidates to expect."""

    def begin(start: Genotype, expected: int) -> Strategy:
        generations = min(round(SHARE * expected / population), MOST_GENERATIONS)
        if generations == 0:
            return make(start, axes)
        return CoarseToFine(start, blocks, axes, make, generations=generations)

    return begin
