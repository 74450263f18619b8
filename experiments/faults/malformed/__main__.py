"""Drive every malformed input through the command line and count what it says.

python -m experiments.faults.malformed [--only KIND] [--draws N] [--out FILE]
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.faults.malformed import by_hand, drawn
from experiments.faults.malformed.cases import Case
from experiments.faults.malformed.world import Done, World, build, called

SECONDS = 60.0
EVERY = 25
"""One case in so many is a process of its own, too."""
_FIX = re.compile(r"(; |: (?!.*; ))[^;]*\w[^;]*$|expected .+, got ")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--draws", type=int, default=24)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "malformed.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="evomerge-malformed-") as folder:
        os.environ["EVOMERGE_CACHE"] = f"{folder}/cache"
        (Path(folder) / "world").mkdir()
        world = build(Path(folder) / "world")
        found = [*by_hand.cases(), *drawn.cases(world, options.draws)]
        chosen = [case for case in found if options.only in f"{case.kind}: {case.name}"]
        results = [
            _tried(case, world, Path(folder) / f"case-{number}", number)
            for number, case in enumerate(chosen)
        ]
    _summarize(results, options.out)


def _tried(case: Case, world: World, folder: Path, number: int) -> dict[str, object]:
    folder.mkdir()
    arguments = case.prepare(folder, world)
    before = _listing(folder)
    done = called(arguments, SECONDS)
    problems = _problems(case, done, folder, before)
    if number % EVERY == 0 and done.code != 0:
        alone = _alone(arguments)
        if alone.code != done.code and not _listing(folder) - before:
            problems.append(f"exit code {alone.code} in a process of its own: {alone.err[-300:]}")
        problems += _problems(case, alone, folder, before)
    if problems:
        print(f"{case.kind}: {case.name}: {'; '.join(problems)}\n{done.err[-1500:]}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "kind": case.kind,
        "name": case.name,
        "code": done.code,
        "seconds": round(done.seconds, 2),
        "process": number % EVERY == 0 and done.code != 0,
        "problems": problems,
    }


def _problems(case: Case, done: Done, folder: Path, before: set[Path]) -> list[str]:
    """What is wrong with the answer to a malformed input; nothing if it is as promised."""
    if case.random and done.code == 0:
        return []
    found = []
    if done.code not in (2, 3):
        found.append(f"exit code {done.code}")
    if "Traceback" in done.err:
        found.append("a traceback")
    lines = done.err.strip().splitlines()
    if not lines or any(not line.startswith(("evomerge: ", "notice: ")) for line in lines):
        found.append("lines without a name")
    if any(not _FIX.search(line) for line in lines if line.startswith("evomerge: ")):
        found.append("no fix")
    if case.mentions not in done.err:
        found.append(f"{case.mentions} is not named")
    if any(not line.isprintable() for line in lines):
        found.append("control characters")
    left = {path.name for path in _listing(folder) - before if not path.name.startswith("LOCK")}
    if left:
        found.append(f"left behind: {', '.join(sorted(left))}")
    return found


def _listing(folder: Path) -> set[Path]:
    ours = ("ledger.sqlite-wal", "ledger.sqlite-shm")
    return {path for path in folder.rglob("*") if path.name not in ours}


def _alone(arguments: list[object]) -> Done:
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "evomerge", *map(str, arguments)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=3 * SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return Done("hung", "", time.monotonic() - began)
    return Done(done.returncode, done.stderr, time.monotonic() - began)


def _summarize(results: list[dict[str, object]], out: Path) -> None:
    table: dict[str, collections.Counter[str]] = {}
    for result in results:
        counts = table.setdefault(str(result["kind"]), collections.Counter())
        counts["inputs"] += 1
        counts[f"exit {result['code']}"] += 1
        counts["in a process, too"] += bool(result["process"])
        counts["problems"] += bool(result["problems"])
    total: collections.Counter[str] = collections.Counter()
    for counts in table.values():
        total.update(counts)
    slowest = max(results, key=lambda result: float(str(result["seconds"])))
    out.write_text(
        json.dumps(
            {
                "kinds": {kind: dict(counts) for kind, counts in sorted(table.items())},
                "total": dict(total),
                "slowest": slowest,
                "problems": [result for result in results if result["problems"]],
            },
            indent=1,
        )
        + "\n"
    )
    for kind, counts in (*sorted(table.items()), ("total", total)):
        print(f"{kind:<22}", "  ".join(f"{key} {value}" for key, value in counts.items()))
    sys.exit(1 if total["problems"] else 0)


if __name__ == "__main__":
    main()
