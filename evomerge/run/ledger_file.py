"""How the ledger uses SQLite: pragmas, creation, rows that are sealed and checked."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, final
from urllib.parse import quote

from evomerge.errors import InvalidInput
from evomerge.run.ledger_errors import ELSEWHERE, explained
from evomerge.run.ledger_schema import (
    BESIDE,
    COLUMNS,
    FORMAT,
    SCHEMA,
    Row,
    checksum,
    damaged,
    remedy,
    row_name,
    unfinished_repair,
)
from evomerge.run.records import as_json, check_results

_BUSY_SECONDS = 60.0
_CHECKPOINT_PAGES = 4096
IDENTITY = "identity"
"""The fact that tells one ledger from another; its own row is sealed without it."""
LASTING = -1
"""`after` of facts that no rewind undoes."""


@final
class LedgerFile:
    """One connection to a ledger (stateful); every row that leaves it has been checked.

    Its methods raise InvalidInput for a damaged file or row, and Interrupted for a full disk.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Take over an open connection to a file that may not have tables yet."""
        self.connection = connection
        self.path = path
        self.identity = ""

    @classmethod
    def verified(cls, path: Path) -> str | None:
        """Check every page and row; returns the ledger's identity, None when there is none yet.

        A search must not build on a damaged record. Nothing is changed, because SQLite writes a
        log that does not belong here into the file as soon as a writer closes it.
        """
        if unfinished_repair(path).exists():
            raise InvalidInput(
                f"{path.parent}: a repair was cut off; run 'evomerge repair {path.parent}' again, "
                "which finishes it"
            )
        if not os.path.lexists(path):
            return None
        if not path.is_file():  # SQLite would wait for a pipe
            raise InvalidInput(f"{path}: not a ledger, and not a file: {ELSEWHERE}")
        with explained(path):
            file = cls(read_only(path), path)
            try:
                if not _schema(file.connection):
                    return None
                file._check_format()
                file._check_all()
            finally:
                file.connection.close()
        return file.identity

    @classmethod
    def writing(cls, path: Path) -> Self:
        """Open a verified ledger for writing, or create it."""
        file = cls._connected(path)
        try:
            with explained(path):
                if not _schema(file.connection):
                    file._create(secrets.token_hex(8))
                file._check_format()
        except BaseException:
            file.connection.close()
            raise
        return file

    @classmethod
    def create(cls, path: Path, identity: str) -> Self:
        """Create an empty ledger with this identity, open for writing."""
        file = cls._connected(path)
        with explained(path):
            file._create(identity)
        return file

    @classmethod
    def _connected(cls, path: Path) -> Self:
        with explained(path):
            connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                connection.text_factory = _text
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                # Someone who copies a live directory gets a consistent copy unless a checkpoint
                # falls between two of its files, so checkpoints are rare.
                connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            except BaseException:
                connection.close()
                raise
        return cls(connection, path)

    @classmethod
    def reading(cls, path: Path) -> Self:
        """Open read-only and hold on to what the file says now."""
        with explained(path):
            connection = read_only(path)
            file = cls(connection, path)
            try:
                file._check_format()
            except BaseException:
                connection.close()
                raise
        return file

    def rows(self, table: str, clause: str = "", values: Sequence[object] = ()) -> Iterator[Row]:
        """The values of the chosen rows in the order of COLUMNS, read as they are asked for."""
        return (row for row, _ in self.rows_and("NULL", table, clause, values))

    def rows_and(
        self, also: str, table: str, clause: str = "", values: Sequence[object] = ()
    ) -> Iterator[tuple[Row, Any]]:
        """The same, each with one more column that the checksum does not cover."""
        columns = ", ".join((*COLUMNS[table], "checksum", also))
        with explained(self.path):
            query = f"SELECT {columns} FROM {table} {clause}"
            for *values_, found, extra in self.connection.execute(query, values):
                row = tuple(values_)
                if found != self._seal(table, row):
                    raise damaged(self.path, row_name(table, row))
                yield row, extra

    def row(self, table: str, clause: str, values: Sequence[object]) -> Row | None:
        """The values of the one row that is chosen; None when there is none."""
        found = list(self.rows(table, clause, values))
        return found[0] if found else None

    def insert(
        self, table: str, row: Row, *, clause: str = "", beside: str | int | None = None
    ) -> bool:
        """Add a row and its checksum; returns whether it was added, after it reached the disk.

        `beside` is the value of the table's column in BESIDE: the per-item results of an
        evaluation, or the number of an event, the next one when it is None.
        """
        names, values = (*COLUMNS[table], "checksum"), (*row, self._seal(table, row))
        if table in BESIDE:
            names, values = (*names, BESIDE[table]), (*values, beside)
        marks = ", ".join("?" * len(values))
        statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks}) {clause}"
        with explained(self.path):
            return self.connection.execute(statement, values).rowcount == 1

    def meta(self, key: str) -> Any:
        """The value of one key of `meta`, or None."""
        found = self.row("meta", "WHERE key = ?", (key,))
        return None if found is None else json.loads(found[1])

    def set_meta(self, key: str, value: object, after: int) -> None:
        """Set the value of one key of `meta`."""
        columns = ("value", "after", "checksum")
        update = ", ".join(f"{column} = excluded.{column}" for column in columns)
        clause = f"ON CONFLICT (key) DO UPDATE SET {update}"
        self.insert("meta", (key, as_json(value), after), clause=clause)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside reaches the disk together, or none of it."""
        with explained(self.path):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # a full disk rolls back by itself
                    self.connection.execute("ROLLBACK")
                raise

    def _seal(self, table: str, row: Row) -> str:
        own = table == "meta" and row[0] == IDENTITY
        return checksum(table, row, "" if own else self.identity)

    def _create(self, identity: str) -> None:
        with self.transaction():
            for statement in SCHEMA:
                self.connection.execute(statement)
            self.set_meta(IDENTITY, identity, LASTING)
            self.identity = identity
            self.set_meta("format", FORMAT, LASTING)
        # the tables must be in the file itself: a lost write-ahead log then shows
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # a power cut must not take the new files' names
        finally:
            os.close(folder)

    def _check_format(self) -> None:
        try:
            self.identity = str(self.meta(IDENTITY) or "")
            found = self.meta("format")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_ERROR:
                raise
            # there is no such table or column
            raise self._foreign() from error
        if found != FORMAT:
            raise InvalidInput(
                f"{self.path}: expected ledger format {FORMAT}, got {found}: use the evomerge "
                "version that wrote it, or start in a new run directory"
            )
        if _schema(self.connection) != frozenset(SCHEMA):
            raise InvalidInput(
                f"{self.path}: the file is damaged (its tables are not those of format {FORMAT}); "
                f"{remedy(self.path)}"
            )

    def _foreign(self) -> InvalidInput:
        """The error about a file without the tables of this format."""
        if any(
            statement.startswith("CREATE TABLE evaluations")
            for statement in _schema(self.connection)
        ):
            return InvalidInput(
                f"{self.path}: expected ledger format {FORMAT}, got another: use the evomerge "
                "version that wrote it, or start in a new run directory"
            )
        return InvalidInput(f"{self.path}: no evomerge ledger in this file: {ELSEWHERE}")

    def _check_all(self) -> None:
        for table in COLUMNS:
            also = "results" if table == "evaluations" else "NULL"
            for row, results in self.rows_and(also, table):
                if table == "evaluations":
                    check_results(row, results, self.path)
        found = self.connection.execute("PRAGMA integrity_check").fetchone()[0]
        if found != "ok":
            what = found.splitlines()[0]  # one of many lines, and they say little
            raise InvalidInput(f"{self.path}: the file is damaged ({what}); {remedy(self.path)}")


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that shows one moment of the file and checks nothing."""
    try:
        return _snapshot(path, "mode=ro")
    except sqlite3.OperationalError:
        # SQLite puts its shared index beside the file. Where the folder cannot be written, a
        # ledger without a write-ahead log can still be read: nobody can be writing to it either.
        log = path.with_name(f"{path.name}-wal")
        if os.access(path.parent, os.W_OK) or (log.exists() and log.stat().st_size):
            raise
        return _snapshot(path, "mode=ro&immutable=1")


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
