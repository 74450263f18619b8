"""StackSpace: every path through the layers of the parents, as the bit array of Akiba et al. 2024.

The layers of all parents in order, all of it repeated, make the slots; a genotype has one position
per slot that says whether a token goes through it, then one per slot for its gain
(arXiv:2403.13187, section 3.2, with a gain per place where the path leaves the order of its model
instead of one per pair of layers). No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from evomerge.candidate import Genotype
from evomerge.errors import InvalidInput
from evomerge.genes import CONTINUOUS, Axis, FloatGene
from evomerge.recipe import SCALE_MODES, Recipe
from evomerge.signatures import did_you_mean
from evomerge.stack import Hop, Path, Segment, hops, normal, path_along, recipe_of

MOST_SLOTS = 4096
GAIN_DIGITS = 4
"""Gains are rounded to this many decimals, so that encoding and decoding lose nothing."""
_ON, _OFF, _UNDECIDED = 1.0, 0.0, 0.5


@dataclass(frozen=True)
class Slots:
    """The layers of `models` (name, number of layers) in order, all of it `repeats` times."""

    models: tuple[tuple[str, int], ...]
    repeats: int

    @cached_property
    def layers(self) -> tuple[tuple[str, int], ...]:
        """Model and layer of every slot of one repeat."""
        return tuple((model, layer) for model, count in self.models for layer in range(count))

    @cached_property
    def _first(self) -> dict[tuple[str, int], int]:
        return {layer: index for index, layer in enumerate(self.layers)}

    @property
    def count(self) -> int:
        """The number of slots."""
        return self.repeats * len(self.layers)

    def depth(self, model: str) -> int:
        """The number of layers of a model."""
        return dict(self.models)[model]

    def at(self, slot: int) -> tuple[str, int]:
        """Model and layer of a slot."""
        return self.layers[slot % len(self.layers)]

    def next(self, model: str, layer: int, slot: int) -> int | None:
        """The first slot from `slot` on that holds this layer; None when there is none."""
        place = self._first.get((model, layer))
        if place is None:
            return None
        found = slot + (place - slot) % len(self.layers)
        return found if found < self.count else None


@dataclass(frozen=True)
class StackSpace:
    """Paths of `fewest` to `most` hops; `fixed_ends`: from the donor's first layer to its last.

    The donor gives embeddings, final norm and head, so every path has a layer of it. Its slots are
    the first of its kind and the last: with fixed ends, slots outside them are never used. A gain
    acts only at a seam, a hop that does not follow the one before it in its model; the gains of
    other slots are ignored.

    Raises:
        InvalidInput: too many slots, an unknown donor, or limits that no path satisfies.
    """

    slots: Slots
    donor: str
    fewest: int
    most: int
    gains: tuple[float, float] = (0.7, 1.5)
    scale_mode: str = SCALE_MODES[0]
    dtype: str | None = None
    fixed_ends: bool = True
    nested: tuple[tuple[str, Recipe], ...] = ()

    def __post_init__(self) -> None:
        problems = [*_slot_problems(self.slots), *_gain_problems(self.gains)]
        names = [model for model, _ in self.slots.models]
        if self.donor not in names:
            problems.append(
                f"base_model: '{self.donor}' gives embeddings, norm and head, but no slot has a "
                f"layer of it: {did_you_mean(self.donor, names)}"
            )
        problems += [] if problems else self._limit_problems()
        if problems:
            raise InvalidInput(problems)

    def _limit_problems(self) -> Iterator[str]:
        if self.fixed_ends and self.slots.depth(self.donor) < 2:
            yield (
                f"base_model: '{self.donor}' has one layer, which cannot be the first and the last "
                "of a path: leave the ends free"
            )
            return
        possible = (2 if self.fixed_ends else 1, len(self._usable))
        low, high = max(self.fewest, possible[0]), min(self.most, possible[1])
        if low > high:
            yield (
                f"layers: no stack has {self.fewest} to {self.most} layers, as these slots allow "
                f"{possible[0]} to {possible[1]}: change the limits or the repeats"
            )

    @property
    def dimension(self) -> int:
        """Positions of a genotype: two per slot."""
        return 2 * self.slots.count

    @property
    def axes(self) -> tuple[Axis, ...]:
        """On or off for every slot, then its gain."""
        return (Axis(2, ordered=False),) * self.slots.count + (CONTINUOUS,) * self.slots.count

    @property
    def parents(self) -> tuple[str, ...]:
        """The models whose layers are slots, in their order; some may be nested recipes."""
        return tuple(model for model, _ in self.slots.models)

    @property
    def start(self) -> Genotype:
        """The donor's own layers in order; where limits forbid that, the nearest in depth."""
        depth = self.slots.depth(self.donor)
        target = min(max(depth, self.fewest), self.most)
        found = self.encode(_resized(self.donor, depth, target))
        found = self._laid((Segment(self.donor, 0, depth),)) if found is None else found
        assert found is not None, "every repeat has all layers of the donor"
        return found

    @cached_property
    def _gain(self) -> FloatGene:
        return FloatGene("gain", *self.gains, log=True)

    def _position(self, gain: float) -> float:
        low, high = self.gains
        return _UNDECIDED if low == high else self._gain.encode(gain) or 0.0

    @cached_property
    def _usable(self) -> range:
        """The slots that can be on: with fixed ends, those from the first end to the last."""
        if not self.fixed_ends:
            return range(self.slots.count)
        first = self.slots.layers.index((self.donor, 0))
        later = (self.slots.repeats - 1) * len(self.slots.layers)
        last = first + later + self.slots.depth(self.donor) - 1
        return range(first, last + 1)

    def given(self, results: Mapping[str, Recipe]) -> StackSpace:
        """The space in which parents named in `results` are the results of those recipes."""
        named = sorted(name for name in self.parents if name in results)
        return replace(self, nested=tuple((name, results[name]) for name in named))

    def decode(self, genotype: Genotype) -> Recipe:
        """The recipe of the genotype's path; pure, milliseconds."""
        return recipe_of(
            self.path(genotype),
            donor=self.donor,
            scale_mode=self.scale_mode,
            dtype=self.dtype,
            nested=self.nested,
        )

    def path(self, genotype: Genotype) -> Path:
        """The path of any vector of `dimension` numbers, in normal form.

        Slots above 0.5 are on. Where they break the limits, those with the lowest positions go (of
        equals the later ones) or those with the highest come (of equals the earlier ones).
        """
        assert len(genotype) == self.dimension, "genotype and space differ in dimension"
        on = self._chosen(genotype[: self.slots.count])
        found: list[Hop] = []
        for slot in on:
            model, layer = self.slots.at(slot)
            follows = not found or found[-1][:2] == (model, layer - 1)
            found.append(
                Hop(model, layer, 1.0 if follows else self.gain(genotype[self.slots.count + slot]))
            )
        return path_along(found)

    def _chosen(self, bits: Sequence[float]) -> list[int]:
        """The slots that are on, in order, within the limits."""
        ranked = sorted(self._usable, key=lambda slot: (-bits[slot], slot))
        fixed = self._fixed(ranked)
        free = [slot for slot in ranked if slot not in fixed]
        wanted = len(fixed) + sum(bits[slot] > 0.5 for slot in free)
        count = min(max(wanted, self.fewest), self.most)
        return sorted([*fixed, *free[: max(count - len(fixed), 0)]])

    def _fixed(self, ranked: Sequence[int]) -> frozenset[int]:
        """Slots that are on whatever their position: the ends, or one layer of the donor."""
        if self.fixed_ends:
            return frozenset((self._usable[0], self._usable[-1]))
        return frozenset((next(s for s in ranked if self.slots.at(s)[0] == self.donor),))

    def gain(self, position: float) -> float:
        """The gain at a position in [0, 1]; the middle of the scale is not 1 in general."""
        low, high = self.gains
        return min(max(round(self._gain.decode(position), GAIN_DIGITS), low), high)

    def encode(self, path: Path) -> Genotype | None:
        """A genotype of this path, in the earliest slots that hold it; None when there is none.

        There is none when the path needs more repeats, breaks the limits or the fixed ends, or has
        a gain out of range, at no seam, or with more decimals than `GAIN_DIGITS`.
        """
        laid = self._laid(path)
        return laid if laid is not None and self.path(laid) == normal(path) else None

    def _laid(self, path: Path) -> Genotype | None:
        """The path in its earliest slots, whatever the limits; None when it needs more repeats."""
        along = hops(path)
        on: list[int] = []
        gains: dict[int, float] = {}
        for index, hop in enumerate(along):
            slot = self.slots.next(hop.model, hop.layer, self._from(index, len(along), on))
            if slot is None:
                return None
            on.append(slot)
            gains[slot] = self._position(hop.gain)
        chosen = set(on)
        bits = (_ON if slot in chosen else _OFF for slot in range(self.slots.count))
        neutral = self._position(1.0)
        return (*bits, *(gains.get(slot, neutral) for slot in range(self.slots.count)))

    def _from(self, index: int, count: int, on: Sequence[int]) -> int:
        """Where to look for the slot of the next hop; the last may only sit at its fixed end."""
        after = on[-1] + 1 if on else self._usable[0]
        last = index == count - 1 and self.fixed_ends
        return max(after, self._usable[-1]) if last else after


def paper_start(space: StackSpace, sigma: float) -> Genotype:
    """Where CMA-ES begins in the paper's encoding: only the start's own layers are decided.

    They lie two step sizes above the threshold, everything else on it (arXiv:2403.13187, with 0.5
    for the threshold 0 of the paper); gains are 1.
    """
    count = space.slots.count
    certain = min(_UNDECIDED + 2.0 * sigma, 1.0)
    bits = (certain if bit > _UNDECIDED else _UNDECIDED for bit in space.start[:count])
    return (*bits, *space.start[count:])


def _resized(model: str, depth: int, target: int) -> Path:
    """A model with its middle repeated or left out until it has `target` layers, if once is enough.

    Kim et al. 2023, SOLAR 10.7B, arXiv:2312.15166, section 2, for the repeated middle.
    """
    left = min((target + 1) // 2, depth)
    right = min(target - left, depth)
    return (Segment(model, 0, left), Segment(model, depth - right, depth))


def _slot_problems(slots: Slots) -> Iterator[str]:
    names = [model for model, _ in slots.models]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield f"slots: model '{name}' occurs {names.count(name)} times: list it once, repeat slots"
    yield from (
        f"slots: model '{model}': expected at least one layer, got {count}: remove the model"
        for model, count in slots.models
        if count < 1
    )
    if slots.repeats < 1:
        yield f"slots: repeats: expected 1 or more, got {slots.repeats}: correct it"
    elif slots.count > MOST_SLOTS:
        yield (
            f"slots: expected at most {MOST_SLOTS}, got {slots.count} ({len(slots.layers)} layers "
            f"x {slots.repeats} repeats): use fewer repeats or models"
        )


def _gain_problems(gains: tuple[float, float]) -> Iterator[str]:
    low, high = gains
    if not 0.01 <= low <= 1.0 <= high <= 100.0:
        yield (
            "gains: expected [low, high] with 0.01 <= low <= 1 <= high <= 100, "
            f"got [{low:g}, {high:g}]: a gain of 1 must be possible, one of 0 erases the stream"
        )
