"""Options that replace values of a space file, as dotted keys with YAML values."""

from __future__ import annotations

import re
from typing import Any

from evomerge import yaml12
from evomerge.errors import InvalidInput

_BUDGET = re.compile(r"^(\d+)\s*(items?)?$")


def overrides(settings: tuple[str, ...]) -> dict[str, Any]:
    """`--set KEY=VALUE` options as a mapping; raises InvalidInput for one without a value."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InvalidInput(f"--set {setting}: expected KEY=VALUE, e.g. strategy.sigma=0.1")
        found[key] = yaml12.loads(value, f"--set {key}")
    return found


def run_overrides(
    settings: tuple[str, ...], seed: int | None, budget: str | None
) -> dict[str, Any]:
    """The same with `--seed` and `--budget`, which win."""
    found = overrides(settings)
    if seed is not None:
        found["seed"] = seed
    if budget is not None:
        number = _BUDGET.match(budget)
        if number is None:
            found["budget"] = {"time": budget}
        else:
            unit = "items" if number.group(2) else "candidates"
            found["budget"] = {unit: int(number.group(1))}
    return found
