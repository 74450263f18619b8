"""A second witness beside the ledger: whose it is, and how many evaluations it has counted.

SQLite takes a write-ahead log that is damaged, missing or another database's for what is there and
says nothing. This file, rewritten after every commit, shows that something is missing.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import final

from evomerge.errors import InvalidInput

COUNT = "ledger.count"
_LINE = re.compile(r"^(\w+) (\d+) *\n$")


def read_count(run_dir: Path) -> tuple[str, int] | None:
    """The identity of the ledger and the number of evaluations; None when it says nothing."""
    try:
        found = _LINE.match((run_dir / COUNT).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return None if found is None else (found[1], int(found[2]))


def check_count(run_dir: Path, identity: str | None) -> None:
    """Raises InvalidInput when the file names another ledger than this; None is an empty one."""
    found = read_count(run_dir)
    if found is None or found[0] == identity:
        return
    raise InvalidInput(
        f"{run_dir / COUNT}: belongs to another ledger than the files beside it: ledger.sqlite or "
        "ledger.sqlite-wal is missing or comes from another run; put back the right ones (nothing "
        f"was changed), or remove {COUNT} to go on with what is there"
    )


@final
class CountFile:
    """The file, held open (stateful); it may lag behind the ledger, never run ahead of it."""

    def __init__(self, run_dir: Path, identity: str) -> None:
        """Open or create it for the ledger of this identity."""
        found = read_count(run_dir)
        self.known = 0 if found is None else found[1]
        """How many evaluations had been counted when it was written last."""
        self._identity = identity
        self._file = os.open(run_dir / COUNT, os.O_RDWR | os.O_CREAT, 0o644)

    def write(self, counted: int) -> None:
        """Note how many evaluations are on disk now."""
        with suppress(OSError):  # a witness: the ledger does not need it
            os.pwrite(self._file, f"{self._identity} {counted:<12}\n".encode(), 0)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
