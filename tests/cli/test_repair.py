"""`evomerge repair` on a ledger in which one outcome was damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import InvalidInput
from evomerge.run.directory import open_directory
from evomerge.run.ledger import LEDGER, Ledger, LedgerReader
from tests.cli.conftest import Run
from tests.run.test_durability import continued, finished_files, put


@pytest.mark.parametrize(("schedule", "kept"), [("ordered", 30), ("arrival", 0)])
def test_repair_says_what_is_lost_and_loses_nothing_else(
    evomerge: Run, tmp_path: Path, schedule: str, kept: int
) -> None:
    run, files = tmp_path / "run", finished_files()
    resolved = {"name": "run", "versions": {}, "searches": [{"schedule": schedule}]}
    open_directory(run, Path(__file__), resolved)
    put(run, files | {LEDGER: files[LEDGER].replace(b'"items":["s0', b'"items":["t0', 1)})
    with pytest.raises(
        InvalidInput, match=r"see what 'evomerge repair .*run --dry-run' would lose"
    ):
        Ledger.open(run)
    told = evomerge("repair", run, "--dry-run")
    assert told.code == 0, told.err
    assert told.out.startswith("lost: the evaluations row (candidate ")
    assert "nothing was changed" in told.err
    assert not list(run.glob("damaged-*"))
    done = evomerge("repair", run)
    assert done.code == 0, done.err
    assert done.out.startswith(told.out)
    assert f"the damaged files are in {run / 'damaged-1'}" in done.err
    with LedgerReader.open(run) as reader:
        left = [e.seq for e in reader.tallies()]
    assert len(left) == left[-1] if schedule == "arrival" else len(left) == left[-1] - 1
    assert len(left) >= kept
    assert f"intact: {len(left)} evaluations" in done.out
    continued(run)


def test_repair_needs_a_run(evomerge: Run, tmp_path: Path) -> None:
    done = evomerge("repair", tmp_path)
    assert done.code == 2
    assert "not a run directory" in done.err
