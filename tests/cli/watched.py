"""`python -m tests.cli.watched RUN`: a search without models, live in a terminal, two processes."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evomerge.candidate import SEARCH, Assignment, Failed, Scored
from evomerge.cli.live import watch
from evomerge.cli.stopping import stopping_on_signals
from evomerge.errors import EvomergeError
from evomerge.run.deadlines import Deadlines
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.driver import Search
from evomerge.run.evaluations import Evaluations
from evomerge.run.ledger import Ledger
from evomerge.run.pools.local import local_pool
from tests.run.fakes import FakeWorkers, plan


@dataclass(frozen=True)
class Slowing:
    """Makes workers that leave time to watch the search itself, and to stop it."""

    def __call__(self) -> Slowing:
        return self

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        time.sleep(1.0 if assignment.stage == SEARCH else 0.0)
        return FakeWorkers()().evaluate(assignment)


def main(run_dir: Path) -> None:
    """As the search command does it."""
    chosen, console, workers = plan(), Console(stderr=True), Slowing()
    with (
        stopping_on_signals() as stopping,
        Ledger.open(run_dir) as ledger,
        local_pool(workers, 2, deadline=Deadlines(), logs=run_dir / "logs") as pool,
        stopping.draining() as stop,
    ):
        evaluations = Evaluations(
            ledger,
            Dispatcher(pool),
            chosen.objective,
            stop,
            draining=lambda count: console.print(f"stopping: waiting for {count}", highlight=False),
        )
        watch(Search(chosen, ledger, evaluations).run(), None, console)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except EvomergeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
