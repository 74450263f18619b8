"""DARE's random masks: a stateless hash of (seed, stream, flat index), the same on every device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from evomerge.merge.blocks import block_length
from evomerge.merge.method import Parents, State, Values
from evomerge.merge.sparsify import KEEP_ALL, KEEP_NONE, Mask, Sparse, l1_norms, l1_scale
from evomerge.seeding import derive

_WORDS = 1 << 32
_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)


@final
class Draws:
    """Pseudo-random 32-bit words by index: Wellons' lowbias32 (2018) under a 64-bit key.

    The word of flat index i under the key (a, b) is, modulo 2^32,
    `x = i ^ a; x ^= x >> 16; x = x * 0x7feb352d + b; x ^= x >> 15; x = x * 0x846ca68b + 2^31`.
    lowbias32 ends with another `x ^= x >> 16`; it leaves the upper half alone and is left out,
    because a comparison with a density sees the lower half once in 65536 elements. Indices count
    modulo 2^32. torch has no logical shift for signed integers, hence the `&` after each `>>`.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        """Reserve working memory for the blocks of a tensor of `count` elements."""
        index_B = torch.arange(block_length(count, device), dtype=torch.int32, device=device)
        # i = start ^ offset for aligned blocks and xor-shifts are linear over xor, so the first
        # one splits into a table over offsets and a number per block.
        self._folded_B = index_B ^ (index_B >> 16)
        self._word_B = torch.empty_like(index_B)
        self._shifted_B = torch.empty_like(index_B)
        # Python integers would be converted to int32 tensors again in every call.
        self._shift, self._low_bits, self._second = map(_word, (15, 0x1FFFF, _MULTIPLIERS[1]))

    def below(self, limit: int, key: tuple[int, int], start: int, length: int) -> Tensor:
        """1 where the word is below `limit` (of 2^32), else 0, for `length` indices from `start`.

        Returns:
            int32, shape (length,); overwritten by the next call.
        """
        return self.words(key, start, length).lt_(_word(limit - (_WORDS >> 1)))

    def words(self, key: tuple[int, int], start: int, length: int) -> Tensor:
        """The words minus 2^31, so that torch's signed integers order like the words.

        Returns:
            int32, shape (length,); overwritten by the next call.
        """
        word_B, shifted_B = self._word_B[:length], self._shifted_B[:length]
        first = (start ^ key[0]) % _WORDS
        torch.bitwise_xor(self._folded_B[:length], _word(first ^ (first >> 16)), out=word_B)
        torch.add(_word(key[1]), word_B, alpha=_MULTIPLIERS[0], out=word_B)
        torch.bitwise_right_shift(word_B, self._shift, out=shifted_B)
        shifted_B.bitwise_and_(self._low_bits)
        # The + 2^31 at the end of the word and the - 2^31 for signed order cancel.
        return word_B.bitwise_xor_(shifted_B).mul_(self._second)


@final
class RandomMask:
    """Keeps an element when its word is below the density; so masks are nested in the density."""

    def __init__(self, draws: Draws, density: float, *, seed: int, stream: int) -> None:
        """The mask of one parent; `draws` is working memory that several masks may share."""
        self._key = mask_key(seed, stream)
        self._limit = min(round(density * _WORDS), _WORDS - 1)
        self._draws = draws

    def apply_(self, delta_B: Tensor, start: int) -> None:
        """Zero the dropped elements of a block that begins at flat index `start`."""
        delta_B.mul_(self._draws.below(self._limit, self._key, start, delta_B.numel()))


@dataclass(frozen=True)
class L1Norms:
    """The L1 norm of each task vector, in recipe order."""

    norms: tuple[float, ...]


@final
class RandomShare:
    """Each element survives with probability `density`.

    Yu et al. 2023, DARE, arXiv:2311.03099, equation 2, but survivors are scaled to the task
    vector's L1 norm (if `rescale`) where the paper divides by the density.
    """

    def prepare(self, parents: Parents) -> State:
        """The L1 norms, which the rescaling needs."""
        return L1Norms(l1_norms(parents, [None] * len(parents.others)))

    def plan(self, parents: Parents, state: State, values: Values) -> tuple[Sparse, ...]:
        """Masks for every parent; with `rescale` this walks over the parents once."""
        assert isinstance(state, L1Norms), "the state comes from this rule's prepare"
        densities = values.numbers("density")
        masks = _masks(parents, densities, int(values.shared["seed"]))
        return scaled(parents, state, masks, densities, rescale=values.flag("rescale"))


def mask_key(seed: int, stream: int) -> tuple[int, int]:
    """The two halves of the 64-bit key of one parent's mask."""
    key = derive(seed, "mask", stream)
    return key % _WORDS, key // _WORDS


def scaled(
    parents: Parents,
    state: L1Norms,
    masks: Sequence[Mask | None],
    densities: Sequence[float],
    *,
    rescale: bool,
) -> tuple[Sparse, ...]:
    """Random masks with their factors; with `rescale` this walks over the parents once.

    A parent without a mask is kept whole, or dropped when its density is 0.
    """
    kept = l1_norms(parents, masks) if rescale and any(masks) else state.norms
    plan = []
    for index, (mask, density) in enumerate(zip(masks, densities, strict=True)):
        if mask is None:
            plan.append(KEEP_ALL if density > 0.0 else KEEP_NONE)
        elif kept is state.norms:
            plan.append(Sparse(mask, 1.0))
        else:
            plan.append(Sparse(mask, l1_scale(state.norms[index], kept[index])))
    return tuple(plan)


def _masks(
    parents: Parents, densities: tuple[float, ...], seed: int
) -> tuple[RandomMask | None, ...]:
    """A mask for each density strictly between 0 and 1."""
    like = parents.others
    if not any(0.0 < density < 1.0 for density in densities):
        return (None,) * len(densities)
    draws = Draws(like[0].numel(), like[0].device)
    return tuple(
        RandomMask(draws, density, seed=seed, stream=stream) if 0.0 < density < 1.0 else None
        for density, stream in zip(densities, parents.streams, strict=True)
    )


def _word(value: int) -> Tensor:
    """The 32-bit word `value` as a scalar tensor; torch's int32 is two's complement and wraps."""
    return torch.tensor((value + (_WORDS >> 1)) % _WORDS - (_WORDS >> 1), dtype=torch.int32)
