"""How the name of a model or an adapter becomes a directory: a path, else the local hub cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

from evomerge.errors import InvalidInput

_HUB_NAME = re.compile(r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$")


def locate(reference: str, root: Path, *, kind: str = "model") -> Path:
    """The directory of `reference`, a path (relative to `root`) or "org/name[@revision]".

    Nothing is downloaded. `kind` is what messages call it, "model" or "adapter".

    Raises:
        InvalidInput: there is no such directory and no cached copy.
    """
    try:
        path = Path(reference).expanduser()
    except RuntimeError:
        raise InvalidInput(
            f"{kind} '{reference}': there is no home folder of that user: correct the path"
        ) from None
    folder = path if path.is_absolute() else root / path
    # os.path says no to names that no file can have, where pathlib raises
    if os.path.isdir(folder):
        return folder
    if os.path.exists(folder):
        raise InvalidInput(
            f"{kind} '{reference}': {folder} is a file: give the directory that contains it"
        )
    if not _HUB_NAME.match(reference):
        raise InvalidInput(f"{kind} '{reference}': there is no folder {folder}: correct the path")
    cached = _cached(reference)
    if cached is None:
        raise InvalidInput(
            f"{kind} '{reference}': there is no folder {folder} and no copy in the local Hugging "
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
