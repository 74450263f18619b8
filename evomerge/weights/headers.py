"""The safetensors file format: what a file holds, checked before any data is trusted; no torch."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from evomerge.errors import InvalidInput
from evomerge.recipe import DTYPES

MAX_HEADER_BYTES = 32 * 2**20
"""A header of 200 000 tensors needs about 26 MB; real ones need less than one."""
MAX_TENSORS = 200_000
_MAX_DIMENSIONS = 64
_SMALL_BYTES = 16 * 2**20
_HOLES = 4
"""How many times larger than what is stored a file may claim to be; zeros may well be holes."""

_TYPES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "BOOL": ("bool", 1),
        "U8": ("uint8", 1),
        "I8": ("int8", 1),
        "F8_E5M2": ("float8_e5m2", 1),
        "F8_E4M3": ("float8_e4m3fn", 1),
        "U16": ("uint16", 2),
        "I16": ("int16", 2),
        "F16": ("float16", 2),
        "BF16": ("bfloat16", 2),
        "U32": ("uint32", 4),
        "I32": ("int32", 4),
        "F32": ("float32", 4),
        "U64": ("uint64", 8),
        "I64": ("int64", 8),
        "F64": ("float64", 8),
    }
)
_CODES = MappingProxyType({name: code for code, (name, _) in _TYPES.items()})
_SIZES = MappingProxyType(dict(_TYPES.values()))
ELEMENT_TYPES = frozenset(_SIZES)
"""What a file can store, by torch's names."""


@dataclass(frozen=True)
class TensorInfo:
    """Name, type and shape of a stored tensor; `dtype` is torch's name, such as "bfloat16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return _SIZES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.itemsize

    @property
    def is_mergeable(self) -> bool:
        """Whether arithmetic on the elements makes sense: not integers, not quantised floats."""
        return self.dtype in DTYPES


def width(dtype: str) -> int:
    """Bytes per element of a type by torch's name."""
    return _SIZES[dtype]


def width_of_all(dtypes: Collection[str]) -> int:
    """Bytes per element of the narrowest float type that holds all of these."""
    widest = max(width(dtype) for dtype in dtypes)
    return max(widest, 4) if {"float16", "bfloat16"} <= set(dtypes) else widest


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file in the order of their data; reads only the header.

    Raises:
        InvalidInput: the file is unreadable, truncated, not safetensors, or its header is larger
            than the caps or contradicts itself or the file's size.
    """
    try:
        if not path.is_file():
            raise InvalidInput(f"{path}: expected a safetensors file, got none: check the path")
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
            if 8 + length > size:
                raise _damaged(path, f"truncated: {size} bytes cannot hold its header")
            if length > MAX_HEADER_BYTES:
                raise _damaged(path, f"a header of {length} bytes, at most {MAX_HEADER_BYTES}")
            _check_stored(path)
            header = _parse(path, file.read(length))
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}): check the path") from error
    return _checked(path, header, size - 8 - length)


def encode_header(infos: Sequence[TensorInfo], metadata: Mapping[str, str]) -> bytes:
    """The bytes that precede the tensors `infos`, stored in this order without gaps.

    Larger element types should come first: then every tensor is aligned to its element size.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for info in infos:
        begin, end = end, end + info.nbytes
        code = _CODES[info.dtype]
        offsets = [begin, end]
        header[info.name] = {"dtype": code, "shape": info.shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _damaged(path: Path, what: str) -> InvalidInput:
    return InvalidInput(f"{path}: damaged safetensors file ({what}): download or save it again")


def _check_stored(path: Path) -> None:
    """Refuse a file that is mostly holes.

    It is a download that broke off, or some bytes that pose as terabytes of zeros.
    """
    with path.open("rb") as file:
        status, descriptor = os.fstat(file.fileno()), file.fileno()
        if status.st_size < _SMALL_BYTES or 512 * status.st_blocks * _HOLES > status.st_size:
            return
        # Some file systems count blocks late or not at all, so the holes themselves decide.
        stored = end = 0
        with suppress(OSError):  # from the last data on there is nothing but a hole
            while end < status.st_size:
                begin = os.lseek(descriptor, end, os.SEEK_DATA)
                end = os.lseek(descriptor, begin, os.SEEK_HOLE)
                stored += end - begin
    if stored * _HOLES < status.st_size:
        raise _damaged(path, f"{status.st_size} bytes long, of which {stored} are stored")


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    # A tensor has one object and two lists; more brackets than that would only cost memory.
    if raw.count(b"{") + raw.count(b"[") > 3 * MAX_TENSORS + 2:
        raise _damaged(path, f"more than {MAX_TENSORS} tensors")
    try:
        header = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is not valid JSON") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise _damaged(path, f"more than {MAX_TENSORS} tensors")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _checked(path: Path, header: dict[str, Any], data_bytes: int) -> dict[str, TensorInfo]:
    entries = [_entry(path, name, value) for name, value in header.items()]
    entries.sort(key=lambda entry: entry[1:])
    end = 0
    for info, begin, stop in entries:
        if begin != end or stop - begin != info.nbytes:
            raise _damaged(path, f"the place of tensor '{info.name}' contradicts its shape")
        end = stop
    if end > data_bytes:
        raise _damaged(path, f"truncated: expected {end} bytes of data, got {data_bytes}")
    if end < data_bytes:
        raise _damaged(path, f"{data_bytes - end} bytes that belong to no tensor")
    return {info.name: info for info, _, _ in entries}


def _entry(path: Path, name: str, value: Any) -> tuple[TensorInfo, int, int]:
    """One tensor and its byte range; types are compared exactly because True is an int, too."""
    if not isinstance(value, dict):
        raise _damaged(path, f"no description of tensor '{name}'")
    dtype: Any = value.get("dtype")
    shape: Any = value.get("shape")
    offsets: Any = value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _TYPES:
        raise InvalidInput(
            f"{path}: tensor '{name}' has element type {dtype!r}, expected one of "
            f"{', '.join(_TYPES)}: convert the model to bfloat16 or float32"
        )
    if not _is_counts(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _damaged(path, f"tensor '{name}' has no valid shape")
    if not _is_counts(offsets) or len(offsets) != 2:
        raise _damaged(path, f"tensor '{name}' has no valid offsets")
    return TensorInfo(name, _TYPES[dtype][0], tuple(shape)), offsets[0], offsets[1]


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 2**63 for v in value)
