"""One study in PostgreSQL: watched by two people, through a crash of the server and a lost host.

    PYTHONPATH=. python experiments/faults/postgres.py [--space FILE] [--budget 500]

Needs the parents of the space, and PostgreSQL's programs: a private server is started and removed.
Writes postgres.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from kill_resume import counted, digest

from evomerge.run.ledger_schema import COLUMNS
from evomerge.run.replica.address import Address
from evomerge.run.replica.session import Session
from evomerge.run.replica.watching import SharedRun
from tests.postgres import PASSWORD, Server, binaries, server

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RUN = "faults-postgres"
OUTAGE = 6.0


class Study:
    """The search under test: how it is started, and where (stateful: its driver)."""

    def __init__(self, space: Path, budget: int) -> None:
        self.command = [sys.executable, "-m", "evomerge", "search", "--space", str(space)]
        self.command += ["--budget", str(budget), "--workers", "2", "--engine", "local"]
        self.lines: list[str] = []

    def start(self, run: Path, url: str | None) -> subprocess.Popen[str]:
        storage = [] if url is None else ["--storage", url]
        return subprocess.Popen(
            [*self.command, "--out", str(run), *storage],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> None:
        _, errors = process.communicate()
        self.lines += [
            line for line in errors.splitlines() if "storage" in line or "restor" in line
        ]
        if process.returncode:
            raise SystemExit(errors)


class Observer(threading.Thread):
    """Asks for the status of a shared run again and again, as a person's terminal would."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.done = threading.Event()
        self.seconds: list[float] = []
        self.refused: list[str] = []
        self.seen: list[int] = []

    def run(self) -> None:
        command = [sys.executable, "-m", "evomerge", "status", self.url, "--json"]
        while not self.done.wait(3.0):
            began = time.monotonic()
            told = subprocess.run(command, capture_output=True, text=True, check=False)
            if told.returncode:
                self.refused.append(told.stderr.strip())
                continue
            self.seconds.append(time.monotonic() - began)
            self.seen.append(json.loads(told.stdout)["spending"]["candidates"])


def looks(address: Address, count: int) -> dict[str, float]:
    """Seconds that a look takes in a process that is already there: all of it, then only news."""
    with SharedRun(address) as shared:
        times = []
        for _ in range(count):
            began = time.monotonic()
            shared.look()
            times.append(time.monotonic() - began)
    return {"first": round(times[0], 4), "later": round(statistics.median(times[1:]), 4)}


def wait_for(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    while counted(run) < count:
        if process.poll() is not None:
            raise SystemExit(process.communicate()[1])
        time.sleep(0.02)


def rows(run: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(run / "ledger.sqlite")) as ledger:
        return {t: sorted(ledger.execute(f"SELECT * FROM {t}").fetchall()) for t in COLUMNS}


def copied(address: Address) -> int:
    with Session.open(address) as session:
        return next(iter(session.lines(address.run))).evaluations


def crash_the_server(database: Server) -> float:
    began = time.monotonic()
    database.stop("immediate")
    time.sleep(OUTAGE)
    database.start()
    return round(time.monotonic() - began, 2)


def harmed(study: Study, database: Server, host: Path, elsewhere: Path) -> dict[str, Any]:
    """The whole story; the run is finished in `elsewhere`."""
    url = f"postgresql://evo@127.0.0.1:{database.port}/evomerge"
    address = Address.parse(url).named(RUN)
    observers = [Observer(f"{url}#{RUN}") for _ in range(2)]
    driver = study.start(host, url)
    wait_for(host, 3, driver)
    for observer in observers:
        observer.start()
    second = subprocess.run(
        [*study.command, "--out", str(elsewhere), "--storage", url],
        capture_output=True,
        text=True,
        check=False,
    )
    before = counted(host)
    outage = crash_the_server(database)
    during = counted(host) - before
    while copied(address) <= before + during:
        time.sleep(0.1)
    wait_for(host, counted(host) + 15, driver)
    driver.kill()
    study.lines += driver.communicate()[1].splitlines()
    at_kill = {"evaluated": counted(host), "copied": copied(address)}
    shutil.rmtree(host)
    study.finish(study.start(elsewhere, url))
    for observer in observers:
        observer.done.set()
        observer.join()
    with SharedRun(address) as shared:
        equal = rows(shared.look()) == rows(elsewhere)
    return {
        "second_driver": {"exit": second.returncode, "said": second.stderr.strip()},
        "outage": {"seconds": outage, "evaluated_meanwhile": during},
        "at_kill": at_kill,
        "replica_equals_ledger": equal,
        "status": {
            "calls": sum(len(o.seconds) for o in observers),
            "refused_in_outage": sum(len(o.refused) for o in observers),
            "median_seconds": round(statistics.median(s for o in observers for s in o.seconds), 2),
            "seen": [observer.seen for observer in observers],
        },
        "look_seconds": looks(address, 20),
    }


def main() -> None:
    """The undisturbed run, the harmed one, and what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", type=Path, default=ROOT / "search_spaces" / "quickstart.yaml")
    parser.add_argument("--budget", type=int, default=500)
    arguments = parser.parse_args()
    found = binaries()
    if found is None:
        raise SystemExit("PostgreSQL's programs were not found")
    os.environ["PGPASSWORD"] = PASSWORD
    runs = ROOT / "runs"
    whole, host, elsewhere = (runs / f"{RUN}{end}" / RUN for end in ("-whole", "", "-elsewhere"))
    for run in (whole, host, elsewhere):
        shutil.rmtree(run, ignore_errors=True)
    study = Study(arguments.space.resolve(), arguments.budget)
    study.finish(study.start(whole, None))
    expected = digest(whole)
    with server(found) as database:
        story = harmed(study, database, host, elsewhere)
    after = digest(elsewhere)
    secret = any(PASSWORD.encode() in path.read_bytes() for path in elsewhere.rglob("*.*"))
    lines = [line for line in study.lines if line.startswith(("storage", "restored"))]
    result = {"expected": expected, "found": after, "equal": after == expected}
    result |= {"password_written": secret or PASSWORD in "".join(lines), **story, "said": lines}
    text = json.dumps(result, indent=1).replace(f"{ROOT}/", "")
    (HERE / "postgres.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
