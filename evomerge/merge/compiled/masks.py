"""Which elements of task vectors survive, for element j of a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload, register_jitable

from evomerge.merge.compiled.elements import high_draw, low_draw

_ZERO = np.float32(0.0)


class Everything(NamedTuple):
    """Nothing is dropped; `blank` fills a tuple that numba would refuse empty."""

    blank: int


class Between(NamedTuple):
    """Survivors have magnitudes above `lows` and not above `highs`; one number per task vector."""

    lows: Any
    highs: Any


class Above(NamedTuple):
    """Survivors have magnitudes above `lows`, one number per task vector."""

    lows: Any


class Drawn(NamedTuple):
    """Survivors' draws are at most `bounds`; the keys are folded for the block."""

    folds: Any
    added: Any
    bounds: Any


class RankDrawn(NamedTuple):
    """Survivors' draws are below the limit of their rank.

    `ranks` are the block's; the limit of rank q is (starts + steps q) >> 8.
    """

    folds: Any
    added: Any
    ranks: Any
    starts: Any
    steps: Any


class Unbiased(NamedTuple):
    """Like `RankDrawn`, with survivors divided by their chance."""

    folds: Any
    added: Any
    ranks: Any
    starts: Any
    steps: Any


def survivors(mask: Any, j: Any, deltas: Any) -> Any:
    """The task vectors' elements, 0 where dropped."""


@overload(survivors, strict=False)
def _survivors(mask: Any, j: Any, deltas: Any) -> Callable[..., Any]:
    kind = mask.instance_class
    if kind is Everything:
        return lambda mask, j, deltas: deltas
    if kind is Above:
        return lambda mask, j, deltas: above(mask.lows, deltas)
    if kind is Between:
        return lambda mask, j, deltas: within(mask.lows, mask.highs, deltas)
    if kind is Drawn:
        return lambda mask, j, deltas: drawn(mask.folds, mask.added, mask.bounds, j, deltas)
    choose = _kept_if_ranked if kind is RankDrawn else _divided_if_ranked
    return lambda mask, j, deltas: ranked(
        choose, mask.folds, mask.added, mask.ranks, mask.starts, mask.steps, j, deltas
    )


def above(lows: Any, deltas: Any) -> Any:
    """`Above` on tuples."""


@overload(above, strict=False)
def _above(lows: Any, deltas: Any) -> Callable[..., Any]:
    if len(deltas) == 0:
        return lambda lows, deltas: ()
    return lambda lows, deltas: (
        *above(lows[:-1], deltas[:-1]),
        _kept_above(lows[-1], deltas[-1]),
    )


@register_jitable
def _kept_above(low: Any, delta: Any) -> Any:
    # Written so that NaN stays.
    return _ZERO if abs(delta) <= low else delta


def within(lows: Any, highs: Any, deltas: Any) -> Any:
    """`Between` on tuples."""


@overload(within, strict=False)
def _within(lows: Any, highs: Any, deltas: Any) -> Callable[..., Any]:
    if len(deltas) == 0:
        return lambda lows, highs, deltas: ()
    return lambda lows, highs, deltas: (
        *within(lows[:-1], highs[:-1], deltas[:-1]),
        _kept_within(lows[-1], highs[-1], deltas[-1]),
    )


@register_jitable
def _kept_within(low: Any, high: Any, delta: Any) -> Any:
    # Written so that NaN stays.
    return _ZERO if (abs(delta) <= low) | (abs(delta) > high) else delta


def drawn(folds: Any, added: Any, bounds: Any, j: Any, deltas: Any) -> Any:
    """`Drawn` on tuples; two task vectors share one word, which the compiler computes once."""


@overload(drawn, strict=False)
def _drawn(folds: Any, added: Any, bounds: Any, j: Any, deltas: Any) -> Callable[..., Any]:
    last = len(deltas) - 1
    if last < 0:
        return lambda folds, added, bounds, j, deltas: ()
    draw, pair = (low_draw if last % 2 else high_draw), last // 2
    return lambda folds, added, bounds, j, deltas: (
        *drawn(folds, added, bounds[:-1], j, deltas[:-1]),
        _kept_if_drawn(draw(j, folds[pair], added[pair]), bounds[-1], deltas[-1]),
    )


@register_jitable
def _kept_if_drawn(draw: Any, bound: Any, delta: Any) -> Any:
    return delta if draw <= bound else _ZERO


def ranked(
    choose: Any, folds: Any, added: Any, ranks: Any, starts: Any, steps: Any, j: Any, deltas: Any
) -> Any:
    """`RankDrawn` and `Unbiased` on tuples."""


@overload(ranked, strict=False)
def _ranked(
    choose: Any, folds: Any, added: Any, ranks: Any, starts: Any, steps: Any, j: Any, deltas: Any
) -> Callable[..., Any]:
    last = len(deltas) - 1
    if last < 0:
        return lambda choose, folds, added, ranks, starts, steps, j, deltas: ()
    draw, pair = (low_draw if last % 2 else high_draw), last // 2
    return lambda choose, folds, added, ranks, starts, steps, j, deltas: (
        *ranked(choose, folds, added, ranks[:-1], starts[:-1], steps[:-1], j, deltas[:-1]),
        choose(
            draw(j, folds[pair], added[pair]),
            (starts[-1] + steps[-1] * np.int32(ranks[-1][j])) >> np.int32(8),
            deltas[-1],
        ),
    )


@register_jitable
def _kept_if_ranked(draw: Any, limit: Any, delta: Any) -> Any:
    return delta if (draw >> np.int32(16)) < limit - np.int32(32768) else _ZERO


@register_jitable
def _divided_if_ranked(draw: Any, limit: Any, delta: Any) -> Any:
    chance = np.float32(min(max(limit, np.int32(1)), np.int32(65536))) * np.float32(2.0**-16)
    return delta / chance if (draw >> np.int32(16)) < limit - np.int32(32768) else _ZERO
