"""RAM: elements that one parent changed count in full, elements that several changed as a mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from evomerge.merge.blockwise.walk import Walk, difference_, store_
from evomerge.merge.method import NOTHING_TO_LEARN, Parents, State, Statistic, Values
from evomerge.merge.precision import working_dtype

_TINY_COUNT = 1e-30


@dataclass(frozen=True)
class Overlap:
    """How many elements a parent changed alone (`unique`) and with others (`shared`)."""

    unique: int
    shared: int


GainRule: TypeAlias = Callable[[Values, Overlap], float]


def ram(values: Values, overlap: Overlap) -> float:  # noqa: ARG001 - the same for all
    """Changes that only one parent made are added as they are."""
    return 1.0


def ramplus(values: Values, overlap: Overlap) -> float:
    """Changes that only one parent made grow with what the parent shares of its changes.

    1 + r clamp(shared / unique, 0, alpha), counted in this tensor.
    """
    ratio = overlap.shared / max(overlap.unique, values.number("epsilon"), _TINY_COUNT)
    return 1.0 + values.number("r") * min(max(ratio, 0.0), values.number("alpha"))


@final
class Ram:
    """base + gain_i d_i where only parent i differs by more than epsilon, else their mean.

    arXiv:2601.13572; gains are those of the tensor.
    """

    def __init__(self, gain: GainRule, *, counts: bool) -> None:
        """A member of the family; without `counts` its gains need no walk over the parents."""
        self._gain = gain
        self._counts = counts

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """Nothing."""
        return NOTHING_TO_LEARN

    def merge(
        self,
        parents: Parents,
        state: State,  # noqa: ARG002 - None
        values: Values,
        out: Tensor,
    ) -> None:
        """Write base plus changes; see `MergeMethod.merge`."""
        epsilon = values.number("epsilon")
        nobody = [Overlap(0, 0)] * len(parents.others)
        overlaps = _overlaps(parents, epsilon) if self._counts else nobody
        gains = [self._gain(values, overlap) for overlap in overlaps]
        target = out.view(-1)
        for block, base_B, changes, hits_B in _changes(parents, epsilon):
            alone_B = hits_B.eq(1.0)
            share_B = hits_B.clamp_min_(1.0).reciprocal_()
            for delta_B, gain in zip(changes, gains, strict=True):
                base_B.add_(delta_B * share_B)
                if gain != 1.0:
                    base_B.add_(delta_B.mul_(alone_B).mul_(gain - 1.0))
            store_(target[block], base_B)


def _overlaps(parents: Parents, epsilon: float) -> list[Overlap]:
    counts = torch.zeros((len(parents.others), 2), dtype=torch.int64)
    for _, _, changes, hits_B in _changes(parents, epsilon):
        alone_B, together_B = hits_B.eq(1.0), hits_B.gt(1.0)
        for index, delta_B in enumerate(changes):
            changed_B = delta_B.ne(0.0)
            counts[index, 0] += int((changed_B & alone_B).sum())
            counts[index, 1] += int((changed_B & together_B).sum())
    return [Overlap(unique, shared) for unique, shared in counts.tolist()]


def _changes(
    parents: Parents, epsilon: float
) -> Iterator[tuple[slice, Tensor, Sequence[Tensor], Tensor]]:
    """Blocks of (indices, base, changes, how many parents changed); changes are 0 up to epsilon."""
    base, *flats = parents.flat
    dtype = working_dtype(parents.flat)
    # In working precision like the differences that it is compared with.
    bound = torch.tensor(epsilon, dtype=dtype).item()
    for block, (base_B, hits_B, *rows) in Walk(base, rows=2 + len(flats), dtype=dtype):
        base_B.copy_(base[block])
        hits_B.zero_()
        for row_B, flat in zip(rows, flats, strict=True):
            delta_B = difference_(row_B, flat[block], base_B)
            # Only magnitudes strictly above the bound, and NaN.
            torch.hardshrink(delta_B, bound, out=delta_B)
            hits_B.add_(delta_B.ne(0.0))
        yield block, base_B, rows, hits_B
