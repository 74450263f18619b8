"""The tables of the ledger, and how a row is sealed so that damage to it shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.errors import InvalidInput

FORMAT = 3
"""Version of the schema and of the JSON inside it."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "meta": ("key", "value", "after"),
    "candidates": ("id", "generation", "origin", "digest", "recipe", "genotype", "after"),
    "evaluations": (
        "seq",
        "candidate",
        "stage",
        "status",
        "totals",
        "kind",
        "message",
        "build_seconds",
        "score_seconds",
        "items",
        "remarks",
        "attempts",
        "worker",
        "finished",
        "results_checksum",
    ),
    "events": ("kind", "payload", "time"),
}
"""The columns that a row's checksum covers, by table; every table also has `checksum`.

`after` is the `seq` of the last evaluation that had been counted when the row was written, 0 for
none: what a rewind needs to know. `results` of an evaluation has a checksum of its own, so that
its totals can be read without it.
"""

BESIDE: Mapping[str, str] = {"evaluations": "results", "events": "seq"}
"""The column of a table that its rows' checksums do not cover."""

SCHEMA = (
    """CREATE TABLE meta (
        key TEXT PRIMARY KEY, value TEXT NOT NULL, after INTEGER NOT NULL,
        checksum TEXT NOT NULL)""",
    """CREATE TABLE candidates (
        id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, origin TEXT NOT NULL,
        digest TEXT NOT NULL, recipe TEXT NOT NULL, genotype TEXT, after INTEGER NOT NULL,
        checksum TEXT NOT NULL)""",
    """CREATE TABLE evaluations (
        seq INTEGER PRIMARY KEY,
        candidate INTEGER NOT NULL REFERENCES candidates (id), stage TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('scored', 'failed')),
        totals TEXT, kind TEXT, message TEXT, build_seconds REAL, score_seconds REAL,
        items INTEGER NOT NULL, remarks TEXT NOT NULL, attempts INTEGER NOT NULL,
        worker TEXT NOT NULL, finished REAL NOT NULL, results_checksum TEXT,
        checksum TEXT NOT NULL, results TEXT, UNIQUE (candidate, stage))""",
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, payload TEXT NOT NULL,
        time REAL NOT NULL, checksum TEXT NOT NULL)""",
)

# repr: a damaged cell can come back as bytes, which must differ, not raise
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=repr)

Row = tuple[Any, ...]
"""Values in the order of COLUMNS; as stored, the checksum follows them."""


def checksum(table: str, row: Row, identity: str) -> str:
    """The first 16 hex digits of a hash over the ledger's identity, the table and the values.

    The identity makes a page of another ledger, brought in by a write-ahead log that is not this
    one's, differ from any page of this one.
    """
    text = _ENCODER.encode([identity, table, *row])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def text_checksum(text: str) -> str:
    """The first 16 hex digits of a hash over a long text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def row_name(table: str, row: Row) -> str:
    """What a row is called in messages."""
    values = dict(zip(COLUMNS[table], row, strict=True))
    if table == "evaluations":
        return f"the evaluations row (candidate {values['candidate']}, stage {values['stage']!r})"
    if table == "events":
        return f"the events row (kind {values['kind']!r}, time {values['time']})"
    return f"the {table} row {row[0]!r}"


def unfinished_repair(ledger: Path) -> Path:
    """The file that a repair leaves when it is cut off: the whole new ledger, not in place yet."""
    return ledger.with_name(f"{ledger.name}.repaired")


def remedy(ledger: Path) -> str:
    """What to do about a damaged ledger."""
    return (
        f"restore the file from a copy, or see what 'evomerge repair {ledger.parent} --dry-run' "
        "would lose"
    )


def damaged(ledger: Path, what: str) -> InvalidInput:
    """The error about something in the ledger that is not as it was written."""
    return InvalidInput(
        f"{ledger}: {what} is damaged: its checksum does not match; {remedy(ledger)}"
    )
