from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest

from evomerge.candidate import Assignment, Failed, ItemSelection, Scored
from evomerge.errors import PreflightFailed
from evomerge.recipe import Recipe, Source
from evomerge.run import calibration
from evomerge.run.calibration import Calibration, Rehearsal, calibrate
from tests.contracts.test_pools import wait_until_gone

if TYPE_CHECKING:
    from evomerge.run.workers import WorkerSpec


def items(letter: str) -> ItemSelection:
    """Here and not from elsewhere: every child imports this file, and what it imports."""
    return ItemSelection((("task", tuple(f"{letter}{index}" for index in range(8))),))


REHEARSAL = Rehearsal((Recipe("ties", (Source("a"),)),), items("f"), items("u"), items("m"))
PATIENCE = 300.0


@dataclass(frozen=True)
class Spec:
    """Makes a worker that does `problem`, at its start or with its first recipe."""

    problem: str = ""
    argument: str = ""
    threads: int = 1

    def __call__(self) -> Spec:
        if self.problem == "user error":
            raise PreflightFailed(["parent 'a' has 30 layers", "and 1 more"])
        if self.problem == "exit":
            os._exit(3)
        if self.problem == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.problem == "slow start":
            time.sleep(600)
        return self

    def evaluate(self, _given: Assignment) -> Scored | Failed:
        if self.problem == "broken":
            raise RuntimeError("device-side assert\ntriggered")
        if self.problem == "failed":
            return Failed("error", "merged tensor 'w' holds NaN")
        if self.problem == "hang":
            if self.argument:
                Path(self.argument).write_text(str(os.getpid()))
            time.sleep(600)
        return Scored((), 0.5, 0.25)


def measure(problem: str = "", rehearsal: Rehearsal = REHEARSAL) -> Calibration:
    spec: Any = Spec(problem)
    return calibrate(cast("WorkerSpec", spec), rehearsal)


def children() -> set[psutil.Process]:
    """Without the resource tracker, which lives as long as the tests."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # of an earlier test, and ended just now
            if "spawn_main" in " ".join(child.cmdline()):
                found.add(child)
    return found


def test_the_child_is_measured_and_gone_afterwards() -> None:
    before = children()
    found = measure()
    assert found.timings.first == {"ties": 0.5}
    assert found.start > 0.0
    assert found.private > 0
    assert children() <= before


@pytest.mark.parametrize(
    ("problem", "lines"),
    [
        ("user error", ("parent 'a' has 30 layers", "and 1 more")),
        ("broken", ("RuntimeError: device-side assert triggered",)),
        ("failed", ("the recipe that the search starts from fails: merged tensor 'w' holds NaN",)),
        ("exit", ("the worker's process ended with exit code 3; see the estimate with --quick",)),
    ],
)
def test_whatever_goes_wrong_is_lines(problem: str, lines: tuple[str, ...]) -> None:
    with pytest.raises(PreflightFailed, match="calibration: ") as caught:
        measure(problem)
    assert caught.value.problems == tuple(f"calibration: {line}" for line in lines)


def test_a_killed_child_ran_out_of_memory_most_likely() -> None:
    with pytest.raises(PreflightFailed, match="calibration: the worker was killed, most likely"):
        measure("killed")


@pytest.mark.parametrize(
    ("problem", "line"),
    [("slow start", "the worker was not ready after"), ("hang", "a ready worker had no result")],
)
def test_a_child_that_hangs_is_killed(
    problem: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    if problem == "slow start":
        monkeypatch.setattr(calibration, "START_DEADLINE", 0.5)
    monkeypatch.setattr(calibration, "_GRACE", 0.5)
    with pytest.raises(PreflightFailed, match=f"calibration: {line}.*--quick"):
        measure(problem, replace(REHEARSAL, seconds=0.0))
    assert children() <= before


DRIVER = """
import sys
from evomerge.run.calibration import calibrate
from tests.run.test_calibration_process import REHEARSAL, Spec
if __name__ == "__main__":
    calibrate(Spec("hang", sys.argv[1]), REHEARSAL)
"""


def test_the_child_dies_with_a_killed_parent(tmp_path: Path) -> None:
    script, name = tmp_path / "driver.py", tmp_path / "pid"
    script.write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    end = time.monotonic() + PATIENCE
    with subprocess.Popen([sys.executable, str(script), str(name)], env=environment) as driver:
        while not (name.exists() and name.read_text()):
            assert driver.poll() is None
            assert time.monotonic() < end, "the child does not start"
            time.sleep(0.05)
        child = int(name.read_text())
        assert psutil.pid_exists(child)
        driver.kill()
    wait_until_gone({child})
