"""Malformed files that hypothesis draws: values in wrong places, and spoiled bytes."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from evomerge import yaml12
from experiments.faults.malformed.cases import (
    Case,
    changed,
    copied,
    evaluating,
    merging,
    merging_model,
    scoring,
    spoiled,
)
from experiments.faults.malformed.world import INLINE, TASK, World

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["ties", "base", "$x.best", "1e3", "../..", "a+b", "float32", "{{x}}"]),
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int) -> list[Any]:
    """`count` values, the same in every run."""
    found: list[Any] = []

    @seed(number)
    @settings(
        max_examples=count,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return found[:count]


def places(mapping: Any, above: str = "") -> Iterator[str]:
    """The path of every value in nested mappings and lists."""
    entries = mapping.items() if isinstance(mapping, dict) else enumerate(mapping)
    for key, value in entries:
        yield f"{above}{key}"
        if isinstance(value, dict | list):
            yield from places(value, f"{above}{key}.")


def cases(world: World, count: int) -> Iterator[Case]:
    """About `count` per kind."""
    yield from _values("space", world.space(), count, 1, _validate)
    yield from _values("recipe", world.recipe(), count, 2, _merge)
    yield from _values("task", TASK, count // 2, 3, _score)
    config = json.loads((world.parent / "config.json").read_text())
    yield from _values("checkpoint config", config, count // 2, 4, _evaluate)
    yield from _values("adapter", _adapter(world), count // 2, 5, _adapt)
    spoil: list[tuple[str, str, str, Any]] = [
        ("checkpoint header", "a", "model.safetensors", _merge_copy),
        ("checkpoint tokenizer", "a", "tokenizer.json", _evaluate_copy),
        ("adapter", "adapter", "adapter_model.safetensors", _adapt_copy),
        ("task", "tasks", "pick.jsonl", _score_copy),
        ("ledger", "run", "ledger.sqlite", _status_copy),
        ("ledger", "run", "ledger.sqlite", _resume_copy),
        ("run directory", "run", "spec.resolved.yaml", _resume_copy),
        ("run directory", "run", "run.json", _status_copy),
    ]
    for number, (kind, source, name, act) in enumerate(spoil, start=10):
        for key in drawn(st.integers(0, 2**32), count // 2, number):
            yield Case(kind, f"{name} spoiled {key}", _spoiling(source, name, key, act), "", True)


def _values(kind: str, sound: dict[str, Any], count: int, number: int, act: Any) -> Iterator[Case]:
    where = sorted(set(places(sound)))
    for path, value in drawn(st.tuples(st.sampled_from(where), VALUES), count, number):

        def prepare(
            folder: Path, world: World, path: str = path, value: Any = value
        ) -> list[object]:
            found = act(folder, world, changed(sound, path, value))
            assert isinstance(found, list)
            return found

        yield Case(kind, f"{path}: {value!r}"[:80], prepare, "", True)


def _spoiling(source: str, name: str, key: int, act: Any) -> Any:
    def prepare(folder: Path, world: World) -> list[object]:
        place = copied(world.root / source, folder, "copy")
        raw = (place / name).read_bytes()
        (place / name).write_bytes(spoiled(raw, random.Random(key)))
        found = act(folder, world, place)
        assert isinstance(found, list)
        return found

    return prepare


def _validate(folder: Path, world: World, space: Any) -> list[object]:
    del world
    (folder / "space.yaml").write_text(yaml12.dumps(space), encoding="utf-8")
    return ["validate", folder / "space.yaml"]


def _merge(folder: Path, world: World, recipe: Any) -> list[object]:
    del world
    return merging(folder, recipe)


def _score(folder: Path, world: World, task: Any) -> list[object]:
    place = copied(world.tasks, folder, "tasks")
    (place / "pick.yaml").write_text(json.dumps(task))
    return scoring(folder, world.parent, place)


def _evaluate(folder: Path, world: World, config: Any) -> list[object]:
    model = copied(world.parent, folder, "model")
    (model / "config.json").write_text(json.dumps(config))
    return evaluating(folder, world, model)


def _adapter(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((world.adapter / "adapter_config.json").read_text())
    return found


def _adapt(folder: Path, world: World, config: Any) -> list[object]:
    adapter = copied(world.adapter, folder, "adapter")
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return merging_model(folder, f"{world.root / 'base'}+{adapter}")


def _merge_copy(folder: Path, world: World, place: Path) -> list[object]:
    del world
    return merging_model(folder, place)


def _evaluate_copy(folder: Path, world: World, place: Path) -> list[object]:
    return evaluating(folder, world, place)


def _adapt_copy(folder: Path, world: World, place: Path) -> list[object]:
    return merging_model(folder, f"{world.root / 'base'}+{place}")


def _score_copy(folder: Path, world: World, place: Path) -> list[object]:
    return scoring(folder, world.parent, place)


def _status_copy(folder: Path, world: World, place: Path) -> list[object]:
    del folder, world
    return ["status", place]


def _resume_copy(folder: Path, world: World, place: Path) -> list[object]:
    shutil.copy(world.root / "space.yaml", folder)
    shutil.rmtree(place / "best")
    return ["search", "--space", folder / "space.yaml", "--out", place, *INLINE]
