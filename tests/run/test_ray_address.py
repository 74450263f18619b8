"""Where a Ray cluster is looked for, and what is said when none is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.run.pools.choose import EngineChoice, choose_engine
from evomerge.run.pools.ray_address import find_cluster, has_token
from evomerge.run.resources import WorkerResources


@pytest.fixture
def port() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def note(folder: Path, text: str) -> dict[str, str]:
    (folder / "ray").mkdir()
    (folder / "ray" / "ray_current_cluster").write_text(text)
    return {"RAY_TMPDIR": str(folder)}


@pytest.mark.parametrize("address", ["", "10.0.0.1", "ray://10.0.0.1:10001", "host:port"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match="expected 'local', 'auto' or host:port"):
        find_cluster(address)


def test_a_dead_address_is_refused_at_once() -> None:
    with pytest.raises(PreflightFailed, match=r"no Ray cluster answers at 127\.0\.0\.1:1 "):
        find_cluster("127.0.0.1:1")


def test_auto_is_the_variable_then_the_note_of_ray_start(tmp_path: Path, port: int) -> None:
    here = f"127.0.0.1:{port}"
    left = note(tmp_path, f"{here}\n")
    assert find_cluster("auto", left) == here
    assert find_cluster("auto", {"RAY_ADDRESS": "auto"} | left) == here
    with pytest.raises(PreflightFailed, match=r"answers at 127\.0\.0\.1:1 \(from RAY_ADDRESS\)"):
        find_cluster("auto", {"RAY_ADDRESS": "127.0.0.1:1"} | left)


def test_auto_without_a_cluster_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(PreflightFailed, match="no Ray cluster on this machine: RAY_ADDRESS is not"):
        find_cluster("auto", {"RAY_TMPDIR": str(tmp_path)})


def test_a_note_of_a_cluster_that_is_gone_is_named(tmp_path: Path) -> None:
    left = note(tmp_path, "127.0.0.1:1")
    with pytest.raises(PreflightFailed, match=r"127\.0\.0\.1:1 \(from .*ray_current_cluster\)"):
        find_cluster("auto", left)


def test_a_token_is_looked_for_where_ray_does(tmp_path: Path) -> None:
    path = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    assert has_token({"RAY_AUTH_TOKEN": "secret"})
    assert not has_token(path)
    (tmp_path / "token").touch()
    assert has_token(path)


def test_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = WorkerResources()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert choose_engine("auto", None, nothing) == EngineChoice("local")
    assert choose_engine("auto", "auto", nothing) == EngineChoice("ray", "auto")
    assert choose_engine("ray", None, nothing) == EngineChoice("ray", "local")
    assert not choose_engine("ray", None, nothing).is_cluster
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose_engine("auto", None, nothing) == EngineChoice("ray", "10.0.0.1:6379")
    assert choose_engine("ray", "local", nothing) == EngineChoice("ray", "local")
    assert choose_engine("local", None, nothing) == EngineChoice("local")


@pytest.mark.parametrize(("engine", "problems"), [("local", 2), ("inline", 3)])
def test_what_an_engine_cannot_do_is_refused(engine: str, problems: int) -> None:
    with pytest.raises(InvalidInput, match="only the ray engine") as caught:
        choose_engine(engine, "auto", WorkerResources(1, 0.5, 10**9))
    assert len(caught.value.problems) == problems
