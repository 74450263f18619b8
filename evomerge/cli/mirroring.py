"""`evomerge mirror`: keeps an Optuna study beside a run, for optuna-dashboard."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from evomerge.candidate import SEARCH
from evomerge.cli.viewing import View, viewed
from evomerge.errors import RunLocked, StorageTrouble
from evomerge.mirror.study import note, opened, write
from evomerge.mirror.trials import mirror_studies
from evomerge.report.recorded import read_run
from evomerge.report.summarize import summarize
from evomerge.report.terminal import status_lines, verdict_lines
from evomerge.run.ledger import LedgerReader

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

_WATCH_SECONDS = 5.0


def mirror_command(run: str, target: str, *, watch: bool) -> None:
    """Write the studies of a run into `target`, once or until nobody drives the run any more.

    A watch that has begun waits for databases that go away. Raises what `viewed` and `opened` do.
    """
    begun = False
    trouble = ""
    with viewed(run) as view:
        while True:
            try:
                with opened(target) as storage:
                    for _ in _followed(view, storage, watch=watch):
                        begun, trouble = True, ""
                return
            except (StorageTrouble, RunLocked) as error:  # our own lost session may hold the lock
                if not (watch and begun):
                    raise
                if not trouble:
                    print(f"{error}; trying again", file=sys.stderr, flush=True)
                trouble = str(error)
                time.sleep(_WATCH_SECONDS)


def _followed(view: View, storage: BaseStorage, *, watch: bool) -> Iterator[None]:
    """Bring the studies up to date, and again after a while; yields after every time."""
    told = ""
    while True:
        run_dir = view.look()
        driven = view.driven
        recorded = read_run(run_dir, driven=driven)
        with LedgerReader.open(run_dir) as reader:
            searched = reader.evaluations(SEARCH)
        summary = summarize(run_dir, driven=driven)
        text = _note((*status_lines(summary), *verdict_lines(summary)), summary.winner_recipe)
        for study in mirror_studies(recorded, searched, view.name):
            added = write(study, storage)
            if added:
                print(f"{study.name}: {added} trials added", file=sys.stderr, flush=True)
            if text != told:
                note(study, storage, text)
        told = text
        yield
        if not watch or summary.state != "running":
            return
        time.sleep(_WATCH_SECONDS)


def _note(lines: tuple[str, ...], recipe: str) -> str:
    """Markdown: how far the run is, its verdict and the winner's recipe."""
    text = "```\n" + "\n".join(lines) + "\n```\n"
    return f"{text}\nWinner:\n\n```yaml\n{recipe}```\n" if recipe else text
