"""What holds for all tests: repeatable property tests, and a cache of their own.

HYPOTHESIS_PROFILE=explore tries new examples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.postgres import Server, binaries, server

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache of computed tensors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOMERGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("EVOMERGE_CACHE_GB", raising=False)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A private PostgreSQL server, shared by all tests; without one they are skipped."""
    found = binaries()
    if found is None:
        pytest.skip("no PostgreSQL server on this machine")
    with server(found) as running:
        yield running
