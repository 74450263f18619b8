"""No telemetry, nothing unpickled from a run directory: watched from inside the processes."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import evomerge

# The same folders and files as for the other tests of the command line.
from tests.cli.conftest import parents, space, tasks

__all__ = ["parents", "space", "tasks"]

SOURCE = Path(evomerge.__file__).parent

# Python imports it at the start of every process, workers included.
WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
                 "socket.gethostbyname", "urllib.Request", "http.client.connect"):
        place = arguments[event.startswith(("socket.connect", "socket.send"))]
        line = f"{os.getpid()} {event} {place!r}\\n"
    elif event == "import" and arguments[0] == "torch":
        line = f"{os.getpid()} process token={'HF_TOKEN' in os.environ}\\n"
    elif event == "marshal.loads" or event != "pickle.find_class":
        return
    else:
        line = f"{os.getpid()} {event} {arguments[0]}.{arguments[1]}\\n"
    with open(os.environ["WATCH_LOG"], "a") as file:
        file.write(line)

sys.addaudithook(watch)
"""


def watched(folder: Path, *arguments: object) -> list[str]:
    """What the command line's processes did, one line per event."""
    (folder / "watch").mkdir(exist_ok=True)
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    log = folder / "watch.log"
    log.write_text("")
    paths = (folder / "watch", SOURCE.parent)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "WATCH_LOG": str(log),
        "OMP_NUM_THREADS": "1",
        "HF_TOKEN": "hf_secret",
    }
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return log.read_text().splitlines()


def test_a_search_talks_to_nobody_and_a_run_directory_is_not_unpickled(
    space: Callable[..., Path], tmp_path: Path
) -> None:
    path = space(budget={"candidates": 20}, strategy={"minibatch": 8})
    out = tmp_path / "run"
    search = ("search", "--space", path, "--out", out, "--engine", "local", "--workers", "1")
    events = watched(tmp_path, *search)
    processes = {line.split()[0] for line in events if " process " in line}
    assert len(processes) >= 2, "driver and worker were watched"
    assert any(line.endswith("token=False") for line in events), "the worker has no token"
    assert [line for line in events if " socket." in line and not _is_local(line)] == []
    assert [line for line in events if "urllib" in line or "http" in line] == []
    for command in ("status", "report", "best"):
        events = watched(tmp_path, command, out)
        assert [line for line in events if "pickle" in line or "socket" in line] == []


def _is_local(line: str) -> bool:
    """Unix sockets and loopback addresses."""
    place = line.split(maxsplit=2)[2]
    return place.startswith(("'/", "b'", "'localhost'", "('127.", "('::1'"))


ALLOWED = {
    ("run/pools/local_worker.py", "pickle.loads"),  # what the driver sends to its own processes
    ("run/pools/serving.py", "pickle.loads"),
    ("run/pools/ray_actor.py", "pickle.loads"),
    ("run/calibration.py", "pickle.loads"),
    ("weights/unpickling.py", "torch.load"),  # weights_only, see below
    ("evaluate/task_code.py", "exec"),  # files of a folder that a person has named
}
DANGEROUS = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"),
    *(f"{name}.load" for name in ("pickle", "torch", "np", "numpy", "dill", "joblib", "marshal")),
    *(f"{name}.loads" for name in ("pickle", "dill", "marshal")),
    *("pickle.Unpickler", "shelve.open"),
}


def _calls() -> Iterator[tuple[str, str, ast.Call]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path.relative_to(SOURCE).as_posix(), ast.unparse(node.func), node


def test_code_and_pickles_run_in_the_known_places_only() -> None:
    found = {(path, name) for path, name, _ in _calls() if name in DANGEROUS}
    assert found == ALLOWED


def test_pickle_checkpoints_are_read_as_tensors_only() -> None:
    (call,) = [node for _, name, node in _calls() if name == "torch.load"]
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    assert given["weights_only"] == "True"


def test_transformers_is_always_told_about_remote_code_and_the_network() -> None:
    loads = [
        (path, name, {keyword.arg for keyword in node.keywords})
        for path, name, node in _calls()
        if name.endswith(".from_pretrained") and name.startswith("Auto")
    ]
    assert len(loads) >= 4
    for path, name, given in loads:
        assert {"trust_remote_code", "local_files_only"} <= given, (path, name)
