"""Which cases are merged to compare each method: layers, numbers of parents and parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from evomerge.recipe import Scalar
from tests.merge.layers import OTHERS, Layer

Values: TypeAlias = dict[str, Scalar]
Draw: TypeAlias = Callable[[np.random.Generator], Scalar]

TURNS = 3
"""Cases with each layer; their parameters and numbers of parents differ."""


@dataclass(frozen=True)
class Case:
    """One layer of one merge: parents are others 1 to `others`, the base too if the row has one."""

    layer: Layer
    others: int
    shared: Values
    models: tuple[Values, ...]


@dataclass(frozen=True)
class Row:
    """What is compared under one name.

    Attributes:
        method: the merge method.
        base: whether the base model takes part.
        fewest: of the other parents.
        most: of the other parents.
        shared: how to draw each shared parameter.
        model: how to draw each parameter of a model, but `weight`.
        weights: whether models have weights.
        accepts: whether mergekit can merge a case, None for all; refusals have a test of their own.
    """

    method: str
    base: bool = True
    fewest: int = 1
    most: int = OTHERS
    shared: Mapping[str, Draw] = field(default_factory=dict)
    model: Mapping[str, Draw] = field(default_factory=dict)
    weights: bool = False
    accepts: Callable[[Case], bool] | None = None

    def cases(self, layers: tuple[Layer, ...], turns: int = TURNS) -> tuple[Case, ...]:
        """`turns` cases with each layer, unlike each other; always the same ones."""
        drawn = (
            self._case(layer, np.random.default_rng([layer.number, turn]))
            for layer in layers
            for turn in range(turns)
        )
        return tuple(case for case in drawn if self.accepts is None or self.accepts(case))

    def _case(self, layer: Layer, rng: np.random.Generator) -> Case:
        count = int(rng.integers(self.fewest, self.most + 1))
        models: list[Values] = [
            {name: draw(rng) for name, draw in self.model.items()} for _ in range(count)
        ]
        if self.weights:
            for values, weight in zip(models, _weights(count, rng), strict=True):
                values["weight"] = weight
        shared = {name: draw(rng) for name, draw in self.shared.items()}
        return Case(layer, count, shared, tuple(models))


def one_of(*values: Scalar) -> Draw:
    """Any of these values."""

    def draw(rng: np.random.Generator) -> Scalar:
        return values[int(rng.integers(len(values)))]

    return draw


def _weights(count: int, rng: np.random.Generator) -> list[float]:
    """Positive, negative, zero or cancelling weights."""
    kind = rng.choice(["positive", "signed", "some zero", "cancel", "equal", "zero"])
    signed = (rng.integers(-1500, 1501, count) / 1024).tolist()
    if kind == "signed":
        return [float(weight) for weight in signed]
    if kind == "cancel":
        return [0.5 * (-1.0) ** index for index in range(count)]
    if kind == "equal":
        return [float(rng.choice([1.0, 0.3, 1 / 3]))] * count
    if kind == "zero":
        return [0.0] * count
    positive = rng.uniform(0.1, 1.5, count)
    if kind == "some zero":
        positive[rng.random(count) < 0.4] = 0.0
    return [float(weight) for weight in positive]


FLAG = one_of(True, False)
DENSITY = one_of(0.0, 1e-6, 0.1, 0.29, 0.5, 0.9, 1.0)
FAMILY: dict[str, Draw] = {
    "normalize": FLAG,
    "rescale": FLAG,
    "lambda": one_of(1.0, 0.0, 0.7, -1.3),
    "int8_mask": FLAG,
}
BREADCRUMBS: dict[str, Draw] = {"density": DENSITY, "gamma": one_of(0.0, 0.01, 0.3, 1.0)}
ALL_OR_NONE = one_of(0.0, 1.0)


def _has_direction(case: Case) -> bool:
    """Whether the mean of the directions is not zero, where mergekit's MultiSLERP stops."""
    total = sum(float(model["weight"]) for model in case.models)
    spread = case.layer.kind in ("dense", "outliers") and not case.layer.is_narrow
    return case.others < 3 or (spread and total != 0.0)


def _family(method: str, **model: Draw) -> Row:
    return Row(method, shared=FAMILY, model=model, weights=True)


ROWS: Mapping[str, Row] = MappingProxyType(
    {
        "linear": Row("linear", base=False, shared={"normalize": FLAG}, weights=True),
        "passthrough": Row(
            "passthrough", base=False, most=1, model={"scale": one_of(1.0, 0.0, 0.5, -1.3, 1 / 3)}
        ),
        "slerp": Row("slerp", most=1, shared={"t": one_of(0.0, 0.3, 0.5, 1.0, -0.5, 1.5)}),
        "nuslerp": Row(
            "nuslerp",
            fewest=2,
            most=2,
            shared={"nuslerp_flatten": FLAG, "nuslerp_row_wise": FLAG},
            weights=True,
        ),
        "nuslerp without base": Row(
            "nuslerp",
            base=False,
            fewest=2,
            most=2,
            shared={"nuslerp_flatten": FLAG, "nuslerp_row_wise": FLAG},
            weights=True,
        ),
        "multislerp": Row(
            "multislerp",
            shared={"normalize_weights": FLAG, "eps": one_of(1e-8, 1e-4)},
            weights=True,
            accepts=_has_direction,
        ),
        "multislerp without base": Row(
            "multislerp",
            base=False,
            shared={"normalize_weights": FLAG, "eps": one_of(1e-8, 1e-4)},
            weights=True,
            accepts=_has_direction,
        ),
        "karcher": Row(
            "karcher",
            base=False,
            shared={"max_iter": one_of(0, 1, 10), "tol": one_of(1e-5, 0.1)},
        ),
        "task_arithmetic": _family("task_arithmetic"),
        "ties": _family("ties", density=DENSITY),
        "dare_linear": _family("dare_linear", density=ALL_OR_NONE),
        "dare_ties": _family("dare_ties", density=ALL_OR_NONE),
        "breadcrumbs": _family("breadcrumbs", **BREADCRUMBS),
        "breadcrumbs_ties": _family("breadcrumbs_ties", **BREADCRUMBS),
        "della_linear": _family("della_linear", density=ALL_OR_NONE),
        "della": _family("della", density=ALL_OR_NONE),
        "sce": Row("sce", shared={"select_topk": one_of(0.0, 0.1, 0.5, 1.0), "int8_mask": FLAG}),
        "model_stock": Row("model_stock", fewest=2, shared={"filter_wise": FLAG}),
        "nearswap": Row("nearswap", most=1, shared={"t": one_of(0.0, 1e-4, 0.01, 1.0)}),
        "arcee_fusion": Row("arcee_fusion", most=1),
        "ram": Row("ram", shared={"epsilon": one_of(1e-5, 0.0, 0.01)}),
        "ramplus_tl": Row(
            "ramplus_tl",
            shared={
                "epsilon": one_of(1e-5, 0.01),
                "r": one_of(0.1, 1.0),
                "alpha": one_of(0.2, 2.0),
            },
        ),
    }
)
"""Every method; those that draw random masks only where no mask is drawn."""
