"""Parents that many tests share, written once per session and never changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import models


@pytest.fixture(scope="session")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base, math and code: four layers, float32, untied."""
    root = tmp_path_factory.mktemp("llamas")
    base = models.llama(root / "base", layers=4)
    models.perturbed(base, root / "math", seed=1)
    models.perturbed(base, root / "code", seed=2)
    return root
