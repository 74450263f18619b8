"""Which elements of task vectors survive, for element j of a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload, register_jitable

from evomerge.merge.compiled.elements import high_draw, low_draw

_ZERO = np.float32(0.0)
I32 = np.int32


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


class Counting(NamedTuple):
    """`mask`, while magnitudes equal to `floors` are counted: one per low bound, then per high."""

    mask: Any
    floors: Any


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
    if kind is Counting:
        return lambda mask, j, deltas: survivors(mask.mask, j, deltas)
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


def no_equals(mask: Any) -> Any:
    """The counts to begin with; none for masks that do not count."""


@overload(no_equals, strict=False)
def _no_equals(mask: Any) -> Callable[..., Any]:
    if mask.instance_class is not Counting:
        return lambda mask: ()
    return lambda mask: integers(mask.floors)


def integers(like: Any) -> Any:
    """As many int32 zeros as `like` has entries."""


@overload(integers, strict=False)
def _integers(like: Any) -> Callable[..., Any]:
    if len(like) == 0:
        return lambda like: ()
    return lambda like: (*integers(like[:-1]), I32(0))


def tally(mask: Any, deltas: Any, counts: Any) -> Any:
    """The counts with those of one element."""


@overload(tally, strict=False)
def _tally(mask: Any, deltas: Any, counts: Any) -> Callable[..., Any]:
    if mask.instance_class is not Counting:
        return lambda mask, deltas, counts: counts
    if len(counts) == len(deltas):
        return lambda mask, deltas, counts: equals(mask.floors, deltas, counts)
    return lambda mask, deltas, counts: equals(mask.floors, (*deltas, *deltas), counts)


def equals(floors: Any, deltas: Any, counts: Any) -> Any:
    """Each count, one more where the magnitude equals the floor."""


@overload(equals, strict=False)
def _equals(floors: Any, deltas: Any, counts: Any) -> Callable[..., Any]:
    if len(counts) == 0:
        return lambda floors, deltas, counts: ()
    return lambda floors, deltas, counts: (
        *equals(floors[:-1], deltas[:-1], counts[:-1]),
        I32(counts[-1] + I32(abs(deltas[-1]) == floors[-1])),
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
            _limit(starts[-1], steps[-1], ranks[-1][j]),
            deltas[-1],
        ),
    )


@register_jitable
def _limit(start: Any, step: Any, rank: Any) -> Any:
    # Sums and products of 32-bit integers are 64 bits wide in numba, hence the I32 around each.
    return I32(I32(start + I32(step * I32(rank))) >> I32(8))


@register_jitable
def _kept_if_ranked(draw: Any, limit: Any, delta: Any) -> Any:
    return delta if I32(draw >> I32(16)) < I32(limit - I32(32768)) else _ZERO


@register_jitable
def _divided_if_ranked(draw: Any, limit: Any, delta: Any) -> Any:
    chance = np.float32(min(max(limit, I32(1)), I32(65536))) * np.float32(2.0**-16)
    return delta / chance if I32(draw >> I32(16)) < I32(limit - I32(32768)) else _ZERO
