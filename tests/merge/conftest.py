"""Merges with blocks of a few elements, so that small tensors cross block borders."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from evomerge.merge.blockwise import walk


@pytest.fixture(scope="module", params=[4, 1 << 17], ids=["tiny_blocks", "real_blocks"])
def block_size(request: pytest.FixtureRequest) -> Iterator[int]:
    """Run the module once per block size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "_CPU_BLOCK", request.param)
        yield request.param
