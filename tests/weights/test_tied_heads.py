from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from evomerge.recipe import Clause, Parameters, Setting, Source
from tests import models
from tests.weights.merging import linear, materializer, merged, source

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def base(llamas: Path) -> Tensors:
    return models.read_tensors(llamas / "base")


def test_explicit_heads_make_tied_parents_give_their_embedding(
    llamas: Path, tmp_path: Path, base: Tensors
) -> None:
    shutil.copytree(llamas / "base", tmp_path / "base")
    tied = models.read_tensors(models.llama(tmp_path / "tied", seed=9, layers=4, tied=True))
    assert "lm_head.weight" not in tied
    for order in (("base", "tied"), ("tied", "base")):
        weights = {"base": 1.0, "tied": 3.0}
        recipe = linear(*(source(name, weight=weights[name]) for name in order))
        got = merged(materializer(tmp_path, *order), recipe)
        expected = base["lm_head.weight"] + 3 * tied["model.embed_tokens.weight"]
        torch.testing.assert_close(got["lm_head.weight"], expected)


def test_a_tied_stand_in_is_filtered_as_a_head(llamas: Path, tmp_path: Path) -> None:
    shutil.copytree(llamas / "base", tmp_path / "base")
    tied = models.read_tensors(models.llama(tmp_path / "tied", seed=9, layers=4, tied=True))
    weight = Setting((Clause(1.0, "lm_head"), Clause(0.0)))
    parameters = Parameters.of([("weight", weight)])
    recipe = linear(Source("tied", parameters=parameters), source("base", weight=0.0))
    got = merged(materializer(tmp_path, "base", "tied"), recipe)
    torch.testing.assert_close(got["lm_head.weight"], tied["model.embed_tokens.weight"])
    assert not got["model.embed_tokens.weight"].any()


def test_only_tied_parents_give_no_head(tmp_path: Path) -> None:
    models.llama(tmp_path / "a", seed=1, tied=True)
    models.llama(tmp_path / "b", seed=2, tied=True)
    recipe = linear(source("a", weight=1.0), source("b", weight=1.0))
    assert "lm_head.weight" not in merged(materializer(tmp_path, "a", "b"), recipe)
