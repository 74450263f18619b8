"""One entry to the float64 references of all methods; nothing here imports what it judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.merge import reference, reference_angles, reference_elements
from tests.merge.reference import Expected
from tests.merge.reference_inputs import Parents, Values


def expected(name: str, parents: Parents, values: Values) -> Expected:
    """What method `name` must give, but for tensors whose result is not defined."""
    if name in _OTHERS:
        return _OTHERS[name](parents, values)
    if name in ("nuslerp", "multislerp", "model_stock"):
        return reference_angles.expected(name, parents, values)
    return reference.task_vectors(name, parents, values)


def _linear(parents: Parents, values: Values) -> Expected:
    weights = list(values.numbers("weight"))
    divisor = sum(weights) if values.flag("normalize") else 1.0
    return reference.weighted_sum(parents, weights, divisor)


def _passthrough(parents: Parents, values: Values) -> Expected:
    return reference.weighted_sum(parents, list(values.numbers("scale")))


def _slerp(parents: Parents, values: Values) -> Expected:
    factors, _ = reference.slerp_factors(parents, values.number("t"))
    return reference.weighted_sum(parents, factors)


def _nearswap(parents: Parents, values: Values) -> Expected:
    return reference_angles.nearswap(parents, values.number("t"))


def _sce(parents: Parents, values: Values) -> Expected:
    return reference_elements.sce(parents, values.number("select_topk"))


def _ram(parents: Parents, values: Values) -> Expected:
    return reference_elements.ram(parents, values, plus=False)


def _ramplus(parents: Parents, values: Values) -> Expected:
    return reference_elements.ram(parents, values, plus=True)


def _arcee_fusion(parents: Parents, values: Values) -> Expected:  # noqa: ARG001 - has none
    return reference_elements.arcee_fusion(parents)


_OTHERS: Mapping[str, Callable[[Parents, Values], Expected]] = {
    "linear": _linear,
    "passthrough": _passthrough,
    "slerp": _slerp,
    "karcher": reference_angles.karcher,
    "nearswap": _nearswap,
    "sce": _sce,
    "ram": _ram,
    "ramplus_tl": _ramplus,
    "arcee_fusion": _arcee_fusion,
}
