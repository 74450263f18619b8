"""What mergekit cannot merge and evomerge can, each with mergekit's own words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from evomerge.recipe import Scalar
from tests.merge.settings import ROWS, Case
from tests.parity.checkpoints import Parents, saved_parents
from tests.parity.merging import ours, recipe_of, theirs
from tests.parity.oracle import Oracle
from tests.parity.results import Results


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Parents:
    return saved_parents(tmp_path_factory.mktemp("parents"), half=False)


@dataclass(frozen=True)
class Refused:
    """Parents 1 to `count` with the same parameters, in the first layer of a kind."""

    method: str
    kind: str
    narrow: bool
    count: int
    model: dict[str, Scalar]


CASES = {
    "della, rows of one element": Refused(
        "della", "dense", True, 1, {"weight": 1.0, "density": 0.5}
    ),
    "multislerp, three unchanged parents": Refused("multislerp", "zero", False, 3, {"weight": 1.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_refusal(name: str, parents: Parents, oracle: Oracle, results: Results) -> None:
    case = CASES[name]
    fits = (x for x in parents.layers if (x.kind, x.is_narrow) == (case.kind, case.narrow))
    one = Case(next(fits), case.count, {}, (case.model,) * case.count)
    recipe = recipe_of(ROWS[case.method], [one], parents)
    assert all(bool(tensor.isfinite().all()) for tensor in ours(recipe).values())
    with pytest.raises(RuntimeError, match="Error") as failed:
        theirs(oracle, recipe)
    results.add("refusals", name, {"mergekit": str(failed.value)[:200]})
