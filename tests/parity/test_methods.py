"""Every method, tensor by tensor: where rounding does not explain a difference, ours is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evomerge.merge.method import Parents as Inputs
from evomerge.merge.method import Values
from evomerge.recipe import Scalar
from evomerge.signatures import SIGNATURES
from tests.merge.layers import WEIGHTS, tensor_name
from tests.merge.reference import flat
from tests.merge.reference_table import expected
from tests.merge.settings import ROWS, Case, Row
from tests.merge.thresholds import undecided
from tests.parity.agreement import LIMIT, Pair, Scale
from tests.parity.checkpoints import Parents, saved_parents
from tests.parity.merging import ours, recipe_of, theirs
from tests.parity.oracle import Oracle
from tests.parity.results import Entry, Results

# One bfloat16 step is where two float32 results lie on either side of a boundary of rounding.
HALF_LIMIT = 1.0


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "16-bit"])
def parents(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parents:
    return saved_parents(tmp_path_factory.mktemp("parents"), half=request.param)


@pytest.mark.parametrize("name", ROWS)
def test_method(name: str, parents: Parents, oracle: Oracle, results: Results) -> None:
    row = ROWS[name]
    cases = row.cases(parents.layers)
    recipe = recipe_of(row, cases, parents)
    mine, other = ours(recipe), theirs(oracle, recipe)
    assert mine.keys() == other.keys()
    limit = HALF_LIMIT if parents.half else LIMIT
    pairs: list[Pair] = []
    wrong: list[str] = []
    for index, case in enumerate(cases):
        for weight in WEIGHTS:
            inputs = _inputs(row, case, parents, weight)
            place = tensor_name(index, weight)
            pair = _pair(row, case, inputs, mine[place], other[place])
            pairs.append(pair)
            if pair.ulps > limit:
                errors = pair.errors(expected(row.method, inputs, _values(row, case)))
                if errors[0] > max(limit, 2 * errors[1]):
                    wrong.append(f"{tuple(mine[place].shape)} {case}: ours, theirs off by {errors}")
    results.add("methods", f"{name}, {parents.label}", _entry(pairs, limit, len(wrong)))
    assert not wrong, f"{len(wrong)} of {len(pairs)} tensors, the first: {wrong[0]}"


def _inputs(row: Row, case: Case, parents: Parents, weight: str) -> Inputs:
    name = tensor_name(case.layer.number, weight)
    others = tuple(parents.tensors[index][name] for index in range(1, case.others + 1))
    base = parents.tensors[0][name] if row.base else None
    return Inputs(base, others, tuple(range(case.others)))


def _values(row: Row, case: Case) -> Values:
    """The case's parameters with the defaults of the others; no mask is drawn with the seed."""
    defaults: dict[str, dict[str, Scalar]] = {"shared": {"seed": 0}, "model": {}}
    for parameter in SIGNATURES[row.method].parameters:
        if parameter.default is not None:
            defaults[parameter.scope.value][parameter.name] = parameter.default
    models = tuple({**defaults["model"], **values} for values in case.models)
    return Values({**defaults["shared"], **case.shared}, models)


def _pair(row: Row, case: Case, inputs: Inputs, mine: torch.Tensor, other: torch.Tensor) -> Pair:
    assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
    decided = ~undecided(row.method, inputs.tensors, case.models, case.shared)
    scale = Scale.of((mine, other), inputs.tensors)
    return Pair(flat(mine), flat(other), scale, decided)


def _entry(pairs: list[Pair], limit: float, wrong: int) -> Entry:
    ulps = np.array([pair.ulps for pair in pairs])
    left_out = sum(int((~pair.decided).sum()) for pair in pairs)
    worst = float(ulps.max())
    return {
        "tensors": len(pairs),
        "identical": int((ulps == 0).sum()),
        "within_1_ulp": int((ulps <= 1).sum()),
        "within_2_ulps": int((ulps <= 2).sum()),
        "within_8_ulps": int((ulps <= 8).sum()),
        "worst_ulps": worst if math.isfinite(worst) else None,
        "worst_relative": max(pair.relative for pair in pairs),
        "farther_than_the_limit": int((ulps > limit).sum()),
        "of_those_ours_is_not_exact": wrong,
        "share_of_elements_tied_at_a_threshold": left_out / sum(len(p.ours) for p in pairs),
    }
