"""What is done with the surviving elements of a block: added up, voted on, or only measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload, register_jitable

from evomerge.merge.compiled.elements import put, wide
from evomerge.merge.compiled.jit import compiled, reordered
from evomerge.merge.compiled.masks import no_equals, survivors, tally
from evomerge.merge.compiled.tuples import differences, elements, products, sums, total

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)


class Sum(NamedTuple):
    """base + sum of factor times survivor."""

    factors: Any


class Mean(NamedTuple):
    """base + (sum of factor times survivor) / divisor."""

    factors: Any
    divisor: Any


class Elected(NamedTuple):
    """base + scale * the sum of those with the elected sign."""

    factors: Any
    scale: Any


class ElectedMean(NamedTuple):
    """base + scale * the sum of those with the elected sign / the sum of their weights."""

    factors: Any
    scale: Any
    weights: Any


class Norms(NamedTuple):
    """Adds the survivors' magnitudes to `totals`, float64; nothing is written."""

    totals: Any


def visit(what: Any, base: Any, others: Any, mask: Any, out: Any) -> Any:
    """Do `what` for one block; `base`, `others` and `out` are the block's.

    Returns:
        What the mask counted.
    """


@overload(visit, strict=False)
def _visit(what: Any, base: Any, others: Any, mask: Any, out: Any) -> Callable[..., Any]:
    kind = what.instance_class
    if kind is Norms:
        return lambda what, base, others, mask, out: _measure(what.totals, base, others, mask)
    write = {Sum: _sum, Mean: _mean, Elected: _elected, ElectedMean: _elected_mean}[kind]
    return lambda what, base, others, mask, out: write(what, base, others, mask, out)


@compiled
def _sum(what: Any, base: Any, others: Any, mask: Any, out: Any) -> Any:
    counts = no_equals(mask)
    for j in range(out.size):
        anchor = wide(base[j])
        deltas = differences(others, j, anchor)
        counts = tally(mask, deltas, counts)
        kept = survivors(mask, j, deltas)
        put(out, j, anchor + total(products(kept, what.factors)))
    return counts


@compiled
def _mean(what: Any, base: Any, others: Any, mask: Any, out: Any) -> Any:
    counts = no_equals(mask)
    for j in range(out.size):
        anchor = wide(base[j])
        deltas = differences(others, j, anchor)
        counts = tally(mask, deltas, counts)
        kept = survivors(mask, j, deltas)
        put(out, j, anchor + total(products(kept, what.factors)) / what.divisor)
    return counts


@compiled
def _elected(what: Any, base: Any, others: Any, mask: Any, out: Any) -> Any:
    counts = no_equals(mask)
    for j in range(out.size):
        anchor = wide(base[j])
        deltas = differences(others, j, anchor)
        counts = tally(mask, deltas, counts)
        terms = products(survivors(mask, j, deltas), what.factors)
        sign = _ONE if total(terms) >= _ZERO else -_ONE
        put(out, j, anchor + total(agreeing(terms, sign)) * what.scale * sign)
    return counts


@compiled
def _elected_mean(what: Any, base: Any, others: Any, mask: Any, out: Any) -> Any:
    counts = no_equals(mask)
    for j in range(out.size):
        anchor = wide(base[j])
        deltas = differences(others, j, anchor)
        counts = tally(mask, deltas, counts)
        terms = products(survivors(mask, j, deltas), what.factors)
        sign = _ONE if total(terms) >= _ZERO else -_ONE
        agreed = agreeing(terms, sign)
        divisor = total(present(agreed, what.weights))
        divisor = _ONE if divisor == _ZERO else divisor
        put(out, j, anchor + total(agreed) / divisor * what.scale * sign)
    return counts


def agreeing(terms: Any, sign: Any) -> Any:
    """The magnitudes of the terms that have the sign, 0 for the others; NaN stays."""


@overload(agreeing, strict=False)
def _agreeing(terms: Any, sign: Any) -> Callable[..., Any]:
    if len(terms) == 0:
        return lambda terms, sign: ()
    return lambda terms, sign: (*agreeing(terms[:-1], sign), _positive(terms[-1] * sign))


@register_jitable
def _positive(x: Any) -> Any:
    return max(x, _ZERO)


def present(terms: Any, weights: Any) -> Any:
    """The weights of the terms that are positive, 0 for the others."""


@overload(present, strict=False)
def _present(terms: Any, weights: Any) -> Callable[..., Any]:
    if len(terms) == 0:
        return lambda terms, weights: ()
    return lambda terms, weights: (
        *present(terms[:-1], weights[:-1]),
        _if_positive(terms[-1], weights[-1]),
    )


@register_jitable
def _if_positive(term: Any, weight: Any) -> Any:
    return weight if term > _ZERO else _ZERO


@reordered
def _measure(totals: Any, base: Any, others: Any, mask: Any) -> None:
    found = zeros(others)
    for j in range(base.size):
        kept = survivors(mask, j, differences(others, j, wide(base[j])))
        found = sums(found, magnitudes(kept))
    store(totals, found)


def zeros(like: Any) -> Any:
    """As many float32 zeros as `like` has entries."""


@overload(zeros, strict=False)
def _zeros(like: Any) -> Callable[..., Any]:
    if len(like) == 0:
        return lambda like: ()
    return lambda like: (*zeros(like[:-1]), _ZERO)


def magnitudes(xs: Any) -> Any:
    """Each number's magnitude."""


@overload(magnitudes, strict=False)
def _magnitudes(xs: Any) -> Callable[..., Any]:
    if len(xs) == 0:
        return lambda xs: ()
    return lambda xs: (*magnitudes(xs[:-1]), abs(xs[-1]))


def store(totals: Any, found: Any) -> Any:
    """Add `found` to `totals`."""


@overload(store, strict=False)
def _store(totals: Any, found: Any) -> Callable[..., Any]:
    last = len(found) - 1
    if last < 0:
        return lambda totals, found: None

    def add(totals: Any, found: Any) -> None:
        totals[last] += found[last]
        store(totals, found[:-1])

    return add


@compiled
def weighted_sum(tensors: Any, factors: Any, out: Any) -> None:
    """Write the sum of factor times tensor."""
    for j in range(out.size):
        put(out, j, total(products(elements(tensors, j), factors)))


@compiled
def weighted_mean(tensors: Any, factors: Any, divisor: Any, out: Any) -> None:
    """Write (the sum of factor times tensor) / divisor."""
    for j in range(out.size):
        put(out, j, total(products(elements(tensors, j), factors)) / divisor)
