"""Which kernels run: compiled ones where they are installed and the work repays the compiling."""

from __future__ import annotations

from evomerge.merge.blockwise.kernels import BLOCKWISE
from evomerge.merge.compiler import missing_compiler
from evomerge.merge.kernels import Kernels

WORTH_COMPILING = 2_000_000_000
"""Elements to be merged in all from which loading and compiling is repaid.

The compiled passes save 1.5 (linear) to 50 (DELLA) ns per element. Loading numba takes a second,
compiling a method for new types another 1 to 5, once per machine.
"""


def choose_kernels(elements: int) -> Kernels:
    """The kernels for a process that will merge about `elements` elements in all."""
    if elements < WORTH_COMPILING or missing_compiler() is not None:
        return BLOCKWISE
    # Imported here: numba takes a second to load, which small merges should not pay.
    from evomerge.merge.compiled.kernels import COMPILED  # noqa: PLC0415

    return COMPILED
