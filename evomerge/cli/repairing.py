"""`evomerge repair`: says what a damaged ledger has lost, and rebuilds it from the rest."""

from __future__ import annotations

import sys
from pathlib import Path

from evomerge.run.directory import read_resolved
from evomerge.run.repair import repair


def repair_command(run: Path, *, dry: bool) -> None:
    """Print what is lost; unless `dry`, rebuild the ledger and keep the damaged files."""
    searches = read_resolved(run)["searches"]
    in_order = any(search.get("schedule") == "arrival" for search in searches)
    done = repair(run, dry=dry, in_order=in_order)
    for line in done.lost:
        print(f"lost: {line}")
    print(f"intact: {done.kept} evaluations")
    if done.copy is None:
        print("nothing was changed", file=sys.stderr)
        return
    print(f"the damaged files are in {done.copy}", file=sys.stderr)
    print("continue with the command that started the run: it evaluates again what is lost")
