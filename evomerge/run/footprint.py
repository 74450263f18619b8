"""How many bytes a run needs, and where, as far as the parents' headers say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from evomerge.recipe import Recipe
from evomerge.run.cache_needs import adapter_bytes, aligned_bytes, statistic_bytes
from evomerge.run.machine import Memory
from evomerge.run.spaces import Stage
from evomerge.space import SearchSpace
from evomerge.stack_file import StackSettings, earlier_stage
from evomerge.stack_space import StackSpace
from evomerge.weights.expansion import Target, expand
from evomerge.weights.headers import width, width_of_all
from evomerge.weights.layout import Section, place_of
from evomerge.weights.pool import ParentPool

LIBRARY_BYTES = 1 << 30
"""Taken for a worker's libraries and working memory where nothing was measured."""
_MEMORY_SHARE = 0.8
_MOST_WORKERS = 8


@dataclass(frozen=True)
class ParentFiles:
    """One parent: where it is, its bytes, element types and fingerprint."""

    model: str
    folder: Path
    nbytes: int
    dtypes: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Footprint:
    """Bytes of a run.

    Attributes:
        parents: every stored model, in the order of the space file.
        mapped: of all parents together: mapped from disk, once per machine.
        resident: what each worker holds of its own: a merged model, or parents whose type a stack
            does not share; 0 for stacks that borrow all weights.
        saved: of the largest model that can win.
        cache: at most, of what is computed once and kept in the user's cache.
        nested: of the results of earlier stages, which are kept there, too.
    """

    parents: tuple[ParentFiles, ...]
    mapped: int
    resident: int
    saved: int
    cache: int
    nested: int


def footprint(stages: Sequence[Stage], parents: ParentPool) -> Footprint:
    """The bytes that the searches of a file need."""
    merged: dict[str, _Merge] = {}
    resident, saved, cache = 0, 0, adapter_bytes(parents)
    for stage in stages:
        if isinstance(stage.space, SearchSpace):
            start = stage.space.decode(stage.space.start)
            targets = expand(start, parents)
            size = sum(_merged_bytes(target, start) for target in targets)
            merged[stage.config.name] = _Merge(start.donor, size)
            resident, saved = max(resident, size), max(saved, size)
            cache += aligned_bytes(targets) + statistic_bytes(stage.space, targets)
        else:
            assert stage.settings is not None, "spaces of stacks have settings"
            saved = max(saved, _stack_bytes(stage, parents, merged))
            resident = max(resident, _copied_bytes(stage.settings, parents))
    named = {name for s in stages if s.settings for name in s.settings.models}
    results = [earlier_stage(name) for name in sorted(named)]
    files = tuple(_files(model, parents) for model in parents.models)
    return Footprint(
        files,
        sum({file.folder: file.nbytes for file in files}.values()) + adapter_bytes(parents),
        resident,
        saved,
        cache,
        sum(merged[name].nbytes for name in results if name is not None),
    )


def default_workers(needs: Footprint, free: Memory, cores: int, gpus: int) -> int:
    """One worker per GPU; without any, as many as cores and memory allow, at most eight."""
    if gpus:
        return gpus
    room = int(_MEMORY_SHARE * free.free / (needs.resident + LIBRARY_BYTES))
    return max(1, min(cores, room, _MOST_WORKERS))


@dataclass(frozen=True)
class _Merge:
    """The merges of a stage: their donor, and their bytes."""

    donor: str
    nbytes: int


@dataclass(frozen=True)
class _Layers:
    """Bytes of one layer of a model, and of all that is not in a layer."""

    layer: float
    rest: float


def _layer_bytes(name: str, parents: ParentPool, merged: Mapping[str, _Merge]) -> _Layers:
    """Those of a parent, or of the result of an earlier stage, which is like its donor."""
    stage = earlier_stage(name)
    model = name if stage is None else merged[stage].donor
    infos = parents.infos(model).values()
    inside = [info for info in infos if place_of(info.name).section is Section.LAYER]
    depth = len({place_of(info.name).layer for info in inside})
    layers, whole = sum(i.nbytes for i in inside), sum(i.nbytes for i in infos)
    scale = 1.0 if stage is None else merged[stage].nbytes / whole
    return _Layers(scale * layers / max(depth, 1), scale * (whole - layers))


def _stack_bytes(stage: Stage, parents: ParentPool, merged: Mapping[str, _Merge]) -> int:
    """The deepest stack of the largest layers, around the donor's embeddings, norm and head."""
    settings, space = stage.settings, stage.space
    assert settings is not None, "spaces of stacks have settings"
    assert isinstance(space, StackSpace), "only they have"
    layer = max(_layer_bytes(name, parents, merged).layer for name in settings.models)
    size = space.most * layer + _layer_bytes(settings.donor, parents, merged).rest
    stored = [name for name in settings.models if earlier_stage(name) is None]
    if settings.dtype is None or not stored:
        return round(size)
    return round(size * width(settings.dtype) / width_of_all(_dtypes(parents, stored[0])))


def _copied_bytes(settings: StackSettings, parents: ParentPool) -> int:
    """Parents that a stack of another element type copies; the others are mapped."""
    stored = [name for name in settings.models if earlier_stage(name) is None]
    types = {d for name in stored for d in _dtypes(parents, name)}
    wanted = settings.dtype or (types.pop() if len(types) == 1 else None)
    copied = 0
    for name in stored:
        if _dtypes(parents, name) != {wanted}:
            each = width(wanted) if wanted else width_of_all(_dtypes(parents, name))
            copied += sum(prod(info.shape) for info in parents.infos(name).values()) * each
    return copied


def _merged_bytes(target: Target, recipe: Recipe) -> int:
    first = target.inputs[0]
    if target.part is None or not first.info.is_mergeable:
        return prod(first.shape) * first.info.itemsize
    if recipe.storage_dtype is not None:
        return prod(first.shape) * width(recipe.storage_dtype)
    return prod(first.shape) * width_of_all([item.info.dtype for item in target.inputs])


def _files(model: str, parents: ParentPool) -> ParentFiles:
    infos = parents.infos(model)
    return ParentFiles(
        model,
        parents.directory(model),
        sum(info.nbytes for info in infos.values()),
        tuple(sorted(_dtypes(parents, model))),
        parents.fingerprint(model),
    )


def _dtypes(parents: ParentPool, model: str) -> set[str]:
    return {info.dtype for info in parents.infos(model).values() if info.is_mergeable}
