"""Breadcrumbs' trimming: neither the largest magnitudes of a task vector nor the smallest."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from evomerge.merge.blocks import working_dtype
from evomerge.merge.largest_share import Magnitudes, Trim
from evomerge.merge.magnitudes import Cut, DigitTable, largest, leading_digits
from evomerge.merge.method import Parents, State, Values
from evomerge.merge.sparsify import KEEP_ALL, KEEP_NONE, Sparse, l1_scale


@final
class MiddleShare:
    """Drops the `gamma` share of largest magnitudes, then keeps the next `density` share.

    Davari and Belilovsky 2023, Model Breadcrumbs, arXiv:2312.06795, section 3.2, but for each
    tensor on its own. `gamma` gives way where the two shares exceed 1. Magnitudes equal to a
    threshold are ordered by flat index, the lower one counting as the larger.
    """

    def prepare(self, parents: Parents) -> State:
        """Digit tables, from which any pair of thresholds follows."""
        return Magnitudes(tuple(leading_digits(parents, i) for i in range(len(parents.others))))

    def plan(self, parents: Parents, state: State, values: Values) -> tuple[Sparse, ...]:
        """Masks; walks over a parent only if its table cannot tell a threshold."""
        assert isinstance(state, Magnitudes), "the state comes from this rule's prepare"
        rescale = values.flag("rescale")
        shares = zip(values.numbers("density"), values.numbers("gamma"), strict=True)
        return tuple(
            _middle(parents, index, state.tables[index], pair, rescale=rescale)
            for index, pair in enumerate(shares)
        )


@final
class Middle:
    """What one cut keeps and a smaller one does not; either may be missing."""

    def __init__(self, kept: Cut | None, outliers: Cut | None, dtype: torch.dtype) -> None:
        """Start at flat index 0; without `kept` everything but the outliers stays."""
        self._kept = None if kept is None else Trim(kept, dtype)
        self._outliers = None if outliers is None else Trim(outliers, dtype)

    def apply_(self, delta_B: Tensor, start: int) -> None:
        """Zero outliers and small magnitudes; see `Mask.apply_`."""
        outliers_B = None if self._outliers is None else delta_B.clone()
        if self._kept is not None:
            self._kept.apply_(delta_B, start)
        if self._outliers is not None and outliers_B is not None:
            self._outliers.apply_(outliers_B, start)
            # The outliers are among the kept, so that each difference is x - x or x - 0: exact.
            delta_B.sub_(outliers_B)


def _middle(
    parents: Parents, index: int, table: DigitTable, shares: tuple[float, float], *, rescale: bool
) -> Sparse:
    density, gamma = shares
    count = parents.others[index].numel()
    keep = int(density * count)
    if density >= 1.0:
        return KEEP_ALL
    if keep <= 0:
        return KEEP_NONE
    top = min(int(gamma * count), count - keep)
    kept = largest(parents, index, table, top + keep) if top + keep < count else None
    outliers = largest(parents, index, table, top) if top > 0 else None
    whole = float(table.sums.sum())
    l1 = (whole if kept is None else kept.l1) - (0.0 if outliers is None else outliers.l1)
    mask = Middle(kept, outliers, working_dtype(parents))
    return Sparse(mask, l1_scale(whole, l1) if rescale else 1.0)
