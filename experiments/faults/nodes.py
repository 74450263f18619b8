"""Kills a Ray node in the middle of a search, adds another, and compares with an unharmed run.

    PYTHONPATH=. python experiments/faults/nodes.py [--space FILE] [--kills 3]

Needs the parents of the space, and Ray. Every node is a process tree on this machine with one CPU;
killing one is SIGKILL to all of it at once. Writes nodes-NAME.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from kill_resume import HERE, ROOT, SPACE, counted, digest, finish

from evomerge.run.ledger import LedgerReader
from evomerge.seeding import generator
from tests.ray_nodes import Nodes


def start(space: Path, run: Path, address: str) -> subprocess.Popen[bytes]:
    """The search command on the cluster, asking for one worker more than there is room for."""
    command = [sys.executable, "-m", "evomerge", "search", "--space", str(space), "--out", str(run)]
    cluster = ["--engine", "ray", "--address", address, "--workers", "3"]
    return subprocess.Popen([*command, *cluster], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(search: subprocess.Popen[bytes], run: Path, count: int) -> None:
    """Return when that many evaluations are on record, or the search has ended."""
    while search.poll() is None and counted(run) < count:
        time.sleep(0.05)


def recorded(run: Path) -> dict[str, Any]:
    """How often each evaluation is on record, how many were repeated, and who answered."""
    with LedgerReader.open(run) as reader:
        entries = reader.evaluations()
    times = Counter(entry.key for entry in entries)
    return {
        "evaluations": len(times),
        "recorded_more_than_once": sum(count > 1 for count in times.values()),
        "repeated_after_a_loss": sum(entry.attempts > 1 for entry in entries),
        "workers": len({entry.worker for entry in entries}),
    }


def main() -> None:
    """Search, kill, add, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", type=Path, default=SPACE)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    whole, harmed = ROOT / "runs" / "faults-nodes-whole", ROOT / "runs" / "faults-nodes-harmed"
    for run in (whole, harmed):
        shutil.rmtree(run, ignore_errors=True)
    space = arguments.space.resolve()
    finish(space, whole)
    expected = digest(whole)
    rng = generator(arguments.seed, "node kills")
    moments = sorted(int(m) for m in rng.integers(5, expected["evaluations"] - 20, arguments.kills))
    kills = []
    with Nodes() as nodes:
        for name in ("node-0", "node-1"):
            nodes.add(name, "--num-cpus=1")
        search = start(space, harmed, nodes.address)
        for index, moment in enumerate(moments):
            wait_for(search, harmed, moment)
            nodes.kill(f"node-{index}")
            kills.append({"at": moment, "recorded": counted(harmed)})
            nodes.add(f"node-{index + 2}", "--num-cpus=1")
        out, errors = search.communicate()
    found = digest(harmed) if search.returncode == 0 else None
    result = {
        "expected": expected,
        "found": found,
        "equal": found == expected,
        **recorded(harmed),
        "kills": kills,
        "standard_output_begins": out.decode().strip().splitlines()[:1],
    }
    name = f"nodes-{space.stem}.json"
    (HERE / name).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    if search.returncode:
        raise SystemExit(errors.decode())


if __name__ == "__main__":
    main()
