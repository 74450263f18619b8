"""SCE: select elements by the parents' variance, weigh parents by energy, erase minority signs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from evomerge.merge.digits import TOP_SHIFT, CountDigits, DigitTable, largest
from evomerge.merge.kernels import EVERYTHING, Deltas, Digits, Kernels
from evomerge.merge.method import Parents, State, Statistic, Values
from evomerge.merge.precision import working_dtype


@dataclass(frozen=True)
class Variances:
    """The digit table of the variance over parents, with each parent's squares; None for none."""

    table: DigitTable | None

    @property
    def present(self) -> int:
        """How many variances are not zero."""
        if self.table is None or not len(self.table.keys):
            return 0
        zeros = self.table.keys[-1] == 0
        return self.table.before(len(self.table.keys) - 1) if zeros else int(self.table.reach[-1])


@final
class VarianceStatistic:
    """The digit table of the variances, from which selections and energies follow."""

    name = "variances"
    large = False

    def __init__(self, kernels: Kernels) -> None:
        """Read with `kernels`."""
        self._kernels = kernels

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """The table; nothing without parents."""
        if not parents.others:
            return {}
        dtype = working_dtype(parents.flat)
        shift = TOP_SHIFT[dtype]
        digits = _counter(self._kernels, parents)(shift, None)
        table = DigitTable.of(digits, dtype, shift, of_numbers=False)
        return {**table.tensors(), "like": parents.flat[0].new_empty(0, dtype=dtype)}

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """`Variances`."""
        if not tensors:
            return Variances(None)
        return Variances(DigitTable.load(tensors, "", tensors["like"].dtype))


@final
class Sce:
    """base + sum_i c_i d_i / sum_i c_i over the parents that agree with the elected sign.

    Wan et al. 2024, FuseChat, arXiv:2408.07990, section 3.3. `select_topk` is a share of the
    elements whose variance is not zero; c_i is the parent's share of the selected squares, and
    equal for all where the mean of the squares is in total below `energy_floor`. The paper has no
    such floor, and does not divide by the agreeing coefficients.
    """

    def __init__(self, kernels: Kernels) -> None:
        """Merge with `kernels`."""
        self._kernels = kernels
        self._statistic = VarianceStatistic(kernels)

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """`Variances`."""
        return self._statistic

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write base plus what is selected; see `MergeMethod.merge`."""
        assert isinstance(state, Variances), "the state comes from this method's statistic"
        topk = values.number("select_topk")
        keep = int(state.present * min(max(topk, 0.0), 1.0))
        base, *others = parents.flat
        if state.table is None or (topk < 1.0 and keep == 0) or not base.numel():
            out.copy_(parents.tensors[0])
            return
        cut, squares = EVERYTHING, state.table.total
        if topk < 1.0:
            selected = largest(state.table, keep, _counter(self._kernels, parents))
            cut, squares = selected.cut, selected.sums
        shares = _shares(squares / base.numel(), values.number("energy_floor"))
        self._kernels.add_selected(Deltas(base, tuple(others)), cut, shares, out.view(-1))


def _shares(energies: npt.NDArray[np.float64], floor: float) -> list[float]:
    total = float(np.sum(energies))
    if total < floor or total <= 0.0:
        return [1.0 / len(energies)] * len(energies)
    return [float(energy) / total for energy in energies]


def _counter(kernels: Kernels, parents: Parents) -> CountDigits:
    """Counts digits of the variance over the task vectors."""

    def count(shift: int, prefix: int | None) -> Digits:
        deltas = Deltas(parents.flat[0], parents.flat[1:])
        return kernels.variance_digits(deltas, shift, prefix)

    return count
