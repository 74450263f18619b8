"""Signals and full disks in every phase of a real search: exit 75, and the same command goes on."""

from __future__ import annotations

import errno
import os
import pty
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from evomerge import export
from evomerge.candidate import SEARCH
from evomerge.cli import searching
from evomerge.errors import InvalidInput
from evomerge.run.ledger import Ledger, LedgerReader
from evomerge.run.pools.choose import Workplace
from evomerge.run.progress import Finished
from tests.cli.conftest import Done, Run
from tests.cli.test_search import evaluations, record
from tests.run.fakes import FakeWorkers, drive, plan

Space = Callable[..., Path]
SECONDS = 300
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def search(evomerge: Run, space: Space, tmp_path: Path) -> Callable[[], Done]:
    """One and the same command."""
    command = ("search", "--space", space(), "--out", tmp_path / "run", "--engine", "inline")
    return lambda: evomerge(*command, "--budget", "19")


def first(action: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, after the action has happened."""

    def both(*arguments: Any, **named: Any) -> Any:
        action()
        return function(*arguments, **named)

    return both


def at_call(number: int, action: Callable[[], None]) -> Callable[[], None]:
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1
        if count == number:
            action()

    return counted


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def fill() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "model.safetensors")


PHASES = [
    (searching, "build_run", 1),
    (searching, "open_directory", 1),
    (Workplace, "open_pool", 1),
    (Ledger, "record", 2),  # baselines
    (Ledger, "record", 16),  # search
    (Ledger, "record", 22),  # final
    (searching, "save_best", 1),
    (searching, "render_report", 1),
]


def test_a_signal_in_any_phase_ends_the_search_in_good_order(
    search: Callable[[], Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run that is stopped in one phase after the other."""
    handler = signal.getsignal(signal.SIGTERM)
    for owner, name, call in PHASES:
        with monkeypatch.context() as patch:
            known = evaluations(tmp_path / "run")
            late = call - known if name == "record" else call
            patch.setattr(owner, name, first(at_call(late, terminate), getattr(owner, name)))
            done = search()
        assert done.code == 75, (name, done.err)
        assert done.err.splitlines()[-1] == (
            "evomerge: interrupted; finished work is saved, the same command continues"
        )
        assert "Traceback" not in done.err
        assert signal.getsignal(signal.SIGTERM) == handler
        assert not list((tmp_path / "run").glob("best"))[: name != "render_report"]
    done = search()
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "report.html").exists()
    # and it is the run that nobody stopped
    expected = record(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "stopped")
    assert search().code == 0
    assert record(tmp_path / "run") == expected


def test_a_full_disk_in_any_phase_pauses_the_search(
    search: Callable[[], Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name in (
        (searching, "open_directory"),
        (Ledger, "open"),
        (export, "write_model"),
        (searching, "write_whole"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, first(fill, getattr(owner, name)))
            done = search()
        assert done.code == 75, (name, done.err)
        assert done.err.splitlines()[-1] == (
            "evomerge: model.safetensors: no space left; free some space and run the same command "
            "again"
        )
    done = search()
    assert done.code == 0, done.err


def test_a_worker_without_room_pauses_the_search_and_fails_no_candidate(
    search: Callable[[], Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from evomerge.run.benches import MergeBench  # noqa: PLC0415 - slow to import

    with monkeypatch.context() as patch:
        patch.setattr(MergeBench, "become", first(at_call(7, fill), MergeBench.become))
        done = search()
    assert done.code == 75, done.err
    assert "a worker's disk is full" in done.err.splitlines()[-1]
    assert evaluations(tmp_path / "run") == 6
    assert search().code == 0


def in_terminal(run: Path) -> tuple[int, int]:
    """A search with two workers in a terminal of its own: its process, our end of the terminal."""
    command = [sys.executable, "-m", "tests.cli.watched", str(run)]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(ROOT)
        os.execve(sys.executable, command, os.environ | {"TERM": "xterm", "PYTHONPATH": str(ROOT)})
    os.set_blocking(terminal, False)
    return process, terminal


class Screen:
    """What a terminal has shown so far, and what became of the process in it."""

    def __init__(self, process: int, terminal: int) -> None:
        self.process = process
        self.terminal = terminal
        self.text = ""
        self.code: int | None = None

    def until(self, condition: Callable[[], bool]) -> None:
        """Go on reading until the condition holds, which it must while the process lives."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert not self.gone(), self.text[-2000:]
            assert time.monotonic() < deadline, self.text[-2000:]
            self.read()
            time.sleep(0.02)

    def read(self) -> None:
        with suppress(OSError):  # nothing new, or closed
            self.text += os.read(self.terminal, 1 << 20).decode(errors="replace")

    def gone(self) -> bool:
        if self.code is None:
            ended, status = os.waitpid(self.process, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if ended else None
        self.read()
        return self.code is not None


def answered(run: Path) -> set[str]:
    """The workers that have answered in the search, which has something to do for both."""
    try:
        with LedgerReader.open(run) as reader:
            return {evaluation.worker for evaluation in reader.evaluations(SEARCH)}
    except InvalidInput:  # not created yet
        return set()


@pytest.mark.parametrize("answering", [True, False])
def test_ctrl_c_in_a_live_table(tmp_path: Path, answering: bool) -> None:
    """The first one waits for the workers, and says so; the second waits for nobody."""
    screen, children = Screen(*in_terminal(tmp_path / "run")), []
    try:
        # a worker that is stopped before it has answered may not know yet whom to die with
        screen.until(lambda: len(answered(tmp_path / "run")) == 2)
        children = psutil.Process(screen.process).children(recursive=True)
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        assert len(workers) == 2
        for worker in workers[: 2 * (not answering)]:
            worker.suspend()
        os.write(screen.terminal, b"\x03")
        screen.until(lambda: bool(re.search("stopping: waiting for [12]", screen.text)))
        if answering:
            (tmp_path / "go").touch()
        else:
            os.write(screen.terminal, b"\x03")
        screen.until(screen.gone)
        _, alive = psutil.wait_procs(children, timeout=SECONDS)
        assert not alive
    finally:
        if not screen.gone():
            os.kill(screen.process, signal.SIGKILL)
            os.waitpid(screen.process, 0)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        os.close(screen.terminal)
    assert screen.code == (75 if answering else 130)
    assert "Traceback" not in screen.text, screen.text[screen.text.find("Traceback") :][:3000]
    hidden, shown = screen.text.rfind("\x1b[?25l"), screen.text.rfind("\x1b[?25h")
    assert 0 <= hidden < shown  # the cursor is back
    *_, last = drive(tmp_path / "run", plan(), FakeWorkers())
    assert isinstance(last, Finished)
