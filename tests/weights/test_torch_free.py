from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_CHECK = """
import sys
from pathlib import Path
import evomerge.weights.layout, evomerge.weights.recipe_rules, evomerge.weights.headers
from evomerge.weights.pool import ParentPool
pool = ParentPool.open(["base", "math"], Path(sys.argv[1]))
pool.check()
loaded = {"torch", "transformers", "huggingface_hub"} & set(sys.modules)
sys.exit(f"imported {loaded}" if loaded else 0)
"""


def test_preflight_needs_no_torch(llamas: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _CHECK, str(llamas)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
