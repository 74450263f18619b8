"""Where two programs may choose differently: equal magnitudes of which only some are kept.

mergekit sorts with an unstable sort; which of several equal elements survive is then chance. All
that is strictly above the threshold must be kept by both, all that is below dropped. For SCE equal
means equal in the leading digits, in which it ranks variances here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tests.merge.reference import Array, flat

Bools = NDArray[np.bool_]
TRIMMING = ("ties", "breadcrumbs", "breadcrumbs_ties")
# What rounding may change in a variance.
_NEAR = 1e-6


def undecided(
    method: str,
    tensors: Sequence[torch.Tensor],
    models: Sequence[Mapping[str, object]],
    shared: Mapping[str, object],
) -> Bools:
    """The elements whose result depends on such a choice; `tensors` begins with the base."""
    open_ = np.zeros(tensors[0].numel(), dtype=bool)
    if method in TRIMMING:
        for delta, values in zip(task_vectors(tensors), models, strict=True):
            if values["weight"] != 0.0:
                for count in cuts(method, values, delta.size):
                    open_ |= tied(np.abs(delta), count)
    if method == "sce":
        variance = variances(tensors)
        keep = selected(variance, float(str(shared["select_topk"])))
        # Coefficients are sums over all that is selected, so that one choice changes everything.
        open_ |= bool(near_ties(variance, keep).any()) or on_an_edge(variance, keep)
    return open_


def cuts(method: str, values: Mapping[str, object], size: int) -> tuple[int, ...]:
    """How many of the largest magnitudes lie before each boundary of the mask."""
    density = float(str(values["density"]))
    if not 0.0 < density < 1.0:
        return ()
    if method == "ties":
        return (max(1, int(density * size)),)
    keep = int(density * size)
    top = min(int(float(str(values["gamma"])) * size), size - keep)
    return (top, top + keep) if keep else ()


def tied(magnitude: Array, count: int) -> Bools:
    """The equal magnitudes of which only some are among the `count` largest."""
    if not 0 < count < magnitude.size:
        return np.zeros(magnitude.size, dtype=bool)
    edge, after = -np.partition(-magnitude, (count - 1, count))[count - 1 : count + 1]
    split = edge != 0.0 and after == edge
    return np.asarray((magnitude == edge) & split)


def selected(variance: Array, topk: float) -> int:
    """How many elements SCE selects; 0 for all as for none."""
    return int(np.count_nonzero(variance) * topk) if 0.0 < topk < 1.0 else 0


def near_ties(variance: Array, count: int) -> Bools:
    """The variances of one leading digit of which only some are among the `count` largest.

    Where rounding decides which digit some of them have, those, and all of the digit.
    """
    if not 0 < count < np.count_nonzero(variance):
        return np.zeros(variance.size, dtype=bool)
    exact = digits(variance)
    if not on_an_edge(variance, count):
        return tied(exact, count)
    edge = -np.partition(-exact, count - 1)[count - 1]
    return np.asarray((np.abs(exact - edge) <= 1) & ((exact == edge) | _rounded(variance)))


def on_an_edge(variance: Array, count: int) -> bool:
    """Whether rounding decides which leading digit a variance at the threshold has."""
    if not 0 < count < np.count_nonzero(variance):
        return False
    exact = digits(variance)
    edge = -np.partition(-exact, count - 1)[count - 1]
    return bool((_rounded(variance) & (np.abs(exact - edge) <= 1)).any())


def _rounded(variance: Array) -> Bools:
    """The variances whose leading digit depends on rounding."""
    low, high = (digits(variance * (1 + side * _NEAR)) for side in (-1, 1))
    return np.asarray(low != high)


def digits(variance: Array) -> Array:
    """Eight bits of exponent and seven of mantissa."""
    found: Array = (variance.astype(np.float32).view(np.uint32) >> 16).astype(np.float64)
    return found


def variances(tensors: Sequence[torch.Tensor]) -> Array:
    """Of the task vectors at each element."""
    stack = np.stack(task_vectors(tensors))
    found: Array = np.where(np.ptp(stack, axis=0) == 0.0, 0.0, stack.var(axis=0))
    return found


def task_vectors(tensors: Sequence[torch.Tensor]) -> list[Array]:
    """Differences from the first tensor in float32, as both programs take them."""
    base = tensors[0].float()
    return [flat(tensor.float() - base) for tensor in tensors[1:]]
