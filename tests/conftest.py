"""What holds for all tests: repeatable property tests, and a cache of their own.

HYPOTHESIS_PROFILE=explore tries new examples.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.postgres import Server, binaries, server

ROOT = Path(__file__).resolve().parents[1]
NOTHING_SHARED = ("tests/cli/",)
"""Folders of long tests that share so little that each may run in another process."""

# how long an example takes says more about the machine than about the test
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", UNTIMED, derandomize=True)
settings.register_profile("explore", UNTIMED, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """With several processes (`pytest -n 2 --dist loadgroup`), keep the tests of a file together.

    What one of them builds, compiles or imports the others use. Tests with a marker of their own,
    `xdist_group("ray")`, must not run side by side: they share the machine's one Ray cluster.
    """
    for item in items:
        alone = item.nodeid.startswith(NOTHING_SHARED)
        if not alone and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


@pytest.fixture(scope="session", autouse=True)
def _this_source() -> Iterator[None]:
    """Processes that tests start import the evomerge that the tests import.

    The installed one may be another: a second working tree tests itself with the first one's
    environment. Where a process starts does not decide it, because evomerge tells its children
    not to import from there.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        yield


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
