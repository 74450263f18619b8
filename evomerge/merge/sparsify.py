"""Sparsifying a task vector: a mask over its elements and a factor on what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from evomerge.merge.blocks import Walk, difference_, working_dtype
from evomerge.merge.method import Parents, State, Values

_TINY_L1 = 1e-7


class Mask(Protocol):
    """Which elements of one task vector survive; lives for one walk over the tensor."""

    def apply_(self, delta_B: Tensor, start: int) -> None:
        """Zero the dropped elements of a block beginning at flat index `start`; NaN stays NaN.

        Blocks come in index order, each once, as `Walk` cuts them.
        """
        ...


@dataclass(frozen=True)
class Sparse:
    """How one task vector enters the merge: masked (None keeps everything), then scaled."""

    mask: Mask | None
    scale: float


KEEP_ALL = Sparse(None, 1.0)
KEEP_NONE = Sparse(None, 0.0)


class Sparsifier(Protocol):
    """A rule that drops elements of each task vector, one tensor at a time."""

    def prepare(self, parents: Parents) -> State:
        """Collect what depends on the parents alone."""
        ...

    def plan(self, parents: Parents, state: State, values: Values) -> tuple[Sparse, ...]:
        """Decide for every parent, in recipe order; the masks serve one walk."""
        ...


@final
class Everything:
    """Drops nothing, whatever the density: plain task arithmetic."""

    def prepare(self, parents: Parents) -> State:  # noqa: ARG002 - nothing depends on them
        """Nothing to prepare."""
        return None

    def plan(
        self,
        parents: Parents,
        state: State,  # noqa: ARG002 - None
        values: Values,  # noqa: ARG002 - no parameter matters
    ) -> tuple[Sparse, ...]:
        """Keep every task vector as it is."""
        return (KEEP_ALL,) * len(parents.others)


def l1_norms(parents: Parents, masks: Sequence[Mask | None]) -> tuple[float, ...]:
    """The L1 norm of each task vector after its mask; one walk.

    Summed pairwise within a block and in float64 over blocks.
    """
    assert parents.base is not None, "task vectors need a base"
    base = parents.base.reshape(-1)
    flats = [tensor.reshape(-1) for tensor in parents.others]
    totals = torch.zeros(len(flats), dtype=torch.float64, device=base.device)
    for block, (base_B, delta_B) in Walk(base, rows=2, dtype=working_dtype(parents)):
        base_B.copy_(base[block])
        for index, (flat, mask) in enumerate(zip(flats, masks, strict=True)):
            difference_(delta_B, flat[block], base_B)
            if mask is not None:
                mask.apply_(delta_B, block.start)
            totals[index] += delta_B.abs_().sum()
    return tuple(totals.tolist())


def l1_scale(whole: float, kept: float) -> float:
    """The factor that gives a sparsified task vector its L1 norm back; 1 where it vanishes."""
    return 1.0 if whole < _TINY_L1 or kept < _TINY_L1 else whole / kept
