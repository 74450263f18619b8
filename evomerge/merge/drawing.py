"""Sparsifying at random: DARE gives all elements one chance, DELLA larger ones a better one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from evomerge.merge.kernels import DRAW_BITS, Chances, Deltas, Kernels, RankedChances
from evomerge.merge.method import NOTHING_TO_LEARN, Parents, State, Statistic, Values
from evomerge.merge.ranks import row_ranks
from evomerge.merge.task_vectors import Sparse, l1_scale
from evomerge.seeding import derive

_CERTAIN = 1 << DRAW_BITS


@dataclass(frozen=True)
class L1Norms:
    """The L1 norm of each task vector, in recipe order."""

    norms: tuple[float, ...]


@dataclass(frozen=True)
class Ranks:
    """The L1 norm of each task vector, and each element's rank in its row as 0 to 255."""

    norms: tuple[float, ...]
    ranks: tuple[Tensor, ...]


@final
class L1Statistic:
    """The L1 norms of the task vectors, which rescaling gives back."""

    name = "l1"
    large = False

    def __init__(self, kernels: Kernels) -> None:
        """Read with `kernels`."""
        self._kernels = kernels

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """The norms."""
        return {"l1": _norms(self._kernels, parents)}

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """`L1Norms`."""
        return L1Norms(tuple(tensors["l1"].tolist()))


@final
class RankStatistic:
    """L1 norms and rank planes: one byte per element and task vector."""

    name = "ranks"
    large = True

    def __init__(self, kernels: Kernels) -> None:
        """Read with `kernels`."""
        self._kernels = kernels

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """Norms and planes; sorts every row."""
        base, *others = parents.tensors
        planes = {f"ranks.{i}": row_ranks(base, other) for i, other in enumerate(others)}
        return {"l1": _norms(self._kernels, parents), **planes}

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """`Ranks`."""
        norms = tuple(tensors["l1"].tolist())
        return Ranks(norms, tuple(tensors[f"ranks.{i}"] for i in range(len(norms))))


@final
class RandomShare:
    """Each element survives with probability `density`.

    Yu et al. 2023, DARE, arXiv:2311.03099, equation 2. Survivors are scaled (if `rescale`) to the
    task vector's L1 norm, or (if `unbiased`) divided by the density as in the paper.
    """

    def __init__(self, kernels: Kernels) -> None:
        """Measure what survives with `kernels`."""
        self._kernels = kernels
        self._statistic = L1Statistic(kernels)

    def statistic(self, values: Values) -> Statistic:
        """The L1 norms if they are to be restored."""
        return self._statistic if _restores(values) else NOTHING_TO_LEARN

    def plan(self, parents: Parents, state: State, values: Values) -> Sparse:
        """Masks for every parent; scaling to the L1 norm walks over the parents once."""
        densities = values.numbers("density")
        limits = tuple(round(min(max(p, 0.0), 1.0) * _CERTAIN) for p in densities)
        if all(limit in (0, _CERTAIN) for limit in limits):
            return Sparse(None, tuple(1.0 if limit else 0.0 for limit in limits))
        masks = Chances(_keys(parents, values), limits)
        if not _restores(values):
            return Sparse(masks, _without_norms(limits, divided=values.flag("rescale")))
        assert isinstance(state, L1Norms), "the state comes from this rule's statistic"
        kept = self._kernels.l1_norms(Deltas(parents.flat[0], parents.flat[1:], masks))
        return Sparse(masks, _to_l1(state.norms, kept, limits))


@final
class RankedShare:
    """Survival probabilities rise with the rank, from density - epsilon to density + epsilon.

    Deep et al. 2024, DELLA-Merging, arXiv:2406.11617, section 3.1; its epsilon is twice this one.
    Survivors are scaled (if `rescale`) to the task vector's L1 norm, or (if `unbiased`) each is
    divided by its own probability as in the paper. Rows run along the second axis; a vector is one
    row. Ranks count in 255 steps, and probabilities stop at 0 and 1.
    """

    def __init__(self, kernels: Kernels) -> None:
        """Measure what survives with `kernels`."""
        self._kernels = kernels
        self._statistic = RankStatistic(kernels)

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - whatever they are
        """Ranks and L1 norms."""
        return self._statistic

    def plan(self, parents: Parents, state: State, values: Values) -> Sparse:
        """Masks for every parent; scaling to the L1 norm walks over the parents once."""
        assert isinstance(state, Ranks), "the state comes from this rule's statistic"
        pairs = zip(values.numbers("density"), values.numbers("epsilon"), strict=True)
        spans = [_span(density, epsilon) for density, epsilon in pairs]
        possible = tuple(int(highest > 0.0) for _, highest in spans)
        if all(span in (_span(0.0, 0.0), _span(1.0, 0.0)) for span in spans):
            return Sparse(None, tuple(float(kept) for kept in possible))
        masks = RankedChances(
            _keys(parents, values),
            state.ranks,
            tuple(lowest for lowest, _ in spans),
            tuple(highest for _, highest in spans),
            values.flag("rescale") and values.flag("unbiased"),
        )
        if not _restores(values):
            return Sparse(masks, tuple(float(kept) for kept in possible))
        kept = self._kernels.l1_norms(Deltas(parents.flat[0], parents.flat[1:], masks))
        return Sparse(masks, _to_l1(state.norms, kept, possible))


def _restores(values: Values) -> bool:
    """Whether survivors are scaled to the L1 norm of the whole."""
    return values.flag("rescale") and not values.flag("unbiased")


def _span(density: float, epsilon: float) -> tuple[float, float]:
    """The smallest and the largest chance; densities of 0 and 1 are certain."""
    if density <= 0.0:
        return 0.0, 0.0
    return (1.0, 1.0) if density >= 1.0 else (density - epsilon, density + epsilon)


def _without_norms(limits: Sequence[int], *, divided: bool) -> tuple[float, ...]:
    """1, or if `divided` one over the chance; 0 where nothing can survive."""
    scales = [_CERTAIN / limit if divided and limit else 1.0 for limit in limits]
    return tuple(s if limit else 0.0 for s, limit in zip(scales, limits, strict=True))


def _to_l1(
    norms: Sequence[float], kept: Sequence[float], limits: Sequence[int]
) -> tuple[float, ...]:
    """The factors that give the norms back; 0 where nothing can survive."""
    triples = zip(norms, kept, limits, strict=True)
    return tuple(l1_scale(norm, left) if limit else 0.0 for norm, left, limit in triples)


def _norms(kernels: Kernels, parents: Parents) -> Tensor:
    base, *others = parents.flat
    norms = kernels.l1_norms(Deltas(base, tuple(others))) if others else ()
    return torch.tensor(norms, dtype=torch.float64)


def _keys(parents: Parents, values: Values) -> tuple[tuple[int, int], ...]:
    """The key of every two parents' masks; the first one's stream decides."""
    return tuple(mask_key(int(values.shared["seed"]), s) for s in parents.streams[::2])


def mask_key(seed: int, stream: int) -> tuple[int, int]:
    """The two halves of the 64-bit key of a mask."""
    key = derive(seed, "mask", stream)
    return key % (1 << 32), key >> 32
