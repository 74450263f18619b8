"""Reads what can still be read of a damaged ledger, row by row."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.run.ledger_count import check_count, read_count
from evomerge.run.ledger_file import IDENTITY, read_only
from evomerge.run.ledger_schema import BESIDE, COLUMNS, Row, checksum, row_name
from evomerge.run.records import check_results, printable

_DERIVED = ("first candidate", "decision", "winner", "seconds", "begin again at", "format")
"""Facts that continuing the run sets again, or can do without."""
_UNREADABLE = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_CONCLUSIONS = ("decision", "winner")
"""Those that rest on everything that was evaluated before."""
_MOST_PROBES = 5000
_LONGEST = 160

Count = tuple[str, int] | None
"""The identity and the number of evaluations that the count file names."""


@dataclass
class Salvage:
    """Intact rows by table, each with its value of BESIDE, and what is lost (being filled)."""

    identity: str
    rows: dict[str, list[tuple[Row, Any]]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    work_lost: bool = False
    """Whether a candidate or an evaluation is among it."""
    last_event: int = 0
    """The highest number that an event has had, as far as can be seen."""


def salvaged(path: Path, *, in_order: bool) -> Salvage:
    """Everything intact in the file.

    Args:
        path: the ledger.
        in_order: leave out what was counted after the first gap.

    Raises:
        InvalidInput: a fact is lost that only the ledger knew, or nothing can be read.
    """
    count = read_count(path.parent)
    try:
        with closing(read_only(path)) as connection:
            salvage = Salvage(_identity(connection, path, count))
            for table in COLUMNS:
                salvage.rows[table] = list(_intact(connection, table, salvage, path))
            salvage.last_event = _last_event(connection, salvage.last_event)
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its message
        raise _hopeless(path, "its tables cannot be found") from error
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in _UNREADABLE:
            raise
        raise _hopeless(path, f"its tables cannot be found ({error})") from error
    _without_orphans(salvage)
    _tell_missing(salvage, count)
    if in_order:
        _cut(salvage)
    if salvage.work_lost:  # else the run would pass for finished, and nothing be evaluated again
        facts = salvage.rows["meta"]
        salvage.rows["meta"] = [fact for fact in facts if _kind(fact[0]) not in _CONCLUSIONS]
    return salvage


def _identity(connection: sqlite3.Connection, path: Path, count: Count) -> str:
    for stored in _scan(connection, "meta"):
        if stored is not None and stored[0] == IDENTITY:
            row = stored[: len(COLUMNS["meta"])]
            if stored[len(row)] == checksum("meta", row, ""):
                identity = str(json.loads(stored[1]))
                check_count(path.parent, identity)
                return identity
    if count is None:
        raise _hopeless(path, "nothing says which rows are its own")
    return count[0]


def _intact(
    connection: sqlite3.Connection, table: str, salvage: Salvage, path: Path
) -> Iterator[tuple[Row, Any]]:
    for stored in _scan(connection, table):
        if stored is None:
            if table == "meta":
                raise _hopeless(path, "some of its facts cannot be read")
            salvage.lost.append(f"rows of {table} on a page that cannot be read")
            salvage.work_lost |= table != "events"
            continue
        *values, found, beside = stored
        row = tuple(values)
        if table == "events":
            salvage.last_event = max(salvage.last_event, beside)
        if table == "meta" and row[0] == IDENTITY:
            continue  # written anew
        if found == checksum(table, row, salvage.identity) and _whole(table, row, beside, path):
            yield row, beside
            continue
        name = printable(row_name(table, row))
        if table == "meta" and _kind(row) not in _DERIVED:
            raise _hopeless(path, f"{name} is damaged, and nothing else knows it")
        salvage.lost.append(name[:_LONGEST])
        salvage.work_lost |= table in ("candidates", "evaluations")


def _last_event(connection: sqlite3.Connection, seen: int) -> int:
    """A number is never used twice: a copy elsewhere may have the event that is lost here."""
    try:
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'events'"
        found = connection.execute(query).fetchone()
    except sqlite3.DatabaseError:
        return seen
    # nothing seals this number, so it must be plausible
    plausible = found and isinstance(found[0], int) and seen <= found[0] < seen + _MOST_PROBES
    return int(found[0]) if plausible else seen


def _kind(fact: Row) -> str:
    """The name of a fact without the stage it belongs to."""
    return str(fact[0]).rpartition(": ")[2]


def _whole(table: str, row: Row, results: object, path: Path) -> bool:
    if table != "evaluations":
        return True
    try:
        check_results(row, results, path)
    except InvalidInput:
        return False
    return True


def _scan(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...] | None]:
    """All rows of a table as stored, by ascending row id; None for rows that cannot be read."""
    also = BESIDE.get(table, "NULL")
    columns = ", ".join(("rowid", *COLUMNS[table], "checksum", also))
    last: int | None = -1
    while last is not None:
        query = f"SELECT {columns} FROM {table} WHERE rowid > ? ORDER BY rowid"
        try:
            for number, *stored in connection.execute(query, (last,)):
                last = max(last, number)
                yield tuple(stored)
            return
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            yield None
            last = _beyond(connection, table, last)


def _beyond(connection: sqlite3.Connection, table: str, last: int) -> int | None:
    """The row id before the next one that can be found; None when there is none near."""
    for number in range(last + 1, last + _MOST_PROBES):
        try:
            query = f"SELECT rowid, checksum FROM {table} WHERE rowid = ?"
            if connection.execute(query, (number,)).fetchone() is not None and number > last + 1:
                return number - 1
        except sqlite3.DatabaseError:
            continue
    return None


def _without_orphans(salvage: Salvage) -> None:
    """Evaluations whose candidate is lost: it is proposed again, and evaluated again."""
    known = {row[0] for row, _ in salvage.rows["candidates"]}
    kept = []
    for row, results in salvage.rows["evaluations"]:
        if row[1] in known:
            kept.append((row, results))
        else:
            salvage.lost.append(f"{row_name('evaluations', row)}: its candidate is lost")
            salvage.work_lost = True
    salvage.rows["evaluations"] = kept


def _tell_missing(salvage: Salvage, count: Count) -> None:
    last = max((row[0] for row, _ in salvage.rows["evaluations"]), default=0)
    if count is not None and count[0] == salvage.identity and count[1] > last:
        salvage.lost.append(f"evaluations that were counted last: {count[1] - last}")
        salvage.work_lost = True


def _cut(salvage: Salvage) -> None:
    """Go back to before the first evaluation that is missing, as `Ledger.rewind` does."""
    present = {row[0] for row, _ in salvage.rows["evaluations"]}
    first = next(seq for seq in range(1, len(present) + 2) if seq not in present)
    beyond = [seq for seq in present if seq >= first]
    if not beyond:
        return
    salvage.lost.append(f"{len(beyond)} evaluations that were counted after the first lost one")
    after = {table: COLUMNS[table].index("after") for table in ("meta", "candidates")}
    for table, column in (*after.items(), ("evaluations", 0)):
        rows = salvage.rows[table]
        salvage.rows[table] = [entry for entry in rows if entry[0][column] < first]


def _hopeless(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"{path}: it cannot be repaired: {why}; restore it from a copy or start in a new run "
        "directory"
    )
