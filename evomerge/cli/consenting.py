"""The flags that allow code and pickle files: what they name is found, hashed, and shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.consent import FLAGS, Allowed, Consent, allowed_files
from evomerge.errors import EvomergeError, InvalidInput
from evomerge.plain_text import one_line
from evomerge.weights.checkpoint import INDEX_FILE, SINGLE_FILE
from evomerge.weights.pickle_files import pickle_files
from evomerge.weights.references import locate
from evomerge.weights.remote_code import code_files, code_references, reference_problems


@dataclass(frozen=True)
class AllowFlags:
    """The values of --allow-task-code, --allow-remote-code and --allow-pickle."""

    task_code: tuple[str, ...] = ()
    remote_code: tuple[str, ...] = ()
    pickle: tuple[str, ...] = ()


def given_consent(flags: AllowFlags, root: Path) -> Consent:
    """What the flags allow; every file is printed on stderr with its SHA-256 before it is used.

    A value is a path or the name of a model, as it stands in the file whose folder is `root`, or
    as seen from the working directory.

    Raises:
        InvalidInput: a value names nothing, two different things, or something without such files.
    """
    problems: list[str] = []

    def each(
        kind: str, values: Sequence[str], find: Callable[[str, Path], Allowed]
    ) -> list[Allowed]:
        found: list[Allowed] = []
        for value in dict.fromkeys(values):
            try:
                found.append(find(value, _place(FLAGS[kind], value, root, kind == "task_code")))
            except EvomergeError as error:
                problems.extend(error.problems)
        return found

    consent = Consent(
        tuple(each("task_code", flags.task_code, _task_code)),
        tuple(each("remote_code", flags.remote_code, _remote_code)),
        tuple(each("pickle", flags.pickle, _pickle)),
    )
    if problems:
        raise InvalidInput(problems)
    for entry in (*consent.task_code, *consent.remote_code, *consent.pickle):
        for name, digest in entry.files:
            shown = one_line(str(Path(entry.folder) / name))
            print(f"allowed: {shown} sha256 {digest}", file=sys.stderr)
    return consent


def _place(flag: str, value: str, root: Path, folders_only: bool) -> Path:
    """The one folder that `value` names."""
    places: list[Path] = []
    problems: list[str] = []
    for start in dict.fromkeys((root.resolve(), Path.cwd())):
        if folders_only:
            folder = start / Path(value)
            places += [folder] if os.path.isdir(folder) else []
            continue
        try:
            places.append(locate(value, start))
        except InvalidInput as error:
            problems += error.problems
    if not places:
        reason = problems[0] if problems else f"there is no folder {value}: correct the path"
        raise InvalidInput(f"{flag} {value}: {reason}")
    if len({place.resolve() for place in places}) > 1:
        both = " and ".join(str(place) for place in places)
        raise InvalidInput(f"{flag} {value}: may be {both}: write the whole path")
    return places[0]


def _task_code(value: str, folder: Path) -> Allowed:
    files = [path for path in folder.rglob("*.py") if path.is_file()]
    if not files:
        raise InvalidInput(
            f"{FLAGS['task_code']} {value}: no Python file below {folder}: leave it out"
        )
    return allowed_files(value, folder, files)


def _remote_code(value: str, folder: Path) -> Allowed:
    flag = FLAGS["remote_code"]
    if not code_references(folder):
        raise InvalidInput(f"{flag} {value}: {folder} has no code of its own: leave it out")
    problems = reference_problems(folder)
    if problems:
        raise InvalidInput([f"{flag} {value}: {line}" for line in problems])
    return allowed_files(value, folder, code_files(folder))


def _pickle(value: str, folder: Path) -> Allowed:
    flag = FLAGS["pickle"]
    plain = (SINGLE_FILE, INDEX_FILE, "adapter_model.safetensors")
    if any((folder / name).exists() for name in plain):
        raise InvalidInput(f"{flag} {value}: {folder} has safetensors weights: leave it out")
    files = pickle_files(folder)
    if not files:
        raise InvalidInput(
            f"{flag} {value}: expected pytorch_model.bin, its index, or adapter_model.bin in "
            f"{folder}, got none of them: leave it out"
        )
    return allowed_files(value, folder, files)
