"""A Hugging Face model directory: safetensors files mapped into memory, never code that runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, final

from safetensors import safe_open

from evomerge.errors import InvalidInput
from evomerge.weights.contents import contents
from evomerge.weights.fingerprint import fingerprint
from evomerge.weights.headers import MAX_TENSORS, TensorInfo, read_header
from evomerge.weights.json_files import read_json
from evomerge.weights.pickle_files import shard_problems

if TYPE_CHECKING:
    from torch import Tensor

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SHOWN = 5

_Stored = tuple[TensorInfo, Path]
"""A tensor and the file that holds it."""


class TensorStore(Protocol):
    """A model's tensors by name."""

    def infos(self) -> Mapping[str, TensorInfo]:
        """Every tensor's name, type and shape, without reading data."""
        ...

    def get(self, name: str) -> Tensor:
        """The tensor called `name`: borrowed, to be read only; KeyError if there is none."""
        ...


class StoredModel(TensorStore, Protocol):
    """A model on disk: its tensors and what else a merge needs to know about it."""

    @property
    def directory(self) -> Path:
        """The folder of config, tokenizer and generation settings."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """The parsed config.json."""
        ...

    @property
    def notices(self) -> tuple[str, ...]:
        """What a person should know before the model is merged, one line each."""
        ...

    def fingerprint(self) -> str:
        """A digest of all files that decide what the model computes; 16 hex digits."""
        ...

    def contents(self) -> str:
        """A digest of every byte of these files."""
        ...


@final
class Checkpoint:
    """The weights and the config of one model directory.

    Buffers that every loader recomputes (rotary frequencies, causal masks in old files) are left
    out: some files of a model family have them, others not.
    """

    def __init__(
        self, directory: Path, config: Mapping[str, Any], stored: Iterable[_Stored]
    ) -> None:
        """Use `open`; `stored` says which tensor is in which safetensors file."""
        self.directory = directory
        self.config = config
        self.notices: tuple[str, ...] = ()
        kept = [(info, path) for info, path in stored if not _is_recomputed(info)]
        self._infos = {info.name: info for info, _ in kept}
        self._files = {info.name: path for info, path in kept}
        self._handles: dict[Path, Any] = {}

    @staticmethod
    def open(path: Path) -> Checkpoint:
        """Read the config and all headers of the model in the directory `path`; no torch.

        Raises:
            InvalidInput: with one line per problem: no directory, no or damaged config.json, no
                safetensors weights (pickle is refused), damaged or missing shards.
        """
        if not path.is_dir():
            raise InvalidInput(f"{path}: expected a model directory, got none: correct the path")
        _refuse_adapter(path)
        problems: list[str] = []
        config: dict[str, Any] = {}
        stored: list[_Stored] = []
        try:
            config = _read_config(path)
        except InvalidInput as error:
            problems += error.problems
        try:
            stored = _stored_tensors(path)
        except InvalidInput as error:
            problems += error.problems
        if problems:
            raise InvalidInput(problems)
        return Checkpoint(path, MappingProxyType(config), stored)

    def infos(self) -> Mapping[str, TensorInfo]:
        """Every weight's name, type and shape, in file order."""
        return MappingProxyType(self._infos)

    def fingerprint(self) -> str:
        """A digest of config.json and of samples of the weights; 16 hex digits."""
        return fingerprint(self.directory)

    def contents(self) -> str:
        """A digest of every byte of weights, settings and tokenizer; 32 hex digits."""
        return contents(self.directory)

    def get(self, name: str) -> Tensor:
        """The tensor called `name`, a view into the mapped file on the CPU: borrowed, read only.

        Raises:
            KeyError: the model has no such tensor.
        """
        if name not in self._infos:
            raise KeyError(name)
        path = self._files[name]
        if path not in self._handles:
            self._handles[path] = safe_open(path, framework="pt", device="cpu")
        tensor: Tensor = self._handles[path].get_tensor(name)
        return tensor


def _refuse_adapter(directory: Path) -> None:
    """An adapter's folder has no weights to merge by itself; its config may name its base."""
    if any((directory / name).exists() for name in (SINGLE_FILE, INDEX_FILE)):
        return
    config = directory / "adapter_config.json"
    if not config.exists() and not any(directory.glob("adapter_model.*")):
        return
    base = None
    if config.exists():
        base = read_json(config).get("base_model_name_or_path")
    name = base if isinstance(base, str) and base else "BASE"
    raise InvalidInput(
        f"{directory}: expected a full model, got an adapter: write '{name}+{directory}', the base "
        "that it was trained on and the adapter"
    )


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    if not path.exists():
        raise InvalidInput(
            f"{directory}: expected a config.json, got none: "
            "give the directory that save_pretrained wrote"
        )
    return read_json(path)


def _stored_tensors(directory: Path) -> list[_Stored]:
    """Every tensor and its file; like transformers, a single file is preferred to shards."""
    single = directory / SINGLE_FILE
    if single.exists():
        return [(info, single) for info in read_header(single).values()]
    if (directory / INDEX_FILE).exists():
        return _indexed_tensors(directory)
    raise InvalidInput(_no_weights(directory))


def _no_weights(directory: Path) -> str:
    pickles = sorted(p.name for pattern in _PICKLES for p in directory.glob(pattern))
    pickles = [name for name in pickles if name != "training_args.bin"]
    if pickles:
        return (
            f"{directory}: expected safetensors weights, got {pickles[0]}, a pickle file that can "
            "run code when it is read: get safetensors, or allow it with --allow-pickle "
            f"{directory}"
        )
    return (
        f"{directory}: expected {SINGLE_FILE} or {INDEX_FILE}, got neither: "
        "download the weights or correct the path"
    )


def _indexed_tensors(directory: Path) -> list[_Stored]:
    index = directory / INDEX_FILE
    shards = read_json(index, max_mib=64).get("weight_map")
    valid = isinstance(shards, dict) and all(isinstance(name, str) for name in shards.values())
    if not isinstance(shards, dict) or not valid or len(shards) > MAX_TENSORS:
        raise InvalidInput(
            f"{index}: expected a weight_map from at most {MAX_TENSORS} tensor names to file "
            "names: download or save the model again"
        )
    names_of: dict[str, list[str]] = {}
    for name, shard in shards.items():
        names_of.setdefault(shard, []).append(name)
    problems: list[str] = []
    stored: list[_Stored] = []
    for shard, names in names_of.items():
        try:
            stored += _shard_tensors(directory, shard, names)
        except InvalidInput as error:
            problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return stored


def _shard_tensors(directory: Path, shard: str, names: list[str]) -> list[_Stored]:
    index = directory / INDEX_FILE
    problems = shard_problems(index, shard)
    if problems:
        raise InvalidInput(problems)
    path = directory / shard
    header = read_header(path)
    missing = [name for name in names if name not in header]
    if not missing:
        return [(header[name], path) for name in names]
    lines = [
        f"{index}: tensor '{name}' is not in shard '{shard}': download the model again"
        for name in missing[:_SHOWN]
    ]
    more = len(missing) - _SHOWN
    rest = [f"{index}: ... and {more} more in '{shard}'"] if more > 0 else []
    raise InvalidInput([*lines, *rest])


def _is_recomputed(info: TensorInfo) -> bool:
    """Whether loaders derive the tensor from the config; a real bias never has four axes."""
    if info.name.endswith("rotary_emb.inv_freq"):
        return True
    if info.name.endswith((".attn.masked_bias", ".attention.masked_bias")):
        return not info.shape or info.shape == (1,)
    return info.name.endswith((".attn.bias", ".attention.bias")) and len(info.shape) == 4


if TYPE_CHECKING:
    _: type[StoredModel] = Checkpoint
