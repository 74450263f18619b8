"""`evomerge doctor`: what this machine offers, and what to do where something is missing."""

# ruff: noqa: PLC0415 - torch is loaded only where there are GPUs

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from evomerge.cli import doctor_folders, doctor_machine, doctor_ray, doctor_software
from evomerge.cli.doctor_finding import Finding, Level, problem
from evomerge.errors import EvomergeError, PreflightFailed
from evomerge.run import machine
from evomerge.run.config import read_space_file
from evomerge.run.pools.local import visible_gpus
from evomerge.run.spaces import checked_stages
from evomerge.tested import TESTED

_SIGNS = {Level.OK: "ok", Level.NOTE: "NOTE", Level.PROBLEM: "PROBLEM"}
_SMI_SECONDS = 10.0


@dataclass(frozen=True)
class DoctorRequest:
    """The command line of the doctor."""

    space: Path | None
    address: str | None


def doctor_command(request: DoctorRequest, *, as_json: bool) -> None:
    """Print the findings; those that need something end with what to do.

    Raises:
        PreflightFailed: something makes a search impossible.
    """
    findings = tuple(_findings(request))
    if as_json:
        listed = [asdict(finding) for finding in findings]
        print(json.dumps({"schema": "evomerge/doctor/v1", "findings": listed}))
    else:
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            end = "" if finding.fix is None else f": {finding.fix}"
            print(f"{_SIGNS[finding.level]:<7}  {finding.what:<{width}}  {finding.found}{end}")
    stopping = [finding for finding in findings if finding.stops]
    if stopping:
        raise PreflightFailed([f"{f.what}: {f.found}: {f.fix}" for f in stopping])


def _findings(request: DoctorRequest) -> Iterator[Finding]:
    yield from _software()
    yield from _machine()
    run_dir = Path("runs")
    if request.space is not None:
        yield from _space(request.space)
        run_dir /= request.space.stem
    temporary = Path(tempfile.gettempdir())
    for folder in doctor_folders.folders(os.environ, run_dir, temporary):
        yield doctor_folders.check(folder)
    yield from doctor_folders.offline(os.environ, doctor_folders.token_file(os.environ))
    yield from _ray(request.address or os.environ.get("RAY_ADDRESS"))


def _versions() -> dict[str, str | None]:
    names = ["evomerge", *TESTED, "psycopg", "psycopg2", "psycopg2-binary"]
    return {name: doctor_software.installed(name) for name in names}


def _software() -> Iterator[Finding]:
    versions = _versions()
    yield doctor_software.python(sys.version_info[:3])
    yield from doctor_software.packages(doctor_software.declared(), versions, TESTED)
    yield from _gpus(versions)
    yield doctor_software.kernels(versions)
    yield doctor_software.postgres(versions)


def _gpus(versions: dict[str, str | None]) -> Iterator[Finding]:
    visible, spec = visible_gpus(), find_spec("torch")
    package = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    found = doctor_machine.parse_gpus(_smi(doctor_machine.QUERY)) if visible else ()
    usable, architectures = _asked_torch() if visible else (False, [])
    yield doctor_machine.torch_and_driver(
        versions,
        doctor_software.torch_build(package),
        visible,
        found[0].driver if found else None,
        usable=usable,
    )
    processes = _smi(doctor_machine.PROCESSES) if visible else ""
    yield from doctor_machine.gpus(visible, found, processes, architectures)


def _asked_torch() -> tuple[bool, list[str]]:
    """Whether torch finds a GPU, and for which it was built; opens no context on any."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the driver is old is said in our words
        usable = torch.cuda.is_available()
        return usable, torch.cuda.get_arch_list() if usable else []


def _smi(options: tuple[str, ...]) -> str:
    """What nvidia-smi answers; nothing where it is missing or does not come back."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *options],
            capture_output=True,
            text=True,
            timeout=_SMI_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _machine() -> Iterator[Finding]:
    usable, swapped = machine.cores(), psutil.swap_memory()
    yield doctor_machine.memory(machine.memory())
    yield doctor_machine.swap(swapped.used, swapped.total)
    yield doctor_machine.cores(usable, psutil.cpu_count() or usable.count)
    yield doctor_machine.threads(os.environ, usable.count)
    yield doctor_machine.open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _space(path: Path) -> Iterator[Finding]:
    try:
        checked_stages(read_space_file(path, {}), path)
    except EvomergeError as error:
        for line in error.problems:
            yield problem("space", line, f"see evomerge validate {path}")
        return
    yield Finding("space", f"{path} is valid; evomerge plan {path} says what it needs")


def _ray(address: str | None) -> Iterator[Finding]:
    version = doctor_software.installed("ray")
    yield doctor_ray.ray(version, address)
    if version is None:
        return
    if address is not None:
        yield from doctor_ray.cluster(address)
    else:
        yield doctor_ray.head_port()
    home = Path(os.environ["HOME"]) if os.environ.get("HOME") else None
    writable = home is not None and os.access(machine.existing(home / ".ray"), os.W_OK)
    yield doctor_ray.token(os.environ, home, writable=writable, address=address)
    yield doctor_ray.shared_memory(Path("/dev/shm"), machine.free_disk)
    yield doctor_ray.socket_path(os.environ, Path("/tmp"))
    yield doctor_ray.usage_statistics(os.environ)
