"""`--set KEY=VALUE` options as dotted keys with YAML values."""

from __future__ import annotations

from typing import Any

from evomerge import yaml12
from evomerge.errors import InvalidInput


def overrides(settings: tuple[str, ...]) -> dict[str, Any]:
    """The options as a mapping; raises InvalidInput for one without an equals sign."""
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InvalidInput(f"--set {setting}: expected KEY=VALUE, e.g. strategy.sigma=0.1")
        found[key] = yaml12.loads(value, f"--set {key}")
    return found
