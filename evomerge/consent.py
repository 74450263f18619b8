"""What a person has allowed to run: which files, and what they were when it was allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.errors import InvalidInput, PreflightFailed

_MOST = 1000


@dataclass(frozen=True)
class Allowed:
    """The files of one folder that may run.

    Attributes:
        named: the folder or model as the person named it.
        folder: where it is, absolute and without links.
        files: their paths below the folder and their SHA-256, sorted.
    """

    named: str
    folder: str
    files: tuple[tuple[str, str], ...]

    def hash_of(self, path: Path) -> str | None:
        """The SHA-256 that the file at `path` must have; None when it is not among the files."""
        try:
            below = path.resolve().relative_to(self.folder).as_posix()
        except (ValueError, OSError, RuntimeError):
            return None
        return dict(self.files).get(below)

    def contains(self, path: Path) -> bool:
        """Whether `path`, links followed, is below the folder."""
        try:
            return path.resolve().is_relative_to(self.folder)
        except (OSError, RuntimeError):
            return False

    def check(self) -> None:
        """Compare the files with what was allowed.

        Raises:
            PreflightFailed: one line per file that is another one now.
        """
        problems = []
        for name, allowed in self.files:
            found = _sha256(Path(self.folder) / name)
            if found != allowed:
                problems.append(changed(Path(self.folder) / name, allowed, found))
        if problems:
            raise PreflightFailed(problems)


@dataclass(frozen=True)
class Consent:
    """Everything that may run; nothing, unless a person said so on the command line.

    It is never read from a file: a run directory may come from a stranger.

    Attributes:
        task_code: folders whose task files may call the Python files in them.
        remote_code: models whose own Python files may run.
        pickle: models whose weights may be read from pickle files.
    """

    task_code: tuple[Allowed, ...] = ()
    remote_code: tuple[Allowed, ...] = ()
    pickle: tuple[Allowed, ...] = ()

    def record(self) -> dict[str, dict[str, dict[str, str]]]:
        """Names and hashes, without places, to be kept with the run that they are for."""
        kinds = {
            "task_code": self.task_code,
            "remote_code": self.remote_code,
            "pickle": self.pickle,
        }
        return {
            kind: {allowed.named: dict(allowed.files) for allowed in entries}
            for kind, entries in kinds.items()
            if entries
        }

    def code_of(self, model: Path) -> Allowed | None:
        """The files that the model in this folder may run."""
        return _at(self.remote_code, model)

    def pickle_of(self, model: Path) -> Allowed | None:
        """The pickle files of the model in this folder that may be read."""
        return _at(self.pickle, model)

    def trusts(self, model: Path) -> bool:
        """Whether the model in this folder may run its own code.

        Raises:
            PreflightFailed: it may, but the code is not what was allowed.
        """
        allowed = self.code_of(model)
        if allowed is not None:
            allowed.check()
        return allowed is not None

    def with_copy(self, model: Path, copy: Path) -> Consent:
        """Consent that counts for a copy of the model and its code, too."""
        allowed = self.code_of(model)
        if allowed is None:
            return self
        copied = replace(allowed, folder=str(copy.resolve()))
        return replace(self, remote_code=(*self.remote_code, copied))


NOTHING = Consent()


def allowed_files(named: str, folder: Path, files: Iterable[Path]) -> Allowed:
    """Hash `files`, which are below `folder`.

    Raises:
        InvalidInput: one of them cannot be read, or there are more than a person would look at.
    """
    found = sorted(files)
    if len(found) > _MOST:
        raise InvalidInput(f"{named}: expected at most {_MOST} files to allow, got {len(found)}")
    root = folder.resolve()
    hashes = []
    for path in found:
        digest = _sha256(path)
        if digest is None:
            raise InvalidInput(f"{path}: cannot be read, so it cannot be allowed; check the file")
        hashes.append((path.relative_to(folder).as_posix(), digest))
    return Allowed(named, str(root), tuple(hashes))


def changed(path: Path, allowed: str, found: str | None) -> str:
    """One line about a file that is not what was allowed."""
    now = "it is gone" if found is None else f"it has {found[:16]}"
    return (
        f"{path}: allowed with SHA-256 {allowed[:16]}, now {now}: put the file back, or look at "
        "the new one and allow it in a new run"
    )


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """How two records differ, one line each."""
    for kind, flag in FLAGS.items():
        old, new = then.get(kind) or {}, now.get(kind) or {}
        for name in dict.fromkeys([*old, *new]):
            if name not in new:
                yield f"the run was started with {flag} {name}: give it again"
            elif name not in old:
                yield f"the run was started without {flag} {name}: leave it out"
            elif old[name] != new[name]:
                yield from _changes(name, old[name], new[name])


def _changes(name: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for file in dict.fromkeys([*old, *new]):
        then, now = old.get(file), new.get(file)
        if then is None:
            yield f"{name}/{file}: was not there when the run was started: remove it"
        elif then != now:
            yield changed(Path(name) / file, then, now)


FLAGS: Mapping[str, str] = {
    "task_code": "--allow-task-code",
    "remote_code": "--allow-remote-code",
    "pickle": "--allow-pickle",
}


def _at(entries: Iterable[Allowed], folder: Path) -> Allowed | None:
    place = str(folder.resolve())
    return next((allowed for allowed in entries if allowed.folder == place), None)


def _sha256(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
