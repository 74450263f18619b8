"""What mergekit needs for the same recipes: run by bench.py in mergekit's own environment.

    MERGEKIT_PYTHON incumbent.py FOLDER RECIPES.json

FOLDER holds the parents; RECIPES.json maps labels to mergekit configurations. Prints a JSON object:
CPU seconds of mergekit's `run_merge`, in this process and with one thread, per label. Imports are
not counted; reading the parents and writing the result to memory are, as there is no other public
way to run a merge.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch
from mergekit.config import MergeConfiguration
from mergekit.merge import MergeOptions, run_merge


def main() -> None:
    """Merge each recipe once, after a first small one that is not counted."""
    folder, recipes = Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    seconds: dict[str, float] = {}
    for label, plain in {"warm-up": recipes["linear"], **recipes}.items():
        scratch = tempfile.mkdtemp(dir=memory)
        config = MergeConfiguration.model_validate(_absolute(plain, folder))
        began = time.process_time()
        run_merge(config, out_path=scratch, options=options)
        seconds[label] = time.process_time() - began
        shutil.rmtree(scratch)
        print(label, round(seconds[label], 2), file=sys.stderr, flush=True)
    del seconds["warm-up"]
    print(json.dumps(seconds))


def _absolute(recipe: dict[str, object], folder: Path) -> dict[str, object]:
    """The recipe with full paths."""
    models = recipe["models"]
    assert isinstance(models, list)
    found = recipe | {"models": [m | {"model": str(folder / m["model"])} for m in models]}
    if "base_model" in recipe:
        found["base_model"] = str(folder / str(recipe["base_model"]))
    return found


if __name__ == "__main__":
    main()
