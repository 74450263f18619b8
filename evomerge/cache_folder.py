"""Where this user's computed files are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$EVOMERGE_CACHE, else evomerge in $XDG_CACHE_HOME or ~/.cache.

    Raises:
        RuntimeError: nothing names a folder and the user has no home.
    """
    given, shared = os.environ.get("EVOMERGE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given).expanduser()
    return (Path(shared) if shared else Path("~/.cache").expanduser()) / "evomerge"
