"""Which genes mattered: how much of the differences in score each gene accounts for, and how sure.

The measure is that of permutation importance (Breiman 2001, Random forests; Fisher, Rudin and
Dominici 2019, arXiv:1801.01489) in generations that the surrogate did not see: how much worse its
predictions become when a gene's values are exchanged among the candidates of a generation. For a
sum of terms, the mean over all exchanges is known without exchanging anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evomerge.report.surrogate import (
    Regression,
    Setting,
    Surrogate,
    coefficients,
    fitted,
    regression,
    skills,
)
from evomerge.report.trials import Floats, Trials
from evomerge.seeding import generator

FEWEST_TRIALS = 24
FEWEST_GENERATIONS = 3
_SHUFFLES = 99
_RESAMPLES = 400
_BLOCKS = 300
"""Candidates are resampled one by one up to this many, then in this many blocks."""
_GRID = 25
_CHANCE = 0.02
"""Chance alone reaches the skill of a surrogate that is believed at most this often."""


@dataclass(frozen=True)
class GeneEffect:
    """What one gene did to the score.

    Attributes:
        gene: its place among the genes.
        share: of the explained differences, with the bounds of its 95 % interval.
        clear: whether chance alone hardly ever gives the largest of all shares this size.
        grid: values of the gene, over the middle nine tenths of those tried; each choice tried.
        curve: expected fitness there, around its mean over the grid.
        error: standard error of the curve.
    """

    gene: int
    share: float
    low: float
    high: float
    clear: bool
    grid: tuple[float, ...]
    curve: tuple[float, ...]
    error: tuple[float, ...]


@dataclass(frozen=True)
class Importance:
    """The genes of one search, most important first; none when the trials cannot tell.

    Attributes:
        trials: how many candidates were compared, in how many generations.
        skill: the share of the differences within a generation that is predicted in generations
            left out; NaN when there was too little to try.
        luck: the share that chance alone reaches once in fifty.
        surrogate: what was learnt; None when the trials cannot tell.
    """

    trials: int
    generations: int
    skill: float
    luck: float
    effects: tuple[GeneEffect, ...]
    surrogate: Surrogate | None


def importance(trials: Trials) -> Importance:
    """Which genes the recorded scores depend on.

    Only candidates of one generation are compared, since they answered the same items: whether a
    later generation is better, or its items easier, does not matter. Genes that act only through
    products of two are found while the products are few (see `basis_of`).
    """
    trials = trials.comparable()
    generations = len(np.unique(trials.generations))
    little = len(trials) < FEWEST_TRIALS or generations < FEWEST_GENERATIONS
    if little or np.ptp(trials.fitness) == 0.0:
        return Importance(len(trials), generations, float("nan"), float("nan"), (), None)
    problem = regression(trials, _shuffled(trials))
    if not problem.basis.terms:
        return Importance(len(trials), generations, float("nan"), float("nan"), (), None)
    found, setting = skills(problem)
    skill, luck = float(found[0]), float(np.quantile(found[1:], 1.0 - _CHANCE))
    if ((found[1:] >= skill).sum() + 1) / len(found) > _CHANCE:
        return Importance(len(trials), generations, skill, luck, (), None)
    surrogate = fitted(problem, setting, skill)
    effects = _effects(trials, problem, setting, surrogate, skill)
    return Importance(len(trials), generations, skill, luck, effects, surrogate)


def _shuffled(trials: Trials) -> Floats:
    """Fitness exchanged at random within generations, (n, shuffles): it depends on no gene."""
    rng = generator(0, "shuffled fitness", len(trials))
    rows = np.argsort(trials.generations, kind="stable")
    shuffled = np.empty((len(trials), _SHUFFLES))
    for place in range(_SHUFFLES):
        order = np.lexsort((rng.random(len(trials)), trials.generations))
        shuffled[rows, place] = trials.fitness[order]
    return shuffled


def _effects(
    trials: Trials, problem: Regression, setting: Setting, surrogate: Surrogate, skill: float
) -> tuple[GeneEffect, ...]:
    owned, chance = _owned(problem, setting, len(trials.axes))
    totals = owned.sum(axis=0)
    whole = np.maximum(totals, 0.0).sum()
    if whole <= 0.0:
        return ()
    # What the genes explain is no noise that could pass for the work of one that does nothing
    # (Freedman and Lane 1983, A nonstochastic interpretation of reported significance levels).
    threshold = (1.0 - skill) * float(np.quantile(chance.max(axis=0), 0.95))
    rng = generator(0, "importance", len(trials))
    draws = rng.multinomial(len(owned), np.full(len(owned), 1.0 / len(owned)), _RESAMPLES) @ owned
    sums = np.maximum(draws, 0.0).sum(axis=1, keepdims=True)
    low, high = np.quantile(draws / np.where(sums > 0.0, sums, 1.0), [0.025, 0.975], axis=0)
    late = np.argsort(trials.generations, kind="stable")[-max(len(trials) // 5, 1) :]
    rest = np.median(trials.values[late], axis=0)
    effects = [
        GeneEffect(
            gene,
            float(totals[gene] / whole),
            float(low[gene]),
            float(high[gene]),
            bool(totals[gene] > threshold),
            *_curve(trials, gene, surrogate, rest),
        )
        for gene in range(len(trials.axes))
    ]
    return tuple(sorted(effects, key=lambda effect: -effect.share))


def _owned(problem: Regression, setting: Setting, genes: int) -> tuple[Floats, Floats]:
    """How much of the squared differences each gene accounts for, out of sample.

    With c the part of the prediction that depends on a gene and e the error, exchanging the gene
    at random within a generation adds 2 E[c (c + e)] to the squared error; c (c + e) is what is
    summed here. It is zero on average for a gene that does nothing, because e then contains -c.

    Returns the sums over blocks of candidates, (blocks, genes), and the totals of the shuffled
    fitness, (genes, shuffles).
    """
    blocks = np.arange(len(problem.terms)) % _BLOCKS
    observed = np.zeros((min(len(problem.terms), _BLOCKS), genes))
    chance = np.zeros((genes, problem.fitness.shape[1] - 1))
    touching = [problem.basis.touching(gene) for gene in range(genes)]
    for fold, beta in coefficients(problem, setting):
        rows = problem.folds == fold
        terms, fitness = problem.terms[rows], problem.fitness[rows]
        errors = fitness - terms @ beta
        for gene, places in enumerate(touching):
            part = terms[:, places] @ beta[places]
            owned = part * (part + errors)
            np.add.at(observed[:, gene], blocks[rows], owned[:, 0])
            chance[gene] += owned[:, 1:].sum(axis=0)
    return observed, chance


def _curve(
    trials: Trials, gene: int, surrogate: Surrogate, rest: Floats
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """The surrogate over one gene, the others as in `rest`: grid, curve and its error."""
    column = trials.values[:, gene]
    grid = np.unique(column)
    if trials.axes[gene].ordered:
        low, high = np.quantile(column, [0.05, 0.95])
        inner = grid[(grid >= low) & (grid <= high)]
        grid = np.linspace(low, high, _GRID) if len(inner) > _GRID else inner
    curve, error = surrogate.effect(gene, grid, rest)
    return tuple(grid.tolist()), tuple(curve.tolist()), tuple(error.tolist())
