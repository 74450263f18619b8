"""Who may drive a run directory, also when file locks do not reach between machines."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

import pytest

from evomerge.candidate import Failed
from evomerge.errors import Interrupted, RunLocked
from evomerge.run import lock
from evomerge.run.ledger import Ledger, LedgerReader
from evomerge.run.lock import LOCK, STALE, RunLock, is_locked
from tests.run.test_ledger import candidate, scored


def elsewhere(run_dir: Path, seconds_ago: float) -> None:
    """What a driver on another machine leaves."""
    (run_dir / LOCK).write_text("pid 77 on node-b\n00ff00ff00ff00ff\n")
    moment = time.time() - seconds_ago
    os.utime(run_dir / LOCK, (moment, moment))


def test_a_living_owner_on_another_machine_is_respected(tmp_path: Path) -> None:
    elsewhere(tmp_path, 20.0)
    with pytest.raises(RunLocked, match=r"pid 77 on node-b gave a sign of life \d+ s ago; after 1"):
        Ledger.open(tmp_path)
    assert is_locked(tmp_path)
    assert "node-b" in (tmp_path / LOCK).read_text()


def test_a_silent_owner_on_another_machine_is_replaced(tmp_path: Path) -> None:
    elsewhere(tmp_path, STALE + 5.0)
    assert not is_locked(tmp_path)
    with Ledger.open(tmp_path):
        assert f"pid {os.getpid()} on" in (tmp_path / LOCK).read_text()
    assert (tmp_path / LOCK).read_text() == ""


def test_whoever_lost_the_run_writes_no_more(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.add_candidate(candidate(1))
        elsewhere(tmp_path, 0.0)
        taken = r"LOCK: now names pid 77 on node-b: this process stops"
        with pytest.raises(RunLocked, match=taken):
            ledger.record((1, "search"), scored(1), attempts=1, worker="w")
        with pytest.raises(RunLocked, match=taken):
            ledger.add_candidate(candidate(2))
        with pytest.raises(RunLocked, match=taken):
            ledger.set_meta("winner", 1)
        (tmp_path / LOCK).unlink()
        with pytest.raises(RunLocked, match="LOCK: is gone or empty"):
            ledger.log("started", {})
        elsewhere(tmp_path, 0.0)
    assert "node-b" in (tmp_path / LOCK).read_text()  # not its own to clear
    with LedgerReader.open(tmp_path) as reader:
        assert reader.evaluations() == ()


def test_an_owner_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with Ledger.open(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        while (tmp_path / LOCK).stat().st_mtime == 0:
            time.sleep(0.01)
        assert is_locked(tmp_path)


def test_where_there_are_no_file_locks_the_owner_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with Ledger.open(tmp_path) as ledger:
        ledger.add_candidate(candidate(1))
        # a living process of this machine that is not this one
        (tmp_path / LOCK).write_text(f"pid 1 on {socket.gethostname()}\n00ff\n")
        with pytest.raises(RunLocked, match=r"drives this run \(pid 1 on"):
            RunLock.acquire(tmp_path)
    (tmp_path / LOCK).write_text(f"pid 999999999 on {socket.gethostname()}\n00ff\n")
    with Ledger.open(tmp_path) as ledger:
        assert ledger.record((1, "search"), Failed("error", "x"), attempts=1, worker="w")


def test_a_second_driver_of_this_machine_is_refused(tmp_path: Path) -> None:
    held = RunLock.acquire(tmp_path)
    with pytest.raises(RunLocked, match=rf"pid {os.getpid()} on \S+ holds .*LOCK\); wait until"):
        RunLock.acquire(tmp_path)
    held.release()
    held.release()
    RunLock.acquire(tmp_path).release()


@pytest.mark.parametrize("code", [errno.ESTALE, errno.EIO])
def test_a_lock_that_cannot_be_read_is_tried_again_and_then_said(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_PAUSE", 0.0)
    real, failures = Path.read_text, [2]

    def shaky(path: Path, encoding: str) -> str:
        if path.name == LOCK and failures[0] > 0:
            failures[0] -= 1
            raise OSError(code, os.strerror(code))
        return real(path, encoding=encoding)

    with Ledger.open(tmp_path) as ledger:
        monkeypatch.setattr(Path, "read_text", shaky)
        ledger.log("started", {})
        failures[0] = 10**6
        with pytest.raises(Interrupted, match=r"LOCK: cannot be read .*run the same command again"):
            ledger.log("started", {})
    monkeypatch.undo()
    with LedgerReader.open(tmp_path) as reader:
        assert len(reader.events("started")) == 1
