"""Recipes of all kinds that both programs merge from end to end."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """One recipe.

    Attributes:
        name: for people.
        text: YAML; words in capitals stand for models, BASE, READ and WRITE for real ones.
        parents: base and others, where results have the names of the tensors they come from.
        trims: a method whose ties at the thresholds are left out.
        densities: its densities, one for each of the others.
        gamma: of Breadcrumbs.
        unlike: why results differ by more than rounding; such a recipe has no limit.
    """

    name: str
    text: str
    parents: tuple[str, ...] = ()
    trims: str = ""
    densities: tuple[float, ...] = ()
    gamma: float = 0.0
    unlike: str = ""

    @property
    def is_real(self) -> bool:
        """Whether the parents are fine-tunes of SmolLM2."""
        return "READ" in self.text


REAL = (
    Shown(
        "ties: filters with gradients, base not listed",
        """
merge_method: ties
base_model: BASE
models:
  - model: READ
    parameters:
      density: 0.4
      weight:
        - {filter: self_attn, value: [0.2, 1.0, 0.5]}
        - {filter: mlp, value: [0.9, 0.3]}
        - {value: 0.6}
  - {model: WRITE, parameters: {density: 0.6, weight: [1.0, 0.3]}}
parameters: {lambda: 1.1}
dtype: float32
out_dtype: bfloat16
""",
        trims="ties",
        parents=("BASE", "READ", "WRITE"),
        densities=(0.4, 0.6),
    ),
    Shown(
        "breadcrumbs: base listed, rescaled, negative weight",
        """
merge_method: breadcrumbs
base_model: BASE
models:
  - model: BASE
  - {model: READ, parameters: {density: 0.3, gamma: 0.01, weight: 0.8}}
  - {model: WRITE, parameters: {density: 0.7, gamma: 0.01, weight: -0.4}}
parameters: {rescale: true}
dtype: float32
out_dtype: bfloat16
""",
        trims="breadcrumbs",
        parents=("BASE", "READ", "WRITE"),
        densities=(0.3, 0.7),
        gamma=0.01,
    ),
    Shown(
        "slerp: slices, filters and gradients",
        """
merge_method: slerp
base_model: READ
slices:
  - sources: [{model: READ, layer_range: [0, 30]}, {model: WRITE, layer_range: [0, 30]}]
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - {value: 0.5}
dtype: float32
out_dtype: bfloat16
""",
        parents=("READ", "WRITE"),
    ),
    Shown(
        "passthrough: a stack with scales",
        """
merge_method: passthrough
slices:
  - sources: [{model: READ, layer_range: [0, 20]}]
  - sources:
      - model: WRITE
        layer_range: [10, 30]
        parameters:
          scale: [{filter: o_proj, value: 0.7}, {filter: down_proj, value: 0.7}, {value: 1.0}]
dtype: bfloat16
""",
    ),
    Shown(
        "task_arithmetic: parameters of each slice",
        """
merge_method: task_arithmetic
base_model: BASE
slices:
  - sources:
      - {model: BASE, layer_range: [0, 12]}
      - {model: READ, layer_range: [0, 12], parameters: {weight: 1.1}}
      - {model: WRITE, layer_range: [0, 12], parameters: {weight: 0.2}}
    parameters: {normalize: true}
  - sources:
      - {model: BASE, layer_range: [12, 30]}
      - {model: READ, layer_range: [12, 30], parameters: {weight: -0.1}}
      - {model: WRITE, layer_range: [12, 30], parameters: {weight: [0.3, 1.2]}}
parameters: {lambda: 0.9}
dtype: float32
out_dtype: bfloat16
""",
        parents=("BASE", "READ", "WRITE"),
    ),
    Shown(
        "linear: gradient, negative weight, float16 out",
        """
merge_method: linear
models:
  - {model: READ, parameters: {weight: [0.3, 0.9]}}
  - {model: WRITE, parameters: {weight: 0.5}}
  - {model: BASE, parameters: {weight: -0.2}}
dtype: float32
out_dtype: float16
""",
        parents=("BASE", "READ", "WRITE"),
    ),
    Shown(
        "model_stock: an angle for each row",
        """
merge_method: model_stock
base_model: BASE
models: [{model: READ}, {model: WRITE}]
parameters: {filter_wise: true}
dtype: float32
out_dtype: bfloat16
""",
        parents=("BASE", "READ", "WRITE"),
    ),
    Shown(
        "task_arithmetic: dtype bfloat16",
        """
merge_method: task_arithmetic
base_model: BASE
models:
  - {model: READ, parameters: {weight: 0.7}}
  - {model: WRITE, parameters: {weight: 0.6}}
dtype: bfloat16
""",
        parents=("BASE", "READ", "WRITE"),
        unlike="mergekit rounds to bfloat16 after every step, evomerge once",
    ),
)

LITTLE = (
    Shown(
        "linear: slices of models with 3 and 5 layers",
        """
merge_method: linear
slices:
  - sources:
      - {model: THREE, layer_range: [0, 2], parameters: {weight: 0.7}}
      - {model: FIVE, layer_range: [1, 3], parameters: {weight: 0.4}}
  - sources:
      - {model: THREE, layer_range: [1, 3], parameters: {weight: [0.1, 0.9]}}
      - {model: FIVE, layer_range: [3, 5], parameters: {weight: 0.5}}
dtype: float32
""",
    ),
    Shown(
        "task_arithmetic: a base model for each slice",
        """
merge_method: task_arithmetic
slices:
  - base_model: THREE
    sources:
      - {model: THREE, layer_range: [0, 1]}
      - {model: OTHER, layer_range: [0, 1], parameters: {weight: 0.7}}
  - base_model: OTHER
    sources:
      - {model: OTHER, layer_range: [1, 3]}
      - {model: THREE, layer_range: [1, 3], parameters: {weight: 0.3}}
dtype: float32
""",
        parents=("THREE", "OTHER"),
    ),
    Shown(
        "linear: one head tied, one not",
        """
merge_method: linear
models:
  - {model: TIED, parameters: {weight: 0.7}}
  - {model: THREE, parameters: {weight: 0.6}}
dtype: float32
""",
        parents=("TIED", "THREE"),
    ),
    Shown(
        "karcher: the base model joins the mean",
        """
merge_method: karcher
base_model: THREE
models: [{model: OTHER}, {model: THIRD}]
parameters: {max_iter: 20, tol: 1.0e-6}
dtype: float32
""",
        parents=("THREE", "OTHER", "THIRD"),
    ),
    Shown(
        "ties: sharded parents, tokenizer of the base",
        """
merge_method: ties
base_model: SHARDED
models:
  - {model: OTHER, parameters: {weight: 0.7, density: 0.5}}
  - {model: THIRD, parameters: {weight: 0.4, density: 0.3}}
tokenizer_source: base
dtype: float32
""",
        trims="ties",
        parents=("SHARDED", "OTHER", "THIRD"),
        densities=(0.5, 0.3),
    ),
)

QWEN = """
merge_method: passthrough
slices:
  - sources: [{model: QWEN, layer_range: [0, 2]}]
  - sources: [{model: QWEN, layer_range: [1, 4]}]
dtype: float32
"""
"""Layers of a model whose config lists the type of each layer."""
