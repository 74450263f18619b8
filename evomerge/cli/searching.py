"""`evomerge search`: builds the run, drives it, shows progress, hands over the result."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from evomerge.cli.consenting import AllowFlags, given_consent
from evomerge.cli.live import watch
from evomerge.cli.overrides import run_overrides
from evomerge.cli.stopping import Stopping
from evomerge.errors import InvalidInput, NothingBetter
from evomerge.export import save_best
from evomerge.report.evidence import VERIFIED, results, standing
from evomerge.report.formats import truncated_share
from evomerge.report.html import render_report
from evomerge.report.insight import explain
from evomerge.report.sentences import stamps
from evomerge.report.summarize import summarize
from evomerge.report.summary import RunSummary, TradeRow
from evomerge.report.terminal import front_table, results_table, verdict_lines
from evomerge.run.build import BuiltRun, build_run
from evomerge.run.config import SpaceFile, read_space_file, seconds
from evomerge.run.deadlines import UNKNOWN, Deadlines
from evomerge.run.directory import check_consent, open_directory, stored_stages, write_whole
from evomerge.run.dispatcher import Dispatcher
from evomerge.run.driver import Search
from evomerge.run.evaluations import Evaluations
from evomerge.run.fetch import fetch_command, folders_of
from evomerge.run.forecast import forecast
from evomerge.run.ledger import Ledger, LedgerReader
from evomerge.run.needs import check_disk, ledger_bytes
from evomerge.run.pools.choose import Workplace, choose_engine
from evomerge.run.replica.address import Address
from evomerge.run.resources import worker_resources
from evomerge.run.spaces import checked_stages, space_notices

if TYPE_CHECKING:
    from evomerge.run.replica.copier import Copier


@dataclass(frozen=True)
class SearchRequest:
    """The command line of one search."""

    space: Path
    budget: str | None
    out: Path | None
    seed: int | None
    workers: int | None
    engine: str
    address: str | None
    gpus_per_worker: float | None
    memory_per_worker: str | None
    fetch: str | None
    timeout: str | None
    settings: tuple[str, ...]
    storage: str | None
    allow: AllowFlags


def search_command(
    request: SearchRequest, stopping: Stopping, *, fail_if_not_better: bool, as_json: bool
) -> None:
    """Run or continue a search and print its result.

    Raises:
        NothingBetter: the holdout shows no lead over the baselines, and `fail_if_not_better`.
    """
    file = read_space_file(
        request.space, run_overrides(request.settings, request.seed, request.budget)
    )
    run_dir = request.out or Path("runs") / (file.name or request.space.stem)
    resources = worker_resources(file.threads, request.gpus_per_worker, request.memory_per_worker)
    engine = choose_engine(request.engine, request.address, resources)
    command = None if request.fetch is None else fetch_command(request.fetch)
    console = Console(stderr=True)
    with (
        _replica(request, run_dir, console) as replica,
        Workplace(engine, resources, fetch=command) as workplace,
    ):
        built, notices = _built(request, file, run_dir, workplace)
        resumed = open_directory(run_dir, request.space, built.resolved)
        with Ledger.open(run_dir) as ledger, _copied(replica):
            if resumed:
                console.print(f"continuing {run_dir}", highlight=False)
            for line in notices:
                console.print(line, highlight=False, markup=False, soft_wrap=True)
            if ledger.meta("winner") is None:
                _drive(request, built, ledger, workplace, console, replica, stopping)
            _hand_over(built, run_dir, console)
    better = _print_result(run_dir, as_json=as_json)
    if fail_if_not_better and not better:
        raise NothingBetter(
            "the holdout does not show that the result beats every baseline; see the verdict above"
        )


def _built(
    request: SearchRequest, file: SpaceFile, run_dir: Path, workplace: Workplace
) -> tuple[BuiltRun, tuple[str, ...]]:
    """The run, after everything that can be known to be wrong; and what to say beforehand."""
    consent = given_consent(request.allow, request.space.resolve().parent)
    check_consent(run_dir, consent)
    stages = checked_stages(file, request.space, consent)
    finished = _is_finished(run_dir)
    if not finished:
        workplace.find()
    built = build_run(
        file,
        stages,
        request.space,
        workers=request.workers,
        room=None if finished else workplace.room,
        stored=stored_stages(run_dir),
        consent=consent,
    )
    if not (run_dir / "best").exists():
        expected = forecast(built.plan, built.workers, None)
        check_disk(run_dir, built.needs.saved, ledger_bytes(built.plan, expected))
    said = (f"notice: {notice}" for notice in built.notices)
    return built, (*space_notices(file, stages, request.space, consent), *said)


def _is_finished(run_dir: Path) -> bool:
    """Whether nothing is left to evaluate, so that no cluster needs to be there."""
    try:
        with LedgerReader.open(run_dir) as reader:
            return reader.meta("winner") is not None
    except InvalidInput:
        return False


def _drive(
    request: SearchRequest,
    built: BuiltRun,
    ledger: Ledger,
    workplace: Workplace,
    console: Console,
    replica: Copier | None,
    stopping: Stopping,
) -> None:
    ledger.log("started", {"engine": request.engine, "workers": built.workers})
    deadlines = Deadlines(UNKNOWN if request.timeout is None else _seconds(request.timeout))
    spec = built.worker
    models = tuple(model for model, _ in spec.models)
    folders = folders_of(models, spec.evaluator.include, Path(spec.root))
    with (
        # Standard output is for results; Ray prints the last words of dying nodes there.
        (ledger.folder / "logs" / "driver.log").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
        workplace.open_pool(
            spec,
            built.workers,
            deadline=deadlines,
            mapped=built.needs.mapped + built.needs.cache + built.needs.nested,
            logs=ledger.folder / "logs",
            folders=folders,
            root=spec.root,
        ) as pool,
        stopping.draining() as stop,
    ):
        evaluations = Evaluations(
            ledger,
            Dispatcher(pool),
            built.plan.objective,
            stop,
            deadlines=deadlines,
            draining=lambda count: console.print(_waiting(count), highlight=False),
        )
        search = Search(built.plan, ledger, evaluations)
        if replica is not None:
            replica.attach(stop)
        watch(search.run(), built.plan.searched_until, console)
    if replica is not None and replica.lost is not None:
        raise replica.lost


@contextmanager
def _copied(replica: Copier | None) -> Iterator[None]:
    """Copy to the shared storage, if there is one.

    That another driver has taken the run is the reason for whatever this one stopped with.
    """
    if replica is None:
        yield
        return
    try:
        with replica.copying():
            yield
    finally:
        if replica.lost is not None:
            raise replica.lost


@contextmanager
def _replica(request: SearchRequest, run_dir: Path, console: Console) -> Iterator[Copier | None]:
    """The shared storage of the run, if there is one; it may fill an empty run directory."""
    if request.storage is None:
        yield None
        return
    from evomerge.run.replica.copier import Copier  # noqa: PLC0415 - psycopg is optional

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    address = Address.parse(request.storage)
    with Copier(
        address if address.run else address.named(run_dir.resolve().name), run_dir, say
    ) as replica:
        replica.connect(request.space)
        say(f"copying to {replica.address}")
        yield replica


def _waiting(under_way: int) -> str:
    what = "1 evaluation" if under_way == 1 else f"{under_way} evaluations"
    return f"stopping: waiting for {what} under way; again to stop at once"


def _seconds(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise InvalidInput(f"--timeout: {error}") from None


def _hand_over(built: BuiltRun, run_dir: Path, console: Console) -> None:
    if not (run_dir / "best").exists():
        console.print("saving the winner and checking that it scores as recorded", highlight=False)
    save_best(run_dir, built.worker.evaluator, built.worker.consent)
    page = render_report(summarize(run_dir), explain(run_dir))
    write_whole(run_dir / "report.html", page)


def _print_result(run_dir: Path, *, as_json: bool) -> bool | None:
    summary = summarize(run_dir)
    winner = summary.winner
    if as_json:
        result = {
            "schema": "evomerge/search/v1",
            "run": str(run_dir),
            "winner": None if winner is None else winner.label,
            "fitness": None if winner is None else winner.fitness,
            "better": summary.better,
            "front": [asdict(row) for row in _front(summary)],
            "constraints": [asdict(line) for line in summary.constraints],
            "verified": standing(summary) in VERIFIED,
            "stamps": stamps(summary),
            "truncated": {row.label: truncated_share(row) for row in results(summary).rows},
            "verdict": list(verdict_lines(summary)),
            "report": str(run_dir / "report.html"),
        }
        print(json.dumps(result))
        return summary.better
    out = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 100)
    out.print(results_table(summary))
    front = front_table(summary)
    if front is not None:
        out.print(front)
    for line in verdict_lines(summary):
        out.print(line, highlight=False, markup=False)
    out.print(f"\nmodel   {run_dir / 'best' / 'model'}", highlight=False, markup=False)
    out.print(f"recipe  {run_dir / 'best' / 'recipe.yaml'}", highlight=False, markup=False)
    out.print(f"report  {run_dir / 'report.html'}", highlight=False, markup=False)
    return summary.better


def _front(summary: RunSummary) -> tuple[TradeRow, ...]:
    rows = () if summary.front is None else summary.front.rows
    return tuple(row for row in rows if row.place == "front")
