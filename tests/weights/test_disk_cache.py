from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from evomerge.errors import InvalidInput
from evomerge.weights.disk_cache import DiskCache

Tensors = Mapping[str, torch.Tensor]


class Counted:
    """Tensors that count how often they were computed."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors = tensors or {"x": torch.arange(6.0).view(2, 3)}
        self.count = 0

    def __call__(self) -> Tensors:
        self.count += 1
        return self.tensors


def assert_equal(got: Tensors, expected: Tensors) -> None:
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert got[name].shape == tensor.shape
        raw, wanted = (t.contiguous().reshape(-1).view(torch.uint8) for t in (got[name], tensor))
        assert torch.equal(raw, wanted), name


def test_an_entry_is_computed_once_and_then_mapped(tmp_path: Path) -> None:
    compute = Counted()
    cache = DiskCache(tmp_path / "new" / "cache")
    assert not cache.contains("k")
    first = cache.tensors("k", compute)
    assert cache.contains("k")
    assert_equal(first, compute.tensors)
    assert_equal(DiskCache(cache.directory).tensors("k", compute), compute.tensors)
    assert compute.count == 1
    assert [path.name for path in cache.directory.iterdir()] == ["k.safetensors"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_first_result_is_mapped_too(tmp_path: Path) -> None:
    found = DiskCache(tmp_path).tensors("k", Counted(x=torch.zeros(1000, 100)))
    assert str(tmp_path / "k.safetensors") in Path("/proc/self/maps").read_text()
    assert found["x"].sum() == 0.0


def test_every_type_views_and_scalars(tmp_path: Path) -> None:
    matrix = torch.arange(12.0).view(3, 4)
    names = "float64 bfloat16 float16 float8_e4m3fn float8_e5m2 complex64 bool uint8 int8 uint16"
    tensors = {
        name: torch.tensor([0.0, 1.0, 1.5]).to(getattr(torch, name))
        for name in (*names.split(), "int16", "uint32", "int32", "uint64", "int64")
    }
    tensors |= {
        "scalar": torch.tensor(3.25),
        "empty": torch.zeros(0, 3),
        "whole": matrix,
        "turned": matrix.T,
        "row": matrix[1],
        "again": matrix,
    }
    assert_equal(DiskCache(tmp_path).tensors("k", Counted(**tensors)), tensors)


@pytest.mark.parametrize("length", [0, 7, 8, 60, 95])
def test_a_truncated_file_is_computed_again(tmp_path: Path, length: int) -> None:
    cache, compute = DiskCache(tmp_path), Counted()
    cache.tensors("k", compute)
    file = tmp_path / "k.safetensors"
    assert file.stat().st_size == 96
    file.write_bytes(file.read_bytes()[:length])
    assert not cache.contains("k")
    assert_equal(cache.tensors("k", compute), compute.tensors)
    assert compute.count == 2
    assert cache.contains("k")


@pytest.mark.parametrize("content", [b"{}", b"\xff" * 200, b"\0" * 200])
def test_a_file_of_something_else_is_computed_again(tmp_path: Path, content: bytes) -> None:
    cache, compute = DiskCache(tmp_path), Counted()
    (tmp_path / "k.safetensors").write_bytes(content)
    assert_equal(cache.tensors("k", compute), compute.tensors)
    assert cache.contains("k")


def test_errors_of_the_computation_pass_and_leave_nothing(tmp_path: Path) -> None:
    def fail() -> Tensors:
        raise OSError("a parent vanished")

    with pytest.raises(OSError, match="a parent vanished"):
        DiskCache(tmp_path).tensors("k", fail)
    assert list(tmp_path.iterdir()) == []
    assert_equal(DiskCache(tmp_path).tensors("k", Counted()), Counted().tensors)


def test_an_entry_may_be_computed_from_another(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    found = cache.tensors("outer", lambda: {"y": cache.tensors("inner", Counted())["x"] * 2})
    assert_equal(found, {"y": Counted().tensors["x"] * 2})


_ASKING = """
import sys, time
from pathlib import Path
import torch
from evomerge.weights.disk_cache import DiskCache

def compute():
    with open(sys.argv[2], "a") as log:
        log.write("computed\\n")
    time.sleep(0.5)
    return {"x": torch.arange(6.0).view(2, 3)}

cache = DiskCache(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
assert cache.tensors("k", compute)["x"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
"""


def _python(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_ask_together_compute_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    asking = [_python(_ASKING, tmp_path / "cache", log) for _ in range(2)]
    for process in asking:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in asking:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in asking:
        _, err = process.communicate()
        assert process.returncode == 0, err
    assert log.read_text() == "computed\n"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["k.safetensors"]


_DYING = """
import os, signal, sys
from pathlib import Path
import torch
from evomerge.weights import disk_cache

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[2] == "written":
    disk_cache._flush = die  # the temporary file is complete, but not yet renamed
compute = die if sys.argv[2] == "computing" else lambda: {"x": torch.arange(6.0).view(2, 3)}
disk_cache.DiskCache(Path(sys.argv[1])).tensors("k", compute)
"""


@pytest.mark.parametrize("moment", ["computing", "written"])
def test_a_kill_in_the_middle_leaves_no_entry_and_blocks_nobody(
    tmp_path: Path, moment: str
) -> None:
    process = _python(_DYING, tmp_path, moment)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("*.safetensors"))
    cache, compute = DiskCache(tmp_path), Counted()
    assert not cache.contains("k")
    assert_equal(cache.tensors("k", compute), compute.tensors)
    assert compute.count == 1
    # What the dead process wrote goes when room is needed.
    small = DiskCache(tmp_path, max_bytes=200)
    small.tensors("other", compute)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


_LIMITED = """
import resource, sys
from pathlib import Path
import torch
from evomerge.weights.disk_cache import DiskCache

resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
cache = DiskCache(Path(sys.argv[1]))
for key in "ab":
    assert cache.tensors(key, lambda: {"x": torch.ones(1000)})["x"].sum() == 1000.0
assert cache.tensors("c", lambda: {"x": torch.ones(2)})["x"].sum() == 2.0
"""


def test_a_full_disk_costs_one_warning_and_not_the_run(tmp_path: Path) -> None:
    process = _python(_LIMITED, tmp_path)
    _, err = process.communicate()
    assert process.returncode == 0, err
    (line,) = err.splitlines()
    assert line.startswith(f"{tmp_path}: computed tensors cannot be kept (")
    assert "File too large" in line
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_a_folder_that_cannot_be_made_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    cache, compute = DiskCache(tmp_path / "file" / "cache"), Counted()
    with caplog.at_level(logging.WARNING):
        assert_equal(cache.tensors("k", compute), compute.tensors)
        assert_equal(cache.tensors("k", compute), compute.tensors)
    assert compute.count == 2
    (record,) = caplog.records
    assert "every process holds its own copy" in record.getMessage()


def test_the_least_recently_used_entries_make_room(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=10_000)
    big = Counted(x=torch.arange(1000, dtype=torch.float32))
    old = cache.tensors("old", big)
    cache.tensors("older", big)
    for age, key in enumerate(("old", "older")):
        os.utime(tmp_path / f"{key}.safetensors", (1000 - age, 1000 - age))
    cache.tensors("new", big)
    assert (cache.contains("old"), cache.contains("older")) == (True, False)
    os.utime(tmp_path / "new.safetensors", (2000, 2000))
    cache.tensors("newest", big)  # `contains` has used "old" after "new"
    assert (cache.contains("old"), cache.contains("new")) == (True, False)
    (tmp_path / "old.safetensors").unlink()
    assert torch.equal(old["x"], torch.arange(1000, dtype=torch.float32)), "still mapped"


def test_what_exceeds_the_limit_alone_is_not_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = DiskCache(tmp_path, max_bytes=100)
    cache.tensors("small", Counted())
    with caplog.at_level(logging.WARNING):
        cache.tensors("large", Counted(x=torch.zeros(100)))
    assert cache.contains("small")
    assert not cache.contains("large")
    assert "exceed $EVOMERGE_CACHE_GB" in caplog.text


@pytest.mark.parametrize(
    ("variables", "directory", "limit"),
    [
        ({}, "home/.cache/evomerge", 20e9),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/evomerge", 20e9),
        ({"XDG_CACHE_HOME": "xdg", "EVOMERGE_CACHE": "own"}, "own", 20e9),
        ({"EVOMERGE_CACHE": "~/own", "EVOMERGE_CACHE_GB": "0.5"}, "home/own", 5e8),
    ],
)
def test_the_default_place_and_limit(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], directory: str, limit: float
) -> None:
    for name in ("EVOMERGE_CACHE", "XDG_CACHE_HOME", "EVOMERGE_CACHE_GB"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": "home"} | variables).items():
        monkeypatch.setenv(name, value)
    cache = DiskCache.default()
    assert cache.directory == Path(directory)
    assert cache.max_bytes == limit


@pytest.mark.parametrize("value", ["", "much", "-1", "nan"])
def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE_GB", value)
    with pytest.raises(InvalidInput, match="EVOMERGE_CACHE_GB: expected a number of gigabytes"):
        DiskCache.default()


@pytest.mark.parametrize("key", ["../k", "", "a/b", ".k"])
def test_keys_are_file_names(tmp_path: Path, key: str) -> None:
    with pytest.raises(AssertionError, match="a key is a file name"):
        DiskCache(tmp_path).tensors(key, Counted())
