"""The run directory: what it holds besides the ledger, and whether it belongs to this run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge import yaml12
from evomerge.consent import Consent, differences
from evomerge.errors import InvalidInput
from evomerge.plain_text import without_secrets
from evomerge.run.lock import RunLock
from evomerge.text_files import read_text

RESOLVED = "spec.resolved.yaml"
CONSENT = "consent"
"""The section of the resolved specification about code and pickle files that may be used."""
_RUN_FILE = "run.json"
_DIGEST = "resolved_sha256"
_FROM_RUN = "space_folder_from_run"
_MAX_MIB = 16
_MOST = 20
_FILES = ("spec.yaml", "env.json", _RUN_FILE, RESOLVED)
_FIRST = {"LOCK", "logs", *_FILES, *(f".{name}.tmp" for name in _FILES)}
"""What a driver that was killed while it created the directory may leave."""


def open_directory(run_dir: Path, space_file: Path, resolved: Mapping[str, Any]) -> bool:
    """Create the run directory, or check that it holds this run; True when it does.

    Nothing is written while another driver has the run.

    Raises:
        RunLocked: one has.
        InvalidInput: the directory holds something else, or the same run with other inputs; the
            message lists every difference.
    """
    stored = run_dir / RESOLVED
    if stored.exists():
        _run_file(run_dir)
        differences = list(_differences(read_resolved(run_dir), _normal(resolved), ""))
        if differences:
            more = len(differences) - _MOST
            tail = [f"... and {more} more"] if more > 0 else []
            raise InvalidInput(
                [
                    f"{run_dir}: belongs to a run with other inputs; choose another --out or undo",
                    *differences[:_MOST],
                    *tail,
                    *_renamed(read_resolved(run_dir)["parents"], resolved["parents"]),
                ]
            )
        with _locked(run_dir):
            _note_place(run_dir, space_file, _run_file(run_dir))
        return True
    if run_dir.exists() and not {entry.name for entry in run_dir.iterdir()} <= _FIRST:
        raise InvalidInput(
            f"{run_dir}: not empty and not a run of evomerge; choose another directory with --out"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    with _locked(run_dir):
        if not stored.exists():
            _create(run_dir, space_file, resolved)
            return False
    # another driver has created it since the first look
    return open_directory(run_dir, space_file, resolved)


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    lock = RunLock.acquire(run_dir)
    try:
        yield
    finally:
        lock.release()


def _create(run_dir: Path, space_file: Path, resolved: Mapping[str, Any]) -> None:
    (run_dir / "logs").mkdir(exist_ok=True)
    write_whole(run_dir / "spec.yaml", space_file.read_text(encoding="utf-8"))
    environment = {"python": platform.python_version(), "machine": platform.machine()}
    write_whole(
        run_dir / "env.json", json.dumps(environment | dict(resolved["versions"]), indent=2)
    )
    text = yaml12.dumps(_normal(resolved))
    run = {"format": 1, "name": resolved["name"], _DIGEST: _digest(text)}
    _note_place(run_dir, space_file, run)
    # last: its presence says that the directory is complete
    write_whole(run_dir / RESOLVED, text)


def check_consent(run_dir: Path, consent: Consent) -> None:
    """Compare what may run now with what was allowed when the run was started.

    Comes before anything of it runs.

    Raises:
        InvalidInput: a file is another one, or other folders and models are allowed.
    """
    if not (run_dir / RESOLVED).exists():
        return
    recorded = read_resolved(run_dir).get(CONSENT) or {}
    problems = [f"{run_dir}: {line}" for line in differences(recorded, consent.record())]
    if problems:
        raise InvalidInput(problems)


def read_resolved(run_dir: Path) -> dict[str, Any]:
    """The resolved specification of the run in `run_dir`.

    Raises:
        InvalidInput: there is none, or it is not as it was written.
    """
    stored = run_dir / RESOLVED
    if not stored.exists():
        place = without_secrets(str(run_dir))
        raise InvalidInput(f"{place}: not a run directory: no {RESOLVED}; check the path")
    text = read_text(stored, max_mib=_MAX_MIB)
    # Without run.json a run can still be looked at, though not continued.
    digest = _run_file(run_dir).get(_DIGEST) if (run_dir / _RUN_FILE).exists() else None
    if digest is not None and digest != _digest(text):
        raise InvalidInput(f"{stored}: damaged or edited; restore the file from a copy")
    value = yaml12.loads(text, str(stored))
    if not isinstance(value, dict):
        raise InvalidInput(f"{stored}: expected a mapping; restore the file from a copy")
    return value


@dataclass(frozen=True)
class StoredStage:
    """What a stage was created with because of the workers of that day."""

    population: int
    schedule: str
    ahead: int


def stored_stages(run_dir: Path) -> tuple[StoredStage, ...] | None:
    """What depended on the number of workers when the run was created; None for a new run."""
    if not (run_dir / RESOLVED).exists():
        return None
    return tuple(
        StoredStage(int(stage["population"]), str(stage["schedule"]), int(stage["ahead"]))
        for stage in read_resolved(run_dir)["searches"]
    )


def model_root(run_dir: Path) -> Path:
    """The folder that the run's relative model paths start from: that of its space file.

    Raises:
        InvalidInput: the run was moved without it.
    """
    run = _run_file(run_dir)
    place = Path(run["space_file"])
    known, near = place.parent, run_dir / str(run[_FROM_RUN])
    if known.is_dir():
        return known
    if (near / place.name).is_file():  # both were moved
        return near.resolve()
    raise InvalidInput(
        f"{run_dir}: there is no folder {known} any more, from which the run's relative model "
        "paths start; continue the search once, with --space where the space file is now"
    )


def _note_place(run_dir: Path, space_file: Path, run: Mapping[str, Any]) -> None:
    """Say where relative paths start, also as seen from the run: both may be moved together."""
    place = space_file.resolve()
    folder = os.path.relpath(place.parent, run_dir.resolve())
    now = {**run, "space_file": str(place), _FROM_RUN: folder}
    if now != run:
        write_whole(run_dir / _RUN_FILE, json.dumps(now, indent=2))


def _run_file(run_dir: Path) -> dict[str, Any]:
    path = run_dir / _RUN_FILE
    try:
        run: Any = json.loads(read_text(path, max_mib=_MAX_MIB))
    except (ValueError, RecursionError):
        raise InvalidInput(f"{path}: damaged; restore the file from a copy") from None
    found: dict[str, Any] = run if isinstance(run, dict) else {}
    for key in ("space_file", _FROM_RUN):
        if not isinstance(found.get(key), str):
            raise InvalidInput(f"{path}: expected a '{key}'; restore the file from a copy")
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it is there as it was or as it will be, whatever happens."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.replace(path)


def _normal(value: Any) -> Any:
    """Plain values as they come back from a file."""
    return yaml12.loads(yaml12.dumps(json.loads(json.dumps(value))), "specification")


def _differences(then: Any, now: Any, path: str) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*then, *now]):
            inner = f"{path}.{key}" if path else str(key)
            yield from _differences(then.get(key), now.get(key), inner)
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (a, b) in enumerate(zip(then, now, strict=True)):
            yield from _differences(a, b, f"{path}[{index}]")
    elif then != now:
        yield f"  {path}: the run has {_brief(then)}, now {_brief(now)}"


def _renamed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A hint, if the parents are the same but are called differently."""
    if set(then) == set(now) or sorted(then.values()) != sorted(now.values()):
        return []
    return [
        "  the parents are the same, but the run's recipes know them by other paths: keep those, "
        "with paths relative to the space file or symbolic links at the old places"
    ]


def _brief(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
