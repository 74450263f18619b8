"""Pickle checkpoints that a person has allowed: converted to safetensors once, then left alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from evomerge.cache_folder import cache_folder
from evomerge.consent import Allowed
from evomerge.errors import InvalidInput
from evomerge.weights.disk_cache import locked
from evomerge.weights.json_files import read_json
from evomerge.weights.model_config import ties_embeddings
from evomerge.weights.pickle_files import ADAPTER_FILE

_FOLDER = "converted"
_FORMAT = "1"
"""To be counted up when the same files give others."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".gguf", ".onnx")
_SECONDS = 300.0
_SECONDS_PER_BYTE = 240e-9
_KEPT = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "LD_LIBRARY_PATH")


def converted(folder: Path, allowed: Allowed) -> Path:
    """A folder with the weights of `folder` as safetensors, and links to its other files.

    It is in the user's cache under a hash of the place and of the pickle files that were allowed;
    whichever process needs it first makes it, others wait.

    Raises:
        InvalidInput: the files are not those that were allowed, or hold more than tensors.
    """
    facts = [_FORMAT, allowed.folder, *(f"{name}={digest}" for name, digest in allowed.files)]
    key = hashlib.sha256("\n".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    try:
        target = cache_folder().resolve() / _FOLDER / key
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.parent / f".{key}.lock"):
            if not target.exists():
                _convert(folder, allowed, target)
            _link_others(folder, target)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidInput(
            f"{folder}: the cache for converted weights cannot be written ({reason}): set "
            "EVOMERGE_CACHE to a folder with room"
        ) from error
    return target


def _convert(folder: Path, allowed: Allowed, target: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        made = scratch / "model"
        made.mkdir()
        written = _run(folder, allowed, made)
        if any(name == ADAPTER_FILE for name, _ in allowed.files):
            (only,) = written
            (made / only).rename(made / "adapter_model.safetensors")
        elif len(written) == 1:
            (only,) = written
            (made / only).rename(made / "model.safetensors")
        else:
            shards = {name: file for file, names in written.items() for name in names}
            index = json.dumps({"weight_map": shards})
            (made / "model.safetensors.index.json").write_text(index, encoding="utf-8")
        made.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(folder: Path, allowed: Allowed, out: Path) -> dict[str, list[str]]:
    """Have a process of its own convert the files; the tensors' names by file."""
    config = folder / "config.json"
    files = {str(Path(allowed.folder) / name): digest for name, digest in allowed.files}
    task = {
        "files": files,
        "out": str(out),
        "tied": config.exists() and ties_embeddings(read_json(config)),
    }
    size = sum(path.stat().st_size for path in map(Path, files) if path.exists())
    # Nothing of this environment is needed, tokens least of all.
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "evomerge.weights.unpickling"],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            env=environment,
            timeout=_SECONDS + _SECONDS_PER_BYTE * size,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InvalidInput(f"{folder}: reading its pickle files takes too long: refused") from None
    answer: dict[str, object] = {}
    with suppress(ValueError):
        answer = json.loads(done.stdout)
    if isinstance(answer.get("written"), dict):
        return dict(answer["written"])  # type: ignore[call-overload, no-any-return]
    reason = answer.get("refused")
    if not isinstance(reason, str):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        reason = f"{folder}: its pickle files cannot be converted ({last}): convert them yourself"
    raise InvalidInput(reason)


def _link_others(folder: Path, target: Path) -> None:
    """Config, tokenizer and the like are used where they are, so that changes count."""
    for path in sorted(folder.iterdir()):
        link = target / path.name
        is_weights = path.suffix in _WEIGHTS or path.name.endswith(".index.json")
        if not is_weights and not link.is_symlink() and path.is_file():
            link.symlink_to(path.absolute())
