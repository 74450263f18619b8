"""The command line: parses, calls, prints; nothing else knows about exit codes or streams."""

from __future__ import annotations

import sys

from evomerge.cli.app import app
from evomerge.errors import EvomergeError

_CTRL_C = 130


def main() -> None:
    """Run the command line; user errors become one line each on stderr and an exit code."""
    try:
        app()
    except EvomergeError as error:
        for problem in error.problems:
            print(f"evomerge: {problem}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(_CTRL_C)
