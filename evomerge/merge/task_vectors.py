"""Methods that add sparsified, weighted differences between parents and base to the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, final

import torch
from torch import Tensor

from evomerge.merge.blocks import Walk, difference_, store_, working_dtype
from evomerge.merge.combine import Combination, Weighting
from evomerge.merge.method import Parents, State, Values
from evomerge.merge.sparsify import Sparse, Sparsifier

Combine: TypeAlias = Callable[[Weighting, torch.dtype], Combination]


@final
class TaskVectors:
    """base + lambda * combine_i(w_i, sparsify(x_i - base)); without other parents the base."""

    def __init__(self, sparsifier: Sparsifier, combine: Combine) -> None:
        """A member of the family: how elements are dropped, and how parents are combined."""
        self._sparsifier = sparsifier
        self._combine = combine

    def prepare(self, parents: Parents) -> State:
        """What the sparsifier wants to know about the task vectors."""
        return self._sparsifier.prepare(parents)

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write base plus merged task vector; see `MergeMethod.merge`."""
        assert parents.base is not None, "task vectors need a base"
        dtype = working_dtype(parents)
        plan = self._sparsifier.plan(parents, state, values)
        weighting = _weighting(plan, values)
        combination = self._combine(weighting, dtype)
        base, target = parents.base.reshape(-1), out.view(-1)
        terms = [(parents.others[i].reshape(-1), plan[i].mask) for i in weighting.active]
        spare = combination.spare_rows
        for block, rows in Walk(out, rows=1 + spare + len(terms), dtype=dtype):
            base_B, deltas = rows[0].copy_(base[block]), rows[1 + spare :]
            for delta_B, (flat, mask) in zip(deltas, terms, strict=True):
                difference_(delta_B, flat[block], base_B)
                if mask is not None:
                    mask.apply_(delta_B, block.start)
            if deltas:
                combination.add_(base_B, deltas, rows[1 : 1 + spare])
            store_(target[block], base_B)


def _weighting(plan: Sequence[Sparse], values: Values) -> Weighting:
    weights = values.numbers("weight")
    coefficients = [w * sparse.scale for w, sparse in zip(weights, plan, strict=True)]
    active = tuple(index for index, value in enumerate(coefficients) if value != 0.0)
    return Weighting(
        weights=weights,
        active=active,
        coefficients=tuple(coefficients[index] for index in active),
        normalize=values.flag("normalize"),
        scale=values.number("lambda"),
    )
