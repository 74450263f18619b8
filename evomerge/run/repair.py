"""Rebuilds a damaged ledger from its intact rows; what is dropped is evaluated again.

An evaluation can be carried out again, a candidate follows from those before it, and an event is
only history. So all of them may be dropped. A fact that no replay restores may not.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import InvalidInput
from evomerge.run.ledger import LEDGER, Ledger
from evomerge.run.ledger_count import COUNT
from evomerge.run.ledger_errors import explained
from evomerge.run.ledger_file import LedgerFile
from evomerge.run.lock import RunLock
from evomerge.run.salvage import Salvage, salvaged

_FRESH = "ledger.sqlite.repaired"


@dataclass(frozen=True)
class Repair:
    """What a repair did or would do.

    Attributes:
        lost: what is dropped, one line each.
        kept: how many evaluations remain.
        copy: where the damaged files are kept; None when nothing was changed.
    """

    lost: tuple[str, ...]
    kept: int
    copy: Path | None


def repair(run_dir: Path, *, dry: bool, in_order: bool) -> Repair:
    """Rebuild the ledger of `run_dir` from its intact rows.

    Args:
        run_dir: the run; nobody may be driving it.
        dry: only tell what would be lost.
        in_order: the order in which evaluations were counted is part of the run, so nothing that
            was counted after the first gap can stay.

    Raises:
        RunLocked: somebody drives the run.
        InvalidInput: what is left is not enough to continue from.
    """
    path = run_dir / LEDGER
    if not path.is_file():
        raise InvalidInput(f"{run_dir}: there is no {LEDGER} to repair; check the path")
    lock = RunLock.acquire(run_dir)
    try:
        with explained(path):
            found = salvaged(path, in_order=in_order)
        lost, kept = tuple(found.lost), len(found.rows["evaluations"])
        if dry:
            return Repair(lost, kept, None)
        with explained(path):
            _write(run_dir / _FRESH, found)
        copy = _replace(path)
    finally:
        lock.release()
    with Ledger.open(run_dir) as ledger:  # checks all of it
        ledger.log("repaired", {"lost": list(lost), "copy": copy.name})
    return Repair(lost, kept, copy)


def _write(path: Path, salvage: Salvage) -> None:
    path.unlink(missing_ok=True)
    file = LedgerFile.create(path, salvage.identity)
    try:
        with file.transaction():
            for table, rows in salvage.rows.items():
                for row, results in rows:
                    file.insert(table, row, clause="ON CONFLICT DO NOTHING", results=results)
    finally:
        file.connection.close()  # folds the write-ahead log into the file


def _replace(path: Path) -> Path:
    """Put the fresh file into the place of the damaged ones, which are copied away before."""
    folder, number = path.parent, 1
    while (folder / f"damaged-{number}").exists():
        number += 1
    copy = folder / f"damaged-{number}"
    copy.mkdir()
    damaged = [folder / f"{LEDGER}{ending}" for ending in ("", "-wal", "-shm")]
    for part in damaged:
        if part.exists():
            shutil.copy2(part, copy / part.name)
    # The count goes first and the fresh file comes last: whatever is cut off in between, the old
    # write-ahead log never meets the fresh file.
    for part in (folder / COUNT, *reversed(damaged)):
        part.unlink(missing_ok=True)
    os.replace(folder / _FRESH, path)
    return copy
