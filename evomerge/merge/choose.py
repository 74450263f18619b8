"""Which kernels run: compiled ones where they are installed and the work repays the compiling."""

from __future__ import annotations

from importlib.util import find_spec

from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.kernels import Kernels

WORTH_COMPILING = 2_000_000_000
"""Elements to be merged in all from which loading and compiling (seconds) is repaid.

The compiled passes save 1 to 20 ns per element and cost up to 10 s the first time on a machine.
"""


def compiler() -> str | None:
    """Why nothing is compiled here, with the fix, in one line; None when kernels are compiled."""
    if find_spec("numba") is None:
        return "numba is not installed, merges take 3 to 10 times as long: pip install numba"
    return None


def choose_kernels(elements: int) -> Kernels:
    """The kernels for a process that will merge about `elements` elements in all."""
    if elements < WORTH_COMPILING or compiler() is not None:
        return BLOCKWISE
    # Imported here: numba takes a second to load, which small merges should not pay.
    from evomerge.merge.compiled.kernels import COMPILED  # noqa: PLC0415

    return COMPILED
