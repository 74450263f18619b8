"""Reading JSON that strangers wrote: bounded size, an object at the top, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.text_files import read_bytes

_MAX_BRACKETS = 4_000_000
"""A list costs thirty times as much memory as its brackets; a tokenizer has half a million."""


def read_json(path: Path, *, max_mib: int = 16) -> dict[str, Any]:
    """The JSON object in the file at `path`.

    Raises:
        InvalidInput: unreadable, larger than `max_mib`, not JSON, or not an object.
    """
    try:
        raw = read_bytes(path, max_mib=max_mib)
        if raw.count(b"{") + raw.count(b"[") > _MAX_BRACKETS:
            raise ValueError(f"more than {_MAX_BRACKETS} lists and objects")
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: expected JSON, got something else ({_first_line(error)}): "
            "download or save it again"
        ) from error
    if not isinstance(content, dict):
        raise InvalidInput(
            f"{path}: expected a JSON object, got {type(content).__name__}: "
            "download or save it again"
        )
    return content


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
