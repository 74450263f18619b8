from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from evomerge.recipe import Recipe
from evomerge.weights.canary import Canary, StaleWeights
from evomerge.weights.resident import ResidentModel
from tests.weights.merging import materializer, source


def _task(weight: float, model: str = "math") -> Recipe:
    return Recipe("task_arithmetic", (source(model, weight=weight),), base_model="base")


@pytest.fixture
def resident(llamas: Path) -> ResidentModel:
    return ResidentModel(materializer(llamas, "base", "math", "code"), _task(1.0))


def _become(resident: ResidentModel, canary: Canary, recipe: Recipe) -> None:
    resident.become(recipe)
    canary.check(recipe.digest)


def test_candidates_that_differ_and_candidates_that_are_equal_pass(resident: ResidentModel) -> None:
    canary = Canary(resident.model, resident.weights)
    for recipe in (_task(0.2), _task(0.9), _task(0.0), _task(0.0, "code"), _task(0.9), _task(0.9)):
        _become(resident, canary, recipe)
    before = {name: tensor.clone() for name, tensor in resident.weights.items()}
    resident.become(_task(0.9))
    assert all(torch.equal(before[name], tensor) for name, tensor in resident.weights.items())


def test_a_model_that_ignores_what_is_written_is_found(resident: ResidentModel) -> None:
    deaf = copy.deepcopy(resident.model)
    canary = Canary(deaf, resident.weights)
    with pytest.raises(StaleWeights, match="what was written does not reach it"):
        _become(resident, canary, _task(0.9))


def test_without_norm_weights_another_tensor_is_moved(resident: ResidentModel) -> None:
    matrices = {name: t for name, t in resident.weights.items() if t.dim() == 2}
    canary = Canary(resident.model, matrices)
    for recipe in (_task(0.0), _task(0.0, "code")):
        _become(resident, canary, recipe)
    with pytest.raises(StaleWeights, match="does not reach it"):
        Canary(copy.deepcopy(resident.model), matrices).check("another")
