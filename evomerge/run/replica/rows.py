"""The rows of a run directory as they travel: taken from a ledger, and put into one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.run.ledger import LEDGER
from evomerge.run.ledger_errors import explained
from evomerge.run.ledger_file import LedgerFile
from evomerge.run.ledger_schema import BESIDE, COLUMNS, SCHEMA

FILES = "files"
"""The part whose rows are the small text files of the run directory."""
FILE_NAMES = ("spec.yaml", "env.json", "run.json", "spec.resolved.yaml")
"""In the order they are written: the last one says that the directory is complete."""
META = "meta"
EVENTS = "events"
KEYS: Mapping[str, str] = {META: "key", "candidates": "id", "evaluations": "seq", EVENTS: "seq"}
"""The column that names a row of a table."""
_CHUNK = 200

Key = tuple[str, str]
"""A part (a table, or FILES) and the name of a row in it, as ASCII with JSON's escapes."""
Inventory = dict[Key, str]
"""The checksums of rows by their keys: equal inventories mean equal rows."""


@dataclass(frozen=True)
class Sealed:
    """One row under its key; `body` is ASCII JSON of its values, the one not covered last."""

    key: Key
    body: str
    checksum: str


def inventory(file: LedgerFile) -> Inventory:
    """All rows of a ledger."""
    found: Inventory = {}
    for table, key in KEYS.items():
        query = f"SELECT {key}, checksum FROM {table} ORDER BY {key}"
        with explained(file.path):
            for name, checksum in file.connection.execute(query):
                found[(table, _name(name))] = checksum
    return found


def rows(file: LedgerFile, wanted: Inventory) -> Iterator[Sealed]:
    """The rows of a ledger with the keys of its inventory `wanted`, read as they are asked for.

    Raises:
        InvalidInput: one of them is damaged; damage does not travel.
    """
    for table in COLUMNS:
        names = [_value(name) for part, name in wanted if part == table]
        key, also = KEYS[table], BESIDE.get(table, "NULL")
        for chunk in _chunks(names):
            clause = f"WHERE {key} IN ({', '.join('?' * len(chunk))}) ORDER BY {key}"
            for row, beside in file.rows_and(also, table, clause, chunk):
                values = (*row, beside)
                name = values[-1] if table == EVENTS else row[0]
                found = (table, _name(name))
                yield Sealed(found, json.dumps(values), wanted[found])


def file_rows(run_dir: Path) -> tuple[Sealed, ...]:
    """The text files of a run directory, those that are there."""
    paths = [run_dir / name for name in FILE_NAMES]
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths if path.exists()}
    return tuple(file_row(name, text) for name, text in texts.items())


def file_row(name: str, text: str) -> Sealed:
    """One text file as a row."""
    checksum = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Sealed((FILES, name), json.dumps(text), checksum)


def put(run_dir: Path, came: Iterable[Sealed], gone: Sequence[Key]) -> None:
    """Bring the ledger and files of `run_dir`, which nobody else uses, to what was sent.

    A ledger that does not exist is made, under its name only when it is complete.

    Raises:
        InvalidInput, Interrupted: the ledger is damaged, or cannot be written now.
    """
    path = run_dir / LEDGER
    building = path if path.exists() else path.with_name(f".{LEDGER}.tmp")
    if building != path:
        building.unlink(missing_ok=True)
    with (
        explained(path),
        contextlib.closing(sqlite3.connect(building, isolation_level=None)) as connection,
    ):
        connection.execute("BEGIN")
        if building != path:
            for statement in SCHEMA:
                connection.execute(statement)
        for table, name in gone:
            connection.execute(f"DELETE FROM {table} WHERE {KEYS[table]} = ?", (_value(name),))
        files = [row for row in came if not _inserted(connection, row)]
        connection.execute("COMMIT")
    _to_disk(building)
    building.replace(path)
    for row in sorted(files, key=lambda row: FILE_NAMES.index(row.key[1])):
        _write(run_dir / row.key[1], json.loads(row.body))


def _inserted(connection: sqlite3.Connection, row: Sealed) -> bool:
    """Put a row of a table into the ledger; False when it is a file instead."""
    table, _ = row.key
    if table == FILES:
        return False
    values: list[Any] = json.loads(row.body)
    named = dict(zip(COLUMNS[table], values, strict=False)) | {"checksum": row.checksum}
    if table in BESIDE:
        named[BESIDE[table]] = values[-1]
    marks = ", ".join("?" * len(named))
    statement = f"INSERT OR REPLACE INTO {table} ({', '.join(named)}) VALUES ({marks})"
    connection.execute(statement, list(named.values()))
    return True


def _name(value: object) -> str:
    return json.dumps(str(value))[1:-1]


def _value(name: str) -> str:
    return str(json.loads(f'"{name}"'))


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    _to_disk(temporary)
    temporary.replace(path)


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
