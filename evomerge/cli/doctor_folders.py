"""What the doctor finds out about folders: free space, read-only homes, what is offline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.cli.doctor_finding import GB, Finding, Level, note, problem
from evomerge.run.machine import existing, free_disk

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True)
class Folder:
    """A folder that a search writes to.

    Attributes:
        what: it is for.
        path: where it is or would be; None where the user has no home.
        least: bytes that should be free.
        fix: what to do when it cannot be written or is too small.
        stops: whether no search can run without it.
    """

    what: str
    path: Path | None
    least: float
    fix: str
    stops: bool = False


def folders(environment: Mapping[str, str], run_dir: Path, temporary: Path) -> tuple[Folder, ...]:
    """The places that matter to a search in `run_dir`."""
    home = _home(environment)
    cached = _from(environment, "XDG_CACHE_HOME") or _under(home, ".cache")
    hub = _from(environment, "HF_HOME") or _under(cached, "huggingface")
    own = _from(environment, "EVOMERGE_CACHE") or _under(cached, "evomerge")
    drawn = _from(environment, "MPLCONFIGDIR") or (
        _from(environment, "XDG_CONFIG_HOME") or _under(home, ".config")
    )
    return (
        Folder("run directory", run_dir, GB, "use another --out", stops=True),
        Folder("temporary files", temporary, GB, "set TMPDIR to another folder", stops=True),
        Folder(
            "cache",
            own,
            20 * GB,
            "every worker computes and holds its own statistics, and kernels are compiled at every "
            "start: set EVOMERGE_CACHE to a larger folder that can be written",
        ),
        Folder(
            "hugging face cache",
            hub,
            GB,
            "models in it can be read, new ones cannot be stored: set HF_HOME to a larger folder "
            "that can be written",
        ),
        Folder(
            "matplotlib",
            drawn,
            0.01 * GB,
            "every report builds its font list anew: set MPLCONFIGDIR to a folder that can be "
            "written",
        ),
        Folder("home", home, 0.01 * GB, "set HOME to a folder that can be written"),
    )


def check(
    folder: Folder,
    *,
    writable: Callable[[Path], bool] | None = None,
    free: Callable[[Path], int] = free_disk,
) -> Finding:
    """Whether it can be written and has room; `writable` gets a folder that exists."""
    if folder.path is None:
        return _failed(folder, "no home folder")
    near = existing(folder.path)
    can = (writable or _writable)(near)
    available = free(folder.path)
    text = f"{folder.path}, {available / GB:.1f} GB free"
    if not can:
        return _failed(folder, f"{text}, read only")
    if available < folder.least:
        return note(folder.what, text, f"make room, or: {folder.fix}")
    return Finding(folder.what, text)


def _failed(folder: Folder, found: str) -> Finding:
    if folder.stops:
        return problem(folder.what, found, folder.fix)
    return Finding(folder.what, found, folder.fix, Level.NOTE)


def offline(environment: Mapping[str, str], token_file: Path | None) -> Iterator[Finding]:
    """Whether libraries may use the network, and whether a token is there; it is never shown."""
    given = [name for name in _OFFLINE if environment.get(name, "").lower() in _TRUE]
    state = f"offline ({', '.join(given)})" if given else "online where a model has to be fetched"
    yield Finding("network", state)
    named = next((name for name in _TOKENS if environment.get(name)), None)
    if named is None and token_file is not None and token_file.is_file():
        named = str(token_file)
    yield Finding("hugging face token", f"in {named}" if named else "none; only gated models ask")


def token_file(environment: Mapping[str, str]) -> Path | None:
    """Where `hf auth login` keeps a token."""
    cached = _from(environment, "XDG_CACHE_HOME") or _under(_home(environment), ".cache")
    hub = _from(environment, "HF_HOME") or _under(cached, "huggingface")
    return _from(environment, "HF_TOKEN_PATH") or _under(hub, "token")


def _home(environment: Mapping[str, str]) -> Path | None:
    given = environment.get("HOME")
    if given:
        return Path(given)
    try:
        return Path("~").expanduser()
    except RuntimeError:
        return None


def _from(environment: Mapping[str, str], name: str) -> Path | None:
    given = environment.get(name)
    return Path(given) if given else None


def _under(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)
