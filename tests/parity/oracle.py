"""How mergekit is run: as a program in an environment of its own, told by the MERGEKIT variable."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "MERGEKIT"
MISSING = f"no oracle: `make parity` installs mergekit 0.1.5 and sets {VARIABLE} to its program"


@dataclass(frozen=True)
class Oracle:
    """mergekit's command line."""

    program: Path

    def merge(self, recipe: Path, out: Path) -> None:
        """Merge the recipe file into the folder `out`.

        Raises:
            RuntimeError: mergekit fails; the message is the last line that it wrote.
        """
        options = ["--no-write-model-card", "--quiet", "--random-seed", "0"]
        command = [str(self.program), str(recipe), str(out), *options]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        if done.returncode != 0:
            lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
            raise RuntimeError(lines[-1])


def find_oracle() -> Oracle | None:
    """The oracle that the environment names, or None."""
    named = os.environ.get(VARIABLE)
    return Oracle(Path(named)) if named else None
