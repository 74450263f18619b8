"""A run as its directory records it: specification, candidates, evaluations, decisions."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.candidate import SEARCH, Scored
from evomerge.constraints import Constraint
from evomerge.run.directory import read_resolved
from evomerge.run.final import Results
from evomerge.run.ledger import CandidateRows, Evaluation, LedgerReader, Tally
from evomerge.score import Objective, TaskGoal, joined


@dataclass(frozen=True)
class RecordedRun:
    """What was read from a run directory."""

    resolved: Mapping[str, Any]
    objective: Objective
    constraints: tuple[Constraint, ...]
    candidates: CandidateRows
    tallies: tuple[Tally, ...]
    evaluations: tuple[Evaluation, ...]
    """Those of which more is shown than the fitness: all but the search's."""
    decisions: tuple[Mapping[str, Any] | None, ...]
    firsts: tuple[int, ...]
    warnings: tuple[str, ...]
    finished: bool
    driven: bool
    seconds: float

    @property
    def search(self) -> Mapping[str, Any]:
        """The last search, whose result is the run's."""
        found: Mapping[str, Any] = self.resolved["searches"][-1]
        return found

    @property
    def first(self) -> int:
        """The first candidate of the last search."""
        return self.firsts[-1]

    @cached_property
    def baselines(self) -> Mapping[int, Mapping[str, str]]:
        """Label and kind of all searches' baselines, by candidate id."""
        return {
            number: entry
            for search, first in zip(self.resolved["searches"], self.firsts, strict=True)
            for number, entry in enumerate(search["baselines"], start=first)
        }

    @property
    def decision(self) -> Mapping[str, Any] | None:
        """That of the last search."""
        return self.decisions[-1]

    @property
    def populations(self) -> frozenset[int]:
        """The sizes of complete generations."""
        return frozenset(search["population"] for search in self.resolved["searches"])

    def failed(self, *, rejected: bool) -> set[int]:
        """The candidates that failed, or those that were rejected unscored."""
        failures = ((t.candidate, t.failure) for t in self.tallies if t.failure is not None)
        return {candidate for candidate, failed in failures if failed.rejected == rejected}

    @cached_property
    def searched(self) -> Mapping[int, float]:
        """The fitness of every candidate that the searches scored, on its minibatch."""
        found = (t for t in self.tallies if t.stage == SEARCH)
        return {
            t.candidate: self.objective.fitness_of(t.totals) for t in found if t.totals is not None
        }

    def results(self, stage: str) -> dict[int, Results]:
        """Per-item outcomes of a stage, not the search, by candidate."""
        assert stage != SEARCH, "only its fitness is read"
        return {
            e.candidate: e.outcome.results
            for e in self.evaluations
            if e.stage == stage and isinstance(e.outcome, Scored)
        }


def read_run(run_dir: Path, *, driven: bool) -> RecordedRun:
    """Everything on record; raises InvalidInput when it is damaged, or no run."""
    resolved = read_resolved(run_dir)
    names = [f"{search['name']}: " if search["name"] else "" for search in resolved["searches"]]
    with LedgerReader.open(run_dir) as reader:
        tallies = reader.tallies()
        stages = dict.fromkeys(t.stage for t in tallies if t.stage != SEARCH)
        texts = [str(event.payload["text"]) for event in reader.events("warning")]
        return RecordedRun(
            resolved,
            Objective(
                tuple(TaskGoal(**goal) for goal in resolved["goals"]),
                pareto=resolved["objective"]["combine"] == "pareto",
            ),
            tuple(Constraint(**entry) for entry in resolved["constraints"]),
            reader.candidate_rows(),
            tallies,
            tuple(e for stage in stages for e in reader.evaluations(stage)),
            tuple(reader.meta(f"{name}decision") for name in names),
            tuple(_first_candidate(reader, name) for name in names),
            tuple(dict.fromkeys(texts)),
            reader.meta("winner") is not None,
            driven,
            float(reader.meta("seconds") or 0.0),
        )


def _first_candidate(reader: LedgerReader, name: str) -> int:
    """Where a search's candidates begin; beyond all of them before it has begun."""
    first = reader.meta(f"{name}first candidate")
    return sys.maxsize // 2 if first is None else int(first)


def kind_of(run: RecordedRun, number: int) -> str:
    """What a model is, as `ModelRow.kind` has it."""
    if number not in run.baselines:
        return "winner"
    kind = run.baselines[number]["kind"]
    # An earlier stage may have found nothing better than a fixed recipe.
    return "baseline" if kind == "stage" and not evolved_earlier(run, number) else kind


def label_of(run: RecordedRun, number: int) -> str:
    """What a model is called."""
    if number in run.baselines:
        return str(run.baselines[number]["label"])
    candidate = run.candidates[number]
    return f"merge {number} ({candidate.origin})"


def finalists(run: RecordedRun) -> dict[int, Results]:
    """The models that reached the last rung, with their outcomes on all selection items.

    Without those of which a rung is missing: a repair may have dropped it.
    """
    stages = sorted(
        {
            e.stage
            for e in run.evaluations
            if e.stage.startswith("final ") and e.candidate >= run.first
        }
    )
    if run.decision is None or not stages:
        return {}
    results = [run.results(stage) for stage in stages]
    complete = [n for n in results[-1] if all(n in rung for rung in results)]
    last = [number for number in complete if number >= run.first]
    return {number: joined([rung[number] for rung in results]) for number in last}


def evolved_earlier(run: RecordedRun, winner: int) -> bool:
    """Whether a baseline of the last search is a merge that an earlier one evolved."""
    recipes = {
        run.candidates[int(decision["winner"])].recipe.digest
        for decision in run.decisions[:-1]
        if decision is not None and decision["winner"] != decision["best_baseline"]
    }
    nested = {recipe.digest for _, recipe in run.candidates[winner].recipe.nested}
    return bool(nested & recipes)
