"""The durable record of a run: one SQLite file, one locked writer, any number of readers."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from evomerge.candidate import Candidate, Outcome, Scored
from evomerge.errors import EvomergeError, InvalidInput
from evomerge.run.ledger_file import (
    connect_reader,
    connect_writer,
    explained,
    insert,
    read_meta,
    select,
    write_meta,
)
from evomerge.run.lock import RunLock
from evomerge.run.records import (
    COLUMNS,
    Evaluation,
    Event,
    Row,
    as_json,
    candidate_of,
    candidate_row,
    evaluation_of,
    evaluation_row,
    intact,
)
from evomerge.score import COST_TASK

__all__ = ["LEDGER", "Evaluation", "Event", "Ledger", "LedgerMismatch", "LedgerReader"]

LEDGER = "ledger.sqlite"


class LedgerMismatch(EvomergeError):
    """The run directory holds another run than the one that is being continued; exit code 3."""

    exit_code = 3


@final
class Ledger:
    """The writer: the only one of its run directory, held by the driver (stateful).

    Every method that writes returns after the row has reached the disk, so what was acknowledged
    survives a crash at any moment. Use it from one thread.
    """

    def __init__(self, connection: sqlite3.Connection, lock: RunLock, path: Path) -> None:
        self._connection = connection
        self._lock = lock
        self._path = path

    @classmethod
    def open(cls, run_dir: Path) -> Ledger:
        """Create the ledger of `run_dir`, or reopen it after checking every row.

        Raises:
            RunLocked: another process writes to it.
            InvalidInput: not a ledger, of another format, or damaged.
        """
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            lock = RunLock.acquire(run_dir)
        except OSError as error:
            raise InvalidInput(
                f"{run_dir}: cannot be used as a run directory: {error.strerror}; choose another"
            ) from error
        path = run_dir / LEDGER
        try:
            with explained(path):
                connection = connect_writer(path)
        except BaseException:
            lock.release()
            raise
        return cls(connection, lock, path)

    def add_candidate(self, candidate: Candidate) -> None:
        """Record a candidate; again with the same recipe and genotype it does nothing.

        Raises:
            LedgerMismatch: the id is taken by another recipe or genotype.
        """
        row = candidate_row(candidate)
        with explained(self._path):
            stored = select(self._connection, "candidates", "WHERE id = ?", (candidate.id,))
            if not stored:
                insert(self._connection, "candidates", row)
                return
        _same_candidate(intact("candidates", stored[0], str(self._path)), row, self._path)

    def record(self, key: tuple[int, str], outcome: Outcome, *, attempts: int, worker: str) -> bool:
        """Count the outcome of one evaluation; True when it counts, False when one already did.

        The first outcome of a key is kept for ever, so an evaluation that was carried out twice
        (a worker thought dead that answered late) is counted once.
        """
        items = 0
        if isinstance(outcome, Scored):
            asked = (result for result in outcome.results if result.task != COST_TASK)
            items = sum(len(result.outcomes) for result in asked)
        evaluation = Evaluation(*key, outcome, attempts, worker, time.time(), items)
        with explained(self._path):
            return insert(
                self._connection,
                "evaluations",
                evaluation_row(evaluation),
                "ON CONFLICT (candidate, stage) DO NOTHING",
            )

    def counted(self, key: tuple[int, str]) -> tuple[int, Outcome] | None:
        """Place in the order of counting, and outcome, of an evaluation; None while it has none."""
        clause = "WHERE candidate = ? AND stage = ?"
        with explained(self._path):
            stored = select(self._connection, "evaluations", clause, key)
            if not stored:
                return None
            query = f"SELECT seq FROM evaluations {clause}"
            (seq,) = self._connection.execute(query, key).fetchone()
        return seq, evaluation_of(intact("evaluations", stored[0], str(self._path))).outcome

    def log(self, kind: str, payload: Mapping[str, object]) -> None:
        """Append an event; `payload` must be JSON."""
        with explained(self._path):
            insert(self._connection, "events", (kind, as_json(payload), time.time()))

    def set_meta(self, key: str, value: object) -> None:
        """Set one fact about the run; `value` must be JSON."""
        with explained(self._path):
            write_meta(self._connection, key, value)

    def meta(self, key: str) -> Any:
        """One fact about the run as JSON values; None when it was never set."""
        with explained(self._path):
            return read_meta(self._connection, key, self._path)

    def close(self) -> None:
        """Fold the write-ahead log into the file and release the run directory."""
        self._connection.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@final
class LedgerReader:
    """Everything a ledger said at the moment the reader was opened; open another one for news.

    One moment for all calls: every evaluation's candidate is among `candidates()`. Readers work
    beside a running writer, without blocking it, and on a copied run directory.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    def open(cls, run_dir: Path) -> LedgerReader:
        """Open the ledger of `run_dir` for reading.

        Raises:
            InvalidInput: no ledger there, of another format, or damaged.
        """
        path = run_dir / LEDGER
        if not path.is_file():
            raise InvalidInput(
                f"{run_dir} is not a run directory: no {LEDGER} in it; give the directory that "
                "'evomerge search --out' wrote"
            )
        with explained(path):
            return cls(connect_reader(path), path)

    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates by ascending id."""
        rows = self._rows("candidates", "ORDER BY id")
        return tuple(candidate_of(row, str(self._path)) for row in rows)

    def evaluations(self, stage: str | None = None) -> tuple[Evaluation, ...]:
        """The counted evaluations, of one stage or of all, in the order they were counted."""
        clause = "WHERE ?1 IS NULL OR stage = ?1 ORDER BY seq"
        return tuple(evaluation_of(row) for row in self._rows("evaluations", clause, stage))

    def events(self, kind: str | None = None) -> tuple[Event, ...]:
        """The events, of one kind or of all, in the order they were logged."""
        columns = ", ".join((*COLUMNS["events"], "checksum"))
        query = f"SELECT seq, {columns} FROM events WHERE ?1 IS NULL OR kind = ?1 ORDER BY seq"
        with explained(self._path):
            rows = self._connection.execute(query, (kind,)).fetchall()
        events = []
        for seq, *stored in rows:
            name, payload, moment = intact("events", tuple(stored), str(self._path))
            events.append(Event(seq, name, json.loads(payload), moment))
        return tuple(events)

    def meta(self, key: str) -> Any:
        """One fact about the run as JSON values; None when it was never set."""
        with explained(self._path):
            return read_meta(self._connection, key, self._path)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _rows(self, table: str, clause: str, *values: object) -> Iterator[Row]:
        with explained(self._path):
            stored = select(self._connection, table, clause, values)
        return (intact(table, row, str(self._path)) for row in stored)


def _same_candidate(stored: Row, row: Row, path: Path) -> None:
    """Raises LedgerMismatch unless recipe and genotype of two `candidates` rows are equal."""
    number, *_, known_digest, _, known_genes = stored
    *_, digest, _, genes = row
    what = f"recipe {known_digest}", f"recipe {digest}"
    if known_digest == digest:
        if known_genes == genes:
            return
        what = f"genotype {known_genes}", f"genotype {genes}"
    raise LedgerMismatch(
        f"{path}: candidate {number}: expected the recorded {what[0]}, got {what[1]}: the space, "
        "the seed or a version changed since this run began; continue with the old ones, or "
        "start in a new run directory"
    )
