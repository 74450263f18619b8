"""Aligned matrices are built once, whoever asks and how often."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge.recipe import Recipe
from evomerge.tokenizer_policy import TokenizerPolicy
from evomerge.weights import vocabulary_rows
from evomerge.weights.expansion import expand
from evomerge.weights.pool import ParentPool
from evomerge.weights.vocabulary_rows import AlignedRows
from tests import models
from tests.weights import vocabularies
from tests.weights.merging import materializer, merged, source
from tests.weights.vocabularies import EMBEDDING, words


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base: w0-w9; other: w5-w14."""
    root = tmp_path_factory.mktemp("rows")
    vocabularies.model(root / "base", words(*range(10)), seed=1)
    vocabularies.model(root / "other", words(*range(5, 15)), seed=2)
    return root


def task(policy: str, weight: float = 0.5) -> Recipe:
    sources = (source("other", weight=weight),)
    return Recipe("ties", sources, base_model="base", tokenizer=TokenizerPolicy(policy))


class Counting:
    """A cache in memory that counts."""

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, torch.Tensor]] = {}
        self.computed: list[str] = []

    def tensors(
        self, key: str, compute: Callable[[], Mapping[str, torch.Tensor]]
    ) -> Mapping[str, torch.Tensor]:
        if key not in self.kept:
            self.computed.append(key)
            self.kept[key] = compute()
        return self.kept[key]


def _aligned(root: Path, recipe: Recipe, cache: Counting) -> dict[str, torch.Tensor]:
    pool = ParentPool.open(recipe.referenced_models(), root)
    rows = AlignedRows(pool, lambda: cache)
    return {
        f"{item.model} {target.name}": rows.get(item, item.alignment)
        for target in expand(recipe, pool)
        for item in target.inputs
        if item.alignment is not None
    }


def test_matrices_are_built_once_for_all_who_share_the_cache(root: Path, tmp_path: Path) -> None:
    cache = Counting()
    recipe = task("base")
    first = _aligned(root, recipe, cache)
    assert len(cache.computed) == len(set(cache.computed)) == len(first) == 2
    again = _aligned(root, recipe, cache)
    assert len(cache.computed) == 2
    assert all(again[name] is first[name] for name in first)

    copies = Path(shutil.copytree(root, tmp_path / "copies"))
    _aligned(copies, recipe, cache)
    assert len(cache.computed) == 2  # the same content elsewhere
    tensors = models.read_tensors(copies / "other")
    models.rewrite(copies / "other", {EMBEDDING: tensors[EMBEDDING] + 1})
    changed = _aligned(copies, recipe, cache)
    assert len(cache.computed) == 3  # the head is the same
    name = f"other {EMBEDDING}"
    assert not torch.equal(changed[name], first[name])
    _aligned(root, task("union"), cache)
    assert len(cache.computed) == 7


def test_candidates_do_not_build_them_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = materializer(root, "base", "other")
    calls: list[str] = []
    original = vocabulary_rows.aligned

    def counted(model: str, *rest: Any) -> torch.Tensor:
        calls.append(model)
        return original(model, *rest)

    monkeypatch.setattr(vocabulary_rows, "aligned", counted)
    for weight in (0.1, 0.2, 0.3):
        merged(engine, task("base", weight))
    assert calls == ["other", "other"]
