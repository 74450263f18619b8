"""Reading JSON that strangers wrote: bounded size, an object at the top, one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evomerge.errors import InvalidInput

_MIB = 2**20


def read_json(path: Path, *, max_mib: int = 16) -> dict[str, Any]:
    """The JSON object in the file at `path`.

    Raises:
        InvalidInput: unreadable, larger than `max_mib`, not JSON, or not an object.
    """
    try:
        size = path.stat().st_size
        if not path.is_file() or size > max_mib * _MIB:
            raise InvalidInput(
                f"{path}: expected a JSON file of at most {max_mib} MiB, got {size} bytes: "
                "check that this is the right model"
            )
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}): check the path") from error
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
