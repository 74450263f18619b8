"""The contract of a merge method: what it is given, what it may learn, and the call it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeAlias, final

from torch import Tensor

from evomerge.recipe import Scalar

State: TypeAlias = object
"""What a method knows about the parents of a tensor: a frozen value only it reads, or None."""


@dataclass(frozen=True)
class Parents:
    """The same tensor in every model: borrowed, never modified; one shape, any float dtypes.

    Attributes:
        base: the base model's tensor; None for methods that do not use one.
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

    @cached_property
    def flat(self) -> tuple[Tensor, ...]:
        """The tensors as contiguous vectors."""
        return tuple(tensor.reshape(-1) for tensor in self.tensors)


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


class Statistic(Protocol):
    """What can be learned about the parents of a tensor once, whatever the parameters are."""

    @property
    def name(self) -> str:
        """Equal names mean equal tensors for equal parents; "" when there is nothing to learn."""
        ...

    @property
    def large(self) -> bool:
        """Whether the result grows with the tensor."""
        ...

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:
        """Read the parents; the result can be kept on disk."""
        ...

    def load(self, tensors: Mapping[str, Tensor]) -> State:
        """Make what `compute` returned ready for use; cheap."""
        ...


class MergeMethod(Protocol):
    """One way to merge one tensor; methods are stateless, so one object serves every tensor."""

    def statistic(self, values: Values) -> Statistic:
        """What `merge` wants to know about the parents; depends on shared parameters at most."""
        ...

    def merge(self, parents: Parents, state: State, values: Values, out: Tensor) -> None:
        """Write the merged tensor into `out`.

        Arithmetic is float32 (float64 if any parent is float64) with one rounding at the store.
        Working memory is a few blocks, whatever the size of the tensor. NaN and Inf are not
        looked for here; they reach `out`.

        Args:
            parents: the tensors from which `state` was learned.
            state: what the statistic's `load` returned for them.
            values: the candidate's parameters for this tensor.
            out: contiguous, the parents' shape, any float dtype; overwritten. Must not share
                memory with a parent.
        """
        ...


@final
class Nothing:
    """The statistic of methods that need to know nothing."""

    name = ""
    large = False

    def compute(self, parents: Parents) -> Mapping[str, Tensor]:  # noqa: ARG002 - nothing to learn
        """No tensors."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> State:  # noqa: ARG002 - there are none
        """None."""
        return None


NOTHING_TO_LEARN: Statistic = Nothing()


def learn(method: MergeMethod, parents: Parents, values: Values) -> State:
    """What `method` wants to know about `parents`, learned here and now."""
    statistic = method.statistic(values)
    return statistic.load(statistic.compute(parents))


def _number(value: Scalar) -> float:
    assert not isinstance(value, str), "recipes are checked before tensors are merged"
    return float(value)
