"""What the references read of a case, so that they import nothing of the code that they judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from evomerge.recipe import Scalar


class Parents(Protocol):
    """The same tensor in the base, if there is one, and in the other parents."""

    @property
    def base(self) -> torch.Tensor | None: ...
    @property
    def others(self) -> tuple[torch.Tensor, ...]: ...
    @property
    def streams(self) -> tuple[int, ...]: ...
    @property
    def tensors(self) -> tuple[torch.Tensor, ...]: ...


class Values(Protocol):
    """The parameters of the merge, and those of each of the others."""

    @property
    def shared(self) -> Mapping[str, Scalar]: ...
    @property
    def models(self) -> tuple[Mapping[str, Scalar], ...]: ...
    def number(self, name: str) -> float: ...
    def flag(self, name: str) -> bool: ...
    def numbers(self, name: str) -> tuple[float, ...]: ...
