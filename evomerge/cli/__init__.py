"""The command line: parses, calls, prints; nothing else knows about exit codes or streams."""

from __future__ import annotations

import sys
from typing import NoReturn

from evomerge.cli.app import app
from evomerge.errors import DISK_FULL, DiskFull, EvomergeError
from evomerge.offline import go_offline
from evomerge.plain_text import one_line

_CTRL_C = 130


def main() -> None:
    """Run the command line; user errors become one line each on stderr and an exit code."""
    go_offline()
    try:
        app()
    except EvomergeError as error:
        _end(error)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _end(DiskFull.of(error))
    except KeyboardInterrupt:
        sys.exit(_CTRL_C)


def _end(error: EvomergeError) -> NoReturn:
    for problem in error.problems:
        print(f"evomerge: {one_line(problem)}", file=sys.stderr)
    sys.exit(error.exit_code)
