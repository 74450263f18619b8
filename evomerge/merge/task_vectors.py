"""Methods that add sparsified, weighted differences between parents and base to the base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

from torch import Tensor

from evomerge.merge.kernels import Deltas, Kernels, Masks
from evomerge.merge.method import Parents, State, Statistic, Values
from evomerge.merge.precision import sum_in, working_dtype

_TINY_DIVISOR = 1e-8
_TINY_L1 = 1e-7


@dataclass(frozen=True)
class Sparse:
    """How the task vectors enter a merge: masked (None: whole), then scaled, one scale each."""

    masks: Masks | None
    scales: tuple[float, ...]


class Sparsifier(Protocol):
    """A rule that drops elements of each task vector, one tensor at a time."""

    def statistic(self, values: Values) -> Statistic:
        """What the rule wants to know about the parents."""
        ...

    def plan(self, parents: Parents, state: State, values: Values) -> Sparse:
        """Decide for every task vector, in recipe order; a scale of 0 drops one altogether."""
        ...


@final
class TaskVectorSum:
    """base + lambda * sum_i w_i s_i, over sum_i w_i if normalised; without other parents the base.

    Ilharco et al. 2022, Editing models with task arithmetic, arXiv:2212.04089, section 2. A sum of
    weights that vanishes divides by 1.
    """

    def __init__(self, sparsifier: Sparsifier, kernels: Kernels) -> None:
        """A member of the family: how elements are dropped."""
        self._sparsifier = sparsifier
        self._kernels = kernels

    def statistic(self, values: Values) -> Statistic:
        """What the sparsifier wants to know."""
        return self._sparsifier.statistic(values)

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write base plus merged task vector; see `MergeMethod.merge`."""
        base, *others = parents.flat
        if not others:
            out.copy_(parents.tensors[0])
            return
        sparse = self._sparsifier.plan(parents, state, values)
        weights, scale = values.numbers("weight"), values.number("lambda")
        divisor = 1.0
        if values.flag("normalize"):
            divisor = sum_in(working_dtype(parents.flat), weights)
        # Multiplying every factor by lambda saves a pass; it costs no accuracy, as factors are
        # rounded to working precision only afterwards.
        factors = [w * s * scale for w, s in zip(weights, sparse.scales, strict=True)]
        divisor = 1.0 if abs(divisor) < _TINY_DIVISOR else divisor
        deltas = Deltas(base, tuple(others), sparse.masks)
        self._kernels.add_sum(deltas, factors, divisor, out.view(-1))


@final
class SignElection:
    """Only task vectors that agree with the elected sign are added, element by element.

    Yadav et al. 2023, TIES-Merging, arXiv:2306.01708, algorithm 1, steps 2 and 3, with weights: the
    sign of sum_i w_i s_i wins, an exact zero elects plus, a zero never agrees, and the divisor is
    the sum of the agreeing weights (1 where that is 0).
    """

    def __init__(self, sparsifier: Sparsifier, kernels: Kernels) -> None:
        """A member of the family: how elements are dropped."""
        self._sparsifier = sparsifier
        self._kernels = kernels

    def statistic(self, values: Values) -> Statistic:
        """What the sparsifier wants to know."""
        return self._sparsifier.statistic(values)

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write base plus merged task vector; see `MergeMethod.merge`."""
        base, *others = parents.flat
        if not others:
            out.copy_(parents.tensors[0])
            return
        sparse = self._sparsifier.plan(parents, state, values)
        weights = values.numbers("weight")
        factors = [w * s for w, s in zip(weights, sparse.scales, strict=True)]
        divisors = weights if values.flag("normalize") else ()
        deltas = Deltas(base, tuple(others), sparse.masks)
        scale = values.number("lambda")
        self._kernels.add_elected(deltas, factors, divisors, scale, out.view(-1))


def l1_scale(whole: float, kept: float) -> float:
    """The factor that gives a sparsified task vector its L1 norm back; 1 where it vanishes."""
    return 1.0 if whole < _TINY_L1 or kept < _TINY_L1 else whole / kept
