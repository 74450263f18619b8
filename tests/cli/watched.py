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


class Holding:
    """A worker that holds back its second answer in the search until a file `go` exists."""

    def __init__(self, go: Path) -> None:
        self._go = go
        self._answers = FakeWorkers()()
        self._answered = False

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        while self._answered and not self._go.exists():
            time.sleep(0.02)
        self._answered |= assignment.stage == SEARCH
        return self._answers.evaluate(assignment)


@dataclass(frozen=True)
class HoldingWorkers:
    """Makes them: there is time to watch the search itself, and to stop it."""

    go: Path

    def __call__(self) -> Holding:
        return Holding(self.go)


def main(run_dir: Path) -> None:
    """As the search command does it."""
    chosen, console = plan(), Console(stderr=True)
    workers = HoldingWorkers(run_dir.with_name("go"))
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
