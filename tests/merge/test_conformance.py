"""Every method against its float64 reference on the same catalogue of tensors.

0-D to 4-D, rows of one element, odd sizes, three float types and mixtures of them, one to six
parents, and task vectors that are dense, sparse, zero, alike, opposite, tied or have outliers.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge.merge.method import Parents, Values
from evomerge.recipe import STACK, Scalar
from evomerge.signatures import SIGNATURES
from tests.merge import reference, thresholds
from tests.merge.layers import Layer, layers, values
from tests.merge.merging import merge
from tests.merge.reference_table import expected
from tests.merge.settings import DENSITY, ROWS, Case, Row, one_of

LARGEST = 200
"""Elements; the references loop over them."""
RANDOM = {
    "dare_linear": {"density": DENSITY},
    "dare_ties": {"density": DENSITY},
    "della_linear": {"density": one_of(0.0, 0.3, 0.5, 0.7, 1.0), "epsilon": one_of(0.0, 0.1, 0.25)},
    "della": {"density": one_of(0.0, 0.3, 0.5, 0.7, 1.0), "epsilon": one_of(0.0, 0.1, 0.25)},
}


def test_every_method_has_a_row() -> None:
    assert {row.method for row in ROWS.values()} == set(SIGNATURES) - {STACK}


def test_references_import_nothing_that_they_judge() -> None:
    files = sorted(Path(__file__).parent.glob("reference*.py"))
    assert len(files) >= 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                judged = module.startswith(("evomerge.merge", "tests.merge.cases"))
                assert not judged, f"{file.name} imports {module}"


@pytest.mark.parametrize("half", [False, True], ids=["float32", "16-bit"])
@pytest.mark.parametrize("name", ROWS)
def test_method(name: str, half: bool) -> None:
    row = ROWS[name]
    if row.method in RANDOM:
        row = dataclasses.replace(row, model={**row.model, **RANDOM[row.method]})
    compared = 0
    for case in row.cases(layers(half=half), turns=1):
        for parents in _tensors(row, case):
            given = _values(row, case)
            if _is_defined(row.method, parents, given):
                want = expected(row.method, parents, given)
                reference.check(merge(row.method, parents, given, torch.float32), want)
                compared += 1
    assert compared > 40


def test_nuslerp_between_opposite_task_vectors_is_straight() -> None:
    base, shared = torch.ones(2), {"nuslerp_flatten": True, "nuslerp_row_wise": False}
    for vector in ([1.0, 1.0], [1.0, 2.0], [1.0, 3.0], [3.0, 4.0]):
        delta = torch.tensor(vector)
        parents = Parents(base, (base + delta, base - delta), (0, 1))
        for weights in ([1.0, 1.0], [0.75, 0.25]):
            given = Values(shared, tuple({"weight": weight} for weight in weights))
            want = base + (weights[0] - weights[1]) / sum(weights) * delta
            torch.testing.assert_close(merge("nuslerp", parents, given), want)


@pytest.mark.parametrize("odd", [-2.0, -0.5])
def test_karcher_with_a_parent_opposite_to_the_mean(odd: float) -> None:
    others = tuple(torch.tensor([value]) for value in (1.0, 1.0, odd, 1.0))
    given = Values({"max_iter": 10, "tol": 1e-5}, ({},) * 4)
    found = merge("karcher", Parents(None, others, (0, 1, 2, 3)), given)
    torch.testing.assert_close(found, torch.tensor([(3.0 - odd) / 4]))


def _tensors(row: Row, case: Case) -> Iterator[Parents]:
    """Every second of the smaller tensors of the case's layer."""
    layer = case.layer
    for position, shape in enumerate(layer.shapes):
        rng = np.random.default_rng([layer.number, position])
        if (position + layer.number) % 2 and np.prod(shape) <= LARGEST:
            yield _parents(row, layer, values(layer.kind, shape, rng)[: case.others + 1])


def _parents(row: Row, layer: Layer, arrays: list[reference.Array]) -> Parents:
    tensors = [torch.as_tensor(array).to(layer.dtype_of(i)) for i, array in enumerate(arrays)]
    streams = tuple(range(100, 100 + len(tensors) - 1))
    return Parents(tensors[0] if row.base else None, tuple(tensors[1:]), streams)


def _values(row: Row, case: Case) -> Values:
    """The case's parameters with the defaults of the others."""
    defaults: dict[str, dict[str, Scalar]] = {"shared": {"seed": 3}, "model": {}}
    for parameter in SIGNATURES[row.method].parameters:
        if parameter.default is not None and parameter.name != "seed":
            defaults[parameter.scope.value][parameter.name] = parameter.default
    models = tuple({**defaults["model"], **chosen} for chosen in case.models)
    return Values({**defaults["shared"], **case.shared}, models)


def _is_defined(method: str, parents: Parents, given: Values) -> bool:
    """Whether rounding cannot change the result by more than rounding."""
    if method == "linear" and given.flag("normalize"):
        return abs(sum(given.numbers("weight"))) > 1e-6
    if method == "sce":
        variance = thresholds.variances(parents.tensors)
        keep = thresholds.selected(variance, given.number("select_topk"))
        return not thresholds.on_an_edge(variance, keep)
    return True
