"""The durable record of a run: one SQLite file, one locked writer, any number of readers."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from evomerge.candidate import Candidate, Outcome
from evomerge.errors import DISK_FULL, EvomergeError, InvalidInput
from evomerge.plain_text import without_secrets
from evomerge.run.ledger_count import CountFile, check_count
from evomerge.run.ledger_errors import explained
from evomerge.run.ledger_file import LASTING, LedgerFile
from evomerge.run.ledger_schema import COLUMNS, Row
from evomerge.run.lock import RunLock
from evomerge.run.records import (
    CandidateRows,
    Evaluation,
    Event,
    Tally,
    as_json,
    candidate_of,
    candidate_row,
    evaluation_of,
    evaluation_row,
    genotype_json,
    items_scored,
    tally_of,
)

__all__ = [
    "LEDGER",
    "CandidateRows",
    "Evaluation",
    "Event",
    "Ledger",
    "LedgerMismatch",
    "LedgerReader",
    "Rewound",
    "Tally",
]

LEDGER = "ledger.sqlite"


class LedgerMismatch(EvomergeError):
    """The run directory holds another run than the one that is being continued; exit code 3."""

    exit_code = 3


@dataclass(frozen=True)
class Rewound:
    """What a rewind took back: how many evaluations and candidates, and which facts."""

    evaluations: int
    candidates: int
    facts: tuple[str, ...]


@final
class Ledger:
    """The writer: the only one of its run directory, held by the driver (stateful).

    Every method that writes returns after the row has reached the disk, so what was acknowledged
    survives a crash at any moment. Use it from one thread.
    """

    def __init__(self, file: LedgerFile, lock: RunLock) -> None:
        self._file = file
        self._lock = lock
        self._counted = self._last_seq()
        self._count = CountFile(file.path.parent, file.identity)
        self.missing = max(0, self._count.known - self._counted)
        """Evaluations that were counted and are not there: the write-ahead log was damaged."""
        self._count.write(self._counted)
        self._closed = False

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
            if error.errno in DISK_FULL:
                raise
            raise InvalidInput(
                f"{run_dir}: cannot be used as a run directory: {error.strerror}; choose another"
            ) from error
        with ExitStack() as undo:
            undo.callback(lock.release)
            check_count(run_dir, LedgerFile.verified(run_dir / LEDGER))
            file = LedgerFile.writing(run_dir / LEDGER)
            undo.callback(file.connection.close)
            ledger = cls(file, lock)
            undo.pop_all()
        return ledger

    @property
    def folder(self) -> Path:
        """The run directory."""
        return self._file.path.parent

    def add_candidate(self, candidate: Candidate) -> None:
        """Record a candidate; again with the same recipe and genotype it does nothing.

        Raises:
            LedgerMismatch: the id is taken by another recipe or genotype.
        """
        stored = self._file.row("candidates", "WHERE id = ?", (candidate.id,))
        if stored is not None:
            _same_candidate(stored, candidate, self._file.path)
            return
        row = candidate_row(candidate, self._counted)
        self._lock.confirm()
        self._file.insert("candidates", row)

    @property
    def next_candidate(self) -> int:
        """The lowest id that no candidate on record has."""
        row = self._file.row("candidates", "ORDER BY id DESC LIMIT 1", ())
        return 0 if row is None else int(row[0]) + 1

    def candidate(self, number: int) -> Candidate:
        """A recorded candidate."""
        row = self._file.row("candidates", "WHERE id = ?", (number,))
        assert row is not None, f"candidate {number} was never added"
        return candidate_of(row, self._file.path)

    def record(self, key: tuple[int, str], outcome: Outcome, *, attempts: int, worker: str) -> bool:
        """Count the outcome of one evaluation; True when it counts, False when one already did.

        The first outcome of a key is kept for ever, so an evaluation that was carried out twice
        (a worker thought dead that answered late) is counted once.
        """
        seq, items = self._counted + 1, items_scored(outcome)
        row, results = evaluation_row(
            Evaluation(seq, *key, outcome, attempts, worker, time.time(), items)
        )
        clause = "ON CONFLICT (candidate, stage) DO NOTHING"
        self._lock.confirm()
        counts = self._file.insert("evaluations", row, clause=clause, beside=results)
        if counts:
            self._counted = seq
            self._count.write(seq)
        return counts

    def counted(self, key: tuple[int, str]) -> tuple[int, Outcome] | None:
        """Place in the order of counting, and outcome, of an evaluation; None while it has none."""
        clause = "WHERE candidate = ? AND stage = ?"
        for row, results in list(self._file.rows_and("results", "evaluations", clause, key)):
            return int(row[0]), evaluation_of(row, results, self._file.path).outcome
        return None

    def tally(self, key: tuple[int, str]) -> Tally | None:
        """The same without per-item outcomes, faster."""
        row = self._file.row("evaluations", "WHERE candidate = ? AND stage = ?", key)
        return None if row is None else tally_of(row)

    def rewind(self, before_seq: int) -> Rewound:
        """Take back all evaluations counted from `before_seq` on, and all that followed from them.

        That is the candidates added and the facts decided after the first of them; in one
        transaction, with an event "rewound" that says what was dropped.
        """
        file, dropped = self._file, (before_seq,)
        facts = tuple(row[0] for row in file.rows("meta", "WHERE after >= ?", dropped))
        self._lock.confirm()
        self._count.write(min(self._counted, before_seq - 1))  # before: it must never be too high
        with file.transaction():
            execute = file.connection.execute
            evaluations = execute("DELETE FROM evaluations WHERE seq >= ?", dropped).rowcount
            candidates = execute("DELETE FROM candidates WHERE after >= ?", dropped).rowcount
            execute("DELETE FROM meta WHERE after >= ?", dropped)
            rewound = Rewound(evaluations, candidates, facts)
            self.log("rewound", {"before": before_seq, **asdict(rewound)})
        self._counted = self._last_seq()
        self._count.write(self._counted)
        return rewound

    def log(self, kind: str, payload: Mapping[str, object]) -> None:
        """Append an event; `payload` must be JSON."""
        self._lock.confirm()
        self._file.insert("events", (kind, as_json(payload), time.time()))

    def set_meta(self, key: str, value: object, *, lasting: bool = False) -> None:
        """Set one fact about the run; `value` must be JSON; a `lasting` one survives rewinds."""
        if not lasting and self.meta(key) == value:
            return
        self._lock.confirm()
        self._file.set_meta(key, value, LASTING if lasting else self._counted)

    def meta(self, key: str) -> Any:
        """One fact about the run as JSON values; None when it was never set."""
        return self._file.meta(key)

    def _last_seq(self) -> int:
        query = "SELECT coalesce(max(seq), 0) FROM evaluations"
        with explained(self._file.path):
            return int(self._file.connection.execute(query).fetchone()[0])

    def close(self) -> None:
        """Fold the write-ahead log into the file and release the run directory."""
        if self._closed:
            return
        self._closed = True
        self._file.connection.close()
        self._count.close()
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

    def __init__(self, file: LedgerFile) -> None:
        self._file = file

    @classmethod
    def open(cls, run_dir: Path) -> LedgerReader:
        """Open the ledger of `run_dir` for reading.

        Raises:
            InvalidInput: no ledger there, of another format, or damaged.
        """
        path = run_dir / LEDGER
        if not path.is_file():
            raise InvalidInput(
                f"{without_secrets(str(run_dir))} is not a run directory: no {LEDGER} in it; give "
                "the directory that 'evomerge search --out' wrote"
            )
        return cls(LedgerFile.reading(path))

    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates by ascending id."""
        rows = self._file.rows("candidates", "ORDER BY id")
        return tuple(candidate_of(row, self._file.path) for row in rows)

    def candidate_rows(self) -> CandidateRows:
        """The same, each read in full when it is asked for."""
        rows = self._file.rows("candidates", "ORDER BY id")
        return CandidateRows({row[0]: row for row in rows}, self._file.path)

    def evaluations(self, stage: str | None = None) -> tuple[Evaluation, ...]:
        """The counted evaluations, of one stage or of all, in the order they were counted."""
        clause = "WHERE ?1 IS NULL OR stage = ?1 ORDER BY seq"
        rows = self._file.rows_and("results", "evaluations", clause, (stage,))
        return tuple(evaluation_of(row, results, self._file.path) for row, results in rows)

    def tallies(self) -> tuple[Tally, ...]:
        """The same without per-item outcomes, many times faster to read."""
        return tuple(tally_of(row) for row in self._file.rows("evaluations", "ORDER BY seq"))

    def events(self, kind: str | None = None) -> tuple[Event, ...]:
        """The events, of one kind or of all, in the order they were logged."""
        clause = "WHERE ?1 IS NULL OR kind = ?1 ORDER BY seq"
        rows = self._file.rows_and("seq", "events", clause, (kind,))
        return tuple(Event(seq, name, json.loads(text), at) for (name, text, at), seq in rows)

    def meta(self, key: str) -> Any:
        """One fact about the run as JSON values; None when it was never set."""
        return self._file.meta(key)

    def close(self) -> None:
        """Let go of the file."""
        self._file.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _same_candidate(stored: Row, candidate: Candidate, path: Path) -> None:
    """Raises LedgerMismatch unless a row of `candidates` has the candidate's recipe and genes."""
    then = dict(zip(COLUMNS["candidates"], stored, strict=True))
    now = {"digest": candidate.recipe.digest, "genotype": genotype_json(candidate.genotype)}
    for column, word in (("digest", "recipe"), ("genotype", "genotype")):
        if then[column] != now[column]:
            raise LedgerMismatch(
                f"{path}: candidate {then['id']}: expected the recorded {word} {then[column]}, got "
                f"{word} {now[column]}: the space, the seed or a version changed since this run "
                "began; continue with the old ones, or start in a new run directory"
            )
