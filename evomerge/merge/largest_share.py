"""TIES' trimming: the largest magnitudes of each task vector, an exact number of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from evomerge.merge.blocks import working_dtype
from evomerge.merge.magnitudes import Cut, DigitTable, largest, leading_digits
from evomerge.merge.method import Parents, State, Values
from evomerge.merge.sparsify import KEEP_ALL, KEEP_NONE, Sparse, l1_scale


@dataclass(frozen=True)
class Magnitudes:
    """The digit table of each task vector, in recipe order; a few kilobytes each."""

    tables: tuple[DigitTable, ...]


@final
class LargestShare:
    """Keeps the `density` share of largest magnitudes, at least one element.

    Yadav et al. 2023, TIES-Merging, arXiv:2306.01708, algorithm 1, step 1, but for each tensor on
    its own. Task vectors of 16-bit models have many equal magnitudes; among those at the threshold
    the lower flat index wins.
    """

    def prepare(self, parents: Parents) -> State:
        """Digit tables, from which any density's threshold follows."""
        return Magnitudes(tuple(leading_digits(parents, i) for i in range(len(parents.others))))

    def plan(self, parents: Parents, state: State, values: Values) -> tuple[Sparse, ...]:
        """Trimming masks; walks over a parent only if its table cannot tell the threshold."""
        assert isinstance(state, Magnitudes), "the state comes from this rule's prepare"
        rescale = values.flag("rescale")
        return tuple(
            _trim(parents, index, state.tables[index], density, rescale)
            for index, density in enumerate(values.numbers("density"))
        )


@final
class Trim:
    """Applies a cut block by block, counting down the equal magnitudes that are still admitted."""

    def __init__(self, cut: Cut, dtype: torch.dtype) -> None:
        """Start at flat index 0."""
        self._floor = cut.floor
        # Keeping or dropping zeros makes no difference, so a floor of zero admits none.
        self._spare = cut.spare if cut.floor != 0.0 else 0
        below = torch.nextafter(torch.tensor(cut.floor, dtype=dtype), torch.zeros((), dtype=dtype))
        self._below_floor = below.item()

    def apply_(self, delta_B: Tensor, start: int) -> None:  # noqa: ARG002 - counts instead
        """Zero what the cut drops; see `Mask.apply_`."""
        admitted = self._admit(delta_B) if self._spare else 0
        # hardshrink keeps what is strictly above its bound, and NaN; one pass, no boolean mask.
        for part_B, bound in (
            (delta_B[:admitted], self._below_floor),
            (delta_B[admitted:], self._floor),
        ):
            if part_B.numel():
                torch.hardshrink(part_B, bound, out=part_B)

    def _admit(self, delta_B: Tensor) -> int:
        """The length of the block's beginning in which elements equal to the floor are kept."""
        equal_B = delta_B.abs().eq_(self._floor)
        count = int(equal_B.sum())
        if count <= self._spare:
            self._spare -= count
            return delta_B.numel()
        admitted = int(equal_B.nonzero()[self._spare])
        self._spare = 0
        return admitted


def _trim(parents: Parents, index: int, table: DigitTable, density: float, rescale: bool) -> Sparse:
    count = parents.others[index].numel()
    keep = max(1, int(density * count))
    if density <= 0.0:
        return KEEP_NONE
    if density >= 1.0 or keep >= count:
        return KEEP_ALL
    cut = largest(parents, index, table, keep)
    scale = l1_scale(float(table.sums.sum()), cut.l1) if rescale else 1.0
    return Sparse(Trim(cut, working_dtype(parents)), scale)
