"""Several objectives: a search for each of several trades, all learning from one generation.

Augmented Chebyshev scalarisation (Steuer & Choo 1983; Zhang & Li 2007, MOEA/D, eq. 6): direction w
minimises max_j w_j (z_j - f_j) / s_j + RHO sum_j w_j (z_j - f_j) / s_j. The ideal point z is the
best of the generation, whose members answer the same items, so no level of other items gets in;
the scale s is the spread of each objective, averaged over generations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from evomerge.candidate import Genotype, Scores
from evomerge.search.strategy import Strategy

MOST_OBJECTIVES = 4
ESTIMATES = 2
"""Of each direction: the average of its later means, and its last mean."""
_RHO = 0.1
_FLOOR = 0.05
"""The least weight of an objective: nothing is given up for nothing."""
_EACH = 5
_LEARNT = 2
"""Times what it proposes that a direction learns from: CMA-ES moves to the better half, so
neighbours whose proposals are worse do not pull it over."""
_MEMORY = 0.7

Floats = NDArray[np.float64]


def directions(objectives: int) -> Floats:
    """Weights that sum to 1, shape [directions, objectives].

    Two objectives have five, evenly spaced; more have the corners of the simplex, the middles of
    its edges and its centre.
    """
    if objectives == 2:
        corners: list[tuple[float, ...]] = [(place / 4.0, 1.0 - place / 4.0) for place in range(5)]
    else:
        unit = np.eye(objectives)
        corners = [tuple(row) for row in unit]
        corners += [tuple((unit[a] + unit[b]) / 2) for a, b in combinations(range(objectives), 2)]
        corners.append((1.0 / objectives,) * objectives)
    weights = np.maximum(np.asarray(corners, dtype=np.float64), _FLOOR)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def usual_population(objectives: int) -> int:
    """Five candidates for each direction."""
    return _EACH * len(directions(objectives))


class Chebyshev:
    """One search per direction (stateful).

    Directions take turns in proposing. Each learns from its own members of a generation and as many
    of its neighbours': with few candidates per direction that is half of what is known there.
    """

    def __init__(
        self, search: Callable[[int, int], Strategy], *, objectives: int, population: int
    ) -> None:
        """`search(k, n)` begins the search of direction k, for one objective, told n at a time.

        It must be able to learn from what it did not propose, as CmaEs is.
        """
        self._weights = directions(objectives)
        count = len(self._weights)
        share = math.ceil(_LEARNT * population / count)
        self._learns_from = min(max(share, _EACH), population)
        self._population = population
        self._searches = [search(place, self._learns_from) for place in range(count)]
        self._asked = 0
        self._by: dict[Genotype, list[int]] = {}
        self._scale: Floats | None = None

    @property
    def population(self) -> int:
        """Genotypes per generation, over all directions."""
        return self._population

    def ask(self) -> Genotype:
        """A sample of the direction whose turn it is."""
        direction = self._asked % len(self._searches)
        self._asked += 1
        genotype = self._searches[direction].ask()
        self._by.setdefault(genotype, []).append(direction)
        return genotype

    def tell(self, genotypes: Sequence[Genotype], scores: Sequence[Scores | None]) -> None:
        """Every direction ranks what its neighbourhood proposed in its own way."""
        by = [self._proposer(genotype) for genotype in genotypes]
        gaps = self._gaps(scores)
        begun = self._searches[: self._asked]  # a small generation leaves some out at first
        for direction, search in enumerate(begun):
            weights = self._weights[direction]
            chosen = self._learnt(direction, by, np.asarray(genotypes))
            fitness = [_fitness(gaps[place], weights) for place in chosen]
            search.tell([genotypes[place] for place in chosen], fitness)

    @property
    def estimates(self) -> tuple[Genotype, ...]:
        """The average of the later means and the last mean of every direction."""
        return tuple(e for search in self._searches for e in search.estimates[-ESTIMATES:])

    def _learnt(self, direction: int, by: Sequence[int], genotypes: Floats) -> list[int]:
        """The places of what a direction learns from, of `genotypes` [population, genes].

        Its own proposals, then those of neighbours that lie among them: a CMA-ES that is told of
        far points again and again makes ever larger steps. At least half of what it expects.
        """
        distance = np.linalg.norm(self._weights - self._weights[direction], axis=1)
        near = sorted(range(len(by)), key=lambda place: (distance[by[place]], place))
        own = [place for place in near if by[place] == direction]
        others = [place for place in near if by[place] != direction]
        if len(own) > 1:
            away = np.linalg.norm(genotypes - genotypes[own].mean(axis=0), axis=1)
            reach = away[own].max()
            others.sort(key=lambda place: bool(away[place] > reach))
            among = sum(away[place] <= reach for place in others)
        else:
            among = 0
        count = min(self._learns_from, max(len(own) + among, math.ceil(self._learns_from / 2)))
        return sorted([*own, *others][:count])

    def _proposer(self, genotype: Genotype) -> int:
        """The direction that proposed it; on the border of the space several may have."""
        proposers = self._by[genotype]
        direction = proposers.pop(0)
        if not proposers:
            del self._by[genotype]
        return direction

    def _gaps(self, scores: Sequence[Scores | None]) -> list[Floats | None]:
        """What each lacks to the best of the generation, in units of the usual spread."""
        known = np.asarray([values for values in scores if values is not None], dtype=np.float64)
        if not len(known):
            return [None] * len(scores)
        spread = known.std(axis=0)
        if self._scale is not None:
            spread = _MEMORY * self._scale + (1.0 - _MEMORY) * spread
        self._scale = spread
        ideal, unit = known.max(axis=0), np.maximum(spread, 1e-9)
        return [None if one is None else (ideal - np.asarray(one)) / unit for one in scores]


def _fitness(gaps: Floats | None, weights: Floats) -> Scores | None:
    if gaps is None:
        return None
    weighted = weights * gaps
    return (-float(weighted.max() + _RHO * weighted.sum()),)
