"""`evomerge doctor`: what this machine offers, and what to do where something is missing."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import psutil
import torch

from evomerge.cache_folder import cache_folder
from evomerge.merge.choose import missing_compiler

_PACKAGES = ("evomerge", "torch", "transformers", "safetensors", "lm_eval", "cma")
_GB = 1e9
_SMALL_DISK = 20 * _GB


@dataclass(frozen=True)
class Finding:
    """One line of the report; `fix` is None where nothing needs to be done."""

    what: str
    found: str
    fix: str | None = None


def doctor_command(*, as_json: bool) -> None:
    """Print the findings; those that need something end with what to do."""
    findings = list(_findings())
    if as_json:
        listed = [asdict(finding) for finding in findings]
        print(json.dumps({"schema": "evomerge/doctor/v1", "findings": listed}))
        return
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        sign = "ok  " if finding.fix is None else "NOTE"
        end = "" if finding.fix is None else f": {finding.fix}"
        print(f"{sign}  {finding.what:<{width}}  {finding.found}{end}")


def _findings() -> Iterator[Finding]:
    versions = ", ".join(f"{name} {found}" for name in _PACKAGES if (found := _version(name)))
    yield Finding("packages", f"Python {platform.python_version()}, {versions}")
    yield _devices()
    yield _kernels()
    yield _ray()
    memory = psutil.virtual_memory()
    yield Finding("memory", f"{memory.available / _GB:.1f} of {memory.total / _GB:.1f} GB free")
    yield _cache()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> Finding:
    cores = os.cpu_count()
    if not torch.cuda.is_available():
        return Finding("devices", f"{cores} CPU cores, no GPU")
    names = ", ".join(
        torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
    )
    return Finding("devices", f"{cores} CPU cores, {names}")


def _kernels() -> Finding:
    problem = missing_compiler()
    if problem is not None:
        return Finding("merge kernels", "torch, block by block", problem)
    return Finding("merge kernels", f"compiled by numba {_version('numba')} where that pays")


def _ray() -> Finding:
    if find_spec("ray") is None:
        return Finding("ray", "not installed; searches use processes of this machine")
    return Finding("ray", f"{_version('ray')}")


def _cache() -> Finding:
    try:
        folder = cache_folder()
    except RuntimeError:
        return Finding("cache", "no home folder", "set EVOMERGE_CACHE to a folder")
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{folder}, {free / _GB:.0f} GB free"
    if not os.access(existing, os.W_OK):
        fix = "it cannot be written, so that statistics are computed anew: set EVOMERGE_CACHE"
        return Finding("cache", found, fix)
    if free < _SMALL_DISK:
        return Finding("cache", found, "make room or set EVOMERGE_CACHE to a larger disk")
    return Finding("cache", found)
