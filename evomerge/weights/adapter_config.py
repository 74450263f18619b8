"""What a PEFT adapter_config.json asks for; settings that this reader does not know are refused."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.weights.json_files import read_json

CONFIG_FILE = "adapter_config.json"
_ALL_LINEAR = "all-linear"
_READ = (
    "peft_type",
    "base_model_name_or_path",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "fan_in_fan_out",
    "target_modules",
    "modules_to_save",
    "init_lora_weights",
    "bias",
)
_WITHOUT_EFFECT = (  # on the result of a merge, given the tensors in the file
    "task_type",
    "auto_mapping",
    "peft_version",
    "revision",
    "inference_mode",
    "exclude_modules",
    "lora_dropout",
    "layers_to_transform",
    "layers_pattern",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",
)
_STARTS_FROM_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights that leave the base as it is; others subtract from its weights."""


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of one LoRA or DoRA adapter.

    Attributes:
        base_name: the model that it was trained on, as its author called it.
        rank: r where `ranks` has no entry; those are by pattern of module name, as in PEFT.
        alpha: lora_alpha where `alphas` has no entry.
        rank_stabilised: whether the scale is alpha / sqrt(r) instead of alpha / r.
        magnitudes: whether it is a DoRA.
        transposed: whether the layers store (in, out) instead of (out, in) matrices.
        targets: names or one pattern of the changed modules; None for all linear ones.
        replaced: names of the modules that were trained in full.
    """

    base_name: str | None
    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    rank_stabilised: bool
    magnitudes: bool
    transposed: bool
    targets: tuple[str, ...] | str | None
    replaced: tuple[str, ...]

    @staticmethod
    def read(folder: Path) -> AdapterConfig:
        """Read the config of the adapter in `folder`.

        Raises:
            InvalidInput: with one line per problem: no or a damaged file, another kind of adapter,
                a setting that is not supported or not known.
        """
        path = folder / CONFIG_FILE
        if not path.exists():
            raise InvalidInput(
                f"{folder}: expected an adapter with {CONFIG_FILE}, got none: "
                "give the folder that PEFT's save_pretrained wrote"
            )
        plain = read_json(path)
        problems = [f"{path}: {line}" for line in _kind_problems(plain) or _problems(plain)]
        if problems:
            raise InvalidInput(problems)
        return _config(plain)

    def rank_of(self, module: str) -> int:
        """The rank that the config promises for the module called `module`."""
        return self.ranks.get(_first_match(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """The factor of B A: alpha / r, or alpha / sqrt(r) (rsLoRA, Kalajdzievski 2023)."""
        rank = self.rank_of(module)
        alpha = self.alphas.get(_first_match(self.alphas, module), self.alpha)
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)

    def targets_module(self, module: str) -> bool:
        """Whether the config lists `module` among those with low-rank matrices."""
        if isinstance(self.targets, str):
            return re.fullmatch(self.targets, module) is not None
        return self.targets is None or _is_named(module, self.targets)

    def replaces_module(self, module: str) -> bool:
        """Whether the config lists `module` among those that were trained in full."""
        return _is_named(module, self.replaced)


def _kind_problems(plain: Mapping[str, Any]) -> list[str]:
    kind = plain.get("peft_type")
    if kind == "LORA":
        return []
    return [f"expected peft_type LORA, got {kind}: merge this adapter into its base with PEFT"]


def _problems(plain: Mapping[str, Any]) -> list[str]:
    lines = [
        f"setting '{key}' ({_brief(value)}) is not supported: merge this adapter into its base "
        "with PEFT and name the result"
        for key, value in plain.items()
        if value and key not in _READ and key not in _WITHOUT_EFFECT
    ]
    start = plain.get("init_lora_weights", True)
    if not any(start is known or start == known for known in _STARTS_FROM_THE_BASE):
        lines.append(
            f"init_lora_weights {_brief(start)} changes the base itself: convert the adapter to a "
            "plain one with save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    expected = {
        "r": ("a whole number above 0", _is_rank(plain.get("r"))),
        "lora_alpha": ("a number", _is_number(plain.get("lora_alpha"))),
        "rank_pattern": ("whole numbers by pattern", _is_table(plain, "rank_pattern", _is_rank)),
        "alpha_pattern": ("numbers by pattern", _is_table(plain, "alpha_pattern", _is_number)),
        "target_modules": ("names or a pattern", _are_targets(plain.get("target_modules"))),
        "modules_to_save": ("names", _are_names(plain.get("modules_to_save") or [])),
    }
    lines += [
        f"{key}: expected {what}, got {_brief(plain.get(key))}: correct the file"
        for key, (what, holds) in expected.items()
        if not holds
    ]
    return lines


def _config(plain: Mapping[str, Any]) -> AdapterConfig:
    name, targets = plain.get("base_model_name_or_path"), plain.get("target_modules")
    if isinstance(targets, list):
        targets = tuple(targets)
    return AdapterConfig(
        base_name=name if isinstance(name, str) and name else None,
        rank=plain["r"],
        alpha=plain["lora_alpha"],
        ranks=MappingProxyType(plain.get("rank_pattern") or {}),
        alphas=MappingProxyType(plain.get("alpha_pattern") or {}),
        rank_stabilised=bool(plain.get("use_rslora")),
        magnitudes=bool(plain.get("use_dora")),
        transposed=bool(plain.get("fan_in_fan_out")),
        targets=None if targets == _ALL_LINEAR else targets,
        replaced=tuple(plain.get("modules_to_save") or ()),
    )


def _first_match(patterns: Mapping[str, Any], module: str) -> str:
    """The pattern for `module`, matched like PEFT: at the end of the name, from a dot on."""
    matches = (key for key in patterns if re.match(rf"(.*\.)?({key})$", module))
    return next(matches, "")


def _is_named(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


def _is_rank(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_table(plain: Mapping[str, Any], key: str, holds: Callable[[Any], bool]) -> bool:
    table = plain.get(key) or {}
    return isinstance(table, dict) and all(
        _is_pattern(f"(.*\\.)?({pattern})$") and holds(value) for pattern, value in table.items()
    )


def _are_targets(value: Any) -> bool:
    return value is None or _are_names(value) or (isinstance(value, str) and _is_pattern(value))


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


def _brief(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
