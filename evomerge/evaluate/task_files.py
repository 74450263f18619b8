"""Finds task files in the user's folders: which names they define, where their data lies."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.consent import Allowed
from evomerge.errors import InvalidInput
from evomerge.evaluate.json_depth import too_deep
from evomerge.evaluate.task_yaml import code_problems, read_task_yaml
from evomerge.signatures import did_you_mean

BUILDERS = ("json", "csv", "parquet", "text", "arrow", "imagefolder")
"""Loaders for local files; any other dataset_path names a folder or a published data set."""

_IGNORED_FOLDERS = {"__pycache__", ".ipynb_checkpoints"}
_STRUCTURE = ("include", "tag", "group", "task_list")
_EVALUATED = ("test_split", "validation_split")
_SPLITS = (*_EVALUATED, "training_split", "fewshot_split")


@dataclass(frozen=True)
class TaskFile:
    """One task: its file and its configuration, includes merged and paths absolute."""

    path: Path
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class TaskIndex:
    """The tasks that the folders define, and the names of groups with their members."""

    files: Mapping[str, TaskFile]
    groups: Mapping[str, tuple[str, ...]]

    def config(self, task: str) -> dict[str, Any]:
        """The configuration of `task` as lm-eval takes it; a copy that the caller may change.

        Raises:
            InvalidInput: no such task, a data file or split is missing; every problem, one line
                each.
        """
        if task not in self.files:
            raise InvalidInput(self._unknown(task))
        file = self.files[task]
        problems = [f"{file.path}: {problem}" for problem in _data_problems(file.fields)]
        if problems:
            raise InvalidInput(problems)
        return copy.deepcopy(dict(file.fields))

    def _unknown(self, task: str) -> str:
        if task in self.groups:
            members = ", ".join(self.groups[task])
            return f"task '{task}' is a group; list its tasks instead: {members}"
        if not self.files:
            return f"task '{task}': the included folders contain no task file; check `include`"
        return f"task '{task}' is in none of the included folders; " + did_you_mean(
            task, self.files
        )


def find_tasks(folders: Sequence[Path], allowed: Sequence[Allowed] = ()) -> TaskIndex:
    """Index every *.yaml file below `folders`.

    A file without `task` and `group` only serves to be included by others. Relative paths in a
    file, also in an included one, start at that file. `allowed` are the folders whose files may
    name functions; these stay `Tagged`, as nothing is imported here.

    Raises:
        InvalidInput: every unreadable file, every key that would execute code, every name that two
            files define; one line each.
    """
    reader = _Reader(allowed)
    for folder in folders:
        if not folder.is_dir():
            reader.problems.append(f"{folder}: not a folder; correct `include`")
            continue
        for path in sorted(folder.rglob("*.yaml"), key=lambda found: found.as_posix()):
            if not _IGNORED_FOLDERS & set(path.parts):
                reader.add(Path(os.path.abspath(path)))
    if reader.problems:
        raise InvalidInput(list(dict.fromkeys(reader.problems)))
    return TaskIndex(reader.files, reader.groups)


class _Reader:
    """Collects tasks, groups and problems over all files (stateful)."""

    def __init__(self, allowed: Sequence[Allowed]) -> None:
        self._allowed = allowed
        self.problems: list[str] = []
        self.files: dict[str, TaskFile] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self._own: dict[Path, dict[str, Any]] = {}

    def add(self, path: Path) -> None:
        fields, origins = self._merged(path, ())
        if "group" in fields:
            self.groups[str(fields["group"])] = _members(fields.get("task"))
        elif isinstance(fields.get("task"), str):
            self._add_task(path, fields, origins)
        elif "task" in fields:
            self.problems.append(
                f"{path}: task: expected a name, got {fields['task']!r}; rename it"
            )

    def _add_task(self, path: Path, fields: dict[str, Any], origins: dict[str, Path]) -> None:
        name = fields["task"]
        known = self.files.get(name)
        if known is not None and known.path != path:
            self.problems.append(
                f"{path}: task: '{name}' is also defined in {known.path}; rename one of them"
            )
            return
        fields = {key: value for key, value in fields.items() if key not in _STRUCTURE}
        self.files[name] = TaskFile(path, _absolute_paths(fields, origins))

    def _merged(
        self, path: Path, above: tuple[Path, ...]
    ) -> tuple[dict[str, Any], dict[str, Path]]:
        """The fields of `path` over those it includes, and the folder each field comes from."""
        own = self._read(path)
        fields: dict[str, Any] = {}
        origins: dict[str, Path] = {}
        included = own.get("include", [])
        for entry in included if isinstance(included, list) else [included]:
            target = Path(os.path.abspath(path.parent / str(entry)))
            if target == path or target in above:
                self.problems.append(f"{path}: include: {target} includes itself; break the circle")
            elif not target.is_file():
                self.problems.append(f"{path}: include: {target} does not exist; correct the path")
            else:
                inherited, places = self._merged(target, (*above, path))
                fields |= inherited
                origins |= places
        return fields | own, origins | dict.fromkeys(own, path.parent)

    def _read(self, path: Path) -> dict[str, Any]:
        """The fields of this file alone; an unusable file is reported and counts as empty."""
        if path not in self._own:
            self._own[path] = {}
            try:
                config = read_task_yaml(path)
            except InvalidInput as error:
                self.problems += error.problems
                return {}
            found = list(code_problems(path, config, self._allowed))
            self.problems += found
            if not found:
                self._own[path] = config
        return self._own[path]


def _members(entries: Any) -> tuple[str, ...]:
    named = entries if isinstance(entries, list) else []
    return tuple(str(e.get("task", e) if isinstance(e, Mapping) else e) for e in named)


def _absolute_paths(fields: dict[str, Any], origins: Mapping[str, Path]) -> dict[str, Any]:
    """`fields` with local data where the task file says, wherever lm-eval is started."""
    dataset, arguments = fields.get("dataset_path"), fields.get("dataset_kwargs")
    if isinstance(dataset, str) and dataset not in BUILDERS:
        folder = origins["dataset_path"] / dataset
        return fields | {"dataset_path": os.path.abspath(folder)} if folder.is_dir() else fields
    if not isinstance(arguments, Mapping):
        return fields
    base = origins["dataset_kwargs"]
    local = {
        key: _below(base, arguments[key]) for key in ("data_files", "data_dir") if key in arguments
    }
    return fields | {"dataset_kwargs": {**arguments, **local}}


def _below(base: Path, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _below(base, entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_below(base, entry) for entry in value]
    return value if "://" in str(value) else os.path.abspath(base / str(value))


def _data_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    arguments = fields.get("dataset_kwargs") or {}
    if not isinstance(arguments, Mapping):
        yield f"dataset_kwargs: expected a mapping, got {arguments!r}; write {{data_files: ...}}"
        return
    yield from _remote_problems(fields, arguments)
    if not any(fields.get(key) for key in _EVALUATED):
        yield "neither test_split nor validation_split is given; name the split to evaluate"
    if not fields.get("dataset_path") and not fields.get("custom_dataset"):
        yield "dataset_path: missing; write `dataset_path: json` for a JSON lines file"
    if fields.get("dataset_path") in BUILDERS:
        files = arguments.get("data_files")
        if files is None and arguments.get("data_dir") is None:
            yield "dataset_kwargs: expected data_files or data_dir with the local data"
        for key, entry in _entries(files, "data_files"):
            yield from _file_problems(f"dataset_kwargs.{key}", entry)
        folder = arguments.get("data_dir")
        if folder is not None and not Path(folder).is_dir():
            yield f"dataset_kwargs.data_dir: {folder} does not exist; correct the path"
        if files is not None and "split" not in arguments:
            known = tuple(files) if isinstance(files, Mapping) else ("train",)
            yield from _split_problems(fields, known)
    question = fields.get("doc_to_text")
    if isinstance(question, list | dict | float):
        yield f"doc_to_text: expected text, got {question!r}; write a template or a column's name"
    yield from _depth_problems(fields)
    choices = fields.get("doc_to_choice")
    for index, choice in enumerate(choices if isinstance(choices, list) else ()):
        if not isinstance(choice, str):
            yield (
                f"doc_to_choice[{index}]: expected text, got {choice!r}; put it in quotes "
                "(unquoted yes and no mean true and false in these files)"
            )


def _entries(files: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(files, Mapping):
        for name, entry in files.items():
            yield from _entries(entry, f"{key}.{name}")
    elif isinstance(files, list):
        for index, entry in enumerate(files):
            yield from _entries(entry, f"{key}[{index}]")
    elif files is not None:
        yield key, str(files)


def _remote_problems(fields: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    """One line for each address in `arguments`; files of known builders have lines of their own."""
    own = "dataset_kwargs.data_files" if fields.get("dataset_path") in BUILDERS else "\n"
    for key, value in _texts(arguments, "dataset_kwargs"):
        if "://" in value and not key.startswith(own):
            yield f"{key}: {value} is not local; nothing is fetched: download it and name the file"


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text below `value`, with its place."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _texts(entry, f"{key}.{name}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _texts(entry, f"{key}[{index}]")
    elif isinstance(value, str):
        yield key, value


def _file_problems(key: str, entry: str) -> Iterator[str]:
    if "://" in entry:
        yield f"{key}: {entry} is not a local file; download it and name the file"
    elif any(sign in entry for sign in "*?["):
        path = Path(entry)
        if not any(Path(path.anchor).glob(str(path.relative_to(path.anchor)))):
            yield f"{key}: no file matches {entry}; correct the pattern or create the data"
    elif not Path(entry).is_file():
        yield f"{key}: the data file {entry} does not exist; correct the path or create the data"


def _depth_problems(fields: Mapping[str, Any]) -> Iterator[str]:
    for path in _json_files(fields):
        if too_deep(path):
            yield f"the data file {path} is nested too deeply to be data; correct it"


def _json_files(fields: Mapping[str, Any]) -> Iterator[Path]:
    """The files that will be parsed as JSON, as far as their names tell."""
    arguments, dataset = fields.get("dataset_kwargs") or {}, str(fields.get("dataset_path"))
    folders = [Path(str(arguments["data_dir"]))] if arguments.get("data_dir") else []
    if dataset not in BUILDERS and os.path.isdir(dataset):
        folders.append(Path(dataset))
    for folder in folders:
        yield from (path for path in folder.rglob("*.*json*") if path.is_file())
    for _, entry in _entries(arguments.get("data_files"), "data_files"):
        place = Path(entry)
        if dataset == "json" and place.is_file():
            yield place
        elif dataset == "json" and any(sign in entry for sign in "*?["):
            pattern = str(place.relative_to(place.anchor))
            yield from (path for path in Path(place.anchor).glob(pattern) if path.is_file())


def _split_problems(fields: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[str]:
    for key in _SPLITS:
        split = fields.get(key)
        if split and split not in known:
            yield f"{key}: '{split}' is not a split of data_files; " + did_you_mean(
                str(split), known
            )
