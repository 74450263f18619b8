"""The process that reads pickle files and writes safetensors: limited, alone, and tensors only.

Run by `evomerge.weights.pickled`: JSON comes on stdin, one line of JSON leaves on stdout.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import resource
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evomerge.weights.headers import ELEMENT_TYPES, TensorInfo, encode_header
from evomerge.weights.layout import is_head

_CALLED = re.compile(r"GLOBAL ([\w.]+)")
_SPARE_BYTES = 2**30
_SECONDS_PER_GB = 120


class Refused(Exception):
    """Why the files are not converted, as one line."""


def main() -> None:
    """Convert the files that stdin names; see `convert`."""
    task = json.load(sys.stdin)
    sources = {Path(path): digest for path, digest in task["files"].items()}
    _limit(sum(path.stat().st_size for path in sources))
    answer: dict[str, object]
    try:
        answer = {"written": convert(sources, Path(task["out"]), tied=task["tied"])}
    except Refused as refused:
        answer = {"refused": str(refused)}
    except MemoryError:
        answer = {"refused": "it needs far more memory than its size promises"}
    print(json.dumps(answer))


def convert(sources: Mapping[Path, str], out: Path, *, tied: bool) -> dict[str, list[str]]:
    """Write the tensors of each file to a safetensors file in `out`.

    Args:
        sources: the files and the SHA-256 that each must have.
        out: an existing folder.
        tied: whether a head that is the embedding itself is left out, as safetensors files do.

    Returns:
        The names of the tensors by the name of the file that has them.

    Raises:
        Refused: a file is another one than was allowed, or holds anything but tensors by name.
    """
    written: dict[str, list[str]] = {}
    known: dict[str, Path] = {}
    for number, (path, digest) in enumerate(sources.items(), start=1):
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise Refused(f"{path}: not the file that was allowed: its SHA-256 is another one")
        tensors = _without_tied_head(_tensors(path), path, tied=tied)
        for name in tensors:
            if name in known:
                raise Refused(f"{path}: tensor '{name}' is in {known[name].name}, too")
            known[name] = path
        target = f"model-{number:05d}-of-{len(sources):05d}.safetensors"
        _write(tensors, out / target)
        written[target] = list(tensors)
    return written


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings(action="ignore"):
            # weights_only: the unpickler knows tensors and containers, and calls nothing else.
            content: Any = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except pickle.UnpicklingError as error:
        called = _CALLED.search(str(error))
        what = f"it would call {called[1]}" if called else "it holds more than tensors"
        raise Refused(f"{path}: {what}: refused, get safetensors weights") from error
    except (RuntimeError, ValueError, EOFError, KeyError, OSError, TypeError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise Refused(f"{path}: damaged ({reason}): download it again") from error
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise Refused(f"{path}: expected tensors by name, got a {kind}: save the state dict")
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Mapping):
            raise Refused(
                f"{path}: expected tensors by name, got more names below '{name}': save what is in "
                "it as a state dict of its own"
            )
        if not isinstance(name, str) or not _is_plain(value):
            kind = type(value).__name__
            raise Refused(f"{path}: expected tensors by name, got a {kind} as {name!r}")
    return dict(content)


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
        and _type(value) in ELEMENT_TYPES
    )


def _without_tied_head(tensors: dict[str, Tensor], path: Path, *, tied: bool) -> dict[str, Tensor]:
    size = sum(tensor.nbytes for tensor in tensors.values())
    storages = [tensor.untyped_storage() for tensor in tensors.values()]
    stored = sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
    # A view may repeat one number a billion times; a tied tensor is there twice and stored once.
    if size > 2 * stored + _SPARE_BYTES:
        raise Refused(f"{path}: {size} bytes of tensors made of {stored}: refused")
    heads = {name for name in tensors if tied and is_head(name)}
    seen = {_place(tensor) for name, tensor in tensors.items() if name not in heads}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in heads or _place(tensor) not in seen
    }


def _write(tensors: Mapping[str, Tensor], path: Path) -> None:
    """One tensor in memory at a time; the input is mapped."""
    ordered = sorted(tensors.items(), key=lambda entry: -entry[1].itemsize)
    infos = [TensorInfo(name, _type(tensor), tuple(tensor.shape)) for name, tensor in ordered]
    with path.open("wb") as file:
        file.write(encode_header(infos, {"format": "pt"}))
        for _, tensor in ordered:
            plain = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            file.write(plain.numpy().data)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _place(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _limit(total: int) -> None:
    """Memory, file size and time in proportion to the input; more means that it is a trap."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        used = pages * resource.getpagesize()
        _lower(resource.RLIMIT_AS, used + 4 * total + _SPARE_BYTES)
    _lower(resource.RLIMIT_FSIZE, 2 * total + _SPARE_BYTES)
    _lower(resource.RLIMIT_CPU, 60 + int(_SECONDS_PER_GB * total / 1e9))


def _lower(what: int, limit: int) -> None:
    _, hard = resource.getrlimit(what)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main()
