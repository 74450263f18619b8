"""How a recipe names a model: `path[@revision][+adapter[@revision]]`, or the same as a mapping."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.errors import InvalidInput

_KEYS = ("model", "base_model")
_FORM = "{model: {path: PATH, revision: R}, lora: {path: PATH, revision: R}}"

Report = Callable[[str, str], None]
"""Takes the place of a problem, such as "models[0].model", and what is wrong there."""


@dataclass(frozen=True)
class ModelReference:
    """A full model and, if there is one, the adapter on top of it, each a path or hub name."""

    base: str
    adapter: str | None = None

    @staticmethod
    def parse(text: str) -> ModelReference:
        """Split `text` at its "+".

        Raises:
            InvalidInput: more than one "+", or nothing on one side of it.
        """
        base, *adapters = (part.strip() for part in text.split("+"))
        if len(adapters) > 1:
            raise InvalidInput(
                f"model '{text}': expected at most one '+', between a base and an adapter, got "
                f"{len(adapters)}: link folders whose path has a '+' to a name without"
            )
        if not base or "" in adapters:
            raise InvalidInput(
                f"model '{text}': expected 'base+adapter' or a model without '+': complete it"
            )
        return ModelReference(base, adapters[0] if adapters else None)

    @property
    def text(self) -> str:
        """The form that recipes use."""
        return self.base if self.adapter is None else f"{self.base}+{self.adapter}"

    def renamed(self, name: Callable[[str], str]) -> ModelReference:
        """The reference with `name` applied to the base and to the adapter."""
        adapter = None if self.adapter is None else name(self.adapter)
        return ModelReference(name(self.base), adapter)


def in_text_form(value: Any, report: Report, path: str = "") -> Any:
    """Parsed YAML with every model reference that is a mapping as text; the input stays as it is.

    References are the values of `model` and `base_model` at any depth. What is wrong with the form
    of one goes to `report`; texts are not looked at.
    """
    if isinstance(value, list):
        return [in_text_form(entry, report, f"{path}[{i}]") for i, entry in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    found: dict[Any, Any] = {}
    for key, entry in value.items():
        if isinstance(entry, str | int | float):  # first: nearly all, for every candidate
            found[key] = entry
            continue
        at = f"{path}.{key}" if path else str(key)
        if key in _KEYS and isinstance(entry, Mapping) and "model" in entry:
            text = _text(entry)
            if text is None:
                report(at, f"expected a path, a hub name or {_FORM}, got {dict(entry)!r}")
            found[key] = text or "unreadable"  # a text: one problem is told once
        else:
            found[key] = in_text_form(entry, report, at)
    return found


def _text(mapping: Mapping[str, Any]) -> str | None:
    """The text of a reference in mapping form; None when it is not of that form."""
    base, adapter = _half(mapping["model"]), mapping.get("lora")
    if base is None or not set(mapping) <= {"model", "lora"}:
        return None
    if adapter is None:
        return base
    half = _half(adapter)
    return None if half is None else f"{base}+{half}"


def _half(value: Any) -> str | None:
    """A path with its revision: a text, or {path: PATH, revision: R}."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping) or not set(value) <= {"path", "revision"}:
        return None
    path, revision = value.get("path"), value.get("revision")
    if not isinstance(path, str) or not (revision is None or isinstance(revision, str)):
        return None
    return path if revision is None else f"{path}@{revision}"
