"""Kills the driver of a search with SIGKILL at random moments, a hundred times: what is damaged?

    python experiments/faults/driver_kills.py [--schedule ordered] [--kills 100]   # ten minutes

Two runs of the search in fake_search.py, one unharmed. The other is killed again and again; after
each kill the ledger is checked: SQLite's integrity check, every checksum, no acknowledged outcome
lost, none changed, none counted twice. In the end both must be equal. By arrival they need not be:
there the check is that the ledger, replayed, asks for exactly the candidates on record.
Writes driver_kills.SCHEDULE.json beside this file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from fake_search import ARRIVAL, ORDERED, drive, plan

from evomerge.candidate import Outcome, Scored
from evomerge.errors import InvalidInput
from evomerge.run.ledger import LEDGER, LedgerReader
from evomerge.run.ledger_count import read_count
from evomerge.run.progress import Evaluated
from evomerge.seeding import generator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MINIBATCH = 16
SECONDS = 0.02
Outcomes = dict[tuple[int, str], Outcome]


@dataclass(frozen=True)
class Moment:
    """`delay` seconds after so many `evaluations` are on record."""

    evaluations: int
    delay: float


def start(run: Path, schedule: str, candidates: int) -> subprocess.Popen[bytes]:
    """One start of the search, in a process of its own."""
    arguments = ["--schedule", schedule, "--candidates", candidates, "--minibatch", MINIBATCH]
    return subprocess.Popen(
        [sys.executable, HERE / "fake_search.py", run, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(run: Path, schedule: str, candidates: int) -> None:
    """Drive the run to its end."""
    process = start(run, schedule, candidates)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(errors.decode())


def outcomes(run: Path) -> Outcomes:
    """What is on record now; every checksum is checked on the way."""
    try:
        with LedgerReader.open(run) as reader:
            reader.candidates(), reader.events()
            return {e.key: bare(e.outcome) for e in reader.evaluations()}
    except InvalidInput:
        if (run / LEDGER).exists() and (run / LEDGER).stat().st_size > 0:
            with LedgerReader.open(run):  # created, but killed before its tables were there
                pass
        return {}


def bare(outcome: Outcome) -> Outcome:
    """Without times."""
    return Scored(outcome.results, 0.0, 0.0) if isinstance(outcome, Scored) else outcome


def integrity(run: Path) -> str:
    """What SQLite says about the file, read without changing it."""
    connection = sqlite3.connect(f"file:{run / LEDGER}?mode=ro", uri=True)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def kill_once(run: Path, schedule: str, candidates: int, moment: Moment) -> dict[str, Any]:
    """Continue the run, kill its driver at that moment, and look."""
    before = outcomes(run)
    process = start(run, schedule, candidates)
    while process.poll() is None and counted(run) < moment.evaluations:
        time.sleep(0.002)
    time.sleep(moment.delay)
    workers = children(process.pid) if process.poll() is None else []
    acknowledged = counted(run)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    _, orphans = psutil.wait_procs(workers, timeout=10)
    found = outcomes(run)
    return {
        "at": moment.evaluations,
        "delay": round(moment.delay, 3),
        "ended_by_itself": process.returncode == 0,
        "error": errors.decode() if process.returncode not in (0, -signal.SIGKILL) else "",
        "recorded": len(found),
        "lost": sum(key not in found for key in before) + max(0, acknowledged - len(found)),
        "changed": sum(found.get(key, outcome) != outcome for key, outcome in before.items()),
        "integrity": integrity(run) if (run / LEDGER).exists() else "no ledger yet",
        "orphans": len(orphans),
    }


def counted(run: Path) -> int:
    """How many outcomes have been acknowledged."""
    found = read_count(run)
    return 0 if found is None else found[1]


def children(pid: int) -> list[psutil.Process]:
    """The worker processes of a driver."""
    try:
        found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
        return found
    except psutil.NoSuchProcess:
        return []


def digest(run: Path) -> dict[str, Any]:
    """What a run decided."""
    with LedgerReader.open(run) as reader:
        found = sorted((e.key, repr(bare(e.outcome))) for e in reader.evaluations())
        winner = int(reader.meta("winner"))
        candidates = reader.candidates()
        return {
            "evaluations": len(found),
            "candidates": _hash(repr(candidates)),
            "outcomes": _hash(repr(found)),
            "decision": reader.meta("decision"),
            "winner": winner,
            "recipe": next(c.recipe.digest for c in candidates if c.id == winner),
        }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def replayed(run: Path, schedule: str, candidates: int) -> bool:
    """Whether the finished run, continued, asks for what is on record and nothing else."""
    before = digest(run)
    chosen = plan(
        candidates=candidates,
        schedule=ORDERED if schedule == "ordered" else ARRIVAL,
        population=16,
        minibatch=MINIBATCH,
    )
    events = list(drive(run, chosen, seconds=0.0, workers=0))
    asked = [event for event in events if isinstance(event, Evaluated)]
    return all(event.replayed for event in asked) and digest(run) == before


def moments(kills: int, evaluations: int, seed: int) -> list[Moment]:
    """Over the whole run, from the baselines to the holdout; one in five while it starts."""
    rng = generator(seed, "driver kills")
    places = sorted(int(place) for place in rng.integers(0, evaluations, kills))
    return [
        Moment(0, float(rng.uniform(0.0, 2.0)))
        if rng.random() < 0.2
        else Moment(place, float(rng.uniform(0.0, 0.1)))
        for place in places
    ]


def main() -> None:
    """Kill, continue, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedule", choices=("ordered", "arrival"), default="ordered")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--candidates", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    schedule, candidates = arguments.schedule, arguments.candidates
    whole, harmed = (ROOT / "runs" / f"driver-kills-{name}" for name in ("whole", "killed"))
    for run in (whole, harmed):
        shutil.rmtree(run, ignore_errors=True)
    finish(whole, schedule, candidates)
    expected = digest(whole)
    kills = []
    for moment in moments(arguments.kills, expected["evaluations"], arguments.seed):
        kills.append(kill_once(harmed, schedule, candidates, moment))
        print(json.dumps(kills[-1]), flush=True)
    finish(harmed, schedule, candidates)
    result: dict[str, Any] = {
        "schedule": schedule,
        "kills": sum(not kill["ended_by_itself"] for kill in kills),
        "lost": sum(kill["lost"] for kill in kills),
        "changed": sum(kill["changed"] for kill in kills),
        "damaged": sum(kill["integrity"] not in ("ok", "no ledger yet") for kill in kills),
        "orphans": sum(kill["orphans"] for kill in kills),
        "errors": [kill["error"] for kill in kills if kill["error"]],
        "replay_asks_what_is_on_record": replayed(harmed, schedule, candidates),
        "found": digest(harmed),
    }
    if schedule == "ordered":
        result["expected"] = expected
        result["equal"] = expected == result["found"]
    result["each"] = kills
    text = json.dumps(result, indent=1)
    (HERE / f"driver_kills.{schedule}.json").write_text(text + "\n", encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "each"}, indent=1))


if __name__ == "__main__":
    main()
