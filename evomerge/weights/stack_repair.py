"""Layers of different sizes made alike without changing what they compute; no torch.

One config.json holds for all layers. A narrower MLP gets neurons whose weights are zero, a missing
bias is zero, and fewer groups of keys and values are repeated: each query head finds the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import lcm
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from evomerge.recipe import Recipe
from evomerge.weights.compatibility import Parent
from evomerge.weights.family_config import family_config

if TYPE_CHECKING:
    from evomerge.weights.pool import ParentPool

Shape = tuple[int, ...]


@dataclass(frozen=True)
class RepairRule:
    """What can be made alike in one family, by the ends of its tensors' names within a layer.

    Attributes:
        width_key: the setting that is the width of the MLP.
        wide: tensors with an axis as long as that, and which axis it is.
        grouped: tensors whose rows belong to the heads of keys and values.
        biased: the setting that says whether some modules have biases, and these modules.
    """

    width_key: str
    wide: Mapping[str, int]
    grouped: tuple[str, ...] = ()
    biased: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that may differ between models of one stack."""
        groups = ("num_key_value_heads",) if self.grouped else ()
        return (self.width_key, *groups, *self.biased)

    def axis(self, tensor: str) -> int | None:
        """The axis that can be filled up with zeros, if there is one."""
        return next((axis for end, axis in self.wide.items() if tensor.endswith(end)), None)


_ATTENTION = tuple(f"self_attn.{name}_proj" for name in "qkvo")
_GROUPED = tuple(f"{name}_proj.{kind}" for name in "kv" for kind in ("weight", "bias"))
_GATED = {
    "mlp.gate_proj.weight": 0,
    "mlp.up_proj.weight": 0,
    "mlp.down_proj.weight": 1,
    "mlp.gate_proj.bias": 0,
    "mlp.up_proj.bias": 0,
}
_MLP = tuple(f"mlp.{name}_proj" for name in ("gate", "up", "down"))
_PLAIN = RepairRule("intermediate_size", _GATED, _GROUPED)
_BIASED = RepairRule("intermediate_size", _GATED, _GROUPED, {"attention_bias": _ATTENTION})

REPAIR_RULES: Mapping[str, RepairRule] = MappingProxyType(
    {
        "llama": RepairRule(
            "intermediate_size", _GATED, _GROUPED, {"attention_bias": _ATTENTION, "mlp_bias": _MLP}
        ),
        "mistral": _PLAIN,
        "qwen2": _PLAIN,
        "qwen3": _BIASED,
        "mixtral": RepairRule(
            "intermediate_size", {"w1.weight": 0, "w3.weight": 0, "w2.weight": 1}, _GROUPED
        ),
        "gemma2": _BIASED,
        "gemma3_text": _BIASED,
        # here the norm of the keys is about all heads at once: each has gains of its own
        "olmo2": RepairRule(
            "intermediate_size",
            _GATED,
            (*_GROUPED, "k_norm.weight"),
            {"attention_bias": _ATTENTION},
        ),
        "gpt_neox": RepairRule(
            "intermediate_size",
            {"dense_h_to_4h.weight": 0, "dense_h_to_4h.bias": 0, "dense_4h_to_h.weight": 1},
            biased={"attention_bias": ("attention.query_key_value", "attention.dense")},
        ),
        "phi": RepairRule(
            "intermediate_size", {"fc1.weight": 0, "fc1.bias": 0, "fc2.weight": 1}, _GROUPED
        ),
        "gpt2": RepairRule("n_inner", {"c_fc.weight": 1, "c_fc.bias": 0, "mlp.c_proj.weight": 0}),
    }
)


@dataclass(frozen=True)
class Repair:
    """What one set of models needs to live in one config.json.

    Attributes:
        rule: that of their family; None when it has none, and nothing is repaired.
        shapes: the shape of every tensor of a layer in the written model, by its name there.
        added: the biases that some of the models lack.
        is_needed: whether a layer of some model changes.
        problems: one line per tensor that cannot be made alike.
    """

    rule: RepairRule | None
    shapes: Mapping[str, Shape]
    added: frozenset[str]
    is_needed: bool
    problems: tuple[str, ...]


def repair_of(pool: ParentPool, models: Iterable[str]) -> Repair:
    """How the layers of `models`, which are of one family, are made alike."""
    parents = [pool.parent(model) for model in dict.fromkeys(models)]
    rule = REPAIR_RULES.get(str(parents[0].checkpoint.config.get("model_type")))
    own = {parent.name: _layer_shapes(parent) for parent in parents}
    names = sorted({name for shapes in own.values() for name in shapes})
    found = {n: {m: s[n] for m, s in own.items() if n in s} for n in names}
    biases = {b for b in names if _is_repairable_bias(rule, b) and len(found[b]) < len(own)}
    unequal = any(len(set(by_model.values())) > 1 for by_model in found.values())
    shapes: dict[str, Shape] = {}
    problems: list[str] = []
    for name, by_model in found.items():
        common = _common(rule, name, set(by_model.values()))
        if common is None:
            listed = ", ".join(f"'{model}' {list(shape)}" for model, shape in by_model.items())
            problems.append(
                f"tensor '{name}' of the layers: {listed}: one model cannot hold both: choose "
                "models of one shape"
            )
        else:
            shapes[name] = common
    # Only a narrow model may have the bias: it becomes as long as its weight.
    shapes |= {n: shapes[_weight_of(n)][:1] for n in shapes if _is_repairable_bias(rule, n)}
    return Repair(rule, shapes, frozenset(biases), bool(biases or unequal), tuple(problems))


def repaired_settings(recipe: Recipe, pool: ParentPool) -> dict[str, Any]:
    """What config.json must say about layers made alike; nothing when they are alike by birth."""
    repair = repair_of(pool, recipe.referenced_models())
    rule = repair.rule
    if rule is None or not repair.is_needed:
        return {}
    widths = {repair.shapes[n][axis] for n in repair.shapes if (axis := rule.axis(n)) is not None}
    settings: dict[str, Any] = dict.fromkeys([rule.width_key], next(iter(widths)))
    configs = [family_config(pool.config(model)) for model in recipe.referenced_models()]
    if rule.grouped:
        heads = lcm(*(int(config["num_key_value_heads"]) for config in configs))
        settings["num_key_value_heads"] = heads
    for flag, modules in rule.biased.items():
        settings[flag] = any(f"{module}.bias" in repair.shapes for module in modules)
    return settings


def _layer_shapes(parent: Parent) -> dict[str, Shape]:
    """The shapes of a model's layers; where layers differ, those of the last that has it."""
    tower, infos = parent.towers.main, parent.checkpoint.infos()
    stack = parent.main_stack(tower)
    return {
        rest: infos[tower.stored[f"{stack}.{layer}.{rest}"]].shape
        for (name, layer), rests in tower.layout.layers.items()
        if name == stack
        for rest in rests
    }


def _is_repairable_bias(rule: RepairRule | None, name: str) -> bool:
    modules = () if rule is None else (m for group in rule.biased.values() for m in group)
    return any(name == f"{module}.bias" for module in modules)


def _weight_of(bias: str) -> str:
    return f"{bias.removesuffix('bias')}weight"


def _common(rule: RepairRule | None, name: str, shapes: set[Shape]) -> Shape | None:
    """The smallest shape into which all of `shapes` fit; None when there is none."""
    first = next(iter(shapes))
    if len(shapes) == 1:
        return first
    axis = None if rule is None else rule.axis(name)
    if rule is not None and name.endswith(rule.grouped):
        axis, length = 0, lcm(*(shape[0] for shape in shapes))
    else:
        length = max(shape[axis or 0] for shape in shapes)
    if axis is None or len({tuple(_but(shape, axis)) for shape in shapes}) > 1:
        return None
    return (*first[:axis], length, *first[axis + 1 :])


def _but(shape: Shape, axis: int) -> Iterator[int]:
    return (length for at, length in enumerate(shape) if at != axis)
