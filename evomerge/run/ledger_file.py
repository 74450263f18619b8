"""How the ledger uses SQLite: pragmas, sealed rows, and what its errors mean to a person."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from evomerge.errors import Interrupted, InvalidInput
from evomerge.run.records import COLUMNS, FORMAT, SCHEMA, Row, as_json, checksum, intact

_BUSY_SECONDS = 60.0
_CHECKPOINT_PAGES = 4096
_ELSEWHERE = "restore it from a copy or start in a new run directory"
_PERMISSIONS = "check the permissions of the file and of its folder"
_DAMAGED = f"the file is damaged: {_ELSEWHERE}"
_PAUSING = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk reported an error: check it",
    sqlite3.SQLITE_BUSY: "another program keeps the file locked: close it",
}
_UNUSABLE = {
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: f"not a ledger: {_ELSEWHERE}",
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
        raise InvalidInput(f"{path}: {_DAMAGED}") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
        if code in _PAUSING:
            raise Interrupted(
                f"{path}: {_PAUSING[code]} and run the same command again; "
                "everything recorded so far is safe"
            ) from error
        if code in _UNUSABLE:
            raise InvalidInput(f"{path}: {_UNUSABLE[code]} ({error})") from error
        raise


def connect_writer(path: Path) -> sqlite3.Connection:
    """Open the file for writing, creating its tables if there are none, and check all of it."""
    if os.path.lexists(path) and not path.is_file():  # SQLite would wait for ever for a pipe
        raise InvalidInput(f"{path}: not a ledger, and not a file: {_ELSEWHERE}")
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.text_factory = _text
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        # Someone who copies a live directory gets a consistent copy unless a checkpoint falls
        # between two of its files, so checkpoints are rare.
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        if not _schema(connection):
            _create(connection, path)
        _check_format(connection, path)
        _check_all(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open the file read-only and hold on to what it says now."""
    try:
        connection = _snapshot(path, "mode=ro")
    except sqlite3.OperationalError:
        # SQLite puts its shared index beside the file. Where the folder cannot be written, a
        # ledger without a write-ahead log can still be read: nobody can be writing to it either.
        log = path.with_name(f"{path.name}-wal")
        if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size):
            raise
        connection = _snapshot(path, "mode=ro&immutable=1")
    try:
        _check_format(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def select(
    connection: sqlite3.Connection, table: str, clause: str, values: Sequence[object]
) -> list[Row]:
    """Rows as stored: the columns of `table` in the order of COLUMNS, then the checksum."""
    columns = ", ".join((*COLUMNS[table], "checksum"))
    return connection.execute(f"SELECT {columns} FROM {table} {clause}", values).fetchall()


def insert(connection: sqlite3.Connection, table: str, row: Row, clause: str = "") -> bool:
    """Add a row and its checksum; returns whether it was added, after it has reached the disk."""
    columns = ", ".join((*COLUMNS[table], "checksum"))
    marks = ", ".join("?" * (len(row) + 1))
    statement = f"INSERT INTO {table} ({columns}) VALUES ({marks}) {clause}"
    return connection.execute(statement, (*row, checksum(table, row))).rowcount == 1


def read_meta(connection: sqlite3.Connection, key: str, path: Path) -> Any:
    """The value of one key of `meta`, or None."""
    stored = select(connection, "meta", "WHERE key = ?", (key,))
    return json.loads(intact("meta", stored[0], str(path))[1]) if stored else None


def write_meta(connection: sqlite3.Connection, key: str, value: object) -> None:
    """Set the value of one key of `meta`."""
    update = "DO UPDATE SET value = excluded.value, checksum = excluded.checksum"
    insert(connection, "meta", (key, as_json(value)), f"ON CONFLICT (key) {update}")


def _snapshot(path: Path, options: str) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?{options}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.text_factory = _text
        connection.execute("BEGIN")
        _schema(connection)  # the first read fixes the moment
    except BaseException:
        connection.close()
        raise
    return connection


def _text(cell: bytes) -> str:
    # a damaged cell must reach its checksum, not fail before with an error that names no row
    return cell.decode("utf-8", "surrogateescape")


def _schema(connection: sqlite3.Connection) -> frozenset[str]:
    query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return frozenset(statement for (statement,) in connection.execute(query))


def _create(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        connection.execute(statement)
    write_meta(connection, "format", FORMAT)
    connection.execute("COMMIT")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # a power cut must not take the new files' names
    finally:
        os.close(folder)


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    try:
        found = read_meta(connection, "format", path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        # there is no such table or column
        raise InvalidInput(f"{path}: no evomerge ledger in this file: {_ELSEWHERE}") from error
    if found != FORMAT:
        raise InvalidInput(
            f"{path}: expected ledger format {FORMAT}, got {found}: use the evomerge version that "
            "wrote it, or start in a new run directory"
        )
    if _schema(connection) != frozenset(SCHEMA):
        raise InvalidInput(f"{path}: {_DAMAGED} (its tables are not those of format {FORMAT})")


def _check_all(connection: sqlite3.Connection, path: Path) -> None:
    """Every page and every row: a search must not build on a damaged record."""
    for table in COLUMNS:
        for stored in select(connection, table, "", ()):
            intact(table, stored, str(path))
    found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise InvalidInput(f"{path}: {_DAMAGED} ({found})")
