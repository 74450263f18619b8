"""How functions are compiled, and where the machine code is kept between runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config, njit

from evomerge.cache_folder import cache_folder

_FOLDER = Path(__file__).resolve().parent


def _cache_folder() -> str:
    """A folder for this version of the sources.

    numba notices changes of the file that a function is in, but not of the files it imports from.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(_FOLDER.glob("*.py")):
        digest.update(path.read_bytes())
    try:
        return str(cache_folder() / f"kernels-{digest.hexdigest()[:16]}")
    except RuntimeError:  # a user without a home
        return str(config.CACHE_DIR)


def _jit(function: Callable[..., Any], fastmath: Any) -> Any:
    # numba asks for the folder only while it decorates; other users of numba keep their own.
    before, config.CACHE_DIR = config.CACHE_DIR, _CACHE
    try:
        # Division by zero gives Inf instead of a Python exception, which would prevent vectors.
        return njit(nogil=True, cache=True, error_model="numpy", fastmath=fastmath)(function)
    finally:
        config.CACHE_DIR = before


_CACHE = _cache_folder()


def compiled(function: Callable[..., Any]) -> Any:
    """The function as machine code that keeps the order and rounding of every operation."""
    return _jit(function, False)


def reordered(function: Callable[..., Any]) -> Any:
    """The function as machine code in which sums may be split over the lanes of registers."""
    return _jit(function, {"reassoc", "nsz"})
