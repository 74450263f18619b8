"""Sparsifying by magnitude: TIES keeps the largest elements, Breadcrumbs those in the middle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from evomerge.merge.digits import TOP_SHIFT, CountDigits, DigitTable, Largest, largest
from evomerge.merge.kernels import EVERYTHING, NOTHING, Band, Bands, Cut, Digits, Kernels
from evomerge.merge.method import NOTHING_TO_LEARN, Parents, State, Statistic, Values
from evomerge.merge.precision import working_dtype
from evomerge.merge.task_vectors import Sparse, l1_scale

_ALL = Band(EVERYTHING)
_NONE = Band(NOTHING)


@final
class Everything:
    """Drops nothing, whatever the density: plain task arithmetic."""

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """Nothing."""
        return NOTHING_TO_LEARN

    def plan(
        self,
        parents: Parents,
        state: State,  # noqa: ARG002 - None
        values: Values,  # noqa: ARG002 - no parameter matters
    ) -> Sparse:
        """Keep every task vector as it is."""
        return Sparse(None, (1.0,) * len(parents.others))


@dataclass(frozen=True)
class Magnitudes:
    """The digit table of each task vector, in recipe order."""

    tables: tuple[DigitTable, ...]


@final
class MagnitudeStatistic:
    """Digit tables of the magnitudes of all task vectors; every threshold follows from them."""

    name = "magnitudes"
    large = False

    def __init__(self, kernels: Kernels) -> None:
        """Read with `kernels`."""
        self._kernels = kernels

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """The tables; a few kilobytes each."""
        tensors: dict[str, Tensor] = {}
        for index in range(len(parents.others)):
            dtype = working_dtype((parents.flat[0], parents.flat[1 + index]))
            shift = TOP_SHIFT[dtype]
            digits = counter(self._kernels, parents, index)(shift, None)
            table = DigitTable.of(digits, dtype, shift)
            tensors |= {f"{index}.{name}": tensor for name, tensor in table.tensors().items()}
            tensors[f"{index}.double"] = torch.tensor(dtype == torch.float64)
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """`Magnitudes`."""
        count = sum(name.endswith(".keys") for name in tensors)
        types = [(torch.float32, torch.float64)[int(tensors[f"{i}.double"])] for i in range(count)]
        return Magnitudes(
            tuple(DigitTable.load(tensors, f"{i}.", dtype) for i, dtype in enumerate(types))
        )


@final
class LargestShare:
    """Keeps the `density` share of largest magnitudes, at least one element.

    Yadav et al. 2023, TIES-Merging, arXiv:2306.01708, algorithm 1, step 1, but for each tensor on
    its own. Task vectors of 16-bit models have many equal magnitudes; among those at the threshold
    the lower flat index wins.
    """

    def __init__(self, kernels: Kernels) -> None:
        """Look up thresholds with `kernels` where the tables leave them open."""
        self._kernels = kernels
        self._statistic = MagnitudeStatistic(kernels)

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """`Magnitudes`."""
        return self._statistic

    def plan(self, parents: Parents, state: State, values: Values) -> Sparse:
        """Trimming masks."""
        assert isinstance(state, Magnitudes), "the state comes from this rule's statistic"
        rescale, size = values.flag("rescale"), parents.flat[0].numel()
        bands, scales = [], []
        for index, density in enumerate(values.numbers("density")):
            table, keep = state.tables[index], max(1, int(density * size))
            band, scale = _ALL, 0.0 if density <= 0.0 else 1.0
            if 0.0 < density < 1.0 and keep < size:
                kept = largest(table, keep, counter(self._kernels, parents, index))
                band = Band(kept.cut)
                if rescale:
                    scale = l1_scale(table.total, kept.sum)
            bands.append(band)
            scales.append(scale)
        return Sparse(Bands(tuple(bands)), tuple(scales))


@final
class MiddleShare:
    """Drops the `gamma` share of largest magnitudes, then keeps the next `density` share.

    Davari and Belilovsky 2023, Model Breadcrumbs, arXiv:2312.06795, section 3.2, but for each
    tensor on its own. `gamma` gives way where the two shares exceed 1. Magnitudes equal to a
    threshold are ordered by flat index, the lower one counting as the larger.
    """

    def __init__(self, kernels: Kernels) -> None:
        """Look up thresholds with `kernels` where the tables leave them open."""
        self._kernels = kernels
        self._statistic = MagnitudeStatistic(kernels)

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """`Magnitudes`."""
        return self._statistic

    def plan(self, parents: Parents, state: State, values: Values) -> Sparse:
        """Masks with two thresholds."""
        assert isinstance(state, Magnitudes), "the state comes from this rule's statistic"
        rescale = values.flag("rescale")
        shares = zip(values.numbers("density"), values.numbers("gamma"), strict=True)
        chosen = [
            self._middle(parents, index, state.tables[index], pair, rescale=rescale)
            for index, pair in enumerate(shares)
        ]
        return Sparse(Bands(tuple(band for band, _ in chosen)), tuple(s for _, s in chosen))

    def _middle(
        self,
        parents: Parents,
        index: int,
        table: DigitTable,
        shares: tuple[float, float],
        *,
        rescale: bool,
    ) -> tuple[Band, float]:
        density, gamma = shares
        size = parents.flat[0].numel()
        keep = int(density * size)
        if density >= 1.0:
            return _ALL, 1.0
        if keep <= 0:
            return _NONE, 0.0
        top, count = min(int(gamma * size), size - keep), counter(self._kernels, parents, index)
        kept = largest(table, top + keep, count) if top + keep < size else None
        outliers = largest(table, top, count) if top > 0 else None
        band = Band(EVERYTHING if kept is None else kept.cut, _cut(outliers))
        return band, _scale(table, kept, outliers) if rescale else 1.0


def counter(kernels: Kernels, parents: Parents, index: int) -> CountDigits:
    """Counts digits of the magnitudes of task vector `index`."""

    def count(shift: int, prefix: int | None) -> Digits:
        base, other = parents.flat[0], parents.flat[1 + index]
        return kernels.magnitude_digits(base, other, shift, prefix)

    return count


def _cut(found: Largest | None) -> Cut:
    return NOTHING if found is None else found.cut


def _scale(table: DigitTable, kept: Largest | None, outliers: Largest | None) -> float:
    middle = table.total if kept is None else kept.sum
    return l1_scale(table.total, middle - (0.0 if outliers is None else outliers.sum))
