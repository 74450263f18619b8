"""The files of a PEFT adapter: which tensors change which module, without knowing its base."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from safetensors import safe_open

from evomerge.errors import InvalidInput
from evomerge.weights.adapter_config import CONFIG_FILE, AdapterConfig
from evomerge.weights.compatibility import capped
from evomerge.weights.headers import TensorInfo, read_header

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS_FILE = "adapter_model.safetensors"
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
_PREFIX = "base_model.model."
_LOW_RANK = re.compile(
    r"(?P<module>.+)\."
    r"(?:(?P<a>lora_A\.weight|lora_embedding_A)|(?P<b>lora_B\.weight|lora_embedding_B)"
    r"|(?P<magnitude>lora_magnitude_vector(?:\.weight)?))"
)
_MATRIX_AXES = 2


@dataclass(frozen=True)
class LowRank:
    """The tensors that change one module's weight, by their names in the file.

    Attributes:
        a: the matrix A of shape (r, in).
        b: the matrix B of shape (out, r).
        magnitude: the vector m of shape (out,) of a DoRA, else None.
        is_embedding: whether the module is a lookup table, whose weight is (in, out).
    """

    module: str
    a: str
    b: str
    magnitude: str | None
    is_embedding: bool


@dataclass(frozen=True)
class Adapter:
    """An opened adapter.

    Attributes:
        folder: where it is.
        infos: its tensors without data.
        low_rank: the changes by matrices.
        replaced: full tensors by the name of the tensor of the base that they replace.
    """

    folder: Path
    config: AdapterConfig
    infos: Mapping[str, TensorInfo]
    low_rank: tuple[LowRank, ...]
    replaced: Mapping[str, str]

    @staticmethod
    def open(folder: Path) -> Adapter:
        """Read the config and the header of the adapter in `folder`; no torch.

        Raises:
            InvalidInput: with one line per problem: missing, damaged or pickled files, another kind
                of adapter, tensors that belong to nothing or are incomplete.
        """
        config = AdapterConfig.read(folder)
        infos = _read_infos(folder)
        grouped = _Grouped(infos, config)
        problems = [f"adapter {folder}: {line}" for line in grouped.problems]
        if problems:
            raise InvalidInput(capped(problems, f"adapter {folder}"))
        replaced = MappingProxyType(grouped.replaced)
        return Adapter(folder, config, MappingProxyType(infos), tuple(grouped.low_rank), replaced)

    @cached_property
    def digest(self) -> str:
        """A hash of everything in the two files."""
        digest = hashlib.sha256()
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            with (self.folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def get(self, name: str) -> Tensor:
        """The tensor called `name`, mapped, to be read only."""
        with safe_open(self.folder / WEIGHTS_FILE, framework="pt", device="cpu") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor


def _read_infos(folder: Path) -> dict[str, TensorInfo]:
    path = folder / WEIGHTS_FILE
    pickles = [name for name in _PICKLES if (folder / name).exists()]
    if not path.exists() and pickles:
        raise InvalidInput(
            f"{folder}: expected {WEIGHTS_FILE}, got {pickles[0]}, a pickle file that can run code "
            f"when it is read: get safetensors, or allow it with --allow-pickle {folder}"
        )
    infos = read_header(path)
    unusable = [info for info in infos.values() if not info.is_mergeable]
    lines = [
        f"{path}: tensor '{info.name}' is {info.dtype}: save the adapter in full precision"
        for info in unusable
    ]
    if lines:
        raise InvalidInput(capped(lines, str(path)))
    return infos


class _Grouped:
    """The tensors of a file by module; collects those that make no sense (stateful)."""

    def __init__(self, infos: Mapping[str, TensorInfo], config: AdapterConfig) -> None:
        self.infos = infos
        self.config = config
        self.problems: list[str] = []
        self.replaced: dict[str, str] = {}
        parts: dict[str, dict[str, str]] = {}
        for name in infos:
            self._sort(name, parts)
        found = (self._low_rank(module, names) for module, names in parts.items())
        self.low_rank = [entry for entry in found if entry is not None]
        if not infos:
            self.problems.append(f"{WEIGHTS_FILE} holds no tensors: save the adapter again")

    def _sort(self, name: str, parts: dict[str, dict[str, str]]) -> None:
        rest = name.removeprefix(_PREFIX)
        match = _LOW_RANK.fullmatch(rest)
        if rest == name or (match is None and "lora_" in rest):
            self.problems.append(
                f"tensor '{name}' has no place in a LoRA of linear layers and embeddings: "
                "merge this adapter into its base with PEFT"
            )
            return
        names = self.replaced if match is None else parts.setdefault(match["module"], {})
        role = rest.replace(".base_layer.", ".") if match is None else str(match.lastgroup)
        if role in names:
            self.problems.append(f"tensors '{names[role]}' and '{name}' are the same: remove one")
        names[role] = name

    def _low_rank(self, module: str, names: Mapping[str, str]) -> LowRank | None:
        wanted = ("a", "b", "magnitude") if self.config.magnitudes else ("a", "b")
        words = {"a": "lora_A", "b": "lora_B", "magnitude": "lora_magnitude_vector"}
        missing = [words[role] for role in wanted if role not in names]
        extra = [names[role] for role in names if role not in wanted]
        if missing or extra:
            what = f"lacks {' and '.join(missing)}" if missing else f"has {extra[0]}, but no DoRA"
            self.problems.append(f"module '{module}' {what}: save the adapter again")
            return None
        if not self.config.targets_module(module):
            self.problems.append(
                f"module '{module}' has matrices, but target_modules in {CONFIG_FILE} does not "
                "name it: PEFT would leave them out; correct one of the files"
            )
            return None
        a, b = names["a"], names["b"]
        shapes = [self.infos[name].shape for name in (a, b)]
        if any(len(shape) != _MATRIX_AXES for shape in shapes):
            self.problems.append(
                f"module '{module}' has lora_A of shape {_shown(shapes[0])}, expected a matrix: "
                "a LoRA of convolutions; merge it into its base with PEFT"
            )
            return None
        return LowRank(module, a, b, names.get("magnitude"), a.endswith("lora_embedding_A"))


def _shown(shape: Iterable[int]) -> str:
    return str(list(shape))
