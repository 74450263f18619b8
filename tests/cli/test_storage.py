"""Shared storage through the command line: a lost host, watchers, refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.run.ledger import LEDGER, Ledger, LedgerReader
from evomerge.run.replica.address import Address
from evomerge.run.replica.holding import Holding
from evomerge.run.replica.session import Session
from tests.cli.conftest import Run
from tests.postgres import PASSWORD, Server
from tests.run.test_ledger import candidate, scored
from tests.run.test_replica import tables

Space = Callable[..., Path]


def test_a_search_is_watched_from_the_database_and_restored_from_it(
    evomerge: Run,
    space: Space,
    tmp_path: Path,
    postgres: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, run = space(budget={"candidates": 24}), tmp_path / "watched"
    command = ("search", "--space", path, "--out", run, "--engine", "inline")
    shared = (*command, "--storage", postgres.url)
    done = evomerge(*shared)
    assert done.code == 0, done.err
    before = tables(run)
    model = (run / "best" / "model" / "model.safetensors").read_bytes()
    for file in run.rglob("*"):
        assert file.is_dir() or PASSWORD.encode() not in file.read_bytes()
    assert PASSWORD not in done.out + done.err

    url = f"{postgres.url}#watched"
    local = json.loads(evomerge("status", run, "--json").out)
    assert json.loads(evomerge("status", url, "--json").out) == local
    assert evomerge("best", url).out == evomerge("best", run).out
    monkeypatch.chdir(tmp_path)
    assert evomerge("report", url).out.strip() == "watched.html"
    assert "<svg" in (tmp_path / "watched.html").read_text()

    with Session.open(Address.parse(postgres.url)) as session:
        session.claim("beside", "token", "")
    holding = Holding(Address.parse(postgres.url).named("watched"), run)
    holding.take()
    refused = evomerge(*shared)
    assert refused.code == 6
    assert "another evomerge process drives this run (pid " in refused.err
    assert PASSWORD not in refused.err
    (line,) = [
        line for line in evomerge("status", postgres.url).out.splitlines() if "watched " in line
    ]
    assert "driven by pid " in line
    holding.release()

    shutil.rmtree(run)
    again = evomerge(*shared)
    assert again.code == 0, again.err
    assert f"restored {run} from postgresql://evo:***@127.0.0.1" in again.err
    assert tables(run) == before
    assert (run / "best" / "model" / "model.safetensors").read_bytes() == model

    other = evomerge(*shared, "--seed", "9")
    assert other.code == 2
    assert "belongs to a run with other inputs" in other.err


def test_a_database_that_is_not_there_is_one_line(
    evomerge: Run, space: Space, tmp_path: Path
) -> None:
    url = "postgresql://evo:secret@127.0.0.1:1/base"
    for command in (
        ("search", "--space", space(), "--out", tmp_path / "run", "--storage", url),
        ("status", url),
        ("status", f"{url}#run"),
        ("best", url),
        ("report", url),
        ("mirror", url, "--to", f"sqlite:///{tmp_path / 'x.db'}"),
    ):
        done = evomerge(*command)
        assert done.code == 3, done
        assert done.err.count("\n") == 1
        assert "evo:***@127.0.0.1:1/base" in done.err
        assert "Connection refused" in done.err
        assert "secret" not in done.err
    assert not (tmp_path / "run").exists()


def test_without_psycopg_a_url_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no libpq')")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from evomerge.cli import main; main()"
    command = [sys.executable, "-c", code, str(tmp_path), "status", "postgresql://host/base"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "needs psycopg: pip install 'evomerge[postgres]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_watching_a_run_does_not_let_its_write_ahead_log_grow(tmp_path: Path) -> None:
    """A reader that stays open would: nothing newer than what it sees can leave the log."""
    log = tmp_path / f"{LEDGER}-wal"
    text = "x" * 400_000
    with Ledger.open(tmp_path) as ledger:
        ledger.add_candidate(candidate(0))
        ledger.record((0, "search"), scored(0), attempts=1, worker="w")
        for number in range(120):
            ledger.log("filler", {"text": text, "number": number})
            with LedgerReader.open(tmp_path) as reader:
                assert len(reader.evaluations()) == 1
        watched = log.stat().st_size
        with LedgerReader.open(tmp_path):
            for number in range(120):
                ledger.log("filler", {"text": text, "number": number})
            blocked = log.stat().st_size
    assert watched < 20 << 20
    assert blocked > 2 * watched
