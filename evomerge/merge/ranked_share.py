"""DELLA's random masks: within a row the larger magnitudes are the likelier to survive."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from evomerge.merge.blocks import working_dtype
from evomerge.merge.method import Parents, State, Values
from evomerge.merge.random_share import Draws, L1Norms, mask_key, scaled
from evomerge.merge.sparsify import Mask, Sparse, l1_norms

_WORDS = 1 << 32


@final
class RankedShare:
    """Survival probabilities rise with the rank, from density - epsilon to density + epsilon.

    Deep et al. 2024, DELLA-Merging, arXiv:2406.11617, section 3.1; its epsilon is twice this one.
    Survivors are scaled to the task vector's L1 norm (if `rescale`) where the paper divides each
    by its own probability. Rows run along the second axis; a vector is one row, and an element
    that is alone in its row survives with probability density. Probabilities stop at 0 and 1.
    """

    def prepare(self, parents: Parents) -> State:
        """The L1 norms, which the rescaling needs."""
        return L1Norms(l1_norms(parents, [None] * len(parents.others)))

    def plan(self, parents: Parents, state: State, values: Values) -> tuple[Sparse, ...]:
        """Masks for every parent; with `rescale` this ranks every row once more."""
        assert isinstance(state, L1Norms), "the state comes from this rule's prepare"
        densities, epsilons = values.numbers("density"), values.numbers("epsilon")
        masks: list[Mask | None] = [None] * len(densities)
        for index, (density, epsilon) in enumerate(zip(densities, epsilons, strict=True)):
            if 0.0 < density < 1.0:
                key = mask_key(int(values.shared["seed"]), parents.streams[index])
                masks[index] = RankedMask(parents, index, key, (density - epsilon, 2.0 * epsilon))
        return scaled(parents, state, masks, densities, rescale=values.flag("rescale"))


@final
class RankedMask:
    """Keeps an element when its word is below the limit of its rank among its row's magnitudes."""

    def __init__(
        self, parents: Parents, index: int, key: tuple[int, int], chances: tuple[float, float]
    ) -> None:
        """The mask of parent `index`; `chances` are the smallest one's and the largest one's more.

        Borrows the parents: ranks need whole rows, which blocks cut.
        """
        base, other = parents.base, parents.others[index]
        assert base is not None, "task vectors need a base"
        self._base, self._other = base.reshape(-1), other.reshape(-1)
        self._dtype = working_dtype(parents)
        self._draws = Draws(other.numel(), other.device)
        self._key = key
        shape = other.shape if other.ndim > 1 else (1, other.numel())
        self._length = max(shape[1], 1)
        self._slab = max(torch.Size(shape[1:]).numel(), 1)
        self._limits_R = _limits(self._length, chances).to(other.device)
        self._known = slice(0, 0)
        self._known_E = torch.empty(0, dtype=torch.int32)

    def apply_(self, delta_B: Tensor, start: int) -> None:
        """Zero the dropped elements of a block that begins at flat index `start`."""
        stop = start + delta_B.numel()
        first, last = start // self._slab * self._slab, -(-stop // self._slab) * self._slab
        if (self._known.start, self._known.stop) != (first, last):
            self._known, self._known_E = slice(first, last), self._limits_of(slice(first, last))
        limits_B = self._known_E[start - first : stop - first]
        delta_B.mul_(self._draws.words(self._key, start, stop - start).lt_(limits_B))

    def _limits_of(self, rows: slice) -> Tensor:
        """The limit of every element of whole rows."""
        delta_E = self._other[rows].to(self._dtype) - self._base[rows].to(self._dtype)
        size_XRY = delta_E.abs_().view(-1, self._length, self._slab // self._length)
        # Stable: of equal magnitudes the one with the higher flat index is likelier to survive.
        order_XRY = size_XRY.argsort(dim=1, stable=True)
        limits_XRY = torch.empty(size_XRY.shape, dtype=torch.int32, device=size_XRY.device)
        limits_XRY.scatter_(1, order_XRY, self._limits_R.view(1, -1, 1).expand_as(limits_XRY))
        return limits_XRY.view(-1)


def _limits(length: int, chances: tuple[float, float]) -> Tensor:
    """The limit of each rank in signed order, smallest magnitude first; int32, shape (length,)."""
    low, width = chances
    rank_R = torch.arange(length, dtype=torch.float64)
    share_R = rank_R / (length - 1) if length > 1 else torch.full_like(rank_R, 0.5)
    limit_R = ((low + width * share_R) * _WORDS).round_().clamp_(0, _WORDS - 1)
    return (limit_R - (_WORDS >> 1)).to(torch.int32)
