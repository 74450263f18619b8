"""What this process may use of the machine: memory, cores, disk, containers' limits counted."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_UNLIMITED = 1 << 60
"""Version 1 of control groups writes the largest multiple of a page for "no limit"."""


@dataclass(frozen=True)
class Memory:
    """Bytes; `limit` is the file of the control group that says so, None for the machine itself."""

    total: int
    free: int
    limit: Path | None = None


@dataclass(frozen=True)
class Cores:
    """How many cores this process may keep busy; `limit` as in `Memory`."""

    count: int
    limit: Path | None = None


def whole_memory() -> Memory:
    """The machine's, whatever limits this process."""
    found = psutil.virtual_memory()
    return Memory(found.total, found.available)


def allowed_cores() -> int:
    """The cores that the scheduler may put this process on."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else psutil.cpu_count() or 1


def memory(root: Path = Path("/"), whole: Callable[[], Memory] = whole_memory) -> Memory:
    """The memory that is left for this process.

    psutil reports the machine's. In a container the limit of a control group, its own or that of
    one above it, may come first. Its page cache counts as free, as the machine's does.
    """
    found = whole()
    for group in _groups(root, "memory"):
        for limit, used, cache in (
            ("memory.max", "memory.current", ("inactive_file", "active_file")),
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ("total_inactive_file", "total_active_file"),
            ),
        ):
            most = _number(group / limit)
            if most is None or most >= min(_UNLIMITED, found.total):
                continue
            held = (_number(group / used) or 0) - _cached(group / "memory.stat", cache)
            free = min(found.free, max(0, most - max(0, held)))
            found = Memory(most, free, group / limit)
    return found


def cores(root: Path = Path("/"), allowed: Callable[[], int] = allowed_cores) -> Cores:
    """The cores that this process may keep busy: its affinity, and the quota of a container."""
    found = Cores(allowed())
    for group in _groups(root, "cpu"):
        for file, quota in (
            (group / "cpu.max", _quota(_text(group / "cpu.max").split())),
            (
                group / "cpu.cfs_quota_us",
                _quota(
                    [_text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")],
                ),
            ),
        ):
            if quota is not None and quota < found.count:
                found = Cores(max(1, int(quota)), file)
    return found


def free_disk(folder: Path) -> int:
    """Bytes that may be written under `folder`, which need not exist yet."""
    return shutil.disk_usage(existing(folder)).free


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    whole = folder.expanduser().absolute()
    return next(path for path in (whole, *whole.parents) if path.exists())


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control groups, of both versions, each before those above it.

    In a container the path that the kernel reports may lie outside of what is mounted; then only
    the mounted root is found, which is the container's own.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        mounts = [f"sys/fs/cgroup/{controllers}"] if controllers else []
        if controller in controllers.split(","):
            mounts += [f"sys/fs/cgroup/{controller}"]
        elif controllers:
            continue
        else:
            mounts += ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        inside = Path(path.lstrip("/"))
        for mount in dict.fromkeys(mounts):
            yield from (root / mount / part for part in (inside, *inside.parents))


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _number(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdigit() else None


def _cached(file: Path, names: tuple[str, ...]) -> int:
    pairs = (line.split() for line in _text(file).splitlines())
    return sum(int(pair[1]) for pair in pairs if len(pair) == 2 and pair[0] in names)


def _quota(parts: list[str]) -> float | None:
    """Cores from "quota period"; None for "max", -1 or nothing."""
    if len(parts) != 2 or not all(part.isdigit() for part in parts) or int(parts[1]) == 0:
        return None
    return int(parts[0]) / int(parts[1])
