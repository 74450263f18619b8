"""Reads one lm-eval task file without executing anything, and says what in it would need code."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.bounded_yaml import MAX_MIB, BoundedLoader, parse
from evomerge.consent import Allowed
from evomerge.errors import InvalidInput
from evomerge.text_files import read_text

_CODE_KEYS = ("class", "custom_dataset", "process_docs", "process_results", "use_prompt")
_NEVER = ("class", "use_prompt")
_PYTHON_TAG = "tag:yaml.org,2002:python/"
_UNSAFE_BUILDERS = ("pandas", "sql", "spark", "generator", "cache", "eval", "iceberg", "webdataset")
"""Builders of the datasets package that read pickles or talk to other programs."""
FUNCTION = "!function"
"""lm-eval's tag for a function of a Python file beside the task file."""


@dataclass(frozen=True)
class Tagged:
    """A value with a YAML tag that means code, kept as text; `file` is where it stands."""

    tag: str
    text: str
    file: Path

    @property
    def source(self) -> Path:
        """The Python file that lm-eval would look for first."""
        module = self.text.rpartition(".")[0]
        return self.file.parent / f"{module.replace('.', '/')}.py"

    @property
    def name(self) -> str:
        """The function's name in that file."""
        return self.text.rpartition(".")[2]


class _Loader(BoundedLoader):
    """SafeLoader without duplicate keys, keeping tagged values as text.

    YAML 1.1, unlike the rest of the program: these are lm-eval's files, and the lm_eval command
    must read the same values from them.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag.endswith(":merge"):
                continue
            if key_node.value in seen:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: the key '{key_node.value}' appears twice")
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _tagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Tagged:
    tag = "!!python/" if node.tag.startswith(_PYTHON_TAG) else "!"
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else "..."
    return Tagged(tag + suffix, text, Path(loader.name))


_Loader.add_multi_constructor("!", _tagged)
_Loader.add_multi_constructor(_PYTHON_TAG, _tagged)


def read_task_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the file at `path`, with `Tagged` in the place of code.

    Raises:
        InvalidInput: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        loader = _Loader(read_text(path, max_mib=MAX_MIB))
        loader.name = str(path)
        value = parse(loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{path}: not readable as YAML: {reason}; correct the file") from None
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise InvalidInput(
            f"{path}: expected a mapping with a task in it, got {kind}; correct the file"
        )
    return value


def code_problems(
    path: Path, config: Mapping[str, Any], allowed: Sequence[Allowed] = ()
) -> Iterator[str]:
    """One line for everything in `config` that lm-eval would execute, import or unpickle.

    Functions of Python files that are `allowed` are no problem; all other ways to run code are.
    """
    for key, value in _walk(config, ""):
        if isinstance(value, Tagged):
            yield from (f"{path}: {key}: {line}" for line in _function_problems(value, allowed))
    fewshot = config.get("fewshot_config")
    sections = {"": config, "fewshot_config.": fewshot if isinstance(fewshot, Mapping) else {}}
    for prefix, section in sections.items():
        for key in _CODE_KEYS:
            value = section.get(key)
            if value is not None and (key in _NEVER or not isinstance(value, Tagged)):
                yield (
                    f"{path}: {prefix}{key}: loads Python code; remove the key and describe the "
                    "task with plain YAML keys"
                )
    if config.get("unsafe_code") not in (None, False):
        yield f"{path}: unsafe_code: a task that executes answers is refused; remove the task"
    yield from _dataset_problems(path, config)
    yield from _metric_problems(path, config)


def _function_problems(tagged: Tagged, allowed: Sequence[Allowed]) -> Iterator[str]:
    code = f"'{tagged.tag} {tagged.text}'"
    folder = tagged.file.parent
    if tagged.tag != FUNCTION:
        yield f"{code} would run Python code; write the value as plain YAML"
    elif not any(entry.contains(folder) for entry in allowed):
        yield (
            f"{code} would run Python code; write the value as plain YAML or a Jinja template, or "
            f"allow it with --allow-task-code {folder}"
        )
    elif not any(entry.hash_of(tagged.source) for entry in allowed):
        yield f"{code}: {tagged.source} is not among the allowed files; put the function there"


def _dataset_problems(path: Path, config: Mapping[str, Any]) -> Iterator[str]:
    dataset = config.get("dataset_path")
    if isinstance(dataset, str) and (dataset in _UNSAFE_BUILDERS or dataset.endswith(".py")):
        yield (
            f"{path}: dataset_path: '{dataset}' can execute code while loading; expected json, "
            "csv, parquet, text, arrow, imagefolder or the name of a data set; convert the data"
        )
    arguments = config.get("dataset_kwargs")
    if isinstance(arguments, Mapping) and arguments.get("trust_remote_code"):
        yield f"{path}: dataset_kwargs.trust_remote_code: runs foreign code; remove the key"
    if isinstance(arguments, Mapping) and "cache_dir" in arguments:
        yield f"{path}: dataset_kwargs.cache_dir: would write there; remove the key"


def _metric_problems(path: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Metrics that lm-eval would look for outside itself, as code on disk or on a hub."""
    for index, entry in _mappings(config.get("metric_list")):
        metric = entry.get("metric")
        if isinstance(metric, str) and (set(metric) & set("/\\") or metric.endswith(".py")):
            yield (
                f"{path}: metric_list[{index}].metric: '{metric}' is a path to code; use a metric "
                "that lm-eval has built in, such as acc or exact_match, or !function in an allowed "
                "folder"
            )
        if entry.get("hf_evaluate"):
            yield f"{path}: metric_list[{index}].hf_evaluate: runs foreign code; remove the key"
    for index, entry in _mappings(config.get("filter_list")):
        for place, step in _mappings(entry.get("filter")):
            if step.get("function") == "custom":
                yield (
                    f"{path}: filter_list[{index}].filter[{place}]: a custom filter is Python "
                    "code; use lm-eval's filters, such as regex and take_first"
                )


def _mappings(entries: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, Mapping):
            yield index, entry


def _walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Every leaf below `value` with its path, keys of mappings included."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            label = name.text if isinstance(name, Tagged) else str(name)
            if isinstance(name, Tagged):
                yield f"{key}.{label}".lstrip("."), name
            yield from _walk(entry, f"{key}.{label}".lstrip("."))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _walk(entry, f"{key}[{index}]")
    else:
        yield key, value
