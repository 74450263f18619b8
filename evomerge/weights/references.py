"""How a recipe's model reference becomes a directory: a path, else the local Hugging Face cache."""

from __future__ import annotations

import re
from pathlib import Path

from evomerge.errors import InvalidInput

_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$")


def locate(reference: str, root: Path) -> Path:
    """The directory of the model `reference`, a path (relative to `root`) or "org/name[@revision]".

    Nothing is downloaded.

    Raises:
        InvalidInput: there is no such directory and no cached copy.
    """
    path = Path(reference).expanduser()
    folder = path if path.is_absolute() else root / path
    if folder.is_dir():
        return folder
    if folder.exists():
        raise InvalidInput(
            f"model '{reference}': {folder} is a file: give the directory that contains it"
        )
    if not _HUB_NAME.match(reference):
        raise InvalidInput(f"model '{reference}': there is no folder {folder}: correct the path")
    cached = _cached(reference)
    if cached is None:
        raise InvalidInput(
            f"model '{reference}': there is no folder {folder} and no copy in the local Hugging "
            f"Face cache: correct the path or run 'hf download {reference.partition('@')[0]}'"
        )
    return cached


def _cached(reference: str) -> Path | None:
    # Imported here: most runs name folders only, and starting should not wait for the hub client.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import (  # noqa: PLC0415
        HFValidationError,
        LocalEntryNotFoundError,
    )

    name, _, revision = reference.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
