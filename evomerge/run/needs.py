"""What a run takes of memory and disk, against what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from evomerge.candidate import SEARCH, ItemSelection, Scored
from evomerge.errors import PreflightFailed
from evomerge.mergekit_yaml import to_mapping
from evomerge.run.footprint import LIBRARY_BYTES, Footprint
from evomerge.run.forecast import Forecast
from evomerge.run.machine import existing, free_disk
from evomerge.run.plan import RunPlan
from evomerge.run.records import Evaluation, as_json, evaluation_row
from evomerge.score import ItemOutcome, TaskOutcomes

SPARE_BYTES = 64 << 20
"""What writing a model leaves free."""
_LOG_BYTES = 16 << 20
"""SQLite's write-ahead log before it is folded into the ledger."""
_ROW_BYTES = 400
"""Of a candidate and an evaluation besides recipe and outcomes, with SQLite's share."""
_GB = 1e9


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes of main memory.

    Attributes:
        worker: what each worker holds of its own.
        driver: what the process that drives the search holds of its own.
        shared: files that all processes map, once per machine: libraries and parents.
        measured: whether a calibration said so, or headers and a rule of thumb.
    """

    worker: int
    driver: int
    shared: int
    measured: bool

    def total(self, workers: int) -> int:
        """Of a search with this many workers on one machine."""
        return self.shared + self.driver + workers * self.worker

    def fitting(self, free: int) -> int:
        """How many workers find room in `free` bytes; mapped files count, lest they be reread.

        The driver does not: it runs while `free` is read, so what it holds is no longer free.
        """
        return max(0, (free - self.shared) // self.worker)


def estimated_memory(needs: Footprint, driver: int) -> MemoryNeeds:
    """From headers; `driver` is what this process holds."""
    return MemoryNeeds(needs.resident + LIBRARY_BYTES, driver, needs.mapped, measured=False)


def ledger_bytes(plan: RunPlan, expected: Forecast) -> int:
    """The size of a run's ledger; phases of unknown length are left out."""
    search = plan.search_items
    per_item = _outcome_bytes(search) / search.count
    recipes = [as_json(to_mapping(s.space.decode(s.space.start))) for s in plan.stages]
    per_row = _ROW_BYTES + max(len(recipe) for recipe in recipes)
    rows = sum(phase.evaluations or 0 for phase in expected.phases)
    items = sum(phase.items or 0 for phase in expected.phases)
    return round(rows * per_row + items * per_item) + _LOG_BYTES


def _outcome_bytes(items: ItemSelection) -> int:
    """The length of a row with an outcome for each of these items."""
    results = tuple(
        TaskOutcomes(task, tuple(ItemOutcome(item, 1.0) for item in ids))
        for task, ids in items.tasks
    )
    outcome = Scored(results, 0.1, 0.1)
    row, text = evaluation_row(Evaluation(1, 0, SEARCH, outcome, 1, "worker", 0.0, items.count))
    return len(as_json(row)) + len(text or "")


def disk_problem(folder: Path, model: int, ledger: int) -> str | None:
    """Why a run does not fit into its folder; None when it does."""
    free, needed = free_disk(folder), model + ledger + SPARE_BYTES
    if free >= needed:
        return None
    return (
        f"{folder}: the run needs {needed / _GB:.2f} GB (the winner's model {model / _GB:.2f}, the "
        f"ledger {ledger / _GB:.2f}), {free / _GB:.2f} GB are free on the disk of "
        f"{existing(folder)}: make room, or choose another disk with --out"
    )


def check_disk(folder: Path, model: int, ledger: int) -> None:
    """Refuse a run whose winner could not be saved.

    Raises:
        PreflightFailed: too little is free where the run directory is or will be.
    """
    problem = disk_problem(folder, model, ledger)
    if problem is not None:
        raise PreflightFailed(problem)
