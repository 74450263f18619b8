"""A merged model on disk: the planned tensors streamed into a directory that appears when whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from evomerge.errors import DiskFull, InvalidInput
from evomerge.recipe import Recipe
from evomerge.weights.checkpoint import INDEX_FILE, SINGLE_FILE
from evomerge.weights.companion_files import copy_companions
from evomerge.weights.finite import assert_finite
from evomerge.weights.headers import TensorInfo, encode_header
from evomerge.weights.materialize import Materializer
from evomerge.weights.output_config import output_config
from evomerge.weights.planned import PlannedTensor

_METADATA = {"format": "pt"}
_SPARE_BYTES = 64 * 2**20


def write_model(
    recipe: Recipe, materializer: Materializer, out_dir: Path, *, max_shard_bytes: float = 5e9
) -> None:
    """Merge `recipe` into the new directory `out_dir` as a model that transformers loads.

    The model is built next to `out_dir` and renamed, so that `out_dir` is complete or absent.

    Raises:
        InvalidInput: `out_dir` exists and is not an empty directory, or the recipe is wrong.
        PreflightFailed: the recipe does not fit its models.
        DiskFull: there is no room for it.
        BuildFailed: a merged tensor holds NaN or Inf.
    """
    _check_free(out_dir)
    planned = materializer.plan(recipe)
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    _check_space(out_dir.parent, sum(tensor.nbytes for tensor in planned))
    with _appearing(out_dir) as folder:
        copy_companions(recipe, materializer.pool, folder)
        _write_json(folder / "config.json", output_config(recipe, materializer.pool, planned))
        _write_weights(folder, planned, max_shard_bytes)


def _check_free(out_dir: Path) -> None:
    if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
        raise InvalidInput(
            f"{out_dir}: expected a new or empty directory, got an existing one with content: "
            "choose another name or remove it"
        )


def _check_space(parent: Path, needed: int) -> None:
    free = shutil.disk_usage(parent).free
    if free < needed + _SPARE_BYTES:
        raise DiskFull(
            f"{parent}: the model needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free: "
            "make room and run the same command again, or choose another disk"
        )


@contextmanager
def _appearing(out_dir: Path) -> Iterator[Path]:
    """A folder that becomes `out_dir` at the end of the block, and vanishes if that fails."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", dir=out_dir.parent))
    folder = scratch / "model"
    try:
        folder.mkdir()  # not the scratch folder itself, which only its owner may read
        yield folder
        for path in (*(p for p in folder.rglob("*") if p.is_file()), folder):
            _flush(path)
        _check_free(out_dir)
        folder.rename(out_dir)
        _flush(out_dir.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_weights(folder: Path, planned: Sequence[PlannedTensor], max_shard_bytes: float) -> None:
    shards = _shards(planned, max_shard_bytes)
    if len(shards) == 1:
        _write_shard(folder / SINGLE_FILE, shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(folder / name, shard)
        weight_map |= dict.fromkeys((tensor.name for tensor in shard), name)
    total = sum(tensor.nbytes for tensor in planned)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / INDEX_FILE, index)


def _shards(planned: Sequence[PlannedTensor], max_bytes: float) -> list[list[PlannedTensor]]:
    """Consecutive tensors of at most `max_bytes`; a larger tensor has a shard of its own."""
    shards: list[list[PlannedTensor]] = [[]]
    size = 0
    for tensor in planned:
        if shards[-1] and size + tensor.nbytes > max_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _write_shard(path: Path, shard: Sequence[PlannedTensor]) -> None:
    """One file, one tensor in memory at a time."""
    ordered = sorted(shard, key=lambda tensor: -tensor.dtype.itemsize)  # keeps elements aligned
    infos = [TensorInfo(t.name, str(t.dtype).removeprefix("torch."), t.shape) for t in ordered]
    with path.open("wb") as file:
        file.write(encode_header(infos, _METADATA))
        for tensor in ordered:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype)
            tensor.write(buffer)
            assert_finite(tensor.name, buffer)
            file.write(buffer.reshape(-1).view(torch.uint8).numpy().data)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
