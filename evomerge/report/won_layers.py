"""Which layers each parent won: the winner's weights side by side, and how sure each lead is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evomerge.candidate import Genotype
from evomerge.recipe import STACK, Recipe
from evomerge.report.profiles import depth_profiles
from evomerge.report.searched import positions
from evomerge.report.summary import DepthProfile
from evomerge.report.surrogate import Surrogate
from evomerge.report.trials import Floats
from evomerge.space import SearchSpace

CLEAR, LEANING, OPEN = "clear", "leaning", "cannot tell"
"""How sure it is that a group belongs to the parent that has most of it."""
_AGREE = 0.9
"""Share of late candidates that make a lead more than an accident."""
_Z95 = 1.959964
_REACH = 0.025
"""Values beyond this share of the candidates tried, at either end, count as not tried."""
_PAIR = 2

Table = dict[str, dict[str, float]]
"""Weight by column and parent; columns from input to output."""


@dataclass(frozen=True)
class WonGroup:
    """One layer group, or one filter of it.

    Attributes:
        label: from the recipe.
        weights: of the parents, in order.
        winner: the place of the parent with the largest positive weight; None when there is none.
        agreeing: the share of the last candidates in which the same parent leads.
        cost: expected loss of fitness, were the two largest weights equal, with the bounds of its
            95 % interval; NaN when that was not tried or cannot be said.
        sure: one of CLEAR, LEANING and OPEN.
    """

    label: str
    weights: tuple[float, ...]
    winner: int | None
    agreeing: float
    cost: float
    low: float
    high: float
    sure: str


@dataclass(frozen=True)
class WonLayers:
    """The layer groups of the winner and the parents that share them."""

    parents: tuple[str, ...]
    groups: tuple[WonGroup, ...]


@dataclass(frozen=True)
class Contest:
    """What leads are judged by.

    Attributes:
        space: that the winner is from.
        genotype: of the winner.
        tried: genotypes of the search, shape (n, d).
        late: recipes of its last candidates.
        surrogate: what was learnt of the fitness; None when that was too little.
    """

    space: SearchSpace
    genotype: Genotype
    tried: Floats
    late: tuple[Recipe, ...]
    surrogate: Surrogate | None

    @cached_property
    def genes(self) -> Mapping[tuple[str, str | None], int]:
        """The gene of each weight that is one of its own, by group and model."""
        return _owners(self.space, self.genotype)


def won_layers(winner: Recipe, contest: Contest) -> WonLayers | None:
    """Who won which group; None unless two parents have weights that differ over the depth."""
    table = weight_table(winner)
    parents = tuple(dict.fromkeys(parent for column in table.values() for parent in column))
    if len(parents) < _PAIR or len(table) < _PAIR:
        return None
    late = [weight_table(recipe) for recipe in contest.late]
    groups = tuple(
        _group(label, tuple(column.get(parent, 0.0) for parent in parents), parents, contest, late)
        for label, column in table.items()
    )
    return WonLayers(parents, groups)


def weight_table(recipe: Recipe) -> Table:
    """The weight of every parent in every group; slerp's t is shared between its two models."""
    table: Table = {}
    if recipe.merge_method == STACK:
        return table
    for profile in depth_profiles(recipe):
        name, _, part = profile.parameter.partition(" ")
        for label, value in zip(profile.labels, profile.values, strict=True):
            column = f"{label} {part}".rstrip()
            for parent, weight in _weights(recipe, name, profile, value).items():
                table.setdefault(column, {})[parent] = weight
    return table


def _weights(recipe: Recipe, name: str, profile: DepthProfile, value: float) -> Mapping[str, float]:
    if name == "weight" and profile.model:
        return {profile.model: value}
    if name == "t" and recipe.merge_method == "slerp" and recipe.base_model is not None:
        models = dict.fromkeys(recipe.referenced_models())
        others = [model for model in models if model != recipe.base_model]
        return {recipe.base_model: 1.0 - value} | dict.fromkeys(others[:1], value)
    return {}


def _group(
    label: str,
    weights: tuple[float, ...],
    parents: tuple[str, ...],
    contest: Contest,
    late: Sequence[Table],
) -> WonGroup:
    ranked = sorted(range(len(parents)), key=lambda place: -weights[place])
    first, second = ranked[:2]
    if weights[first] <= max(weights[second], 0.0):
        return WonGroup(label, weights, None, math.nan, math.nan, math.nan, math.nan, OPEN)
    leads = [_leader(table.get(label, {})) == parents[first] for table in late]
    agreeing = sum(leads) / len(leads) if leads else math.nan
    cost, error = _cost(label, (parents[first], parents[second]), weights, contest)
    low, high = cost - _Z95 * error, cost + _Z95 * error
    sure = OPEN
    if low > 0.0:
        sure = CLEAR
    elif agreeing >= _AGREE and not high < 0.0:
        sure = LEANING
    return WonGroup(label, weights, first, agreeing, cost, low, high, sure)


def _leader(column: Mapping[str, float]) -> str | None:
    return max(column, key=lambda parent: column[parent], default=None)


def _cost(
    label: str, rivals: tuple[str, str], weights: tuple[float, ...], contest: Contest
) -> tuple[float, float]:
    """The loss of fitness, and its standard error, were the rivals' weights both their mean."""
    space = contest.space
    even = sum(sorted(weights)[-2:]) / 2.0
    ours = positions(space, [contest.genotype])[0]
    genes = [gene for (column, parent), gene in contest.genes.items() if column == label]
    genes = [g for g in genes if space.places[g].model in (*rivals, None)]
    if contest.surrogate is None or not genes:
        return math.nan, math.nan
    theirs = ours.copy()
    for gene in genes:
        position = space.genes[gene].encode(even)  # of slerp's t, too: the weights sum to 1
        low, high = np.quantile(contest.tried[:, gene], [_REACH, 1.0 - _REACH])
        if position is None or not low <= position <= high:
            return math.nan, math.nan
        theirs[gene] = position
    return contest.surrogate.difference(ours, theirs)


def _owners(space: SearchSpace, genotype: Genotype) -> dict[tuple[str, str | None], int]:
    """The genes that hold one weight of one column, by column and model.

    Found by moving each: what the recipe's table then says in one column and in no other.
    """
    before = weight_table(space.decode(genotype))
    found: dict[tuple[str, str | None], int] = {}
    for gene, place in enumerate(space.places):
        if place.parameter not in ("weight", "t"):
            continue
        moved = (*genotype[:gene], 0.9 if genotype[gene] < 0.5 else 0.1, *genotype[gene + 1 :])
        after = weight_table(space.decode(moved))
        changed = [column for column in before if before[column] != after.get(column)]
        if len(changed) == 1:
            found[changed[0], place.model] = gene
    return found
