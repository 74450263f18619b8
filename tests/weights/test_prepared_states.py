from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.method import Parents, State, Statistic, Values
from evomerge.merge.methods import merge_methods
from evomerge.recipe import Recipe
from evomerge.seeding import derive
from evomerge.weights import materialize
from tests.weights.merging import materializer, merged, source


class _Counted:
    """A merge method that records its calls, and its own statistic."""

    name = "counted"
    large = False

    def __init__(self) -> None:
        self.prepared: list[Parents] = []
        self.merged: list[tuple[Parents, State, Values]] = []

    def statistic(self, values: Values) -> Statistic:  # noqa: ARG002 - the same for all
        return self

    def compute(self, parents: Parents) -> dict[str, torch.Tensor]:
        self.prepared.append(parents)
        return {"number": torch.tensor(len(self.prepared))}

    def load(self, tensors: Mapping[str, torch.Tensor]) -> State:
        return int(tensors["number"])

    def merge(self, parents: Parents, state: State, values: Values, out: torch.Tensor) -> None:
        self.merged.append((parents, state, values))
        out.zero_()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> _Counted:
    method = _Counted()
    methods = {**merge_methods(BLOCKWISE), "dare_ties": method}
    monkeypatch.setattr(materialize, "merge_methods", lambda _kernels: methods)
    return method


def _dare(weight: float, *names: str) -> Recipe:
    sources = tuple(source(name, weight=weight, density=0.5) for name in names)
    return Recipe("dare_ties", sources, base_model="base")


def test_parents_are_prepared_once_for_all_candidates(llamas: Path, counted: _Counted) -> None:
    engine = materializer(llamas, "base", "math", "code")
    count = len(merged(engine, _dare(0.1, "math", "code")))
    merged(engine, _dare(0.2, "math", "code"))
    assert len(counted.prepared) == count
    states = [state for _, state, _ in counted.merged]
    assert states[:count] == states[count:]
    merged(engine, _dare(0.2, "code", "math"))
    assert len(counted.prepared) == 2 * count


def test_methods_get_every_declared_value_and_a_stream_per_parent(
    llamas: Path, counted: _Counted
) -> None:
    engine = materializer(llamas, "base", "math", "code")
    names = list(merged(engine, _dare(0.25, "math", "code")))
    parents, _, values = counted.merged[3]
    assert parents.streams == (derive(0, names[3], 0), derive(0, names[3], 1))
    assert values.models == ({"weight": 0.25, "density": 0.5},) * 2
    assert values.shared == {
        "lambda": 1.0,
        "normalize": False,
        "rescale": True,
        "int8_mask": False,
        "seed": 0,
        "unbiased": False,
    }
    assert type(values.shared["seed"]) is int
    streams = [stream for given, _, _ in counted.merged for stream in given.streams]
    assert len(set(streams)) == 2 * len(names)
