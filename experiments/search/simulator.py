"""Terrain: what a merge would score on every item, without a model; equation by equation.

Everything is a function of the gene positions u in [0, 1]^d, the item and the seed.

Skills. Two latent skills k = 1, 2 with different optima o_k and rotated quadratic losses,

    s_k(u) = TOP - (DROP / d) (u - o_k)' A_k (u - o_k) / SPREAD^2 + ripple(u),             (1)

    A_k = Q_k diag(lambda) Q_k',  Q_k a random rotation,  lambda log-spaced from 1 to 30,  (2)
                                  scaled to mean 1,

so a point SPREAD away from o_k per gene loses DROP on average, whatever d is.

Optima. o_k = 1/2 + SPREAD (sqrt(1 - APART) g + sqrt(APART) g_k), clipped to [0.03, 0.97], where
g is common to both skills. Unstructured terrain: g, g_k ~ N(0, 1) for each gene. Over depth
(genes are m models x L layers), for each model m and layer l,

    g[m, l] = sqrt(.4) level[m] + sqrt(.35) smooth[m](l) + sqrt(.25) rough[m, l],          (3)

with level, rough ~ N(0, 1), and smooth a Gaussian process over depth with a squared exponential
kernel of length L / 6, its own mean over the layers removed and scaled back to variance 1.

Items. Item i is right iff it is passed in both skills,

    y_i(u) = 1 iff m_i(u) > 0,   m_i(u) = min_k [s_k(u) + OWN_AMPLITUDE r_ki(u) - delta_ki],   (4)

    delta_ki = sqrt(c) h_i + sqrt(1 - c) h_ki,  h ~ N(0, 1),  c = ALIKE,                   (5)

    r_ki(u) = sqrt(2 / F) sum_f a_kif cos(w_f . u + b_f),  a ~ N(0, 1),                    (6)

where w_f ~ N(0, 1 / (d length^2)): moving all genes by `length` changes phases by about 1. The
r_ki have mean 0 and variance 1 over items: two merges of equal quality differ on items by them.

Ripple. The same sum with one set of amplitudes for all items; 0 on smooth terrain.

A continuous score, as the probability of the gold answer would be:

    p_i(u) = 1 / (1 + exp(-(m_i(u) + PRIVATE n_i) / TEMPERATURE)),  n_i ~ N(0, 1);         (7)

n_i is constant for the item: some items are answered right with little confidence, others wrong
with much, so the mean of p is not the mean of y.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evomerge.seeding import generator

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

TOP = 0.75
DROP = 1.1
SPREAD = 0.25
APART = 0.12
CONDITION = 30.0
ALIKE = 0.5
FEATURES = 64
PRIVATE = 0.5
TEMPERATURE = 0.5
LEVEL, SMOOTH, ROUGH = 0.4, 0.35, 0.25
"""Shares of the variance of the optimum over depth: of the model's level, of what changes slowly
with depth, and of what is each layer's own."""

SEARCH, SELECTION, HOLDOUT, TRUTH = 1200, 400, 1200, 20_000
"""How many items there are of each kind, numbered in this order. The last are never part of a run:
their mean is the true quality, within 0.35 points."""
TOTAL = SEARCH + SELECTION + HOLDOUT + TRUTH


@dataclass(frozen=True)
class Roughness:
    """How far item-specific and common random terms reach, and how large they are."""

    own: float
    own_length: float
    ripple: float
    ripple_length: float


SMOOTH_TERRAIN = Roughness(own=0.45, own_length=0.25, ripple=0.0, ripple_length=1.0)
ROUGH_TERRAIN = Roughness(own=0.6, own_length=0.12, ripple=0.25, ripple_length=0.15)


@dataclass(frozen=True)
class Terrain:
    """One landscape: `layers` is 0 unless the optimum is structured over depth (equation 3)."""

    dimension: int
    seed: int
    roughness: Roughness = SMOOTH_TERRAIN
    layers: int = 0

    def right(self, u: Floats, items: Indices) -> Floats:
        """1.0 or 0.0 for each of `items`, shape [n]."""
        return (self.margins(u, items) > 0.0).astype(np.float64)

    def gold(self, u: Floats, items: Indices) -> Floats:
        """The continuous score of each of `items`, shape [n]."""
        return self.answers(u, items)[1]

    def answers(self, u: Floats, items: Indices) -> tuple[Floats, Floats]:
        """Right or wrong, and the continuous score (equation 7), of each of `items`."""
        margins = self.margins(u, items)
        shifted = margins + PRIVATE * self._items.private[items]
        gold = 1.0 / (1.0 + np.exp(-shifted / TEMPERATURE))
        return (margins > 0.0).astype(np.float64), np.asarray(gold)

    def quality(self, u: Floats) -> float:
        """The true quality: the share of TRUTH items, of which no search sees any."""
        return float(self.right(u, np.arange(TOTAL - TRUTH, TOTAL)).mean())

    def margins(self, u: Floats, items: Indices) -> Floats:
        """m_i(u), shape [n] (equation 4)."""
        own = np.cos(self._own.w @ u + self._own.b)
        skills = self.skills(u)
        drawn = self._items
        first = self.roughness.own * (drawn.own[0][items] @ own) + skills[0] - drawn.hard[0][items]
        second = self.roughness.own * (drawn.own[1][items] @ own) + skills[1] - drawn.hard[1][items]
        return np.asarray(np.minimum(first, second))

    def skills(self, u: Floats) -> Floats:
        """s_k(u), shape [2] (equation 1)."""
        ripple = 0.0
        if self.roughness.ripple:
            waves = np.cos(self._common.w @ u + self._common.b)
            ripple = self.roughness.ripple * float(self._amplitudes @ waves)
        losses = [(u - o) @ a @ (u - o) for o, a in zip(self.optima, self._curvatures, strict=True)]
        return TOP - DROP / (self.dimension * SPREAD**2) * np.asarray(losses) + ripple

    @cached_property
    def optima(self) -> Floats:
        """o_k, shape [2, d]."""
        rng = generator(self.seed, "optima")
        common, *separate = (self._displacement(rng) for _ in range(3))
        raw = np.stack([np.sqrt(1 - APART) * common + np.sqrt(APART) * own for own in separate])
        return np.clip(0.5 + SPREAD * raw, 0.03, 0.97)

    def _displacement(self, rng: np.random.Generator) -> Floats:
        if not self.layers:
            return rng.standard_normal(self.dimension)
        models, depth = self.dimension // self.layers, np.arange(self.layers)
        distance = (depth[:, None] - depth[None, :]) / (self.layers / 6.0)
        kernel = np.exp(-0.5 * distance**2)
        centred = np.eye(self.layers) - 1.0 / self.layers
        covariance = centred @ kernel @ centred
        covariance *= self.layers / np.trace(covariance)
        smooth = rng.multivariate_normal(np.zeros(self.layers), covariance, models, method="eigh")
        level = rng.standard_normal((models, 1))
        rough = rng.standard_normal((models, self.layers))
        total = np.sqrt(LEVEL) * level + np.sqrt(SMOOTH) * smooth + np.sqrt(ROUGH) * rough
        return np.asarray(total.ravel())

    @cached_property
    def _curvatures(self) -> Floats:
        rng = generator(self.seed, "curvatures")
        values = np.geomspace(1.0, CONDITION, self.dimension)
        values /= values.mean()
        shape = (self.dimension, self.dimension)
        rotations = [np.linalg.qr(rng.standard_normal(shape))[0] for _ in range(2)]
        return np.stack([q @ np.diag(values) @ q.T for q in rotations])

    @cached_property
    def _own(self) -> _Waves:
        return _waves(self, "own", self.roughness.own_length)

    @cached_property
    def _common(self) -> _Waves:
        return _waves(self, "ripple", self.roughness.ripple_length)

    @cached_property
    def _amplitudes(self) -> Floats:
        drawn = generator(self.seed, "ripple amplitudes").standard_normal(FEATURES)
        return np.asarray(np.sqrt(2.0 / FEATURES) * drawn)

    @cached_property
    def _items(self) -> _Items:
        rng = generator(self.seed, "items")
        both, each = rng.standard_normal(TOTAL), rng.standard_normal((2, TOTAL))
        own = np.sqrt(2.0 / FEATURES) * rng.standard_normal((2, TOTAL, FEATURES))
        return _Items(
            hard=np.sqrt(ALIKE) * both + np.sqrt(1.0 - ALIKE) * each,
            own=own,
            private=rng.standard_normal(TOTAL),
        )


@dataclass(frozen=True)
class _Waves:
    """The arguments of the cosines: frequencies w, shape [F, d], and phases b, shape [F]."""

    w: Floats
    b: Floats


@dataclass(frozen=True)
class _Items:
    """delta and a of equations 5 and 6, shapes [2, n] and [2, n, F]; n_i of 7, shape [n]."""

    hard: Floats
    own: Floats
    private: Floats


def _waves(terrain: Terrain, name: str, length: float) -> _Waves:
    rng = generator(terrain.seed, name)
    scale = 1.0 / (np.sqrt(terrain.dimension) * length)
    w = scale * rng.standard_normal((FEATURES, terrain.dimension))
    return _Waves(w, rng.uniform(0.0, 2.0 * np.pi, FEATURES))
