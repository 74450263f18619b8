"""Adding up what has the elected sign, for one block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_TINY_DIVISOR = 1e-6


def add_elected_(
    base_B: Tensor,
    terms: Sequence[Tensor],
    weights: Sequence[float],
    scale: float,
    spare: Sequence[Tensor],
) -> None:
    """Add the terms with the elected sign to the base, divided by their weights if there are any.

    Args:
        base_B: updated.
        terms: weighted task vectors; overwritten.
        weights: one per term, or none.
        scale: factor on what is added.
        spare: three rows.
    """
    sign_B, agreeing_B, divisor_B = spare
    _elect_(terms, sign_B)
    agreeing_B.zero_()
    for term_B in terms:
        agreeing_B.add_(term_B.mul_(sign_B).clamp_min_(0.0))
    if weights:
        divisor_B.zero_()
        for term_B, weight in zip(terms, weights, strict=True):
            divisor_B.add_(term_B.sign_().mul_(weight))
        absent_B = terms[0].copy_(divisor_B).eq_(0.0)
        agreeing_B.div_(divisor_B.add_(absent_B))
    base_B.add_(agreeing_B.mul_(scale).mul_(sign_B))


def add_selected_(
    base_B: Tensor,
    deltas: Sequence[Tensor],
    shares: Sequence[float],
    chosen_B: Tensor,
    spare: Sequence[Tensor],
) -> None:
    """Add the mean, weighted by `shares`, of the task vectors with the elected sign.

    Args:
        base_B: updated.
        deltas: task vectors; overwritten.
        shares: one per task vector.
        chosen_B: 1 where something is added, else 0.
        spare: three rows.
    """
    sign_B, sum_B, divisor_B = spare
    _elect_(deltas, sign_B)
    sum_B.zero_()
    divisor_B.zero_()
    for delta_B, share in zip(deltas, shares, strict=True):
        # Zero or the magnitude of what agrees.
        delta_B.mul_(sign_B).clamp_min_(0.0)
        sum_B.add_(torch.mul(delta_B, share))
        divisor_B.add_(delta_B.sign_().mul_(share))
    change_B = sum_B.div_(divisor_B.clamp_min_(_TINY_DIVISOR)).mul_(sign_B)
    base_B.add_(change_B.mul_(chosen_B))


def _elect_(terms: Sequence[Tensor], sign_B: Tensor) -> None:
    # Rounded products, not fused multiply-adds: equal weights on opposite deltas must cancel to
    # exactly zero.
    sign_B.copy_(terms[0])
    for term_B in terms[1:]:
        sign_B.add_(term_B)
    # Comparisons into a float tensor give 0.0 and 1.0 and are several times faster than into a
    # boolean one. An exact zero elects plus.
    sign_B.ge_(0.0).mul_(2.0).sub_(1.0)


def variance_(
    deltas: Sequence[Tensor], mean_B: Tensor, gap_B: Tensor, variance_B: Tensor
) -> Tensor:
    """Fill `variance_B` with the population variance over `deltas`.

    Updated one by one: equal numbers give exactly 0.
    """
    mean_B.copy_(deltas[0])
    variance_B.zero_()
    for count, delta_B in enumerate(deltas[1:], start=2):
        torch.sub(delta_B, mean_B, out=gap_B)
        mean_B.add_(gap_B * (1.0 / count))
        # The square of the gap times (count - 1) / count is what it adds; never negative.
        variance_B.add_(gap_B.square_().mul_((count - 1) / count))
    return variance_B.mul_(1.0 / len(deltas))
