"""One entry to the float64 references of all methods; nothing here imports what it judges."""

from __future__ import annotations

from tests.merge import reference, reference_angles, reference_elements
from tests.merge.reference_inputs import Expected, Inputs, Settings, flag, number, numbers


def expected(name: str, inputs: Inputs, settings: Settings) -> Expected:
    """What method `name` must give, but for the tensors without a defined result."""
    if name == "linear":
        weights = numbers(settings, "weight")
        divisor = sum(weights) if flag(settings, "normalize") else 1.0
        return reference.weighted_sum(inputs, weights, divisor)
    if name == "passthrough":
        return reference.weighted_sum(inputs, numbers(settings, "scale"))
    if name == "slerp":
        factors, _ = reference.slerp_factors(inputs, number(settings, "t"))
        return reference.weighted_sum(inputs, factors)
    if name == "karcher":
        return reference_angles.karcher(inputs, settings)
    if name == "nearswap":
        return reference_angles.nearswap(inputs, number(settings, "t"))
    if name in ("nuslerp", "multislerp", "model_stock"):
        return reference_angles.expected(name, inputs, settings)
    if name == "sce":
        return reference_elements.sce(inputs, number(settings, "select_topk"))
    if name in ("ram", "ramplus_tl"):
        return reference_elements.ram(inputs, settings, plus=name == "ramplus_tl")
    if name == "arcee_fusion":
        return reference_elements.arcee_fusion(inputs)
    return reference.task_vectors(name, inputs, settings)
