"""Checks the words of a task file against those that the installed lm-eval knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import lm_eval.filters  # noqa: F401 - registers the filters
from lm_eval.api.registry import aggregation_registry, filter_registry, metric_registry
from lm_eval.api.task import ALL_OUTPUT_TYPES
from lm_eval.config.task import TaskConfig

from evomerge.signatures import did_you_mean


def unknown_words(config: Mapping[str, Any]) -> Iterator[str]:
    """One line for every key, output type, metric, aggregation and filter lm-eval does not know.

    lm-eval itself says nothing about some of them, fails after all work about others, and looks
    for metrics on a hub.
    """
    fields = {field.name for field in dataclasses.fields(TaskConfig)}
    for key in config:
        if key not in fields:
            yield f"{key}: not a key of a task; {did_you_mean(str(key), fields)}"
    kind = str(config.get("output_type", "generate_until"))
    if kind not in ALL_OUTPUT_TYPES:
        yield f"output_type: '{kind}' is unknown; {did_you_mean(kind, ALL_OUTPUT_TYPES)}"
    # a task with code of its own for the results measures what that returns
    own = callable(config.get("process_results"))
    metrics = {"metric": None if own else metric_registry, "aggregation": aggregation_registry}
    yield from _unknown_in(config.get("metric_list"), "metric_list", metrics)
    filters = config.get("filter_list")
    yield from _unknown_in(filters, "filter_list", {"filter": None})
    for place, entry in enumerate(filters if isinstance(filters, list) else ()):
        if isinstance(entry, Mapping) and "filter" in entry:
            where = f"filter_list[{place}].filter"
            yield from _unknown_in(entry["filter"], where, {"function": filter_registry})


def _unknown_in(entries: Any, where: str, words: Mapping[str, Any]) -> Iterator[str]:
    """Problems of a list of mappings; each needs the first of `words`, which maps to registries."""
    if entries is not None and not isinstance(entries, list):
        yield f"{where}: expected a list, got {entries!r}; put it in brackets"
        return
    needed = next(iter(words))
    for place, entry in enumerate(entries or ()):
        if not isinstance(entry, Mapping) or needed not in entry:
            yield f"{where}[{place}]: expected {{{needed}: ...}}, got {entry!r}"
            continue
        for key, registry in words.items():
            value = entry.get(key)
            word = str(value)
            if registry is None or key not in entry or callable(value):
                continue
            if word not in registry:
                hint = did_you_mean(word, registry.keys())
                yield f"{where}[{place}].{key}: '{word}' is unknown; {hint}"
