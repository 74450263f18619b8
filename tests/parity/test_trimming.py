"""Equal magnitudes at a threshold: the same number is kept, and the same set off the threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from tests.merge.layers import WEIGHTS, tensor_name
from tests.merge.reference import flat
from tests.merge.settings import Case, Row, one_of
from tests.merge.thresholds import (
    Bools,
    cuts,
    near_ties,
    selected,
    task_vectors,
    tied,
    variances,
)
from tests.parity.checkpoints import Parents, saved_parents
from tests.parity.merging import ours, recipe_of, theirs
from tests.parity.oracle import Oracle
from tests.parity.results import Results

DENSITY = one_of(1e-6, 0.05, 0.1, 0.29, 0.5, 0.8, 0.95)
PLAIN = {"normalize": one_of(False), "rescale": one_of(False)}
ONE = {"weight": one_of(1.0), "density": DENSITY}
# One parent of weight 1: an element differs from the base exactly if it was kept.
ROWS = (
    Row("ties", most=1, shared=PLAIN, model=ONE),
    Row("breadcrumbs", most=1, shared=PLAIN, model={**ONE, "gamma": one_of(0.0, 0.01, 0.3)}),
    Row("sce", fewest=2, most=4, shared={"select_topk": one_of(0.05, 0.1, 0.5, 0.9)}),
)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Parents:
    return saved_parents(tmp_path_factory.mktemp("parents"), half=True)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.method)
def test_trimming(row: Row, parents: Parents, oracle: Oracle, results: Results) -> None:
    cases = row.cases(parents.layers)
    recipe = recipe_of(row, cases, parents)
    del recipe["out_dtype"]
    mine, other = ours(recipe), theirs(oracle, recipe)
    tensors = elements = on_threshold = 0
    for index, case in enumerate(cases):
        for weight in WEIGHTS:
            name = tensor_name(case.layer.number, weight)
            inputs = [parents.tensors[i][name] for i in range(case.others + 1)]
            place = tensor_name(index, weight)
            changed = [flat(r[place]) != flat(inputs[0].float()) for r in (mine, other)]
            edges = _edges(row.method, case, inputs)
            off = ~np.logical_or.reduce(edges)
            assert np.array_equal(changed[0][off], changed[1][off]), (name, case)
            for edge in edges:
                assert changed[0][edge].sum() == changed[1][edge].sum(), (name, case)
            tensors, elements = tensors + 1, elements + off.size
            on_threshold += int((~off).sum())
    assert on_threshold > 10_000, "the cases have many ties"
    entry = {"tensors": tensors, "elements": elements, "elements_on_a_threshold": on_threshold}
    results.add("trimming", row.method, {**entry, "same_number_and_same_set_off_it": True})


def _edges(method: str, case: Case, inputs: Sequence[torch.Tensor]) -> list[Bools]:
    """The equal elements at each boundary."""
    if method == "sce":
        variance = variances(inputs)
        return [near_ties(variance, selected(variance, float(case.shared["select_topk"])))]
    size = np.abs(task_vectors(inputs)[0])
    nowhere = np.zeros(size.size, dtype=bool)
    return [tied(size, count) for count in cuts(method, case.models[0], size.size)] or [nowhere]
