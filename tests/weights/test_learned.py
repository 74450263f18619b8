"""Statistics of parents on disk: once per contents, whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.drawing import RankStatistic
from evomerge.merge.gram import Gram, GramStatistic
from evomerge.merge.method import Parents, Statistic
from evomerge.merge.trimming import MagnitudeStatistic
from evomerge.weights import learned
from evomerge.weights.disk_cache import DiskCache
from evomerge.weights.learned import Learned


def _parents(shift: float = 0.0) -> dict[str, Parents]:
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name in ("a", "b"):
        base, *others = (torch.randn((6, 5), generator=generator) for _ in range(3))
        others[0] = others[0] + shift
        found[name] = Parents(base, tuple(others), (1, 2))
    return found


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DiskCache:
    monkeypatch.setattr(learned, "WORTH_KEEPING", 0)
    return DiskCache(tmp_path)


def _gram(parents: dict[str, Parents], disk: DiskCache, tensor: str) -> Gram:
    state = Learned(parents, lambda: disk).state(GramStatistic(BLOCKWISE), tensor)
    assert isinstance(state, Gram)
    return state


def test_statistics_of_all_tensors_are_one_file(disk: DiskCache) -> None:
    first = _gram(_parents(), disk, "b").entries
    assert len(list(disk.directory.glob("gram-*.safetensors"))) == 1
    base, other, _ = (tensor.double() for tensor in _parents()["b"].tensors)
    assert first[0, 1] == pytest.approx(float((base * (other - base)).sum()), rel=1e-6)


def test_the_file_serves_the_next_process(disk: DiskCache, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _gram(_parents(), disk, "b").entries
    monkeypatch.setattr(GramStatistic, "compute", lambda *_: pytest.fail("computed again"))
    assert (_gram(_parents(), disk, "b").entries == first).all()


def test_one_changed_number_is_noticed(disk: DiskCache) -> None:
    first = _gram(_parents(), disk, "b").entries
    parents = _parents()
    parents["a"].others[1][3, 3] += 1.0
    changed = _gram(parents, disk, "a").entries
    assert len(list(disk.directory.glob("gram-*.safetensors"))) == 2
    assert not (changed == first).all()


@pytest.mark.parametrize("statistic", [MagnitudeStatistic(BLOCKWISE), RankStatistic(BLOCKWISE)])
def test_large_statistics_are_a_file_per_tensor(disk: DiskCache, statistic: Statistic) -> None:
    store = Learned(_parents(), lambda: disk)
    store.state(statistic, "a")
    files = list(disk.directory.glob(f"{statistic.name}-*.safetensors"))
    assert len(files) == 1
    store.state(statistic, "b")
    files = list(disk.directory.glob(f"{statistic.name}-*.safetensors"))
    assert len(files) == (2 if statistic.large else 1)


def test_small_models_stay_in_memory(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path / "none")
    store = Learned(_parents(), lambda: disk)
    store.state(GramStatistic(BLOCKWISE), "a")
    assert not disk.directory.exists()
