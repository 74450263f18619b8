"""A digest of a checkpoint from samples of its bytes: cheap, yet more training changes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

_SAMPLES = 64
_SAMPLE_BYTES = 65_536


def fingerprint(directory: Path) -> str:
    """Hash size and 64 evenly spaced samples of config, tokenizer and weights; 16 hex digits."""
    digest = hashlib.sha256()
    files = [directory / "config.json", *sorted(directory.glob("*.safetensors"))]
    files += sorted(directory.glob("tokenizer.json"))  # it decides what the rows mean
    for path in (path for path in files if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            for index in range(_SAMPLES):
                file.seek(index * size // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]
