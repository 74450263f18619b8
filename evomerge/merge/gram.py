"""Inner products between the parents of a tensor, once per search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from evomerge.merge.kernels import Deltas, Kernels
from evomerge.merge.method import Parents, State

Matrix: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gram:
    """Inner products of the first parent and the differences of the others from it.

    Attributes:
        entries: float64, shape (P, P) for P parents, the base first when there is one.
    """

    entries: Matrix

    @property
    def of_task_vectors(self) -> Matrix:
        """Inner products of the task vectors when the first parent is the base; (P-1, P-1)."""
        return self.entries[1:, 1:]

    @property
    def of_parents(self) -> Matrix:
        """Inner products of the parents themselves; shape (P, P)."""
        # x_0 = first, x_i = first + d_i.
        sums_PP = np.eye(len(self.entries))
        sums_PP[:, 0] = 1.0
        found: Matrix = sums_PP @ self.entries @ sums_PP.T
        return found


@final
class GramStatistic:
    """One pass over all parents; coefficients of spherical methods follow from its result."""

    name = "gram"
    large = False

    def __init__(self, kernels: Kernels) -> None:
        """Read with `kernels`."""
        self._kernels = kernels

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """The matrix."""
        first, *rest = parents.flat
        return {"gram": self._kernels.gram(Deltas(first, tuple(rest)))}

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """A `Gram`."""
        return Gram(tensors["gram"].numpy())
