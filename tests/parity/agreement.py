"""How far two merged tensors are apart, in units in the last place and relative to the tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tests.merge.reference import Array, Expected, flat

LIMIT = 8.0
"""Units in the last place that different orders of additions explain."""


@dataclass(frozen=True)
class Scale:
    """The size of what one tensor was made of: at each element, the largest input or result."""

    element: Array
    eps: float

    @staticmethod
    def of(results: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor]) -> Scale:
        """Of results of one type and the parents that they come from."""
        sizes = np.abs(np.stack([flat(tensor) for tensor in (*results, *inputs)]))
        sizes[~np.isfinite(sizes)] = 0.0
        return Scale(sizes.max(axis=0), torch.finfo(results[0].dtype).eps)

    def ulps(self, one: Array, two: Array) -> Array:
        """The distance at each element in units in the last place; infinite with only one NaN."""
        with np.errstate(invalid="ignore"):
            distance = np.abs(one - two)
        unit = self.eps * np.exp2(np.floor(np.log2(np.maximum(self.element, 1e-38))))
        found: Array = distance / unit
        found[(one == two) | (np.isnan(one) & np.isnan(two))] = 0.0
        found[np.isnan(found)] = np.inf
        return found

    def ulps_to(self, one: Array, want: Expected) -> Array:
        """The distance to the nearer of what a reference admits."""
        nearer: Array = np.minimum(self.ulps(one, want.value), self.ulps(one, want.other))
        return nearer

    def relative(self, one: Array, two: Array) -> float:
        """The largest distance relative to the largest magnitude in the tensor."""
        finite = np.isfinite(one) & np.isfinite(two)
        distance = np.abs(one[finite] - two[finite]).max(initial=0.0)
        return float(distance / max(self.element.max(initial=0.0), 1e-38))


@dataclass(frozen=True)
class Pair:
    """The two results for one tensor, and the elements whose result is defined."""

    ours: Array
    theirs: Array
    scale: Scale
    decided: NDArray[np.bool_]

    @property
    def ulps(self) -> float:
        """The largest distance where the result is defined."""
        return float(self.scale.ulps(self.ours, self.theirs)[self.decided].max(initial=0.0))

    @property
    def relative(self) -> float:
        """The same, relative to the tensor."""
        return self.scale.relative(self.ours[self.decided], self.theirs[self.decided])

    def errors(self, want: Expected) -> tuple[float, float]:
        """How far ours and theirs are from the exact result, in units in the last place."""
        ours, theirs = (
            float(self.scale.ulps_to(result, want)[self.decided].max(initial=0.0))
            for result in (self.ours, self.theirs)
        )
        return ours, theirs
