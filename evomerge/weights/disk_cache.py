"""Tensors that are computed once from the parents and then mapped by every process of a node."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, final

from safetensors import SafetensorError, safe_open

from evomerge.cache_folder import cache_folder
from evomerge.errors import InvalidInput

if TYPE_CHECKING:
    from torch import Tensor

_GB = 1e9
_DEFAULT_GB = 20.0
_SUFFIX = ".safetensors"
_KEY = re.compile(r"\w[\w.-]*")
_LOG = logging.getLogger(__name__)


@final
class DiskCache:
    """A folder of safetensors files, one per key; stateful only in having warned or not.

    A key must name everything that its tensors depend on: an entry is never out of date. Entries
    appear whole or not at all. Those that were not used for the longest time make room for new
    ones; a process that still maps one of them keeps it.
    """

    def __init__(self, directory: Path, *, max_bytes: float = _DEFAULT_GB * _GB) -> None:
        """Nothing is created before the first entry; `max_bytes` limits all entries together."""
        self.directory = directory
        self.max_bytes = max_bytes
        self._warned = False

    @staticmethod
    def default() -> DiskCache:
        """The user's cache: $EVOMERGE_CACHE, else evomerge in $XDG_CACHE_HOME or ~/.cache.

        $EVOMERGE_CACHE_GB is its limit.

        Raises:
            InvalidInput: $EVOMERGE_CACHE_GB is not a number of at least 0, or nothing names a
                folder and the user has no home.
        """
        try:
            folder = cache_folder()
        except RuntimeError as error:
            raise InvalidInput(
                "EVOMERGE_CACHE: there is no home folder to cache in: set it to a folder"
            ) from error
        return DiskCache(folder, max_bytes=_limit(os.environ.get("EVOMERGE_CACHE_GB")))

    def contains(self, key: str) -> bool:
        """Whether the tensors of `key` can be mapped without being computed."""
        return self._mapped(key) is not None

    def tensors(
        self, key: str, compute: Callable[[], Mapping[str, Tensor]]
    ) -> Mapping[str, Tensor]:
        """The tensors of `key` by name, on the CPU, to be read only.

        Maps `<directory>/<key>.safetensors`. When that is absent or damaged, one of the processes
        that ask for it computes and writes it while the others wait. A disk that is full or cannot
        be written costs memory, not the run: the computed tensors are returned, and the first time
        this happens is logged.
        """
        found = self._mapped(key)
        if found is not None:
            return found
        with ExitStack() as stack:
            locked = self._enter_lock(key, stack)
            found = self._mapped(key)  # by the process that held the lock before us
            if found is not None:
                return found
            computed = compute()
            return self._stored(key, computed) if locked else computed

    def _mapped(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of a sound file, which counts as used now; None when there is none."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
        with suppress(OSError):  # of somebody else, or on a disk that is read only
            os.utime(path)
        return found

    def _path(self, key: str) -> Path:
        assert _KEY.fullmatch(key), "a key is a file name"
        return self.directory / f"{key}{_SUFFIX}"

    def _enter_lock(self, key: str, stack: ExitStack) -> bool:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(self.directory / f".{key}.lock"))
        except OSError as error:
            self._warn(error.strerror or str(error))
            return False
        return True

    def _stored(self, key: str, computed: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The tensors mapped from a new file; as computed when it cannot be written."""
        needed = sum(tensor.nbytes for tensor in computed.values())
        if needed > self.max_bytes:
            self._warn(f"{needed / _GB:.3g} GB exceed $EVOMERGE_CACHE_GB {self.max_bytes / _GB:g}")
            return computed
        temporary = self.directory / f".{key}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
        try:
            self._make_room(needed)
            _save(computed, temporary)
            temporary.replace(self._path(key))
            _flush(self.directory)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._warn(getattr(error, "strerror", None) or str(error))
            return computed
        mapped = self._mapped(key)
        return computed if mapped is None else mapped

    def _make_room(self, needed: int) -> None:
        """Remove the least recently used files, also those that killed processes left behind."""
        files: list[tuple[float, int, Path]] = []
        for path in self.directory.iterdir():
            if path.suffix in (_SUFFIX, ".tmp"):
                with suppress(FileNotFoundError):  # another process makes room as well
                    status = path.stat()
                    files.append((status.st_mtime, status.st_size, path))
        total = needed + sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            _LOG.warning(
                "%s: computed tensors cannot be kept (%s): every process holds its own copy; "
                "make room, or set EVOMERGE_CACHE to a folder on another disk",
                self.directory,
                " ".join(reason.split()),
            )


def _limit(text: str | None) -> float:
    try:
        limit = _DEFAULT_GB if text is None else float(text)
    except ValueError:
        limit = -1.0
    if not limit >= 0.0:
        raise InvalidInput(f"EVOMERGE_CACHE_GB: expected a number of gigabytes, got {text!r}")
    return limit * _GB


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`; it is removed afterwards, and by nobody but its holder."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the holder before us removed the file that we waited for
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write and flush; safetensors refuses views and shared memory, so these are copied."""
    from safetensors.torch import save_file  # noqa: PLC0415 - needs torch

    plain: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() > tensor.nbytes
        plain[name] = tensor.clone().contiguous() if shared else tensor.contiguous()
        seen.add(storage.data_ptr())
    save_file(plain, path)
    _flush(path)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
