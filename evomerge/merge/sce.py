"""SCE: select elements by the parents' variance, weigh parents by energy, erase minority signs."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from evomerge.merge.kernels import ALL_DIGITS, Deltas, Kernels, Leading
from evomerge.merge.method import Parents, State, Statistic, Values
from evomerge.merge.precision import working_dtype


@dataclass(frozen=True)
class Variances:
    """Variances over K parents of the elements of a tensor, by leading digit, largest first.

    Attributes:
        digits: those that occur, descending, without 0.
        reach: how many variances have this digit or a larger one.
        squares: float64, shape (1 + digits, K); row p sums up each parent's squares over the
            elements with the p largest digits.
        total: float64, shape (K,); the squares over all elements.
    """

    digits: npt.NDArray[np.int16]
    reach: npt.NDArray[np.integer]
    squares: npt.NDArray[np.float64]
    total: npt.NDArray[np.float64]

    @property
    def present(self) -> int:
        """How many variances are not zero."""
        return self._reach[-1] if len(self.reach) else 0

    def largest(self, keep: int) -> tuple[Leading, npt.NDArray[np.float64]]:
        """Which variances the `keep` largest are, from 1 to all present, and their squares.

        Squares of a digit that is needed in part count in proportion.
        """
        position = bisect_left(self._reach, keep)
        before = self._reach[position - 1] if position else 0
        rest, of = keep - before, self._reach[position] - before
        digit = int(self.digits[position])
        low, high = self.squares[position], self.squares[position + 1]
        # All that have a digit are above the digit before.
        cut = Leading(digit, rest) if rest < of else Leading(digit - 1)
        return cut, low + (high - low) * (rest / of)

    @cached_property
    def _reach(self) -> memoryview[int]:
        # Reading single entries of an array as Python integers is slow.
        return self.reach.data


@final
class VarianceStatistic:
    """How variances are distributed, from which selections and energies follow."""

    name = "variances"
    large = False

    def __init__(self, kernels: Kernels) -> None:
        """Read with `kernels`."""
        self._kernels = kernels

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """The digits that occur, their counts and squares; nothing without parents."""
        if not parents.others:
            return {}
        digits = self._kernels.variance_digits(Deltas(parents.flat[0], parents.flat[1:]))
        occurring = digits.counts.nonzero()[:, 0].flip(0)
        counts = digits.counts[occurring]
        return {
            "digits": occurring.to(torch.int16),
            "counts": counts if int(counts.sum()) >= 2**31 else counts.to(torch.int32),
            **_packed(digits.sums[occurring], working_dtype(parents.flat)),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """`Variances`."""
        if not tensors:
            return None
        digits, counts = tensors["digits"].numpy(), tensors["counts"].numpy()
        sums = (tensors["squares"].double() * tensors["unit"]).numpy()
        squares = np.concatenate((np.zeros_like(sums[:1]), sums.cumsum(0)))
        # Digit 0 is the last: variances of 0, and those of task vectors below 1e-20.
        present = len(digits) - (len(digits) > 0 and digits[-1] == 0)
        reach = counts.cumsum(dtype=counts.dtype)[:present]
        return Variances(digits[:present], reach, squares[: 1 + present], sums.sum(0))


@final
class Sce:
    """base + sum_i c_i d_i / sum_i c_i over the parents that agree with the elected sign.

    Wan et al. 2024, FuseChat, arXiv:2408.07990, section 3.3. `select_topk` is a share of the
    elements whose variance is not zero; c_i is the parent's share of the selected squares, and
    equal for all where the mean of the squares is in total below `energy_floor`. The paper has no
    such floor, and does not divide by the agreeing coefficients. Variances are ranked by their
    leading digits (`Leading`), which saves another pass over the parents: those that differ by less
    than 1/128 count as equal, of equal ones the lower flat index wins, and their squares enter in
    proportion.
    """

    def __init__(self, kernels: Kernels) -> None:
        """Merge with `kernels`."""
        self._kernels = kernels
        self._statistic = VarianceStatistic(kernels)

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """`Variances`, or None without parents."""
        return self._statistic

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write base plus what is selected; see `MergeMethod.merge`."""
        base, *others = parents.flat
        if state is None or not base.numel():
            out.copy_(parents.tensors[0])
            return
        assert isinstance(state, Variances), "the state comes from this method's statistic"
        topk = values.number("select_topk")
        selected, squares = ALL_DIGITS, state.total
        if topk < 1.0:
            keep = int(state.present * max(topk, 0.0))
            if keep == 0:
                out.copy_(parents.tensors[0])
                return
            selected, squares = state.largest(keep)
        shares = _shares(squares / base.numel(), values.number("energy_floor"))
        self._kernels.add_selected(Deltas(base, tuple(others)), selected, shares, out.view(-1))


def _shares(energies: npt.NDArray[np.float64], floor: float) -> list[float]:
    listed: list[float] = energies.tolist()
    total = sum(listed)
    if total < floor or total <= 0.0:
        return [1.0 / len(listed)] * len(listed)
    return [energy / total for energy in listed]


def _packed(sums: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """The sums in a smaller type, in units of each parent's largest: the type may not hold that."""
    unit = sums.amax(0) if len(sums) else torch.ones(sums.shape[1], dtype=sums.dtype)
    unit = torch.where(unit > 0.0, unit, torch.ones_like(unit))
    return {"squares": (sums / unit).to(dtype), "unit": unit}
