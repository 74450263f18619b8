"""A made-up world of stacks: skills in the middle, harm out of order, noise from items.

As measured on real models: some middle layers are worth having twice and some of another model
are worth having at all; every seam costs a little, a jump costs by its length, early ones most; the
best gain is a little above 1.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from evomerge.candidate import Scores
from evomerge.search.strategy import Strategy
from evomerge.stack import Hop, Path, hops
from evomerge.stack_space import StackSpace

ITEMS = 64
BROKEN = 0.5
"""Nats of harm from which a stack counts as unusable."""


@dataclass(frozen=True)
class World:
    """What a stack over `depth` layers each of models a and b is worth."""

    depth: int
    worth: dict[tuple[str, int], tuple[int, float]]

    @staticmethod
    def drawn(depth: int, rng: np.random.Generator) -> World:
        twice = int(rng.integers(depth // 4, depth // 2))
        other = int(rng.integers(depth // 3, 2 * depth // 3))
        worth = {("a", layer): (1, 0.3) for layer in range(depth)}
        for layer in range(twice, twice + depth // 6):
            worth["a", layer] = (2, 1.0)
        for layer in range(other, other + depth // 5):
            worth["b", layer] = (1, 1.0)
            worth["a", layer] = (1, 0.0)
        return World(depth, worth)

    def harm(self, path: Path) -> float:
        return sum(self._seam(before, hop) for before, hop in pairwise(hops(path)))

    def _seam(self, before: Hop, hop: Hop) -> float:
        if (before.model, before.layer + 1) == (hop.model, hop.layer):
            return 0.0
        jump = abs(hop.layer - before.layer - 1) / self.depth
        early = 0.5 if min(before.layer, hop.layer) < self.depth / 5 else 0.0
        return 0.03 + 0.8 * jump + 2.0 * math.log(hop.gain / 1.1) ** 2 + early

    def logit(self, path: Path) -> float:
        met = Counter((hop.model, hop.layer) for hop in hops(path))
        total = sum(weight for _, weight in self.worth.values())
        skill = sum(w * min(met[layer], n) / n for layer, (n, w) in self.worth.items()) / total
        return float(-0.8 + 2.2 * skill - 4.0 * self.harm(path) ** 1.2)

    def accuracy(self, path: Path) -> float:
        return 1.0 / (1.0 + math.exp(-self.logit(path)))


@dataclass(frozen=True)
class Found:
    """Accuracy of the best estimate, and the share of proposals that are no broken stacks."""

    accuracy: float
    usable: float


def search(
    strategy: Strategy, space: StackSpace, world: World, *, generations: int, seed: int
) -> Found:
    """A search with half a generation asked ahead, and new items in every generation."""
    rng = np.random.default_rng(seed)
    usable: list[bool] = []
    asked = [strategy.ask() for _ in range(strategy.population // 2)]
    for _ in range(generations):
        asked += [strategy.ask() for _ in range(strategy.population)]
        told, asked = asked[: strategy.population], asked[strategy.population :]
        items = rng.logistic(0.0, 0.75, ITEMS)
        scores: list[Scores | None] = []
        for genotype in told:
            path = space.path(genotype)
            usable.append(world.harm(path) < BROKEN)
            flips = rng.logistic(0.0, 0.66, ITEMS)
            scores.append((float(np.mean(world.logit(path) + items + flips > 0.0)),))
        strategy.tell(told, scores)
    best = max(world.accuracy(space.path(genotype)) for genotype in strategy.estimates)
    return Found(best, sum(usable) / len(usable))
