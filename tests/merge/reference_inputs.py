"""What the references read of a case, so that they need nothing of the code that they judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]
Number: TypeAlias = float | int | bool | str


class Inputs(Protocol):
    """The same tensor in the base, if there is one, and in the other parents."""

    @property
    def base(self) -> torch.Tensor | None: ...
    @property
    def others(self) -> tuple[torch.Tensor, ...]: ...
    @property
    def streams(self) -> tuple[int, ...]: ...


class Settings(Protocol):
    """The parameters of the merge, and those of each of the others."""

    @property
    def shared(self) -> Mapping[str, Number]: ...
    @property
    def models(self) -> tuple[Mapping[str, Number], ...]: ...


@dataclass(frozen=True)
class Expected:
    """What a merge must give, flat: `other` is as good where a vote is undecided by rounding.

    `size` is the sum of absolute terms at each element; rounding errors are relative to it.
    """

    value: Array
    other: Array
    size: Array


def sure(value: Array, size: Array) -> Expected:
    """Only `value` will do."""
    return Expected(value, value, size)


def number(settings: Settings, name: str) -> float:
    """A shared parameter."""
    return float(settings.shared[name])


def flag(settings: Settings, name: str) -> bool:
    """A shared switch."""
    return bool(settings.shared[name])


def numbers(settings: Settings, name: str) -> list[float]:
    """A parameter of every model."""
    return [float(values[name]) for values in settings.models]


def tensors(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    """Base, if there is one, and others."""
    return inputs.others if inputs.base is None else (inputs.base, *inputs.others)


def flat(tensor: torch.Tensor) -> Array:
    """The tensor as a float64 vector."""
    return tensor.detach().double().reshape(-1).numpy().copy()


def working_dtype(inputs: Inputs) -> torch.dtype:
    """The precision in which task vectors are taken: float32, or float64 for float64 parents."""
    wide = any(tensor.dtype == torch.float64 for tensor in tensors(inputs))
    return torch.float64 if wide else torch.float32


def differences(inputs: Inputs) -> list[torch.Tensor]:
    """The task vectors in working precision; everything after that is float64 in a reference."""
    assert inputs.base is not None
    work = working_dtype(inputs)
    base = inputs.base.to(work)
    return [other.to(work) - base for other in inputs.others]
