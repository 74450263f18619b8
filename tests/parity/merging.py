"""Merges one recipe with both programs: evomerge within this process, mergekit as a program."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from evomerge.mergekit_reader import from_mapping
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from tests.merge.settings import Case, Row
from tests.parity.checkpoints import Parents
from tests.parity.oracle import Oracle


def recipe_of(row: Row, cases: Sequence[Case], parents: Parents) -> dict[str, Any]:
    """A recipe with one slice of one layer for each case; 16-bit parents, bfloat16 result."""
    recipe: dict[str, Any] = {
        "merge_method": row.method,
        "slices": [_slice(row, case, parents) for case in cases],
        "dtype": "float32",
    }
    if row.base:
        recipe["base_model"] = parents.model(0)
    if parents.half:
        recipe["out_dtype"] = "bfloat16"
    return recipe


def ours(recipe: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What evomerge makes of a recipe; not finite where that is the result."""
    parsed = from_mapping(recipe, "recipe")
    pool = ParentPool.open(parsed.referenced_models(), Path("/"))
    found: dict[str, torch.Tensor] = {}
    for planned in Materializer(pool).plan(parsed):
        found[planned.name] = torch.empty(planned.shape, dtype=planned.dtype)
        planned.write(found[planned.name])
    return found


def theirs(oracle: Oracle, recipe: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What mergekit makes of it.

    Raises:
        RuntimeError: mergekit fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "recipe.yaml", Path(folder) / "out"
        file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        oracle.merge(file, out)
        merged: dict[str, torch.Tensor] = load_file(out / "model.safetensors")
        return merged


def _slice(row: Row, case: Case, parents: Parents) -> dict[str, Any]:
    layers = [case.layer.number, case.layer.number + 1]
    base = [{"model": parents.model(0), "layer_range": layers}] if row.base else []
    others = [
        {"model": parents.model(index), "layer_range": layers, "parameters": dict(values)}
        for index, values in enumerate(case.models, start=1)
    ]
    return {"sources": [*base, *others], "parameters": dict(case.shared)}
