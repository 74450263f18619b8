"""Surrogate: how fitness depends on the genes, learnt from differences within generations.

A ridge regression on the terms of a basis; complexity and penalty are chosen on generations that
were left out. Hoerl and Kennard 1970, Ridge regression: biased estimation for nonorthogonal
problems.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.report.basis import Basis, basis_of
from evomerge.report.trials import Floats, Trials, within

FOLDS = 8
_PENALTIES = tuple(10.0**power for power in np.arange(-3.0, 1.75, 0.5))
"""Per candidate; a term's spread within generations is 1."""
_HARDLY = 0.1
"""Share of the spread that chance gives to skill."""


@dataclass(frozen=True)
class Regression:
    """Terms and fitness within generations, and how the generations are split into folds.

    Rows are weighted by the root of their items, because the variance of a score falls with them.

    Attributes:
        basis: the terms.
        terms: shape (n, k).
        fitness: shape (n, m): the observed one first, then what it is compared with.
        folds: shape (n,); the fold that leaves a row out.
        generations: how many there are.
    """

    basis: Basis
    terms: Floats
    fitness: Floats
    folds: NDArray[np.int64]
    generations: int

    @property
    def count(self) -> int:
        """The number of folds."""
        return int(self.folds.max()) + 1


@dataclass(frozen=True)
class Setting:
    """How a surrogate is fitted: which terms, at which penalty (already times the candidates)."""

    order: int
    penalty: float


@dataclass(frozen=True)
class Surrogate:
    """A fitted surrogate: fitness is uncertain by a normal with this mean and covariance.

    Attributes:
        basis: the terms, k of them.
        mean: shape (k,).
        root: shape (k, k); a matrix whose product with its transpose is the covariance.
    """

    basis: Basis
    mean: Floats
    root: Floats

    def difference(self, ours: Floats, theirs: Floats) -> tuple[float, float]:
        """Expected fitness of one genotype (d,) minus another's, and its standard error."""
        rows = self.basis.of(np.stack([ours, theirs]))
        change = rows[0] - rows[1]
        return float(change @ self.mean), float(np.linalg.norm(change @ self.root))

    def effect(self, gene: int, values: Floats, rest: Floats) -> tuple[Floats, Floats]:
        """Fitness over `values` (v,) of a gene around its mean there, the others as in `rest` (d,).

        Returns the expected curve and its standard error, both of shape (v,).
        """
        points = np.repeat(rest[None, :], len(values), axis=0)
        points[:, gene] = values
        rows = self.basis.of(points)
        rows = rows - rows.mean(axis=0)
        return rows @ self.mean, np.linalg.norm(rows @ self.root, axis=1)


def regression(trials: Trials, shuffled: Floats) -> Regression:
    """The regression of trials; `shuffled` (n, m - 1) are other fitness values to learn from."""
    basis = basis_of(trials)
    weights = np.sqrt(trials.items / trials.items.mean())[:, None]
    together = np.concatenate([trials.fitness[:, None], shuffled], axis=1)
    _, places = np.unique(trials.generations, return_inverse=True)
    return Regression(
        basis,
        within(basis.of(trials.values), trials.generations) * weights,
        within(together, trials.generations) * weights,
        np.asarray(places % FOLDS, dtype=np.int64),
        int(places.max()) + 1,
    )


def skills(problem: Regression) -> tuple[Floats, Setting]:
    """The share of the variance that is predicted in generations left out, at its best: (m,).

    Also returns the setting to take for the observed fitness: the terms of the best one with the
    highest penalty that is hardly worse, because where candidates are few all penalties may do.
    Nothing is predicted, and the share is about zero, where fitness depends on no gene.
    """
    total = (problem.fitness**2).sum(axis=0)
    settings = list(_settings(problem))
    errors = np.zeros((len(settings), problem.fitness.shape[1]))
    for fold in range(problem.count):
        rows = problem.folds == fold
        ours, theirs = problem.terms[rows], problem.fitness[rows]
        inner, outer, energy = ours.T @ ours, ours.T @ theirs, (theirs**2).sum(axis=0)
        for place, beta in enumerate(_betas(problem, settings, fold)):
            k = len(beta)
            loss = (beta * (inner[:k, :k] @ beta - 2.0 * outer[:k])).sum(axis=0)
            errors[place] += energy + loss
    shares = 1.0 - errors / np.where(total > 0.0, total, 1.0)
    best = shares.max(axis=0)
    return best, _chosen(settings, shares[:, 0], _HARDLY * float(best[1:].std()))


def _chosen(settings: list[Setting], shares: Floats, slack: float) -> Setting:
    order = settings[int(shares.argmax())].order
    good = (
        setting
        for setting, share in zip(settings, shares, strict=True)
        if setting.order == order and share >= shares.max() - slack
    )
    return max(good, key=lambda setting: setting.penalty)


def coefficients(problem: Regression, setting: Setting) -> Iterator[tuple[int, Floats]]:
    """For every fold, the coefficients (k, m) learnt without it; terms not used have zeros."""
    for fold in range(problem.count):
        (beta,) = _betas(problem, [setting], fold)
        full = np.zeros((problem.terms.shape[1], problem.fitness.shape[1]))
        full[: len(beta)] = beta
        yield fold, full


def fitted(problem: Regression, setting: Setting, skill: float) -> Surrogate:
    """The surrogate of all generations.

    The covariance is that of a normal prior whose strength is the penalty (Bishop 2006, Pattern
    recognition and machine learning, eq. 3.53-3.54), with the noise that is left out of sample.
    """
    k = _width(problem, setting.order)
    terms, fitness = problem.terms[:, :k], problem.fitness[:, 0]
    values, vectors = np.linalg.eigh(terms.T @ terms)
    scales = np.maximum(values, 0.0) + setting.penalty
    # every generation's mean has taken a degree of freedom
    left = float((fitness**2).sum()) / (len(fitness) - problem.generations)
    noise = (1.0 - max(skill, 0.0)) * left
    mean = np.zeros(problem.terms.shape[1])
    mean[:k] = vectors @ ((vectors.T @ (terms.T @ fitness)) / scales)
    root = np.zeros((len(mean), len(mean)))
    root[:k, :k] = vectors * np.sqrt(noise / scales)
    return Surrogate(problem.basis, mean, root)


def _settings(problem: Regression) -> Iterator[Setting]:
    for order in sorted(set(problem.basis.orders)):
        for penalty in _PENALTIES:
            yield Setting(order, penalty * len(problem.terms))


def _width(problem: Regression, order: int) -> int:
    """The number of terms up to an order; they are sorted by it."""
    return sum(found <= order for found in problem.basis.orders)


def _betas(problem: Regression, settings: list[Setting], fold: int) -> Iterator[Floats]:
    """Coefficients without a fold, for each setting; one decomposition per order."""
    rows = problem.folds != fold
    terms, fitness = problem.terms[rows], problem.fitness[rows]
    inner, outer = terms.T @ terms, terms.T @ fitness
    order = -1
    for setting in settings:
        if setting.order != order:
            order, k = setting.order, _width(problem, setting.order)
            values, vectors = np.linalg.eigh(inner[:k, :k])
            turned = vectors.T @ outer[:k]
        yield vectors @ (turned / (np.maximum(values, 0.0) + setting.penalty)[:, None])
