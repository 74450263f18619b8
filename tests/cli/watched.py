"""`python -m tests.cli.watched RUN`: a search without models, live in a terminal, two processes."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

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


def main(run_dir: Path) -> None:
    """As the search command does it."""
    chosen, console, workers = plan(), Console(stderr=True), FakeWorkers(seconds=0.05)
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
        watch(Search(chosen, ledger, evaluations).run(), chosen.budget, console)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except EvomergeError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
