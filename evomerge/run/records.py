"""The rows of the ledger as values: candidates, evaluations, events, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, final

from evomerge.candidate import Candidate, Failed, Genotype, Outcome, Scored
from evomerge.errors import InvalidInput
from evomerge.mergekit_reader import from_mapping
from evomerge.mergekit_yaml import to_mapping
from evomerge.recipe import Recipe
from evomerge.run.ledger_schema import COLUMNS, Row, damaged, row_name, text_checksum
from evomerge.score import COST_TASK, ItemOutcome, TaskOutcomes, TaskTotals, totals


@dataclass(frozen=True)
class Evaluation:
    """One counted evaluation: its outcome, and how it came about.

    `seq` orders evaluations as they were counted, `items` is the number of items that were scored
    (0 for a failed one), `attempts` how often the evaluation was started, `finished` seconds since
    the epoch.
    """

    seq: int
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
class Tally:
    """One counted evaluation without its items: what thousands of them can be read as.

    `totals` is None and `failure` is known when the evaluation failed; other fields are those of
    Evaluation and Scored.
    """

    seq: int
    candidate: int
    stage: str
    totals: tuple[TaskTotals, ...] | None
    failure: Failed | None
    build_seconds: float
    score_seconds: float
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


def as_json(value: object) -> str:
    """Canonical JSON; floats are exact because Python writes the shortest text that reads back."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def candidate_row(candidate: Candidate, after: int) -> Row:
    """A candidate as a row of `candidates`."""
    mapping = to_mapping(candidate.recipe)
    digest = candidate.recipe.digest
    assert from_mapping(mapping, "recipe").digest == digest, "a recipe must survive its file format"
    return (
        candidate.id,
        candidate.generation,
        printable(candidate.origin),
        digest,
        as_json(mapping),
        genotype_json(candidate.genotype),
        after,
    )


def genotype_json(genotype: Genotype | None) -> str | None:
    """A genotype as a JSON list of exact floats."""
    return None if genotype is None else as_json([float(gene) for gene in genotype])


def candidate_of(row: Row, where: Path) -> Candidate:
    """The candidate of an intact row.

    Raises:
        InvalidInput: the recipe means something else to this version than when it was recorded.
    """
    number, generation, origin, digest, recipe_json, genes, _ = row
    recipe: Recipe = from_mapping(json.loads(recipe_json), f"{where}: candidate {number}")
    if recipe.digest != digest:
        raise InvalidInput(
            f"{where}: candidate {number}: expected the recipe with digest {digest}, read "
            f"{recipe.digest}; use the evomerge version that wrote this run"
        )
    genotype = None if genes is None else tuple(float(gene) for gene in json.loads(genes))
    return Candidate(number, generation, origin, recipe, genotype)


@final
class CandidateRows(Mapping[int, Candidate]):
    """Recorded candidates by id: generations are at hand, the rest is read when asked for."""

    def __init__(self, rows: Mapping[int, Row], where: Path) -> None:
        """Take intact rows of `candidates`."""
        self._rows = rows
        self._where = where
        self._read: dict[int, Candidate] = {}

    def generation(self, number: int) -> int:
        """The generation of a candidate."""
        return int(self._rows[number][1])

    def __getitem__(self, number: int) -> Candidate:
        if number not in self._read:
            self._read[number] = candidate_of(self._rows[number], self._where)
        return self._read[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def evaluation_row(evaluation: Evaluation) -> tuple[Row, str | None]:
    """An evaluation as a row of `evaluations`, and its per-item results as text."""
    outcome, results, remarks = evaluation.outcome, None, "[]"
    if isinstance(outcome, Scored):
        results = as_json([_task_json(result) for result in outcome.results])
        remarks = as_json([printable(remark) for remark in outcome.remarks])
        sums = [[*astuple(task)] for task in totals(outcome.results)]
        seconds = (float(outcome.build_seconds), float(outcome.score_seconds))
        told: Row = ("scored", as_json(sums), None, None, *seconds)
    else:
        told = ("failed", None, printable(outcome.kind), printable(outcome.message), None, None)
    who: Row = (evaluation.seq, evaluation.candidate, evaluation.stage)
    how: Row = (evaluation.items, remarks, evaluation.attempts, printable(evaluation.worker))
    seal = None if results is None else text_checksum(results)
    return (*who, *told, *how, float(evaluation.finished), seal), results


def evaluation_of(row: Row, results: str | None, where: Path) -> Evaluation:
    """The evaluation of an intact row and its results.

    Raises:
        InvalidInput: the results do not match their checksum.
    """
    named = dict(zip(COLUMNS["evaluations"], row, strict=True))
    outcome: Outcome
    if named["status"] == "scored":
        check_results(row, results, where)
        assert results is not None, "checked"
        tasks = tuple(_task_of(entry) for entry in json.loads(results))
        remarks = tuple(json.loads(named["remarks"]))
        outcome = Scored(tasks, named["build_seconds"], named["score_seconds"], remarks)
    else:
        outcome = Failed(named["kind"], named["message"])
    return Evaluation(
        named["seq"],
        named["candidate"],
        named["stage"],
        outcome,
        named["attempts"],
        named["worker"],
        named["finished"],
        named["items"],
    )


def check_results(row: Row, results: object, where: Path) -> None:
    """Raises InvalidInput unless the results of an intact row match their checksum."""
    seal = row[-1]
    intact = results is None if seal is None else isinstance(results, str)
    if not intact or (isinstance(results, str) and text_checksum(results) != seal):
        raise damaged(where, row_name("evaluations", row))


def tally_of(row: Row) -> Tally:
    """The tally of an intact row of `evaluations`."""
    seq, candidate, stage, status, sums, kind, message, build, score, items, *_ = row
    if status == "failed":
        return Tally(seq, candidate, stage, None, Failed(kind, message), 0.0, 0.0, items)
    tasks = tuple(TaskTotals(*entry) for entry in json.loads(sums))
    return Tally(seq, candidate, stage, tasks, None, build, score, items)


def items_scored(outcome: Outcome) -> int:
    """How many questions were asked."""
    if not isinstance(outcome, Scored):
        return 0
    return sum(len(result.outcomes) for result in outcome.results if result.task != COST_TASK)


def printable(text: str) -> str:
    """Text that UTF-8 can hold: a message may quote a file name with undecodable bytes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _task_json(result: TaskOutcomes) -> dict[str, Any]:
    return {
        "task": result.task,
        "items": list(result.items()),
        "values": [float(outcome.value) for outcome in result.outcomes],
        "weights": [float(outcome.weight) for outcome in result.outcomes],
        "truncated": [place for place, o in enumerate(result.outcomes) if o.truncated],
        "probabilities": [o.probability for o in result.outcomes]
        if any(o.probability is not None for o in result.outcomes)
        else None,
    }


def _task_of(entry: Mapping[str, Any]) -> TaskOutcomes:
    columns = zip(entry["items"], entry["values"], entry["weights"], strict=True)
    cut = frozenset(entry["truncated"])
    likely = entry["probabilities"] or [None] * len(entry["items"])
    outcomes = (
        ItemOutcome(*column, place in cut, likely[place]) for place, column in enumerate(columns)
    )
    return TaskOutcomes(entry["task"], tuple(outcomes))
