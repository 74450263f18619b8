"""Which pickle files a model or an adapter consists of; reads names and the index only."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from evomerge.errors import InvalidInput
from evomerge.weights.json_files import read_json

MODEL_FILE = "pytorch_model.bin"
INDEX_FILE = "pytorch_model.bin.index.json"
ADAPTER_FILE = "adapter_model.bin"


def pickle_files(folder: Path) -> tuple[Path, ...]:
    """The pickled weights in `folder`, as Hugging Face names them; empty when there are none.

    Raises:
        InvalidInput: the index is damaged, or names files elsewhere or files that do not exist.
    """
    index = folder / INDEX_FILE
    for name in (MODEL_FILE, ADAPTER_FILE):
        if (folder / name).is_file():
            return (folder / name,)
    if not index.exists():
        return ()
    shards = read_json(index, max_mib=64).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
        raise InvalidInput(f"{index}: expected a weight_map: download the model again")
    names = sorted(set(shards.values()))
    problems = [line for name in names for line in shard_problems(index, name)]
    if problems:
        raise InvalidInput(problems)
    return tuple(folder / name for name in names)


def shard_problems(index: Path, shard: str) -> list[str]:
    """Why `index` must not or cannot name `shard`, as at most one line."""
    place = PurePosixPath(shard)
    if place.is_absolute() or ".." in place.parts or "\\" in shard or "\0" in shard:
        return [f"{index}: shard '{shard}' lies outside the directory: refused, get a sound copy"]
    if not is_file(index.parent / shard):
        return [f"{index}: shard '{shard}' does not exist: download the missing file"]
    return []


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
