from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from evomerge import yaml12
from evomerge.run import cache_needs, needs
from evomerge.run.config import read_space_file
from evomerge.run.footprint import Footprint, default_workers, footprint
from evomerge.run.machine import Memory
from evomerge.run.needs import MemoryNeeds, disk_problem, estimated_memory
from evomerge.run.spaces import Stage, checked_stages
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.writer import write_model
from tests.models import llama, perturbed

GB = 10**9


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parents")
    llama(folder / "a", layers=4, seed=1)
    perturbed(folder / "a", folder / "b", seed=2)
    llama(folder / "half", layers=4, seed=3, dtype="bfloat16")
    return folder


def stages(root: Path, tmp_path: Path, *spaces: dict[str, Any]) -> tuple[Stage, ...]:
    file = {
        "version": 1,
        "objective": {"tasks": [{"task": "t", "metric": "acc"}]},
        "stages": [{"name": f"s{index}", "space": space} for index, space in enumerate(spaces)],
    }
    path = root / f"{tmp_path.name}.yaml"
    path.write_text(yaml12.dumps(file))
    return checked_stages(read_space_file(path, {}), path)


def merges(method: str = "linear", **changes: Any) -> dict[str, Any]:
    genes = {"weight": {"float": [0, 1], "per": "model"}}
    models = [{"model": "a"}, {"model": "b"}]
    return {"merge_method": method, "models": models, "parameters": genes} | changes


def of(root: Path, tmp_path: Path, *spaces: dict[str, Any]) -> tuple[Footprint, tuple[Stage, ...]]:
    found = stages(root, tmp_path, *spaces)
    models = dict.fromkeys(model for stage in found for model in stage.models)
    return footprint(found, ParentPool.open(tuple(models), root)), found


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float32"])
def test_a_merge_has_the_bytes_that_are_planned_and_written(
    root: Path, tmp_path: Path, dtype: str | None
) -> None:
    space = merges(models=[{"model": "a"}, {"model": "half"}]) | ({"dtype": dtype} if dtype else {})
    found, (stage,) = of(root, tmp_path, space)
    recipe = stage.space.decode(stage.space.start)
    pool = ParentPool.open(stage.models, root)
    planned = sum(tensor.nbytes for tensor in Materializer(pool).plan(recipe))
    assert found.resident == found.saved == planned
    write_model(recipe, Materializer(pool), tmp_path / "out")
    assert 0 <= (tmp_path / "out" / "model.safetensors").stat().st_size - planned < 20_000


def test_parents_are_counted_once_with_their_types(root: Path, tmp_path: Path) -> None:
    found, _ = of(root, tmp_path, merges(), merges(models=[{"model": "a"}, {"model": "half"}]))
    assert [parent.model for parent in found.parents] == ["a", "b", "half"]
    assert [parent.dtypes for parent in found.parents] == [
        ("float32",),
        ("float32",),
        ("bfloat16",),
    ]
    whole, _, half = (parent.nbytes for parent in found.parents)
    assert half == whole // 2
    assert found.mapped == 2 * whole + half


def test_stacks_borrow_unless_the_type_differs(root: Path, tmp_path: Path) -> None:
    stack = {"merge_method": "stack", "models": [{"model": "a"}, {"model": "b"}], "layers": [2, 6]}
    found, (stage,) = of(root, tmp_path, stack)
    assert found.resident == 0
    pool = ParentPool.open(stage.models, root)
    whole = sum(info.nbytes for info in pool.infos("a").values())
    inside = sum(i.nbytes for i in pool.infos("a").values() if ".layers." in i.name)
    assert found.saved == whole + 2 * inside // 4
    narrow, _ = of(root, tmp_path, stack | {"dtype": "bfloat16"})
    assert narrow.resident == whole
    assert narrow.saved == found.saved // 2
    mixed, _ = of(root, tmp_path, stack | {"models": [{"model": "a"}, {"model": "half"}]})
    assert mixed.resident >= whole


def test_results_of_earlier_stages_lie_in_the_cache(root: Path, tmp_path: Path) -> None:
    stack = {
        "merge_method": "stack",
        "models": [{"model": "$s0.best"}, {"model": "b"}],
        "layers": [2, 6],
    }
    alone, _ = of(root, tmp_path, merges())
    found, _ = of(root, tmp_path, merges(), stack)
    assert found.nested == alone.saved
    assert found.resident == alone.resident
    assert found.saved > alone.saved


def test_statistics_on_disk(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genes = {"weight": {"float": [0, 1]}, "density": 0.5}
    models = {"base_model": "a", "models": [{"model": "b"}, {"model": "half"}]}
    ties = merges("ties", parameters=genes, **models)
    della = merges("della", parameters=genes | {"epsilon": 0.1}, **models)
    assert of(root, tmp_path, ties)[0].cache == 0
    monkeypatch.setattr(cache_needs, "WORTH_KEEPING", 0)
    tables, ranks = (of(root, tmp_path, space)[0].cache for space in (ties, della))
    elements = sum(
        torch.Size(info.shape).numel() for info in ParentPool.open(("a",), root).infos("a").values()
    )
    # baselines take TIES, whose tables the second space needs as well
    assert 0 < tables < 2 * 16 * elements + 1
    assert ranks == tables + 2 * elements


def test_workers_by_default() -> None:
    small = Footprint((), GB, GB, GB, 0, 0)
    free = Memory(64 * GB, 32 * GB)
    assert default_workers(small, free, 4, 0) == 4
    assert default_workers(small, free, 64, 0) == 8
    assert default_workers(small, Memory(64 * GB, 6 * GB), 64, 0) == 2
    assert default_workers(small, Memory(64 * GB, GB), 64, 0) == 1
    assert default_workers(small, free, 4, 3) == 3


def test_memory_of_some_workers() -> None:
    found = MemoryNeeds(2 * GB, GB, 3 * GB, measured=True)
    assert found.total(3) == 10 * GB
    assert [found.fitting(free * GB) for free in (4, 5, 6, 9, 10)] == [0, 1, 1, 3, 3]
    assert found.fitting(0) == 0
    estimate = estimated_memory(Footprint((), 3 * GB, 2 * GB, GB, 0, 0), GB)
    assert estimate.worker > 2 * GB
    assert not estimate.measured


def test_a_disk_that_is_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "free_disk", lambda _folder: 5 * GB)
    folder = tmp_path / "runs" / "new"
    assert disk_problem(folder, 4 * GB, GB // 2) is None
    problem = disk_problem(folder, 5 * GB, GB // 2)
    assert problem is not None
    assert problem.startswith(f"{folder}: the run needs 5.57 GB (the winner's model 5.00, ")
    assert f"5.00 GB are free on the disk of {tmp_path}" in problem
