"""Reads a whole file that a stranger may have made: a regular one, of bounded size."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from evomerge.errors import InvalidInput

_MIB = 2**20


def read_bytes(path: Path, *, max_mib: int) -> bytes:
    """The content of the file at `path`.

    Raises:
        InvalidInput: it cannot be read, is no regular file, or has more than `max_mib` MiB.
    """
    try:
        # A pipe without a writer would block for ever at this place.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidInput(f"{path}: cannot be read (not a regular file); check the path")
            content = file.read(max_mib * _MIB + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(f"{path}: cannot be read ({reason}); check the path") from None
    if len(content) > max_mib * _MIB:
        raise InvalidInput(
            f"{path}: expected at most {max_mib} MiB, got more; check that this is the right file"
        )
    return content


def read_text(path: Path, *, max_mib: int) -> str:
    """The content of the UTF-8 file at `path`; raises like `read_bytes`, and when it is no text."""
    try:
        return read_bytes(path, max_mib=max_mib).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path}: cannot be read (no UTF-8 text: byte {error.start}); save it as UTF-8"
        ) from None
