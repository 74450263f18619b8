"""The candidates that did best, in a run at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.candidate import Candidate
from evomerge.report.claims import caveats
from evomerge.report.recorded import RecordedRun, finalists, read_run
from evomerge.run.final import Results


@dataclass(frozen=True)
class Leading:
    """A candidate, its score with where that comes from, and what the score does not prove."""

    candidate: Candidate
    score: str
    caveats: tuple[str, ...]


def leading_candidates(run_dir: Path, top: int) -> tuple[Leading, ...]:
    """The winner first, then the candidates that did best.

    Candidates that reached the final are ranked by it, those on the front first; others by their
    distance from the mean of their generation, because generations are scored on different items.
    """
    run = read_run(run_dir, driven=False)
    reached = finalists(run)
    fitness = {number: run.objective.fitness(found) for number, found in reached.items()}
    front = [] if run.decision is None else list(run.decision["front"])
    found = [(n, _final_score(run, reached[n], n in front)) for n in _best_first(fitness)]
    if run.decision is not None:
        winner = int(run.decision["winner"])
        found.sort(key=lambda entry: (entry[0] != winner, entry[0] not in front))
    seen = {number for number, _ in found}
    lead = _leads(run)
    found += [
        (n, f"{lead[n]:+.4f} against its generation's mean")
        for n in _best_first(lead)
        if n not in seen
    ]
    return tuple(
        Leading(run.candidates[number], score, caveats(run, number))
        for number, score in found[:top]
    )


def _final_score(run: RecordedRun, results: Results, on_front: bool) -> str:
    fitness = f"fitness {run.objective.fitness(results):.4f}"
    names = {goal.task for goal in run.objective.trades}
    scores = (score for score in run.objective.scores(results) if score.task in names)
    each = "".join(f", {score.task} {score.value:.4f}" for score in scores)
    return f"{fitness}{each} on the selection items{', on the front' if on_front else ''}"


def _best_first(fitness: Mapping[int, float]) -> list[int]:
    return sorted(fitness, key=lambda number: (-fitness[number], number))


def _leads(run: RecordedRun) -> dict[int, float]:
    values = run.searched
    generations: dict[int, list[float]] = {}
    for number, value in values.items():
        generations.setdefault(run.candidates.generation(number), []).append(value)
    means = {generation: sum(v) / len(v) for generation, v in generations.items()}
    return {n: value - means[run.candidates.generation(n)] for n, value in values.items()}
