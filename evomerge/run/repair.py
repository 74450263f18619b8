"""Rebuilds a damaged ledger from its intact rows; what is dropped is evaluated again.

An evaluation can be carried out again, a candidate follows from those before it, and an event is
only history. So all of them may be dropped. A fact that no replay restores may not.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import InvalidInput
from evomerge.plain_text import without_secrets
from evomerge.run.ledger import LEDGER, Ledger, LedgerReader
from evomerge.run.ledger_count import COUNT
from evomerge.run.ledger_errors import explained
from evomerge.run.ledger_file import LedgerFile
from evomerge.run.ledger_schema import unfinished_repair
from evomerge.run.lock import RunLock
from evomerge.run.records import as_json
from evomerge.run.salvage import Salvage, salvaged

_BUILDING = f".{LEDGER}.repairing"
_ENDINGS = ("", "-wal", "-shm")


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
    """Rebuild the ledger of `run_dir` from its intact rows, or finish that after it was cut off.

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
        raise InvalidInput(
            f"{without_secrets(str(run_dir))}: there is no {LEDGER} to repair; check the path"
        )
    lock = RunLock.acquire(run_dir)
    try:
        if not unfinished_repair(path).exists():
            with explained(path):
                found = salvaged(path, in_order=in_order)
                lost, kept = tuple(found.lost), len(found.rows["evaluations"])
                if dry:
                    return Repair(lost, kept, None)
                _prepare(path, found)
        elif dry:
            raise InvalidInput(f"{run_dir}: a repair was cut off; run it without --dry-run")
        with explained(path):
            _finish(path)
    finally:
        lock.release()
    with Ledger.open(run_dir):  # checks all of it
        pass
    return _done(run_dir)


def _done(run_dir: Path) -> Repair:
    """The last repair, as the ledger has it on record."""
    with LedgerReader.open(run_dir) as reader:
        event = reader.events("repaired")[-1].payload
        kept = len(reader.tallies())
    return Repair(tuple(event["lost"]), kept, run_dir / str(event["copy"]))


def _prepare(path: Path, salvage: Salvage) -> None:
    """Copy the damaged files away and build the fresh one: from then on it only takes its place."""
    copy = _free_folder(path.parent)
    building = path.with_name(_BUILDING)
    for ending in _ENDINGS:
        building.with_name(f"{_BUILDING}{ending}").unlink(missing_ok=True)
    _write(building, salvage, {"lost": salvage.lost, "copy": copy.name})
    copy.mkdir()
    damaged = [part for part in _parts(path) if part.exists()]
    for part in damaged:
        shutil.copy2(part, copy / part.name)
    _to_disk([building, *(copy / part.name for part in damaged), copy])
    os.replace(building, unfinished_repair(path))
    _to_disk([path.parent])


def _write(path: Path, salvage: Salvage, repaired: Mapping[str, object]) -> None:
    clause = "ON CONFLICT DO NOTHING"
    file = LedgerFile.create(path, salvage.identity)
    try:
        with file.transaction():
            for table, rows in salvage.rows.items():
                for row, beside in rows:
                    file.insert(table, row, clause=clause, beside=beside)
            event = ("repaired", as_json(repaired), time.time())
            file.insert("events", event, beside=salvage.last_event + 1)
    finally:
        file.connection.close()  # folds the write-ahead log into the file


def _finish(path: Path) -> None:
    """Put the fresh file into the place of the damaged ones; again after it was cut off."""
    # The old write-ahead log goes first, so that it never meets the fresh file. Until that is in
    # place its own name says that this is not over, and no driver starts.
    for part in (path.with_name(COUNT), *_parts(path)[1:]):
        part.unlink(missing_ok=True)
    _to_disk([path.parent])
    os.replace(unfinished_repair(path), path)
    _to_disk([path.parent])


def _parts(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{ending}") for ending in _ENDINGS]


def _free_folder(folder: Path) -> Path:
    number = 1
    while (folder / f"damaged-{number}").exists():
        number += 1
    return folder / f"damaged-{number}"


def _to_disk(paths: Sequence[Path]) -> None:
    """Files and folders: a power cut must not take what was acknowledged."""
    for path in paths:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
