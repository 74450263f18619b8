"""The rows of the ledger: their schema, how values become rows and back, which are damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.candidate import Candidate, Failed, Genotype, Outcome, Scored
from evomerge.errors import InvalidInput
from evomerge.mergekit_reader import from_mapping
from evomerge.mergekit_yaml import to_mapping
from evomerge.recipe import Recipe
from evomerge.score import ItemOutcome, TaskOutcomes

FORMAT = 1
"""Version of the schema and of the JSON inside it."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "meta": ("key", "value"),
    "candidates": ("id", "generation", "origin", "digest", "recipe", "genotype"),
    "evaluations": (
        "candidate",
        "stage",
        "status",
        "results",
        "kind",
        "message",
        "build_seconds",
        "score_seconds",
        "items",
        "attempts",
        "worker",
        "finished",
    ),
    "events": ("kind", "payload", "time"),
}
"""The columns that a row's checksum covers, by table; every table also has `checksum`."""

SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, checksum TEXT NOT NULL)",
    """CREATE TABLE candidates (
        id INTEGER PRIMARY KEY, generation INTEGER NOT NULL, origin TEXT NOT NULL,
        digest TEXT NOT NULL, recipe TEXT NOT NULL, genotype TEXT, checksum TEXT NOT NULL)""",
    """CREATE TABLE evaluations (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        candidate INTEGER NOT NULL REFERENCES candidates (id), stage TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('scored', 'failed')),
        results TEXT, kind TEXT, message TEXT, build_seconds REAL, score_seconds REAL,
        items INTEGER NOT NULL, attempts INTEGER NOT NULL, worker TEXT NOT NULL,
        finished REAL NOT NULL, checksum TEXT NOT NULL, UNIQUE (candidate, stage))""",
    """CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, payload TEXT NOT NULL,
        time REAL NOT NULL, checksum TEXT NOT NULL)""",
)

Row = tuple[Any, ...]
"""Values in the order of COLUMNS; as stored, the checksum follows them."""


@dataclass(frozen=True)
class Evaluation:
    """One counted evaluation: its outcome, and how it came about.

    `items` is the number of items that were scored (0 for a failed one), `attempts` how often the
    evaluation was started, `finished` seconds since the epoch.
    """

    candidate: int
    stage: str
    outcome: Outcome
    attempts: int
    worker: str
    finished: float
    items: int

    @property
    def key(self) -> tuple[int, str]:
        """Identity of this evaluation, as in `Assignment.key`."""
        return (self.candidate, self.stage)


@dataclass(frozen=True)
class Event:
    """Something worth remembering that is not an evaluation; `time` is seconds since the epoch."""

    seq: int
    kind: str
    payload: Mapping[str, Any]
    time: float


def checksum(table: str, row: Row) -> str:
    """The first 16 hex digits of a hash over the table's name and the row's values."""
    # repr: a damaged cell can come back as bytes, which must differ, not raise
    text = json.dumps([table, *row], separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def intact(table: str, stored: Row, where: str) -> Row:
    """The values of a stored row without their checksum.

    Raises:
        InvalidInput: the row does not match its checksum; the message names it.
    """
    row = stored[:-1]
    if stored[-1] == checksum(table, row):
        return row
    raise InvalidInput(
        f"{where}: the {table} row {_name(table, row)} is damaged: its checksum does not match; "
        f"restore the file from a copy{_remedy(table, row)}, or start in a new run directory"
    )


def as_json(value: object) -> str:
    """Canonical JSON; floats are exact because Python writes the shortest text that reads back."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def genotype_json(genotype: Genotype | None) -> str | None:
    """A genotype as a JSON list of exact floats."""
    return None if genotype is None else as_json([float(gene) for gene in genotype])


def candidate_row(candidate: Candidate) -> Row:
    """A candidate as a row of `candidates`."""
    mapping = to_mapping(candidate.recipe)
    digest = candidate.recipe.digest
    assert from_mapping(mapping, "recipe").digest == digest, "a recipe must survive its file format"
    return (
        candidate.id,
        candidate.generation,
        _printable(candidate.origin),
        digest,
        as_json(mapping),
        genotype_json(candidate.genotype),
    )


def candidate_of(row: Row, where: str) -> Candidate:
    """The candidate of an intact row.

    Raises:
        InvalidInput: the recipe means something else to this version than when it was recorded.
    """
    number, generation, origin, digest, recipe_json, genes = row
    recipe: Recipe = from_mapping(json.loads(recipe_json), f"{where}: candidate {number}")
    if recipe.digest != digest:
        raise InvalidInput(
            f"{where}: candidate {number}: expected the recipe with digest {digest}, read "
            f"{recipe.digest}; use the evomerge version that wrote this run"
        )
    genotype = None if genes is None else tuple(float(gene) for gene in json.loads(genes))
    return Candidate(number, generation, origin, recipe, genotype)


def evaluation_row(evaluation: Evaluation) -> Row:
    """An evaluation as a row of `evaluations`."""
    outcome = evaluation.outcome
    if isinstance(outcome, Scored):
        told: Row = (
            "scored",
            as_json([_task_json(result) for result in outcome.results]),
            None,
            None,
            float(outcome.build_seconds),
            float(outcome.score_seconds),
        )
    else:
        told = ("failed", None, _printable(outcome.kind), _printable(outcome.message), None, None)
    how: Row = (evaluation.items, evaluation.attempts, _printable(evaluation.worker))
    return (evaluation.candidate, evaluation.stage, *told, *how, float(evaluation.finished))


def evaluation_of(row: Row) -> Evaluation:
    """The evaluation of an intact row."""
    candidate, stage, status, results, kind, message, build, score, *how = row
    items, attempts, worker, finished = how
    outcome: Outcome
    if status == "scored":
        tasks = tuple(_task_of(entry) for entry in json.loads(results))
        outcome = Scored(tasks, build, score)
    else:
        outcome = Failed(kind, message)
    return Evaluation(candidate, stage, outcome, attempts, worker, finished, items)


def _task_json(result: TaskOutcomes) -> dict[str, Any]:
    return {
        "task": result.task,
        "items": list(result.items()),
        "values": [float(outcome.value) for outcome in result.outcomes],
        "weights": [float(outcome.weight) for outcome in result.outcomes],
    }


def _task_of(entry: Mapping[str, Any]) -> TaskOutcomes:
    columns = zip(entry["items"], entry["values"], entry["weights"], strict=True)
    return TaskOutcomes(entry["task"], tuple(ItemOutcome(*column) for column in columns))


def _printable(text: str) -> str:
    """Text that UTF-8 can hold: a message may quote a file name with undecodable bytes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _name(table: str, row: Row) -> str:
    values = dict(zip(COLUMNS[table], row, strict=True))
    if table == "evaluations":
        return f"(candidate {values['candidate']}, stage {values['stage']!r})"
    if table == "events":
        return f"(kind {values['kind']!r}, time {values['time']})"
    return repr(row[0])


def _remedy(table: str, row: Row) -> str:
    """How to lose only what is damaged: an evaluation without its row is simply done again."""
    if table != "evaluations":
        return ""
    sql = f"DELETE FROM evaluations WHERE candidate = {row[0]} AND stage = '{row[1]}'"
    return f', or have it evaluated again after: sqlite3 ledger.sqlite "{sql}"'
