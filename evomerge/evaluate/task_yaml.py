"""Reads one lm-eval task file without executing anything, and says what in it would need code."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from evomerge.errors import InvalidInput

_CODE_KEYS = ("class", "custom_dataset", "process_docs", "process_results", "use_prompt")
_PYTHON_TAG = "tag:yaml.org,2002:python/"
_UNSAFE_BUILDERS = ("pandas", "sql", "spark", "generator", "cache")
"""Builders of the datasets package that read pickles or talk to other programs."""


@dataclass(frozen=True)
class Tagged:
    """A value with a YAML tag that means code: kept as text, never resolved."""

    tag: str
    text: str


class _Loader(yaml.SafeLoader):
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
    del loader
    tag = "!!python/" if node.tag.startswith(_PYTHON_TAG) else "!"
    return Tagged(tag + suffix, str(node.value) if isinstance(node, yaml.ScalarNode) else "...")


_Loader.add_multi_constructor("!", _tagged)
_Loader.add_multi_constructor(_PYTHON_TAG, _tagged)


def read_task_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the file at `path`, with `Tagged` in the place of code.

    Raises:
        InvalidInput: the file cannot be read, is not YAML, or is not a mapping.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read ({error}); check the path") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{path}: not readable as YAML: {reason}; correct the file") from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{path}: expected a mapping with a task in it, got {value!r}")
    return value


def code_problems(path: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """One line for everything in `config` that lm-eval would execute, import or unpickle."""
    for key, value in _walk(config, ""):
        if isinstance(value, Tagged):
            yield (
                f"{path}: {key}: '{value.tag} {value.text}' would run Python code; "
                "write the value as plain YAML or a Jinja template"
            )
    fewshot = config.get("fewshot_config")
    sections = {"": config, "fewshot_config.": fewshot if isinstance(fewshot, Mapping) else {}}
    for prefix, section in sections.items():
        for key in _CODE_KEYS:
            if section.get(key) is not None and not isinstance(section[key], Tagged):
                yield (
                    f"{path}: {prefix}{key}: loads Python code; remove the key and describe the "
                    "task with plain YAML keys"
                )
    if config.get("unsafe_code") not in (None, False):
        yield f"{path}: unsafe_code: a task that executes answers is refused; remove the task"
    yield from _dataset_problems(path, config)
    yield from _metric_problems(path, config)


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


def _metric_problems(path: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Metrics that lm-eval would look for outside itself, as code on disk or on a hub."""
    for index, entry in _mappings(config.get("metric_list")):
        metric = entry.get("metric")
        if isinstance(metric, str) and (set(metric) & set("/\\") or metric.endswith(".py")):
            yield (
                f"{path}: metric_list[{index}].metric: '{metric}' is a path to code; use a metric "
                "that lm-eval has built in, such as acc or exact_match"
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
