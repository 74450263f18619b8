"""The contract of a merge method: what it is given, and the two calls it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from torch import Tensor

from evomerge.recipe import Scalar

State: TypeAlias = object
"""What `prepare` learned about the parents: a frozen dataclass only its method reads, or None."""


@dataclass(frozen=True)
class Parents:
    """The same tensor in every model: borrowed, never modified; one shape, any float dtypes.

    Attributes:
        base: the base model's tensor; None for methods that ignore the base.
        others: the other models' tensors in recipe order.
        streams: one 63-bit number per entry of `others`, different for every (output tensor,
            parent); random masks depend on it, so that tensors and parents get unrelated masks.
    """

    base: Tensor | None
    others: tuple[Tensor, ...]
    streams: tuple[int, ...]

    def __post_init__(self) -> None:
        assert len(self.streams) == len(self.others), "one stream per parent besides the base"
        assert len({tensor.shape for tensor in self.tensors}) == 1, "parents need one common shape"

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor, the base first when there is one."""
        return self.others if self.base is None else (self.base, *self.others)


@dataclass(frozen=True)
class Values:
    """The parameters that hold for one tensor; every one that the method declares is present.

    Attributes:
        shared: the parameters with one value for the merge.
        models: the parameters of each model, parallel to `Parents.others`.
    """

    shared: Mapping[str, Scalar]
    models: tuple[Mapping[str, Scalar], ...]

    def number(self, name: str) -> float:
        """The shared parameter `name` as a number."""
        return _number(self.shared[name])

    def flag(self, name: str) -> bool:
        """The shared parameter `name` as a switch."""
        return bool(self.shared[name])

    def numbers(self, name: str) -> tuple[float, ...]:
        """The parameter `name` of each model."""
        return tuple(_number(values[name]) for values in self.models)


class MergeMethod(Protocol):
    """One way to merge one tensor; methods are stateless, so one object serves every tensor."""

    def prepare(self, parents: Parents) -> State:
        """Collect what depends on the parents alone; runs once per tensor and search."""
        ...

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write the merged tensor into `out`.

        Arithmetic is float32 (float64 if any parent is float64) with one rounding at the store.
        Working memory is a few blocks, whatever the size of the tensor. NaN and Inf are not
        looked for here; they reach `out`.

        Args:
            parents: the same tensors that `prepare` has seen.
            state: what `prepare` returned for them.
            values: the candidate's parameters for this tensor.
            out: contiguous, the parents' shape, any float dtype; overwritten. Must not share
                memory with a parent.
        """
        ...


def _number(value: Scalar) -> float:
    assert not isinstance(value, str), "recipes are checked before tensors are merged"
    return float(value)
