"""Stepper: generations of CMA-ES in a plain loop, with every rule that the prototypes compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from simulator import SEARCH, Floats, Indices
from tunable_cma import TunableCma

from evomerge.search.cma_es import default_population
from evomerge.seeding import derive, generator


@dataclass(frozen=True)
class Rule:
    """How generations are scored and told.

    Attributes:
        minibatch: items per candidate.
        last_minibatch: the same at the end of the search, reached geometrically; 0: no growth.
        fresh: whether each generation has items of its own.
        gold: share of the continuous score in what is told, the rest is right or wrong.
        raced: items that the better half of a generation gets in addition.
        population: times the usual one.
        diagonal: whether only variances are adapted; None: from 40 genes on.
        sigma: first step.
    """

    minibatch: int = 50
    last_minibatch: int = 0
    fresh: bool = True
    gold: float = 0.0
    raced: int = 0
    population: float = 1.0
    diagonal: bool | None = None
    sigma: float = 1.0 / 6.0


class Ground(Protocol):
    """Where a prototype searches."""

    @property
    def dimension(self) -> int: ...

    @property
    def layers(self) -> int: ...

    @property
    def seed(self) -> int: ...

    def right(self, u: Floats, items: Indices) -> Floats: ...

    def gold(self, u: Floats, items: Indices) -> Floats: ...

    def quality(self, u: Floats) -> float: ...


class Scores(Protocol):
    """Scores items and counts them."""

    spent: int

    def score(self, u: Floats, items: Indices, gold: float = 0.0) -> Floats: ...


@dataclass(frozen=True)
class _Seen:
    """A candidate of the search, and its score on the items of its generation."""

    u: Floats
    generation: int
    score: float
    reference: float


class Stepper:
    """CMA-ES on minibatches until a budget is spent (stateful)."""

    def __init__(
        self,
        rule: Rule,
        terrain: Ground,
        purse: Scores,
        start: Floats,
        *,
        reference: bool = False,
        blocks: int | None = None,
    ) -> None:
        """With `blocks`, genes move together within each of that many parts of a model's layers."""
        self._rule, self._purse, self._start = rule, purse, start
        self._spread = np.eye(len(start)) if blocks is None else _blocks(terrain, blocks)
        free = self._spread.shape[1]
        usual = default_population(free)
        self._size = max(4, round(rule.population * usual))
        seed = derive(terrain.seed, "stepper", free)
        diagonal = free > 40 if rule.diagonal is None else rule.diagonal
        # blocks move around where they are, in the middle of the range of the moves
        origin = np.full(free, 0.5) if blocks is not None else start
        self._origin = origin
        self._es = TunableCma(
            origin, seed=seed, population=self._size, sigma=rule.sigma, diagonal=diagonal
        )
        self._seed = seed
        self._reference = start if reference else None
        self._seen: list[_Seen] = []
        self._generation = 0

    def _place(self, genotype: Floats) -> Floats:
        moved = self._spread @ (genotype - self._origin)
        return np.clip(self._start + moved, 0.0, 1.0)

    def until(self, spent: int) -> None:
        """Step while another generation fits."""
        begun = self._purse.spent
        while True:
            progress = (self._purse.spent - begun) / max(spent - begun, 1)
            size = self._minibatch(progress)
            extra = self._rule.raced * (self._size // 2) / self._size
            cost = (size + extra) * self._size + (size if self._reference is not None else 0)
            if self._purse.spent + cost > spent:
                return
            self._step(size)

    def _minibatch(self, progress: float) -> int:
        first, last = self._rule.minibatch, self._rule.last_minibatch
        return first if not last else round(first * (last / first) ** min(progress, 1.0))

    def _step(self, size: int) -> None:
        rule, purse = self._rule, self._purse
        names = ("items", self._generation if rule.fresh else 0)
        items = generator(self._seed, *names).permutation(SEARCH)
        genotypes = self._es.ask()
        places = [self._place(genotype) for genotype in genotypes]
        scores = [purse.score(u, items[:size], rule.gold) for u in places]
        told = [float(found.mean()) for found in scores]
        if rule.raced:
            told = self._race(places, scores, items[size : size + rule.raced])
        reference = 0.0
        if self._reference is not None:
            reference = float(purse.score(self._reference, items[:size]).mean())
        self._seen += [
            _Seen(u, self._generation, score, reference)
            for u, score in zip(places, told, strict=True)
        ]
        self._es.tell(genotypes, told)
        self._generation += 1

    def _race(self, places: list[Floats], scores: list[Floats], more: Indices) -> list[float]:
        """The better half answers more items; the others rank below it."""
        told = [float(found.mean()) - 2.0 for found in scores]
        for place in np.argsort([-value for value in told], kind="stable")[: len(told) // 2]:
            extra = self._purse.score(places[place], more, self._rule.gold)
            told[place] = float(np.append(scores[place], extra).mean())
        return told

    @property
    def means(self) -> list[Floats]:
        """The last means, latest first, and the mean of those of the later half."""
        known = self._es.means
        if not known:
            return [self._start]
        half = np.mean(known[len(known) // 2 :], axis=0)
        return [self._place(genotype) for genotype in (*known[-1:-4:-1], half)]

    def best(self, count: int, ranking: str) -> list[Floats]:
        """The best candidates of all generations."""
        if not count:
            return []
        if ranking == "reference":
            standing = {id(s): s.score - s.reference for s in self._seen}
        else:
            standing = self._standing()
        ranked = sorted(self._seen, key=lambda s: -standing[id(s)])
        return [seen.u for seen in ranked[:count]]

    def _standing(self) -> dict[int, float]:
        """As the engine's archive: above the generation's mean, plus a smoothed mean."""
        by: dict[int, list[float]] = {}
        for seen in self._seen:
            by.setdefault(seen.generation, []).append(seen.score)
        means = [float(np.mean(by[g])) for g in sorted(by)]
        smooth = [float(np.mean(means[max(0, g - 1) : g + 2])) for g in range(len(means))]
        return {id(s): s.score - means[s.generation] + smooth[s.generation] for s in self._seen}


def coarse_start(
    rule: Rule, terrain: Ground, purse: Scores, start: Floats, blocks: int, budget: int
) -> Floats:
    """Where a search over `blocks` parts of each model's layers ends: the mean of its late means.

    The better of it and of `start`, compared on as many items as fit in a tenth of the budget.
    """
    begun = purse.spent
    stepper = Stepper(rule, terrain, purse, start, blocks=blocks)
    stepper.until(begun + round(0.9 * budget))
    found = stepper.means[-1]
    left = (begun + budget - purse.spent) // 2
    items = generator(terrain.seed, "gate", blocks).permutation(SEARCH)[:left]
    better = purse.score(found, items).mean() > purse.score(start, items).mean()
    return found if better else start


def _blocks(terrain: Ground, blocks: int) -> Floats:
    """Which genes move together, shape [d, models * blocks]."""
    assert terrain.layers, "blocks are parts of the layers"
    models = terrain.dimension // terrain.layers
    part = np.arange(terrain.layers) * blocks // terrain.layers
    member = (part[:, None] == np.arange(blocks)).astype(np.float64)
    return np.kron(np.eye(models), member)
