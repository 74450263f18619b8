"""Parameters of merge methods: their kinds and ranges, and what is wrong with a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from evomerge.recipe import Scalar

_ROUNDING = 1e-9


class Scope(Enum):
    """Whether a parameter has one value per model or one for the merge."""

    MODEL = "model"
    SHARED = "shared"


@dataclass(frozen=True)
class Parameter:
    """One parameter of a merge method; `default` None means that a recipe must give it."""

    name: str
    scope: Scope
    kind: type
    default: Scalar | None
    doc: str
    low: float | None = None
    high: float | None = None

    def problem(self, value: Scalar) -> str | None:
        """Why `value` cannot be this parameter's, as "expected ..., got ..."; None when it can."""
        if self.kind is bool:
            return None if isinstance(value, bool) else f"expected true or false, got {value!r}"
        if isinstance(value, bool | str) or not isinstance(value, int | float):
            return f"expected a number, got {value!r}"
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf" if self.high is None else f"{self.high:g}"
        if low == "-inf" and high == "inf" and not math.isfinite(value):
            return f"expected a finite number, got {value:g}"
        below = self.low is not None and value < self.low
        above = self.high is not None and value > self.high
        if below or above or not math.isfinite(value):
            return f"expected a number in [{low}, {high}], got {value:g}"
        if self.kind is int and abs(value - round(value)) > _ROUNDING:
            return f"expected a whole number, got {value!r}"
        return None

    def convert(self, value: Scalar) -> Scalar:
        """A value without a problem as this parameter's type.

        Whole numbers along a gradient are interpolated and miss by a rounding error.
        """
        return round(float(value)) if self.kind is int else self.kind(value)


class Conflict(NamedTuple):
    """What is wrong with several values together, and what to do about it."""

    what: str
    fix: str


@dataclass(frozen=True)
class Joint:
    """Parameters of one model that limit each other; `check` sees values that are valid alone."""

    parameters: tuple[str, ...]
    check: Callable[[Mapping[str, Scalar]], Conflict | None]
