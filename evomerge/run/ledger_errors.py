"""What SQLite's errors mean to a person, and what to do about them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from evomerge.errors import Interrupted, InvalidInput
from evomerge.run.ledger_schema import remedy

ELSEWHERE = "restore it from a copy or start in a new run directory"
_PERMISSIONS = "check the permissions of the file and of its folder"
_PAUSING = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk reported an error: check it and its free space",
    sqlite3.SQLITE_BUSY: "another program keeps the file locked: close it",
}
_UNUSABLE = {
    sqlite3.SQLITE_NOTADB: f"not a ledger: {ELSEWHERE}",
    sqlite3.SQLITE_CANTOPEN: f"it cannot be opened: {_PERMISSIONS}",
    sqlite3.SQLITE_PERM: f"it cannot be opened: {_PERMISSIONS}",
    sqlite3.SQLITE_READONLY: f"it cannot be written: {_PERMISSIONS}",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say in a person's words what went wrong with the file; bugs pass through unchanged.

    Raises:
        Interrupted: it is not the ledger's fault, and running again continues.
        InvalidInput: the file is damaged, or cannot be used.
    """
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its message
        raise InvalidInput(f"{path}: the file is damaged; {remedy(path)}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in _PAUSING:
            raise Interrupted(
                f"{path}: {_PAUSING[code]} and run the same command again; "
                "everything recorded so far is safe"
            ) from error
        if code == sqlite3.SQLITE_CORRUPT:
            raise InvalidInput(f"{path}: the file is damaged ({error}); {remedy(path)}") from error
        if code in _UNUSABLE:
            raise InvalidInput(f"{path}: {_UNUSABLE[code]} ({error})") from error
        raise
