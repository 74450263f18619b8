"""Folders that a node lacks come there once, whole, and with the error of the command if not."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.run.fetch import Fetching, fetch, fetch_command, folders_of
from tests.contracts.fake_workers import FakeFactory, FakeWorker


def test_a_missing_folder_is_fetched_once(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "a b"
    log = tmp_path / "log"
    script = 'echo "$1" >> "$2"; mkdir -p "$1"'
    factory = Fetching(
        FakeFactory(),
        ("sh", "-c", script, "sh", "{path}", str(log)),
        (str(folder),),
        str(tmp_path / "spaces"),
    )
    assert isinstance(factory(), FakeWorker)
    factory()
    assert log.read_text() == f"{folder}\n"
    assert (tmp_path / "spaces" / ".." / "models" / "a b").is_dir()
    assert [path.name for path in folder.parent.iterdir()] == ["a b"]


def test_a_copy_that_was_cut_short_is_taken_up_again(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    cut = ("sh", "-c", 'mkdir "$1"; touch "$1/half"; echo gone >&2; exit 3', "sh", "{path}")
    line = "--fetch failed for .*/a: exit code 3 of .*: gone$"
    with pytest.raises(PreflightFailed, match=line):
        fetch(folder, cut)
    fetch(folder, ("sh", "-c", 'touch "$1/whole"', "sh", "{path}"))
    assert {path.name for path in folder.iterdir()} == {"half", "whole"}
    fetch(folder, cut)


def test_a_command_that_brings_nothing_or_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PreflightFailed, match=r"there is no folder .*/a: correct the command"):
        fetch(tmp_path / "a", ("true", "{path}"))
    with pytest.raises(PreflightFailed, match="cannot run no-such-program"):
        fetch(tmp_path / "a", ("no-such-program", "{path}"))


def test_workers_that_start_together_wait_for_one_copy(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = 'echo begun >> "$2"; sleep 0.3; mkdir "$1"'
    command = ("sh", "-c", script, "sh", "{path}", str(log))
    code = (
        "from pathlib import Path; from evomerge.run.fetch import fetch; "
        f"fetch(Path({str(tmp_path / 'a')!r}), {command!r}); "
        f"assert Path({str(tmp_path / 'a')!r}).is_dir()"
    )
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert log.read_text() == "begun\n"


def test_the_folders_of_a_run_are_those_of_parents_adapters_and_tasks(tmp_path: Path) -> None:
    for name in ("base", "lora", "tasks"):
        (tmp_path / name).mkdir()
    models = (
        "base",
        "./base+lora",
        "../" + tmp_path.name + "/base",
        "org/in-the-hub-cache",
        str(tmp_path / "base"),
    )
    found = folders_of(models, (str(tmp_path / "tasks"),), tmp_path)
    assert found == tuple(str(tmp_path / name) for name in ("base", "lora", "tasks"))


@pytest.mark.parametrize("text", ["rsync -a head:/models /models", "rsync 'head:{path}"])
def test_a_command_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"--fetch rsync .*(where the folder|close the quotes)"):
        fetch_command(text)


def test_a_command_is_split_like_a_shell_does() -> None:
    assert fetch_command(shlex.join(["a b", "{path}/x"])) == ("a b", "{path}/x")
