"""Folders that a node lacks are fetched there once, before its first worker opens them."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import InvalidInput, PreflightFailed
from evomerge.model_reference import ModelReference
from evomerge.run.pool import EvaluatingWorker, WorkerFactory

_PLACE = "{path}"
_LONGEST_ERROR = 300


@dataclass(frozen=True)
class Fetching:
    """A WorkerFactory that first completes the folders of its node.

    Attributes:
        factory: makes the worker afterwards.
        command: a program and its arguments; "{path}" in them is the absolute path of a folder,
            the same on every node. No shell reads it.
        folders: what workers read.
        root: where their relative paths start, as in "ROOT/../models"; made if it is missing.
    """

    factory: WorkerFactory
    command: tuple[str, ...]
    folders: tuple[str, ...]
    root: str

    def __call__(self) -> EvaluatingWorker:
        """Fetch what is missing and make the worker.

        Raises:
            PreflightFailed: the command failed on this node, or left no folder behind.
        """
        try:
            Path(self.root).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PreflightFailed(f"{self.root}: cannot be made here: {error}") from error
        for folder in self.folders:
            fetch(Path(folder), self.command)
        return self.factory()


def fetch_command(text: str) -> tuple[str, ...]:
    """The words of a command line for `Fetching`.

    Raises:
        InvalidInput: it cannot be split into words, or does not say where the path goes.
    """
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise InvalidInput(f"--fetch {text}: {error}; close the quotes") from error
    if not any(_PLACE in word for word in words):
        raise InvalidInput(
            f"--fetch {text}: expected {_PLACE} where the folder's path goes, as in "
            "'rsync -a head:{path}/ {path}/'"
        )
    return words


def folders_of(models: Sequence[str], include: Sequence[str], root: Path) -> tuple[str, ...]:
    """The absolute folders that workers read: parents, adapters and tasks.

    Models of the local Hugging Face cache are not among them: every node has a cache of its own.
    """
    references = [ModelReference.parse(model) for model in models]
    names = [name for r in references for name in (r.base, r.adapter) if name is not None]
    folders = [_plain((root / Path(name).expanduser()).absolute()) for name in names]
    found = [str(folder) for folder in folders if folder.is_dir()]
    return tuple(dict.fromkeys([*found, *include]))


def _plain(folder: Path) -> Path:
    """The path without "..", if that is still the same folder: links can make it another."""
    plain = Path(os.path.normpath(folder))
    same = plain.is_dir() and folder.is_dir() and plain.samefile(folder)
    return plain if same else folder


def fetch(folder: Path, command: Sequence[str]) -> None:
    """Make sure that `folder` is complete; run `command` if it is not.

    A file beside the folder says that its copying began and did not end, so that a copy cut short
    is taken up again. Its lock makes the other workers of the node wait. The command inherits the
    lock: should this process be killed, nobody begins a second copy beside the first.

    Raises:
        PreflightFailed: the command failed, or left no folder behind.
    """
    mark = folder.with_name(f".{folder.name}.fetching")
    if folder.is_dir() and not mark.exists():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(mark, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise PreflightFailed(f"{folder}: cannot be fetched here: {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir() or mark.exists():
            _run([word.replace(_PLACE, str(folder)) for word in command], folder, lock)
            mark.unlink(missing_ok=True)
    finally:
        os.close(lock)


def _run(command: Sequence[str], folder: Path, lock: int) -> None:
    shown = shlex.join(command)
    print(f"fetching {folder}: {shown}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", pass_fds=(lock,)
        )
    except OSError as error:
        raise PreflightFailed(
            f"--fetch cannot run {command[0]}: {error}; install it there"
        ) from error
    said = " ".join((done.stderr or done.stdout).split())[-_LONGEST_ERROR:]
    if done.returncode:
        raise PreflightFailed(
            f"--fetch failed for {folder}: exit code {done.returncode} of "
            f"'{shown}': {said or 'it said nothing'}"
        )
    if not folder.is_dir():
        raise PreflightFailed(
            f"--fetch ran '{shown}', but there is no folder {folder}: correct the command"
        )
