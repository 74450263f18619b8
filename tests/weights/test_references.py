from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.errors import InvalidInput
from evomerge.weights.references import locate


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty local cache."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


def _cached(hub: Path, commit: str, ref: str) -> Path:
    repo = hub / "models--org--name"
    (repo / "refs").mkdir(parents=True, exist_ok=True)
    (repo / "refs" / ref).write_text(commit)
    snapshot = repo / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    return snapshot


def test_paths_relative_absolute_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("a/b", tmp_path) == tmp_path / "a" / "b"
    assert locate("../a", tmp_path / "a").resolve() == tmp_path / "a"
    assert locate(str(tmp_path / "a"), Path("/nowhere")) == tmp_path / "a"
    assert locate("~/a", Path("/nowhere")) == tmp_path / "a"


def test_a_folder_is_preferred_to_the_cache(hub: Path, tmp_path: Path) -> None:
    _cached(hub, "0" * 40, "main")
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert locate("org/name", tmp_path) == tmp_path / "org" / "name"


def test_hub_names_and_revisions_come_from_the_cache(hub: Path, tmp_path: Path) -> None:
    main, old = _cached(hub, "0" * 40, "main"), _cached(hub, "1" * 40, "v1")
    assert locate("org/name", tmp_path) == main
    assert locate("org/name@v1", tmp_path) == old


@pytest.mark.usefixtures("hub")
def test_an_uncached_hub_name_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="hf download org/absent") as caught:
        locate("org/absent@v2", tmp_path)
    (line,) = caught.value.problems
    assert str(tmp_path / "org" / "absent@v2") in line
    assert "\n" not in line


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["org/-bad-", "org/a--b", "org/x.git"])
def test_names_that_the_hub_forbids_are_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="no copy in the local Hugging Face cache"):
        locate(name, tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"there is no folder {tmp_path}/typo: correct"):
        locate("typo", tmp_path)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").touch()
    with pytest.raises(InvalidInput, match="is a file: give the directory"):
        locate("m.safetensors", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~nobody-of-this-name/model", "there is no home folder of that user"),
        ("a" * 5000, "there is no folder"),
        ("a\0b", "there is no folder"),
        ("", "is no model|there is no folder|does not exist"),
    ],
)
def test_names_that_no_folder_can_have(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        locate(name, tmp_path / "nowhere")
