"""Without the oracle nothing here is imported: every file is one skipped entry with its reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parity.oracle import MISSING, Oracle, find_oracle
from tests.parity.results import Results

RESULTS_VARIABLE = "PARITY_RESULTS"


class _WithoutOracle(pytest.File):
    """A test file that is not even imported."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(MISSING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.File | None:
    if find_oracle() is not None:
        return None
    found: pytest.File = _WithoutOracle.from_parent(parent, path=module_path)
    return found


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    """mergekit."""
    found = find_oracle()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def results() -> Iterator[Results]:
    """What was measured, written to the file that PARITY_RESULTS names."""
    target = os.environ.get(RESULTS_VARIABLE)
    collected = Results(None if target is None else Path(target))
    yield collected
    collected.save()
