"""The measurements of a run: collected by the tests, merged into a JSON file at the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

Entry: TypeAlias = Mapping[str, str | int | float | bool | None]


class Results:
    """Entries by section and name (stateful)."""

    def __init__(self, target: Path | None) -> None:
        """Collect for the file `target`; None keeps nothing."""
        self._target = target
        self._sections: dict[str, dict[str, Entry]] = {}

    def add(self, section: str, name: str, entry: Entry) -> None:
        """Remember one measurement; a later run replaces it."""
        self._sections.setdefault(section, {})[name] = entry

    def save(self) -> None:
        """Replace the entries that were measured and keep the others."""
        if self._target is None or not self._sections:
            return
        known: dict[str, dict[str, Entry]] = {}
        if self._target.exists():
            known = json.loads(self._target.read_text(encoding="utf-8"))
        for section, entries in self._sections.items():
            known[section] = {**known.get(section, {}), **entries}
        self._target.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
