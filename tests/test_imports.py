"""What must start quickly does not load what takes seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "transformers",
    "lm_eval",
    "ray",
    "matplotlib",
    "cma",
    "datasets",
    "psycopg",
    "optuna",
)


@pytest.mark.parametrize(
    "modules",
    ["evomerge.cli", "evomerge.cli.inspecting", "evomerge.run.driver evomerge.run.ledger"],
)
def test_light_modules_stay_light(modules: str) -> None:
    code = f"""
import importlib, sys
for name in {modules.split()!r}:
    importlib.import_module(name)
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
