"""Reads the `space:` part of a space file whose candidates are stacks of layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.gene_file import Problems
from evomerge.model_reference import in_text_form
from evomerge.recipe import DTYPES, SCALE_MODES, STACK
from evomerge.signatures import did_you_mean

STACK_SPACE_KEYS = (
    "merge_method",
    "base_model",
    "models",
    "repeats",
    "layers",
    "gains",
    "scale_mode",
    "dtype",
)
GAINS = (0.7, 1.5)
REPEATS = 2
TOP = 3
"""How many results of an earlier stage `$name.top3` stands for."""
_EARLIER = re.compile(r"^\$(?P<stage>[a-z][a-z0-9_]*)\.(?P<what>best|top3)$")
_PAIR = 2


@dataclass(frozen=True)
class StackSettings:
    """A space of stacks as a person writes it.

    Attributes:
        models: whose layers take part, in the order of the slots; results of earlier stages are
            called `$name.best`, or `$name.top1` to `$name.top3`.
        donor: the model that gives embeddings, norm and head.
        repeats: how often the layers of all models are laid out.
        layers: fewest and most layers of a candidate; None for the defaults.
        gains: the range of the scales.
        scale_mode: what a scale multiplies.
        dtype: the storage type of exported models.
    """

    models: tuple[str, ...]
    donor: str
    repeats: int
    layers: tuple[int, int] | None
    gains: tuple[float, float]
    scale_mode: str
    dtype: str | None


def is_stack_space(mapping: Any) -> bool:
    """Whether the `space:` of a file is one of stacks."""
    return isinstance(mapping, Mapping) and mapping.get("merge_method") == STACK


def earlier_stage(model: str) -> str | None:
    """The stage whose result a model's name stands for; None for a stored model."""
    return model[1:].partition(".")[0] if model.startswith("$") else None


def read_stack(mapping: Any, where: str, stages: tuple[str, ...]) -> StackSettings:
    """The settings in parsed YAML; `stages` are the names of the earlier ones.

    Raises:
        InvalidInput: every problem found, one line each.
    """
    reader = _Reader(where, stages)
    settings = reader.read(in_text_form(mapping, reader.problems.add))
    if reader.problems.lines:
        raise InvalidInput(reader.problems.lines)
    return settings


class _Reader:
    """Collects the problems of one mapping (stateful)."""

    def __init__(self, where: str, stages: tuple[str, ...]) -> None:
        self.problems = Problems(where)
        self._stages = stages

    def read(self, mapping: Mapping[str, Any]) -> StackSettings:
        for key in mapping:
            if key not in STACK_SPACE_KEYS:
                hint = did_you_mean(str(key), STACK_SPACE_KEYS)
                self.problems.add("", f"unknown key '{key}'; {hint}")
        models = self._models(mapping.get("models"))
        donor = models[0] if models else ""
        if "base_model" in mapping:
            (donor, *_) = self._expanded(mapping["base_model"], "base_model") or ("",)
        if models and donor not in models:
            hint = did_you_mean(str(donor), models)
            self.problems.add(
                "base_model",
                f"'{donor}' gives the embeddings and must be one of the models; {hint}",
            )
        mode = mapping.get("scale_mode", SCALE_MODES[0])
        dtype = mapping.get("dtype")
        for key, value, known in (("scale_mode", mode, SCALE_MODES), ("dtype", dtype, DTYPES)):
            if value is not None and value not in known:
                self.problems.add(key, f"unknown {value!r}; {did_you_mean(str(value), known)}")
        return StackSettings(
            models,
            donor,
            self._repeats(mapping.get("repeats", REPEATS)),
            self._layers(mapping.get("layers")),
            self._gains(mapping.get("gains", list(GAINS))),
            str(mode),
            dtype,
        )

    def _models(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            self.problems.add("models", f"expected a list of {{model: NAME}}, got {value!r}")
            return ()
        found: list[str] = []
        for index, entry in enumerate(value):
            path = f"models[{index}]"
            name = entry.get("model") if isinstance(entry, Mapping) else None
            if not isinstance(name, str) or len(entry) != 1:
                self.problems.add(path, f"expected {{model: NAME}}, got {entry!r}")
                continue
            found += self._expanded(name, path)
        for name in {name for name in found if found.count(name) > 1}:
            self.problems.add("models", f"'{name}' is listed twice; remove one")
        return tuple(dict.fromkeys(found))

    def _expanded(self, name: Any, path: str) -> tuple[str, ...]:
        """The models that a name stands for."""
        if not isinstance(name, str) or not name.startswith("$"):
            return (name,) if isinstance(name, str) else ()
        match = _EARLIER.match(name)
        if match is None or match["stage"] not in self._stages:
            known = ", ".join(f"${stage}.best" for stage in self._stages)
            self.problems.add(
                path,
                f"'{name}': no earlier stage has that result; "
                + (f"known: {known}" if known else "list the stage before this one in 'stages'"),
            )
            return ()
        if match["what"] == "best":
            return (name,)
        return tuple(f"${match['stage']}.top{rank}" for rank in range(1, TOP + 1))

    def _repeats(self, value: Any) -> int:
        if type(value) is not int or value < 1:
            self.problems.add("repeats", f"expected a whole number of 1 or more, got {value!r}")
            return 1
        return value

    def _layers(self, value: Any) -> tuple[int, int] | None:
        if value is None:
            return None
        whole = isinstance(value, list) and len(value) == _PAIR
        if not whole or not all(type(n) is int for n in value) or not 1 <= value[0] <= value[1]:
            self.problems.add("layers", f"expected [fewest, most], got {value!r}")
            return None
        return (value[0], value[1])

    def _gains(self, value: Any) -> tuple[float, float]:
        numbers = isinstance(value, list) and len(value) == _PAIR
        if not numbers or not all(
            isinstance(n, int | float) and not isinstance(n, bool) for n in value
        ):
            self.problems.add("gains", f"expected [low, high], got {value!r}")
        elif not 0 < value[0] <= 1 <= value[1] < float("inf"):
            self.problems.add(
                "gains", f"expected 0 < low <= 1 <= high, got {value!r}; a scale of 0 erases all"
            )
        else:
            return (float(value[0]), float(value[1]))
        return GAINS
