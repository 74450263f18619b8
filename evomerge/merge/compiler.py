"""Whether merge kernels can be compiled here; imports no torch."""

from __future__ import annotations

from importlib.util import find_spec


def missing_compiler() -> str | None:
    """What to do so that kernels are compiled; None when they are."""
    if find_spec("numba") is None:
        return "merges take 3 to 20 times as long as with numba: pip install numba"
    return None
