"""Real small file systems that fill up: the search pauses, and with room it goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from evomerge.cli import searching
from evomerge.errors import Interrupted
from evomerge.run.deadlines import Deadlines
from evomerge.run.ledger import Ledger
from evomerge.run.pools.local import local_pool
from evomerge.run.progress import Finished
from tests.cli.conftest import Run
from tests.cli.test_search import evaluations, record
from tests.cli.test_stopping import at_call, first
from tests.contracts.fake_workers import FakeFactory, assignment
from tests.contracts.fake_workers import expected as expected_of
from tests.run.fakes import FakeWorkers, drive
from tests.run.test_driver import record as decided
from tests.run.test_durability import expected, small

Disk = Callable[[int], Path]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Makes a file system of so many KiB, where that is allowed."""
    places: list[Path] = []

    def mount(kib: int) -> Path:
        place = tmp_path / f"disk-{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
            pytest.skip("only the administrator may mount a file system")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path, *, leave: int) -> None:
    """Leave only so many bytes."""
    ballast = place / "ballast"
    ballast.unlink(missing_ok=True)
    room = os.statvfs(place)
    ballast.write_bytes(bytes(max(0, room.f_bavail * room.f_frsize - leave)))


def test_a_driver_whose_disk_fills_again_and_again_ends_like_any_other(disk: Disk) -> None:
    place, pauses, last = disk(4096), 0, None
    while last is None:
        fill(place, leave=140 << 10)
        try:
            *_, last = drive(place / "run", small(), FakeWorkers())
        except Interrupted:
            pauses += 1
            if pauses == 60:
                raise
    assert isinstance(last, Finished)
    assert pauses >= 2
    assert decided(place / "run") == expected()


def test_a_disk_that_is_full_from_the_start(disk: Disk) -> None:
    place = disk(1024)
    for leave in (0, 4096, 8192, 16384, 32768):
        fill(place, leave=leave)
        with pytest.raises((Interrupted, OSError), match=r"[Nn]o space|disk"):
            list(drive(place / "run", small(), FakeWorkers()))
    (place / "ballast").unlink()
    *_, last = drive(place / "run", small(), FakeWorkers())
    assert isinstance(last, Finished)
    assert decided(place / "run") == expected()


def test_a_search_whose_disk_fills_in_every_phase(
    evomerge: Run,
    space: Callable[..., Path],
    disk: Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = disk(400 << 10)
    command = ("search", "--space", space(), "--engine", "inline", "--budget", "19", "--out")
    for owner, name, call in (
        (searching, "open_directory", 1),
        (Ledger, "record", 9),
        (searching, "save_best", 1),
        (searching, "write_whole", 1),
    ):
        with monkeypatch.context() as patch:
            late = at_call(call, lambda: fill(place, leave=0))
            patch.setattr(owner, name, first(late, getattr(owner, name)))
            done = evomerge(*command, place / "run")
        (place / "ballast").unlink()
        assert done.code == 75, (name, done.err)
        assert "Traceback" not in done.err
        assert "run the same command again" in done.err.splitlines()[-1]
    assert evaluations(place / "run") > 19
    done = evomerge(*command, place / "run")
    assert done.code == 0, done.err
    assert evomerge(*command, tmp_path / "whole").code == 0
    assert record(place / "run") == record(tmp_path / "whole")


def test_a_worker_whose_log_has_no_room_goes_on(disk: Disk) -> None:
    place = disk(64)
    (place / "logs").mkdir()
    fill(place, leave=0)
    with local_pool(FakeFactory(), 1, deadline=Deadlines(), logs=place / "logs") as pool:
        pool.submit(assignment(1, "print"))
        answers = pool.poll(300.0)
    assert [answer.outcome for answer in answers] == [expected_of(assignment(1, "print"))]
    assert (place / "logs" / "worker-0.log").stat().st_size == 0
