"""SCE: select elements by the parents' variance, weigh parents by energy, erase minority signs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from evomerge.merge.blocks import Walk, difference_, store_, working_dtype
from evomerge.merge.largest_share import Trim
from evomerge.merge.magnitudes import DigitTable, Series, largest_of, leading_digits_of
from evomerge.merge.method import Parents, State, Values

_TINY_ENERGY = 1e-6
_TINY_DIVISOR = 1e-6


@dataclass(frozen=True)
class Variances:
    """The digit table of the variance over parents, and how many variances are not zero."""

    table: DigitTable
    present: int


@final
class Sce:
    """base + sum_i c_i d_i / sum_i c_i over the parents that agree with the elected sign.

    Wan et al. 2024, FuseChat, arXiv:2408.07990, section 3.3. `select_topk` is a share of the
    elements whose variance is not zero; c_i is the parent's share of the selected squares, and
    equal for all where their mean square is below 1e-6 in total; the division by the agreeing
    coefficients is not in the paper.
    """

    def prepare(self, parents: Parents) -> State:
        """The digit table of the variances."""
        if not parents.others:
            return None
        table = leading_digits_of(_variances(parents))
        return Variances(table, int(table.counts[table.keys != 0].sum()))

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write base plus what is selected; see `MergeMethod.merge`."""
        assert parents.base is not None, "task vectors need a base"
        topk, keep = values.number("select_topk"), 0
        if isinstance(state, Variances):
            keep = int(state.present * min(max(topk, 0.0), 1.0))
        if not isinstance(state, Variances) or (topk < 1.0 and keep == 0):
            out.copy_(parents.base)
            return
        cut = None if topk >= 1.0 else largest_of(_variances(parents), state.table, keep)

        def walk() -> Iterator[tuple[slice, Tensor, Sequence[Tensor], Sequence[Tensor]]]:
            trim = None if cut is None else Trim(cut, working_dtype(parents))
            return _selected(parents, trim)

        shares = _shares(walk(), len(parents.others), parents.base.device)
        target = out.view(-1)
        for block, base_B, deltas, (sign_B, sum_B, divisor_B) in walk():
            _add_agreeing_(base_B, deltas, shares, sign_B, (sum_B, divisor_B))
            store_(target[block], base_B)


def _shares(
    walk: Iterator[tuple[slice, Tensor, Sequence[Tensor], Sequence[Tensor]]],
    count: int,
    device: torch.device,
) -> list[float]:
    energy_K = torch.zeros(count, dtype=torch.float64, device=device)
    size = 0
    for _, base_B, deltas, _ in walk:
        size += base_B.numel()
        for index, delta_B in enumerate(deltas):
            wide_B = delta_B.double()
            energy_K[index] += torch.dot(wide_B, wide_B)
    energy_K /= max(size, 1)
    total = float(energy_K.sum())
    if abs(total) < _TINY_ENERGY:
        return [1.0 / count] * count
    return (energy_K / total).tolist()


def _add_agreeing_(
    base_B: Tensor,
    deltas: Sequence[Tensor],
    shares: Sequence[float],
    sign_B: Tensor,
    spare: tuple[Tensor, Tensor],
) -> None:
    sum_B, divisor_B = spare
    sign_B.zero_()
    for delta_B in deltas:
        sign_B.add_(delta_B)
    # An exact zero elects plus, as everywhere.
    sign_B.ge_(0.0).mul_(2.0).sub_(1.0)
    sum_B.zero_()
    divisor_B.zero_()
    for delta_B, share in zip(deltas, shares, strict=True):
        # Zero or the magnitude of what agrees.
        delta_B.mul_(sign_B).clamp_min_(0.0)
        sum_B.add_(delta_B, alpha=share)
        divisor_B.add_(delta_B.sign_(), alpha=share)
    base_B.addcmul_(sign_B, sum_B.div_(divisor_B.clamp_min_(_TINY_DIVISOR)))


def _variances(parents: Parents) -> Series:
    assert parents.base is not None, "task vectors need a base"
    dtype, device = working_dtype(parents), parents.base.device

    def blocks() -> Iterator[Tensor]:
        for _, _, deltas, (mean_B, gap_B, variance_B) in _selected(parents, None):
            yield _variance_(deltas, mean_B, gap_B, variance_B)

    return Series(dtype, device, blocks)


def _selected(
    parents: Parents, trim: Trim | None
) -> Iterator[tuple[slice, Tensor, Sequence[Tensor], Sequence[Tensor]]]:
    """Blocks of (indices, base, task vectors after the selection, three rows to work in)."""
    assert parents.base is not None, "task vectors need a base"
    base = parents.base.reshape(-1)
    flats = [tensor.reshape(-1) for tensor in parents.others]
    rows = 4 + len(flats)
    for block, (base_B, a_B, b_B, c_B, *deltas) in Walk(
        base, rows=rows, dtype=working_dtype(parents)
    ):
        base_B.copy_(base[block])
        for delta_B, flat in zip(deltas, flats, strict=True):
            difference_(delta_B, flat[block], base_B)
        if trim is not None:
            trim.apply_(_variance_(deltas, a_B, b_B, c_B), block.start)
            chosen_B = c_B.ne_(0.0)
            for delta_B in deltas:
                delta_B.mul_(chosen_B)
        yield block, base_B, deltas, (a_B, b_B, c_B)


def _variance_(
    deltas: Sequence[Tensor], mean_B: Tensor, gap_B: Tensor, variance_B: Tensor
) -> Tensor:
    """The population variance over parents, updated one by one: equal numbers give exactly 0."""
    mean_B.copy_(deltas[0])
    variance_B.zero_()
    for count, delta_B in enumerate(deltas[1:], start=2):
        torch.sub(delta_B, mean_B, out=gap_B)
        mean_B.add_(gap_B, alpha=1.0 / count)
        # The square of the gap times (count - 1) / count is what it adds; never negative.
        variance_B.addcmul_(gap_B, gap_B, value=(count - 1) / count)
    return variance_B.div_(len(deltas))
