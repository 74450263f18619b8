"""Genes: how one number in [0, 1] becomes one value of a recipe, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from evomerge.recipe import Scalar


@dataclass(frozen=True)
class Axis:
    """What one number of a genotype stands for.

    Attributes:
        steps: how many values share [0, 1] equally; None is a value of its own for every number.
        ordered: whether neighbouring steps are alike; a choice has no order.
    """

    steps: int | None = None
    ordered: bool = True

    def step(self, position: float) -> int:
        """Which step holds a position; where there are steps."""
        assert self.steps is not None, "a continuous axis has no steps"
        return _share(position, self.steps)

    def middle(self, step: int) -> float:
        """The position in the middle of a step; where there are steps."""
        assert self.steps is not None, "a continuous axis has no steps"
        return _middle(step, self.steps)


CONTINUOUS = Axis()


class Gene(Protocol):
    """One free value of a search space. Decoding is monotone: no two regions fold onto another."""

    @property
    def name(self) -> str:
        """Where the value goes, readable: "weight[math, layers 0-3]"."""

    @property
    def start(self) -> float:
        """The position in [0, 1] where the search begins."""

    @property
    def axis(self) -> Axis:
        """What a position stands for."""

    def decode(self, position: float) -> Scalar:
        """The value at a position in [0, 1]."""

    def encode(self, value: Scalar) -> float | None:
        """A position that decodes to the value nearest to `value`; None when there is none."""


@dataclass(frozen=True)
class FloatGene:
    """A real value in [low, high], on a logarithmic scale when `log`."""

    name: str
    low: float
    high: float
    init: float | None = None
    log: bool = False

    @property
    def start(self) -> float:
        """Position of `init`, else the middle."""
        encoded = None if self.init is None else self.encode(self.init)
        return 0.5 if encoded is None else encoded

    @property
    def axis(self) -> Axis:
        """Every position is a value."""
        return CONTINUOUS

    def decode(self, position: float) -> float:
        """Linear (or geometric) between the bounds, which are reached exactly at 0 and 1."""
        u = min(max(position, 0.0), 1.0)
        if u in (0.0, 1.0):
            return (self.low, self.high)[int(u)]
        if self.log:
            return math.exp((1.0 - u) * math.log(self.low) + u * math.log(self.high))
        return (1.0 - u) * self.low + u * self.high

    def encode(self, value: Scalar) -> float | None:
        """The position of `value`, clamped into the range."""
        if isinstance(value, bool | str):
            return None
        x = min(max(float(value), self.low), self.high)
        if self.log:
            return math.log(x / self.low) / math.log(self.high / self.low)
        return (x - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class IntGene:
    """A whole number in low..high, each with an equal share of [0, 1]."""

    name: str
    low: int
    high: int
    init: int | None = None

    @property
    def start(self) -> float:
        """The middle of the share of `init`, else of the range."""
        return 0.5 if self.init is None else _middle(self.init - self.low, self._count)

    @property
    def axis(self) -> Axis:
        """The numbers, in order."""
        return Axis(self._count)

    @property
    def _count(self) -> int:
        return self.high - self.low + 1

    def decode(self, position: float) -> int:
        """The number whose share holds the position."""
        return self.low + _share(position, self._count)

    def encode(self, value: Scalar) -> float | None:
        """The middle of the share of `value`, clamped into the range."""
        if isinstance(value, bool | str):
            return None
        return _middle(min(max(round(value), self.low), self.high) - self.low, self._count)


@dataclass(frozen=True)
class ChoiceGene:
    """One of several values, each with an equal share of [0, 1], in the order given."""

    name: str
    choices: tuple[Scalar, ...]
    init: Scalar | None = None

    @property
    def start(self) -> float:
        """The middle of the share of `init`, else of the first choice."""
        index = 0 if self.init is None else self.choices.index(self.init)
        return _middle(index, len(self.choices))

    @property
    def axis(self) -> Axis:
        """The choices, without order."""
        return Axis(len(self.choices), ordered=False)

    def decode(self, position: float) -> Scalar:
        """The choice whose share holds the position."""
        return self.choices[_share(position, len(self.choices))]

    def encode(self, value: Scalar) -> float | None:
        """The middle of the share of `value`; None when it is not among the choices."""
        if value not in self.choices:
            return None
        return _middle(self.choices.index(value), len(self.choices))


def _share(position: float, count: int) -> int:
    return min(int(min(max(position, 0.0), 1.0) * count), count - 1)


def _middle(index: int, count: int) -> float:
    return (index + 0.5) / count
