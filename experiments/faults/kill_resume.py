"""Kills a search with SIGKILL at random moments and compares it with an unharmed one.

    python experiments/faults/kill_resume.py [--space search_spaces/quickstart.yaml] [--kills 10]

Needs the parents of the space. Writes NAME.json beside this file, called like the space file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from evomerge.candidate import Scored
from evomerge.errors import InvalidInput
from evomerge.run.ledger import LEDGER, LedgerReader
from evomerge.run.ledger_count import read_count
from evomerge.seeding import generator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SPACE = ROOT / "search_spaces" / "quickstart.yaml"


def start(space: Path, run: Path) -> subprocess.Popen[bytes]:
    """The search command, in a process of its own."""
    command = [sys.executable, "-m", "evomerge", "search", "--space", str(space), "--out", str(run)]
    return subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def outcomes(run: Path) -> dict[tuple[int, str], str]:
    """What is on record; every checksum of it is checked."""
    try:
        with LedgerReader.open(run) as reader:
            return {
                e.key: repr(e.outcome.results if isinstance(e.outcome, Scored) else e.outcome)
                for e in reader.evaluations()
            }
    except InvalidInput:  # not created yet
        return {}


def counted(run: Path) -> int:
    """How many outcomes have been acknowledged."""
    found = read_count(run)
    return 0 if found is None else found[1]


def integrity(run: Path) -> str:
    """What SQLite says about the file, read without changing it."""
    if not (run / LEDGER).exists():
        return "no ledger yet"
    connection = sqlite3.connect(f"file:{run / LEDGER}?mode=ro", uri=True)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def finish(space: Path, run: Path) -> None:
    """Run the search to its end."""
    process = start(space, run)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors.decode())


def digest(run: Path) -> dict[str, Any]:
    """What a run decided: hashes of all candidates, all outcomes, and of the saved model."""
    with LedgerReader.open(run) as reader:
        candidates = repr(reader.candidates())
        winner = reader.meta("winner")
    found = sorted(outcomes(run).items())
    model = (run / "best" / "model" / "model.safetensors").read_bytes()
    return {
        "winner": winner,
        "evaluations": len(found),
        "candidates": hashlib.sha256(candidates.encode()).hexdigest()[:16],
        "outcomes": hashlib.sha256(repr(found).encode()).hexdigest()[:16],
        "model": hashlib.sha256(model).hexdigest()[:16],
    }


def kill_once(space: Path, run: Path, at: int, delay: float) -> dict[str, Any]:
    """Start or continue the run and kill its driver `delay` seconds after evaluation `at`."""
    before = outcomes(run)
    process = start(space, run)
    while process.poll() is None and counted(run) < at:
        time.sleep(0.02)
    time.sleep(delay)
    acknowledged = counted(run)
    process.kill()
    process.communicate()
    found = outcomes(run)
    return {
        "at": at,
        "delay": round(delay, 3),
        "recorded": len(found),
        "lost": sum(key not in found for key in before) + max(0, acknowledged - len(found)),
        "changed": sum(found.get(key) != outcome for key, outcome in before.items()),
        "integrity": integrity(run),
    }


def main() -> None:
    """Kill, resume, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", type=Path, default=SPACE)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    whole, harmed = ROOT / "runs" / "faults-whole", ROOT / "runs" / "faults-killed"
    for run in (whole, harmed):
        shutil.rmtree(run, ignore_errors=True)
    space = arguments.space.resolve()
    finish(space, whole)
    expected = digest(whole)
    rng = generator(arguments.seed, "kills")
    moments = sorted(int(m) for m in rng.integers(0, expected["evaluations"], arguments.kills))
    kills = [kill_once(space, harmed, at, float(rng.uniform(0, 0.5))) for at in moments]
    finish(space, harmed)
    found = digest(harmed)
    result = {
        "expected": expected,
        "found": found,
        "equal": found == expected,
        "lost": sum(kill["lost"] for kill in kills),
        "changed": sum(kill["changed"] for kill in kills),
        "kills": kills,
    }
    (HERE / f"{space.stem}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
