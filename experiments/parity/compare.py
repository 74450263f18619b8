"""Merges the same recipes with evomerge and with mergekit and reports the largest differences.

    python experiments/parity/compare.py .oracle/bin/mergekit-yaml

Needs the quickstart's parents, and mergekit in an environment of its own. Writes results.json.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from evomerge.export import export_model
from evomerge.mergekit_reader import from_mapping
from evomerge.mergekit_yaml import dump_recipe
from evomerge.yaml12 import loads

HERE = Path(__file__).resolve().parent
PARENTS = HERE.parents[1] / "runs" / "quickstart-parents" / "seed-7"

RECIPES = """
linear, gradient, negative weight, bfloat16 out:
  merge_method: linear
  models:
    - {model: READ, parameters: {weight: 0.3}}
    - {model: WRITE, parameters: {weight: [1, 2, 0.5]}}
    - {model: BASE, parameters: {weight: -0.2}}
  dtype: float32
  out_dtype: bfloat16
slerp, filter and gradient:
  merge_method: slerp
  base_model: READ
  slices:
    - sources: [{model: READ, layer_range: [0, 4]}, {model: WRITE, layer_range: [0, 4]}]
  parameters: {t: [{filter: mlp, value: [0, 0.5, 1]}, {value: 0.4}]}
  dtype: float32
task_arithmetic, filters, normalised:
  merge_method: task_arithmetic
  base_model: BASE
  models:
    - model: READ
      parameters:
        weight:
          - {filter: self_attn, value: [0.1, 0.9, 0.3]}
          - {filter: mlp, value: 0.5}
          - {value: 1.0}
    - {model: WRITE, parameters: {weight: 0.4}}
  parameters: {normalize: true, lambda: 0.8}
  dtype: float32
ties, gradient and lambda:
  merge_method: ties
  base_model: BASE
  models:
    - {model: READ, parameters: {weight: 0.7, density: 0.4}}
    - {model: WRITE, parameters: {weight: [0.2, 1.1], density: 0.65}}
  parameters: {lambda: 1.2}
  dtype: float32
ties, not normalised, rescaled, negative weight:
  merge_method: ties
  base_model: BASE
  models:
    - {model: READ, parameters: {weight: 1.3, density: 0.2}}
    - {model: WRITE, parameters: {weight: -0.4, density: 0.9}}
  parameters: {normalize: false, rescale: true}
  dtype: float32
passthrough, stacked slices and scales:
  merge_method: passthrough
  slices:
    - sources:
        - model: READ
          layer_range: [0, 3]
          parameters: {scale: [{filter: o_proj, value: 0.5}, {value: 1.0}]}
    - sources: [{model: WRITE, layer_range: [1, 4]}]
  dtype: float32
task_arithmetic, slices per layer group:
  merge_method: task_arithmetic
  base_model: BASE
  slices:
    - sources:
        - {model: READ, layer_range: [0, 0], parameters: {weight: 1.2}}
        - {model: WRITE, layer_range: [0, 0], parameters: {weight: 0.9}}
        - {model: BASE, layer_range: [0, 0]}
    - sources:
        - {model: READ, layer_range: [0, 4], parameters: {weight: 1.1}}
        - {model: WRITE, layer_range: [0, 4], parameters: {weight: 0.1}}
        - {model: BASE, layer_range: [0, 4]}
    - sources:
        - {model: READ, layer_range: [4, 4], parameters: {weight: -0.3}}
        - {model: WRITE, layer_range: [4, 4], parameters: {weight: 1.4}}
        - {model: BASE, layer_range: [4, 4]}
  dtype: float32
"""

PAIR = "[{model: READ, parameters: {weight: 0.7}}, {model: WRITE, parameters: {weight: 0.4}}]"
BARE = "[{model: READ}, {model: WRITE}]"
OTHERS = {
    "breadcrumbs": (PAIR, "{density: 0.6, gamma: 0.05}"),
    "breadcrumbs_ties": (PAIR, "{density: 0.4, gamma: 0.02}"),
    "nuslerp": (PAIR, "{nuslerp_flatten: false, nuslerp_row_wise: true}"),
    "multislerp": (PAIR, "{}"),
    "model_stock": (BARE, "{}"),
    "karcher": (BARE, "{}"),
    "sce": (BARE, "{select_topk: 0.4}"),
    "ram": (BARE, "{}"),
    "ramplus_tl": (BARE, "{}"),
    "nearswap": ("[{model: READ}]", "{t: 0.01}"),
    "arcee_fusion": ("[{model: READ}]", "{}"),
}
"""Models and parameters of one recipe for each further method, all with the base model."""


def compare(name: str, mapping: dict[str, Any], mergekit: str) -> dict[str, Any]:
    """Merge one recipe with both programs."""
    recipe = from_mapping(mapping, name)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
        export_model(recipe, root, root / "ours")
        command = [mergekit, str(root / "recipe.yaml"), str(root / "theirs")]
        subprocess.run(command, check=True, capture_output=True)
        ours, theirs = (load_file(root / d / "model.safetensors") for d in ("ours", "theirs"))
    return {"recipe": name, **differences(ours, theirs)}


def differences(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The largest difference, absolute and relative to the tensor's largest value."""
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    absolute, relative, unequal, count = 0.0, 0.0, 0, 0
    for name, mine in ours.items():
        assert (mine.dtype, mine.shape) == (theirs[name].dtype, theirs[name].shape), name
        error = (mine.double() - theirs[name].double()).abs()
        absolute = max(absolute, error.max().item())
        largest = theirs[name].double().abs().max().item()
        relative = max(relative, error.max().item() / largest if largest else 0.0)
        unequal += int((error > 0).sum())
        count += mine.numel()
    return {
        "tensors": len(ours),
        "largest_difference": absolute,
        "relative_to_largest_value": relative,
        "share_of_elements_unequal": unequal / count,
    }


def main() -> None:
    """Compare all recipes."""
    text = RECIPES + "".join(
        f"{method}:\n  merge_method: {method}\n  base_model: BASE\n  models: {models}\n"
        f"  parameters: {parameters}\n  dtype: float32\n"
        for method, (models, parameters) in OTHERS.items()
    )
    for role in ("BASE", "READ", "WRITE"):
        text = text.replace(role, str(PARENTS / role.lower()))
    recipes = loads(text, "recipes")
    results = [compare(name, mapping, sys.argv[1]) for name, mapping in recipes.items()]
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
