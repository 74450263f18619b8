"""A digest of every byte of a checkpoint: tells a damaged copy of a parent from a sound one."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from pathlib import Path

import xxhash

from evomerge.cache_folder import cache_folder

_CHUNK = 16 << 20
_FOLDER = "contents"
_COUNTS = {".safetensors", ".json", ".jinja", ".model", ".txt"}


def contents(directory: Path) -> str:
    """Hash weights, config, tokenizer, templates and generation settings; 32 hex digits.

    Reads each file once per machine: digests are remembered under the file's path, size and time
    of change, in the cache folder where there is one.
    """
    digest = xxhash.xxh3_128()
    for path in sorted(p for p in directory.iterdir() if p.suffix in _COUNTS and p.is_file()):
        digest.update(f"{path.name}:{_remembered(path)};".encode())
    return digest.hexdigest()


def _remembered(path: Path) -> str:
    state = path.stat()
    facts = f"{path.resolve()}:{state.st_size}:{state.st_mtime_ns}:{state.st_ino}"
    name = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    with suppress(OSError, RuntimeError):  # no cache: it is computed again
        return (cache_folder() / _FOLDER / name).read_text(encoding="ascii")
    found = _digest(path)
    with suppress(OSError, RuntimeError):
        folder = cache_folder() / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.{secrets.token_hex(4)}"
        temporary.write_text(found, encoding="ascii")
        temporary.replace(folder / name)
    return found


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
