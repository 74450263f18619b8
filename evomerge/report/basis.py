"""Basis: the functions of the genes that a surrogate of the fitness is a sum of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from evomerge.genes import Axis
from evomerge.report.trials import Floats, Trials, within

MOST_TERMS = 300
"""Products of two genes join in while all terms together are no more than this."""
_MOST_CHOICES = 8
_SELDOM = 3
"""A choice that was tried fewer times than this cannot be told from luck."""

SQUARE, PRODUCT = 1, 2
"""Orders of terms besides 0, those that are linear in one gene."""


@dataclass(frozen=True)
class Part:
    """One factor of a term: a gene's standardised value, or whether it is a certain choice."""

    gene: int
    centre: float = 0.0
    spread: float = 1.0
    choice: float | None = None

    def of(self, values: Floats) -> Floats:
        """The factor for genotypes of shape (n, d): shape (n,)."""
        column = values[:, self.gene]
        if self.choice is not None:
            return np.asarray(column == self.choice, dtype=np.float64)
        return np.asarray((column - self.centre) / self.spread, dtype=np.float64)


@dataclass(frozen=True)
class Term:
    """A product of one or two parts; `order` says how complex it is."""

    parts: tuple[Part, ...]
    order: int

    def of(self, values: Floats) -> Floats:
        """The term for genotypes of shape (n, d): shape (n,)."""
        product = self.parts[0].of(values)
        for part in self.parts[1:]:
            product = product * part.of(values)
        return product

    @property
    def genes(self) -> frozenset[int]:
        """The genes it depends on."""
        return frozenset(part.gene for part in self.parts)


@dataclass(frozen=True)
class Basis:
    """Terms in rising order, each with the spread it has within generations.

    Attributes:
        terms: k of them.
        spreads: shape (k,).
        with_pairs: whether products of two genes were considered; there may be too many.
    """

    terms: tuple[Term, ...]
    spreads: Floats
    with_pairs: bool

    def of(self, values: Floats) -> Floats:
        """All terms for genotypes of shape (n, d), in units of their spreads: shape (n, k)."""
        if not self.terms:
            return np.zeros((len(values), 0))
        return np.stack([term.of(values) for term in self.terms], axis=1) / self.spreads

    @property
    def orders(self) -> tuple[int, ...]:
        """The order of every term."""
        return tuple(term.order for term in self.terms)

    def touching(self, gene: int) -> list[int]:
        """The terms that depend on a gene."""
        return [place for place, term in enumerate(self.terms) if gene in term.genes]


def basis_of(trials: Trials) -> Basis:
    """The terms that the trials can say something about.

    Linear and square in ordered genes, one per usual choice in others, and the products of pairs
    while there are not too many. Terms that never vary within a generation are left out.
    """
    parts = [
        list(_parts(place, axis, trials.values[:, place])) for place, axis in enumerate(trials.axes)
    ]
    terms = [Term((part,), 0) for group in parts for part in group]
    terms += [
        Term((part, part), SQUARE)
        for group, column in zip(parts, trials.values.T, strict=True)
        for part in group
        if part.choice is None and len(np.unique(column)) > 2
    ]
    pairs = [(one, two) for a, b in combinations(parts, 2) for one in a for two in b]
    with_pairs = len(terms) + len(pairs) <= MOST_TERMS
    if with_pairs:
        terms += [Term(pair, PRODUCT) for pair in pairs]
    if not terms:
        return Basis((), np.zeros(0), with_pairs)
    columns = within(np.stack([t.of(trials.values) for t in terms], axis=1), trials.generations)
    spreads = columns.std(axis=0)
    varying = spreads > 1e-9
    kept = tuple(term for term, varies in zip(terms, varying, strict=True) if varies)
    return Basis(kept, np.asarray(spreads[varying], dtype=np.float64), with_pairs)


def _parts(gene: int, axis: Axis, column: Floats) -> Iterator[Part]:
    if axis.ordered:
        spread = float(column.std())
        if spread > 0.0:
            yield Part(gene, float(column.mean()), spread)
        return
    choices, counts = np.unique(column, return_counts=True)
    usual = sorted(range(len(choices)), key=lambda place: (-counts[place], choices[place]))
    for place in usual[1:_MOST_CHOICES]:  # the most frequent is what the others are compared with
        if counts[place] >= _SELDOM:
            yield Part(gene, choice=float(choices[place]))
