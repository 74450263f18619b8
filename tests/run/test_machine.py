from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.run.machine import Cores, Memory, cores, free_disk, memory

GB = 10**9


def files(root: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def whole() -> Memory:
    return Memory(64 * GB, 40 * GB)


V2 = {"proc/self/cgroup": "0::/pod/box"}
V1 = {"proc/self/cgroup": "5:memory:/pod/box\n3:cpu,cpuacct:/pod/box\n0::/"}


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert memory(tmp_path, whole) == whole()
    assert cores(tmp_path, lambda: 6) == Cores(6)


def test_a_limit_of_version_2_counts_and_its_page_cache_is_free(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/pod/box"
    limits = {
        f"{group}/memory.max": str(8 * GB),
        f"{group}/memory.current": str(6 * GB),
        f"{group}/memory.stat": f"anon 1\ninactive_file {3 * GB}\nactive_file {GB}\nshmem 5",
        f"{group}/cpu.max": "250000 100000",
    }
    root = files(tmp_path, V2 | limits)
    assert memory(root, whole) == Memory(8 * GB, 6 * GB, root / group / "memory.max")
    assert cores(root, lambda: 16) == Cores(2, root / group / "cpu.max")


def test_the_tightest_group_above_decides(tmp_path: Path) -> None:
    above = "sys/fs/cgroup/pod"
    root = files(
        tmp_path,
        V2
        | {
            f"{above}/box/memory.max": str(8 * GB),
            f"{above}/box/memory.current": "0",
            f"{above}/memory.max": str(3 * GB),
            f"{above}/memory.current": str(2 * GB),
            f"{above}/cpu.max": "50000 100000",
            f"{above}/box/cpu.max": "max 100000",
        },
    )
    assert memory(root, whole) == Memory(3 * GB, GB, root / above / "memory.max")
    assert cores(root, lambda: 16) == Cores(1, root / above / "cpu.max")


def test_version_1_in_a_container_whose_own_path_is_not_mounted(tmp_path: Path) -> None:
    root = files(
        tmp_path,
        V1
        | {
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(5 * GB // 2),
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GB // 2}\ninactive_file 7",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    assert memory(root, whole).free == 2 * GB
    assert cores(root, lambda: 16).count == 3


@pytest.mark.parametrize("limit", ["max", str(0x7FFFFFFFFFFFF000), str(100 * GB)])
def test_no_limit_or_one_above_the_machine_changes_nothing(tmp_path: Path, limit: str) -> None:
    content = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": limit,
        "sys/fs/cgroup/memory.max": limit,
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    root = files(tmp_path, V1 | content)
    assert memory(root, whole) == whole()
    assert cores(root, lambda: 16) == Cores(16)


def test_a_full_group_has_nothing_free(tmp_path: Path) -> None:
    group = {"sys/fs/cgroup/memory.max": str(GB), "sys/fs/cgroup/memory.current": str(2 * GB)}
    assert memory(files(tmp_path, V2 | group), whole).free == 0


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "not" / "yet") == free_disk(tmp_path) > 0
